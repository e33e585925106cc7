import pytest

from schemas.topics import TOPICS
from schemas.types import EVENT_TYPES, is_other_version
from tests.schemas.samples import KEYS, SAMPLES


def test_every_type_has_a_topic_and_every_type_of_a_topic_is_known() -> None:
    assert all(kind.topics for kind in EVENT_TYPES.values())
    assert {name for topic in TOPICS.values() for name in topic.types} == set(EVENT_TYPES)


def test_a_type_stands_on_one_topic_but_decisions_and_commands_on_two() -> None:
    assert {n: k.topics for n, k in EVENT_TYPES.items() if len(k.topics) != 1} == {
        "twite.bot.decision.recorded.v1": ("bot.audit", "bot.audit-private"),
        "twite.bot.moderation.commanded.v1": ("bot.moderation", "bot.moderation-log"),
    }


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_the_payload_says_its_key(name: str) -> None:
    kind = EVENT_TYPES[name]
    key = kind.key_of(kind.model.model_validate(SAMPLES[name]))
    says_nothing = name == "twite.feed.feedback.given.v1"
    assert key == (None if says_nothing else KEYS.get(name, b"conv:1").decode())


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("twite.feed.mention.created.v2", True),
        ("twite.feed.mention.created.v0", True),
        ("twite.feed.mention.created.v", False),
        ("twite.feed.mention.created.vx", False),
        ("twite.feed.mention.created.v²", False),
        ("twite.feed.mention.created", False),
        ("twite.feed.mention.liked.v2", False),
        ("", False),
    ],
)
def test_another_version_is_told_from_another_type(name: str, other: bool) -> None:
    assert is_other_version(name) is other
