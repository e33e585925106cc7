"""The guards against brokers and topics that are wrong on purpose, and against right ones."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from confluent_kafka import Consumer
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from bot.app import run_worker, worker_config
from bot.cluster import look
from bot.config import as_environment
from bot.errors import Trouble
from bot.guards import Check, Level, judge, require_fit
from bot.handlers import INPUT_TOPICS
from bot.settings import KafkaSettings, ModelSettings, Settings
from model.echo import EchoEngine
from schemas import names
from schemas.topics import TOPICS
from tests.kafka.brokers import GUARDED, OTHERS, allowed, running

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]
WRONG_BROKER = {
    "offsets.retention.minutes": "60",
    "transaction.max.timeout.ms": "10000",
    "group.min.session.timeout.ms": "10000",
    "offset.metadata.max.bytes": "1024",
    "auto.create.topics.enable": "true",
}
WRONG_TOPICS: dict[str, dict[str, str]] = {
    names.BOT_DEAD_LETTERS: {"max.message.bytes": "1048588"},
    names.BOT_AUDIT: {"cleanup.policy": "compact", "retention.ms": "86400000"},
    names.FEED_MENTIONS: {"message.timestamp.type": "CreateTime"},
}


@pytest.fixture(scope="module")
def right() -> Iterator[str]:
    """A broker for development with the topics of the contract."""
    with running(partitions=2) as broker:
        yield broker.bootstrap_servers


@pytest.fixture(scope="module")
def wrong() -> Iterator[str]:
    """A broker on which nothing is as it should be."""
    with running(WRONG_BROKER) as broker:
        asyncio.run(_wrong_topics(broker.bootstrap_servers))
        yield broker.bootstrap_servers


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    """A broker with access lists, on which the worker's user may do what nobody else owns."""
    with running(GUARDED, partitions=2) as broker:
        yield broker.bootstrap_servers


async def _wrong_topics(servers: str) -> None:
    wanted = [
        NewTopic(
            name,
            1 if name == names.FEED_POSTS else 2,
            1,
            topic_configs={**topic.config(), **WRONG_TOPICS.get(name, {})},
        )
        for name, topic in TOPICS.items()
        if name != names.BOT_REPLAYS
    ]
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        answer = await admin.create_topics(wanted)
        assert all(code == 0 for _, code, _ in answer.topic_errors), answer
    finally:
        await admin.close()


def settings_for(servers: str, group: str = "twite") -> Settings:
    return Settings(
        kafka=KafkaSettings(bootstrap_servers=servers, group_id=group),
        model=ModelSettings(engine="echo"),
    )


async def found(servers: str, group: str = "twite") -> dict[str, Check]:
    settings = settings_for(servers, group)
    config = worker_config(settings)
    return {check.name: check for check in judge(await look(config, settings.kafka), config)}


async def test_a_right_broker_is_green_and_says_what_production_wants(right: str) -> None:
    checks = await found(right)
    yellow = {name for name, check in checks.items() if check.level is Level.YELLOW}
    assert [check for check in checks.values() if not check.ok] == []
    assert yellow == {"copies", "in sync"}
    await require_fit(worker_config(settings_for(right)), settings_for(right).kafka)


EXPECTED = {
    "topics": "missing: bot.replays",
    "partitions": "feed.posts: 1, feed.mentions: 2",
    "transactions": "transaction.max.timeout.ms is 10000, ours are 20000",
    "session": "6000 ms, the brokers allow 10000 to",
    "group offsets": "forgotten after 60 minutes",
    "commit metadata": "offset.metadata.max.bytes is 1024",
    "record sizes": "max.message.bytes of bot.dead-letters: 1048588",
    "timestamps": "message.timestamp.type of feed.mentions: CreateTime",
    "cleanup": "cleanup.policy of bot.audit: compact",
}


async def test_each_wrong_thing_is_red_and_the_rest_is_not(wrong: str) -> None:
    checks = await found(wrong)
    assert {name for name, check in checks.items() if not check.ok} == set(EXPECTED)
    for name, text in EXPECTED.items():
        assert text in checks[name].found
        assert checks[name].todo
    assert checks["retention"].level is Level.YELLOW
    assert checks["new topics"].level is Level.YELLOW


async def test_a_worker_does_not_start_where_it_could_not_work(wrong: str) -> None:
    with pytest.raises(Trouble) as caught:
        await run_worker(settings_for(wrong), engine=EchoEngine())
    told = str(caught.value)
    assert "transaction.max.timeout.ms of the brokers to 20000" in told
    assert "kafka.session_timeout_ms between 10000 and" in told
    assert "cleanup" not in told


def check_command(servers: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TWITE_")}
    return subprocess.run(
        [sys.executable, "-m", "bot.cli", "config", "check", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
        env=clean | as_environment(settings_for(servers)) | {"COLUMNS": "220"},
    )


async def test_the_command_tells_programs_and_people(right: str, wrong: str) -> None:
    green = await asyncio.to_thread(check_command, right, "--json")
    assert green.returncode == 0, green.stderr
    levels = {check["name"]: check["level"] for check in json.loads(green.stdout)["checks"]}
    assert levels["rights"] == "ok"
    assert levels["copies"] == "advice"
    red = await asyncio.to_thread(check_command, wrong)
    assert red.returncode == 1
    assert "Set offsets.retention.minutes of the brokers to at least 4320" in red.stdout


@contextmanager
def member(servers: str, group: str, topics: list[str], **options: Any) -> Iterator[None]:
    """A stranger in a group, there while this lasts."""
    consumer = Consumer(
        {"bootstrap.servers": servers, "group.id": group, **options, "session.timeout.ms": 6000}
        if options.get("group.protocol") != "consumer"
        else {"bootstrap.servers": servers, "group.id": group, **options}
    )
    joined, stop = threading.Event(), threading.Event()

    def poll() -> None:
        consumer.subscribe(topics, on_assign=lambda *_: joined.set())
        while not stop.is_set():
            consumer.poll(0.1)
        consumer.close()

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        assert joined.wait(60)
        yield
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize(
    ("options", "topics", "said"),
    [
        ({"partition.assignment.strategy": "roundrobin"}, [names.FEED_MENTIONS], "roundrobin"),
        ({"group.protocol": "consumer"}, [names.FEED_MENTIONS], "of another kind"),
        ({"partition.assignment.strategy": "range"}, [names.FEED_POSTS], "with other topics"),
    ],
)
async def test_strangers_in_the_group_are_red(
    right: str, options: dict[str, str], topics: list[str], said: str, unique: Any
) -> None:
    group = unique("strangers")
    with member(right, group, topics, **options):
        check = (await found(right, group))["group"]
        assert not check.ok
        assert said in check.found
    wanted = list(INPUT_TOPICS)
    group = unique("ours")
    with member(right, group, wanted, **{"partition.assignment.strategy": "range"}):
        check = (await found(right, group))["group"]
        assert (check.level, check.found) == (Level.GREEN, "1 members, stable")


def owned(kind: ResourceType, name: str, operation: AclOperation) -> AclBinding:
    """Only somebody else may do that, so we may not."""
    return allowed(kind, name, OTHERS, operation)


@pytest.mark.parametrize(
    ("binding", "said"),
    [
        (
            owned(ResourceType.TOPIC, names.BOT_REPLIES, AclOperation.WRITE),
            "lacking: write bot.replies",
        ),
        (owned(ResourceType.TOPIC, names.FEED_MENTIONS, AclOperation.READ), "read feed.mentions"),
        (owned(ResourceType.GROUP, "twite", AclOperation.READ), "lacking: read group twite"),
        (
            owned(ResourceType.TRANSACTIONAL_ID, "twite.config-check", AclOperation.WRITE),
            "lacking: write transactional ids twite.*",
        ),
    ],
)
async def test_missing_rights_are_named(guarded: str, binding: AclBinding, said: str) -> None:
    assert (await found(guarded))["rights"].level is Level.GREEN
    client = AdminClient({"bootstrap.servers": guarded})
    await asyncio.to_thread(_done, client.create_acls([binding]))
    try:
        check = await _until_red(guarded)
        assert said in check.found
        assert check.hard
    finally:
        await asyncio.to_thread(_done, client.delete_acls([_filter_of(binding)]))
    async with asyncio.timeout(30):
        while not (await found(guarded))["rights"].ok:  # noqa: ASYNC110 - only asking tells
            await asyncio.sleep(0.05)


async def test_what_can_not_be_asked_is_yellow(guarded: str) -> None:
    binding = owned(ResourceType.BROKER, "kafka-cluster", AclOperation.DESCRIBE_CONFIGS)
    client = AdminClient({"bootstrap.servers": guarded})
    # The cluster's own list then names nobody else either, so our broker must stay in it.
    action = AclOperation.CLUSTER_ACTION
    keep = allowed(ResourceType.BROKER, "kafka-cluster", "User:ANONYMOUS", action)
    alter = AclBinding(
        ResourceType.BROKER,
        "kafka-cluster",
        ResourcePatternType.LITERAL,
        "User:ANONYMOUS",
        "*",
        AclOperation.ALTER,
        AclPermissionType.ALLOW,
    )
    await asyncio.to_thread(_done, client.create_acls([keep, alter, binding]))
    try:
        async with asyncio.timeout(30):
            while (await found(guarded))["group offsets"].level is not Level.YELLOW:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        checks = await found(guarded)
        assert {checks[name].level for name in ("session", "commit metadata")} == {Level.YELLOW}
        assert checks["transactions"].level is Level.GREEN
    finally:
        bindings = [_filter_of(one) for one in (binding, alter, keep)]
        await asyncio.to_thread(_done, client.delete_acls(bindings))


async def _until_red(servers: str) -> Check:
    """An access list holds a moment after it was made."""
    async with asyncio.timeout(30):
        while (check := (await found(servers))["rights"]).ok:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    return check


def _filter_of(binding: AclBinding) -> Any:
    from confluent_kafka.admin import AclBindingFilter

    return AclBindingFilter(
        binding.restype,
        binding.name,
        binding.resource_pattern_type,
        binding.principal,
        binding.host,
        binding.operation,
        binding.permission_type,
    )


def _done(futures: dict[Any, Any]) -> None:
    for future in futures.values():
        future.result(30)
