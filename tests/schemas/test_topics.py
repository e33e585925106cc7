import pytest

from schemas.topics import (
    DEAD_LETTER_BYTES,
    MAX_REQUEST_BYTES,
    MAX_VALUE_BYTES,
    MEETING,
    TOPICS,
    Topic,
)

# topic: key, cleanup, as in the design
CONTRACT = {
    "feed.posts": ("conversation", "delete"),
    "feed.mentions": ("conversation", "delete"),
    "feed.direct-messages": ("conversation", "delete"),
    "feed.accounts": ("account", "compact"),
    "feed.feedback": ("conversation", "delete"),
    "bot.replies": ("conversation", "delete"),
    "bot.direct-replies": ("conversation", "delete"),
    "bot.direct-activity": ("conversation", "delete"),
    "bot.held": ("conversation", "delete"),
    "bot.audit": ("conversation", "delete"),
    "bot.audit-private": ("conversation", "delete"),
    "bot.audit-seals": ("sealed partition", "delete"),
    "bot.dead-letters": ("source", "delete"),
    "bot.dead-letters-private": ("source", "delete"),
    "bot.references": ("uri", "delete"),
    "bot.reviews": ("conversation", "delete"),
    "bot.moderation": ("subject", "compact"),
    "bot.moderation-log": ("subject", "delete"),
    "bot.replays": ("replay", "delete"),
}


def test_the_table_is_that_of_the_design() -> None:
    assert {t.name: (t.key, t.cleanup) for t in TOPICS.values()} == CONTRACT
    assert all(name == topic.name for name, topic in TOPICS.items())


def test_small_topics_have_partitions_of_their_own_and_all_others_meet() -> None:
    assert set(TOPICS) - set(MEETING) == {
        "feed.accounts",
        "bot.moderation",
        "bot.moderation-log",
        "bot.replays",
    }


def test_only_what_is_open_to_all_may_be_read_by_all() -> None:
    open_topics = {topic.name for topic in TOPICS.values() if not topic.private}
    assert open_topics == {"bot.replies", "bot.audit", "bot.audit-seals", "bot.dead-letters"}


def test_activity_is_kept_shortest_and_records_of_what_was_decided_longest() -> None:
    kept = {t.name: t.retention_ms for t in TOPICS.values() if t.cleanup == "delete"}
    assert min(kept, key=lambda name: kept[name]) == "bot.direct-activity"
    proofs = kept.pop("bot.audit-seals")
    assert kept["bot.audit"] == kept["bot.dead-letters-private"] == max(kept.values()) < proofs


@pytest.mark.parametrize("topic", TOPICS.values(), ids=lambda topic: topic.name)
def test_a_dead_letter_has_room_for_any_record_of_any_topic(topic: Topic) -> None:
    assert MAX_VALUE_BYTES < topic.max_message_bytes <= DEAD_LETTER_BYTES < MAX_REQUEST_BYTES
    assert topic.name.startswith("bot.dead") or topic.max_message_bytes * 2 == DEAD_LETTER_BYTES


def test_the_settings_are_those_of_kafka() -> None:
    assert TOPICS["feed.accounts"].config() == {
        "cleanup.policy": "compact",
        "retention.ms": "-1",
        "max.message.bytes": str(2 * 1024 * 1024),
        "message.timestamp.type": "LogAppendTime",
    }
