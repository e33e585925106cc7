"""Bounded reading: exactly the committed records of a range, and then an end."""

import asyncio
import uuid
from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from consumers.errors import BrokerUnreachable, RangeGone, TopicMissing
from consumers.reader import Bound, Progress, Range, RangeReader, range_reader
from tests.kafka import toy
from tests.kafka.toy import ToyTopics

pytestmark = pytest.mark.kafka


@pytest.fixture
async def reader(bootstrap: str) -> AsyncIterator[RangeReader]:
    async with range_reader(bootstrap) as started:
        yield started


@pytest.fixture
async def topic(bootstrap: str) -> str:
    """Offsets in partition 0: 0 to 4 plain, 5 committed + marker, 7 aborted + marker, 9 plain."""
    topics: ToyTopics = await toy.make_topics(bootstrap, f"r{uuid.uuid4().hex[:12]}")
    await toy.produce(bootstrap, topics.source, [(0, b"k", b"%d" % i) for i in range(5)])
    async with AIOKafkaProducer(
        bootstrap_servers=bootstrap, transactional_id=uuid.uuid4().hex
    ) as producer:
        for value, keep in [(b"kept", True), (b"aborted", False)]:
            await producer.begin_transaction()
            await (await producer.send(topics.source, value, partition=0))
            await (producer.commit_transaction() if keep else producer.abort_transaction())
    await toy.produce(bootstrap, topics.source, [(0, b"k", b"last"), (2, b"k", b"other")])
    return topics.source


async def values(reader: RangeReader, span: Range) -> list[bytes | None]:
    return [record.value async for record in reader.read(span)]


async def test_a_whole_topic_is_read_to_its_end(reader: RangeReader, topic: str) -> None:
    seen: list[Progress] = []
    found = [record.value async for record in reader.read(Range(topic), seen.append)]
    assert found == [b"0", b"1", b"2", b"3", b"4", b"kept", b"last", b"other"]
    assert seen[-1] == Progress(11, 11)
    assert [p.done for p in seen] == sorted(p.done for p in seen)


async def test_offsets_bound_a_range(reader: RangeReader, topic: str) -> None:
    span = Range(topic, (0,), Bound({0: 3}), Bound({0: 6}))
    assert await values(reader, span) == [b"3", b"4", b"kept"]
    assert await values(reader, Range(topic, (0,), Bound({0: 6}), Bound({0: 9}))) == []
    assert await values(reader, Range(topic, (0,), Bound({0: 99}))) == []


async def test_times_bound_a_range(reader: RangeReader, topic: str) -> None:
    records = [record async for record in reader.read(Range(topic, (0,)))]
    moment = records[-1].timestamp_ms
    before = [r.value for r in records if r.timestamp_ms < moment]
    assert await values(reader, Range(topic, (0,), end=Bound(timestamp_ms=moment))) == before
    found = await values(reader, Range(topic, (0,), Bound(timestamp_ms=moment)))
    assert found[-1] == b"last"
    assert await values(reader, Range(topic, (0,), Bound(timestamp_ms=moment + 10**9))) == []


async def test_the_bounds_of_a_range_are_told_before_it_is_read(
    reader: RangeReader, topic: str
) -> None:
    assert await reader.bounds(Range(topic)) == {0: (0, 10), 2: (0, 1)}
    assert await reader.bounds(Range(topic, start=Bound({0: 3}), end=Bound({0: 6}))) == {
        0: (3, 6),
        2: (0, 1),
    }


async def test_an_open_transaction_ends_the_range(
    reader: RangeReader, topic: str, bootstrap: str
) -> None:
    async with AIOKafkaProducer(
        bootstrap_servers=bootstrap, transactional_id=uuid.uuid4().hex
    ) as producer:
        await producer.begin_transaction()
        await (await producer.send(topic, b"open", partition=2))
        async with asyncio.timeout(20):
            assert await values(reader, Range(topic, (2,))) == [b"other"]
        await producer.abort_transaction()


async def test_what_retention_took_is_said(reader: RangeReader, topic: str, bootstrap: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=3)})
    await admin.close()
    with pytest.raises(RangeGone, match="begins at offset 3 now, 1 is gone"):
        await values(reader, Range(topic, (0,), Bound({0: 1})))
    assert await values(reader, Range(topic, (0,), end=Bound({0: 5}))) == [b"3", b"4"]


async def test_unknown_topics_and_absent_brokers(reader: RangeReader) -> None:
    with pytest.raises(TopicMissing, match=r"nowhere"):
        await values(reader, Range("nowhere"))
    with pytest.raises(BrokerUnreachable, match=r"127\.0\.0\.1:1\. .*twite broker"):
        async with range_reader("127.0.0.1:1"):
            pass
