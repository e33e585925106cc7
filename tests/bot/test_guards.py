"""Each guard, red and green, on a cluster that is made up."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from bot.cluster import Cluster, GroupFacts, Member, TopicFacts
from bot.guards import GUARDS, START_GUARDS, Check, Level, judge
from bot.handlers import INPUT_TOPICS, OUTPUT_TOPICS
from consumers.config import WorkerConfig
from schemas import names
from schemas.topics import DEAD_LETTER_BYTES, TOPICS

CONFIG = WorkerConfig(
    bootstrap_servers="x", group_id="g", topics=INPUT_TOPICS, output_topics=OUTPUT_TOPICS
)
ALL = frozenset({"read", "write", "describe", "describe configs"})
BROKER = {
    "offsets.retention.minutes": "10080",
    "transaction.max.timeout.ms": "900000",
    "group.min.session.timeout.ms": "6000",
    "group.max.session.timeout.ms": "1800000",
    "offset.metadata.max.bytes": "4096",
    "auto.create.topics.enable": "false",
}
MEMBER = Member("w", "/h", frozenset(INPUT_TOPICS))


def topic(name: str) -> TopicFacts:
    config = {**TOPICS[name].config(), "min.insync.replicas": "2"}
    return TopicFacts(partitions=4, replication=3, config=config, rights=ALL)


RIGHT = Cluster(
    brokers=3,
    topics={name: topic(name) for name in TOPICS},
    broker_configs=(BROKER, BROKER, BROKER),
    group=GroupFacts(
        state="Stable",
        protocol_type="consumer",
        protocol="range",
        members=(MEMBER,),
        listed=True,
        rights=ALL,
    ),
    internal={"__consumer_offsets": TopicFacts(partitions=50, replication=3)},
)


def with_topic(name: str, cluster: Cluster = RIGHT, **changes: Any) -> Cluster:
    """Another cluster, with one topic changed; ``config`` is laid over what it has."""
    facts = cluster.topics[name]
    config = {**(facts.config or {}), **changes.pop("config", {})}
    changed = replace(facts, **{"config": config, **changes})
    return replace(cluster, topics={**cluster.topics, name: changed})


def with_every(config: Mapping[str, str], cluster: Cluster = RIGHT) -> Cluster:
    for name in TOPICS:
        cluster = with_topic(name, cluster, config=dict(config))
    return cluster


def with_broker(**config: str) -> Cluster:
    changed = {**BROKER, **{key.replace("_", "."): value for key, value in config.items()}}
    return replace(RIGHT, broker_configs=(BROKER, changed))


def with_group(**changes: Any) -> Cluster:
    assert RIGHT.group is not None
    return replace(RIGHT, group=replace(RIGHT.group, **changes))


def found(cluster: Cluster) -> dict[str, Check]:
    return {check.name: check for check in judge(cluster, CONFIG)}


def test_a_right_cluster_is_green_all_over() -> None:
    checks = judge(RIGHT, CONFIG)
    assert [(check.level, check.todo) for check in checks] == [(Level.GREEN, "")] * len(GUARDS)
    assert len({check.name for check in checks}) == len(GUARDS)


WITHOUT = {name: facts for name, facts in RIGHT.topics.items() if name != names.BOT_REPLIES}

RED = {
    "topics": replace(RIGHT, topics=WITHOUT),
    "partitions": with_topic(names.BOT_AUDIT, partitions=3),
    "rights": with_topic(names.BOT_REPLIES, rights=frozenset({"read"})),
    "rights ": with_topic(names.FEED_MENTIONS, rights=frozenset({"describe"})),
    "rights  ": with_topic(names.FEED_MENTIONS, visible=False),
    "rights   ": replace(RIGHT, group=None),
    "rights    ": with_group(rights=frozenset({"describe"})),
    "rights     ": replace(RIGHT, producer="TransactionalIdAuthorizationFailed"),
    "rights      ": with_topic(names.BOT_AUDIT, rights=frozenset({"write"})),
    "rights       ": with_topic(names.BOT_MODERATION, rights=frozenset({"describe"})),
    "rights        ": with_topic(names.BOT_REVIEWS, rights=frozenset({"write"})),
    "transactions": with_broker(transaction_max_timeout_ms="10000"),
    "transactions ": replace(RIGHT, producer="InvalidTransactionTimeout", broker_configs=None),
    "transactions  ": replace(RIGHT, producer="UnknownError"),
    "session": with_broker(group_min_session_timeout_ms="7000"),
    "session ": with_broker(group_max_session_timeout_ms="5999"),
    "group": with_group(protocol="roundrobin"),
    "group ": with_group(protocol_type="connect", protocol="default"),
    "group  ": with_group(state="Dead", members=()),
    "group   ": with_group(members=(MEMBER, Member("x", "/h", frozenset({"feed.posts"})))),
    "group offsets": with_broker(offsets_retention_minutes="4319"),
    "commit metadata": with_broker(offset_metadata_max_bytes="4095"),
    "record sizes": with_topic(names.BOT_REPLIES, config={"max.message.bytes": "1048588"}),
    "record sizes ": with_topic(
        names.FEED_MENTIONS, config={"max.message.bytes": str(DEAD_LETTER_BYTES)}
    ),
    "timestamps": with_topic(names.FEED_MENTIONS, config={"message.timestamp.type": "CreateTime"}),
    "cleanup": with_topic(names.BOT_AUDIT, config={"cleanup.policy": "compact"}),
    "cleanup ": with_topic(names.FEED_ACCOUNTS, config={"cleanup.policy": "delete"}),
    "copies": replace(RIGHT, internal={"__transaction_state": TopicFacts(replication=1)}),
    "in sync": with_topic(names.BOT_AUDIT, config={"min.insync.replicas": "1"}),
    "in sync ": with_topic(names.BOT_AUDIT, config={"min.insync.replicas": "3"}),
}


@pytest.mark.parametrize("name", RED)
def test_each_guard_turns_red_alone_and_says_what_to_do(name: str) -> None:
    wrong = [check for check in judge(RED[name], CONFIG) if not check.ok]
    assert [check.name for check in wrong] == [name.strip()]
    assert wrong[0].todo.endswith(".")


def test_nothing_is_said_to_be_in_order_about_topics_that_are_not_there() -> None:
    checks = {check.name: check for check in judge(replace(RIGHT, topics={}), CONFIG)}
    for name in ("partitions", "record sizes", "timestamps", "cleanup", "retention"):
        assert checks[name].level is Level.YELLOW
        assert checks[name].found == "no topic to look at"
    assert checks["topics"].level is Level.RED


def test_only_what_stops_a_worker_is_hard() -> None:
    hard = {name.strip() for name, one in RED.items() if any(c.hard for c in judge(one, CONFIG))}
    assert hard == {"topics", "partitions", "rights", "transactions", "session"}
    at_start = {guard(RIGHT, CONFIG).name for guard in START_GUARDS}
    assert at_start == hard - {"topics", "partitions"}
    replays = {name: facts for name, facts in RIGHT.topics.items() if name != names.BOT_REPLAYS}
    assert not found(replace(RIGHT, topics=replays))["topics"].hard


YELLOW = {
    "topics": with_topic(names.FEED_POSTS, visible=False),
    "rights": with_topic(names.FEED_MENTIONS, rights=None),
    "group": replace(RIGHT, group=None),
    "record sizes": with_topic(names.FEED_MENTIONS, config={"max.message.bytes": "1048588"}),
    "timestamps": with_topic(names.BOT_AUDIT, config={"message.timestamp.type": "CreateTime"}),
    "cleanup": replace(
        RIGHT, topics={**RIGHT.topics, names.BOT_AUDIT: TopicFacts(partitions=4, rights=ALL)}
    ),
    "retention": with_topic(names.BOT_AUDIT, config={"retention.ms": "86400000"}),
    "retention ": with_topic(names.FEED_ACCOUNTS, config={"retention.ms": "86400000"}),
    "copies": replace(RIGHT, brokers=1),
    "in sync": replace(with_every({"min.insync.replicas": "1"}), brokers=1),
    "new topics": with_broker(auto_create_topics_enable="true"),
    "group offsets": replace(RIGHT, broker_configs=None),
    "commit metadata": replace(RIGHT, broker_configs=None),
    "session": replace(RIGHT, broker_configs=None),
    "new topics ": replace(RIGHT, broker_configs=None),
    "transactions": replace(RIGHT, producer="TransactionalIdAuthorizationFailed"),
}


@pytest.mark.parametrize("name", YELLOW)
def test_advice_and_what_can_not_be_told_are_yellow(name: str) -> None:
    check = found(YELLOW[name])[name.strip()]
    assert (check.level, check.ok, check.hard) == (Level.YELLOW, True, False)


def test_longer_retention_and_no_limit_are_fine() -> None:
    for name, ms in ((names.BOT_AUDIT, "-1"), (names.FEED_MENTIONS, str(10**12))):
        check = found(with_topic(name, config={"retention.ms": ms}))["retention"]
        assert check.level is Level.GREEN


def test_a_group_without_members_is_fine() -> None:
    for group in (GroupFacts(rights=ALL), GroupFacts(state="Empty", listed=True, rights=ALL)):
        assert found(replace(RIGHT, group=group))["group"].level is Level.GREEN


def test_two_brokers_are_told_what_production_wants() -> None:
    two = replace(RIGHT, brokers=2)
    assert found(two)["copies"].level is Level.YELLOW


def test_two_copies_of_which_two_must_be_in_sync_are_told_twice() -> None:
    checks = found(with_topic(names.BOT_AUDIT, replication=2))
    assert not checks["copies"].ok
    assert "equals the copies of bot.audit" in checks["in sync"].found
