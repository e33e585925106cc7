"""The access list of a replay, on a broker that obeys access lists."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import GroupAuthorizationFailedError, TopicAuthorizationFailedError
from confluent_kafka.admin import (
    AclOperation,
    AdminClient,
    ResourceType,
)

from bot.access import rights_of
from consumers.reader import Range, range_reader
from schemas import names
from schemas.topics import TOPICS
from tests.kafka.brokers import GUARDED, OTHERS, allowed, running

pytestmark = pytest.mark.kafka

US = "User:ANONYMOUS"
KINDS = {"topic": ResourceType.TOPIC, "group": ResourceType.GROUP}
GROUP = "twite"


@pytest.fixture(scope="module")
def guarded() -> Iterator[str]:
    """Every topic and the live group belong to somebody else; we have a replay's rights."""
    with running(GUARDED, partitions=2) as broker:
        servers = broker.bootstrap_servers
        asyncio.run(_filled(servers))
        theirs = [
            allowed(ResourceType.TOPIC, topic, OTHERS, operation)
            for topic in TOPICS
            for operation in (AclOperation.READ, AclOperation.WRITE)
        ]
        theirs.append(allowed(ResourceType.GROUP, GROUP, OTHERS, AclOperation.READ))
        ours = [
            allowed(KINDS[right.kind], right.name, US, AclOperation[right.operation.upper()])
            for right in rights_of("replay", GROUP)
        ]
        client = AdminClient({"bootstrap.servers": servers})
        for done in client.create_acls(theirs + ours).values():
            done.result(30)
        yield servers


async def _filled(servers: str) -> None:
    """A record in every topic."""
    async with AIOKafkaProducer(bootstrap_servers=servers) as producer:
        for topic in TOPICS:
            await producer.send_and_wait(topic, b"{}", b"key", partition=0)


async def test_a_replay_reads_what_it_needs_and_writes_its_results_alone(guarded: str) -> None:
    async with AIOKafkaProducer(bootstrap_servers=guarded, enable_idempotence=True) as producer:
        await _until_refused(producer)
        written = {topic for topic in TOPICS if await _may_write(producer, topic)}
    assert written == {names.BOT_REPLAYS}
    wanted = [right.name for right in rights_of("replay", GROUP) if right.operation == "Read"]
    async with range_reader(guarded) as reader:
        for topic in wanted:
            assert [one.value async for one in reader.read(Range(topic))][:1] == [b"{}"]


async def test_a_replay_cannot_move_the_offsets_of_the_live_group(guarded: str) -> None:
    source = TopicPartition(names.FEED_MENTIONS, 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=guarded, group_id=GROUP, enable_auto_commit=False)
    with pytest.raises(GroupAuthorizationFailedError):
        await _commit(consumer, source)


async def _commit(consumer: Any, source: TopicPartition) -> None:
    await consumer.start()
    try:
        consumer.assign([source])
        await consumer.commit({source: 1})
    finally:
        await consumer.stop()


async def _may_write(producer: Any, topic: str) -> bool:
    try:
        await producer.send_and_wait(topic, b"{}", b"key", partition=0)
    except TopicAuthorizationFailedError:
        return False
    return True


async def _until_refused(producer: Any) -> None:
    """An access list holds a moment after it was made."""
    async with asyncio.timeout(30):
        while await _may_write(producer, names.BOT_DIRECT_ACTIVITY):  # noqa: ASYNC110 - only asking tells
            await asyncio.sleep(0.05)
