"""``bot.ask.publish``: every record that Kafka can hold reaches the producer."""

import asyncio
from collections.abc import Awaitable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.record.default_records import DefaultRecordBatch

from bot.ask import publish
from bot.observe import Position
from consumers.batches import RawBatch
from schemas.record import Output


class Writer:
    """Takes what an ``AIOKafkaProducer`` takes, and refuses what it refuses."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    async def send(
        self, topic: str, value: bytes | None, key: bytes | None, *, headers: list[Any]
    ) -> Awaitable[Any]:
        assert not (key is None and value is None)
        for name, _ in headers:
            name.encode()
        self.sent.append((topic, key, value, headers))
        return done(topic, 0)

    async def send_batch(self, batch: RawBatch, topic: str, *, partition: int) -> Awaitable[Any]:
        self.sent.append(batch)
        return done(topic, partition)

    async def partitions_for(self, topic: str) -> set[int]:
        return {4}


def done(topic: str, partition: int) -> Awaitable[Any]:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.set_result(SimpleNamespace(topic=topic, partition=partition, offset=7))
    return future


async def published(record: Output) -> tuple[Position, Any]:
    writer = Writer()
    where = await publish(cast("AIOKafkaProducer", writer), record)
    (sent,) = writer.sent
    return where, sent


async def test_a_usual_record_is_sent_as_it_is() -> None:
    where, sent = await published(
        Output(topic="feed.t", key=None, value=b"v", headers=(("é", None),))
    )
    assert where == Position("feed.t", 0, 7)
    assert sent == ("feed.t", None, b"v", [("é", None)])


@pytest.mark.parametrize("key", [None, b"k"])
async def test_a_record_that_send_refuses_goes_as_a_batch(key: bytes | None) -> None:
    name = "x" if key is None else "\udced\udca0\udc80"
    where, batch = await published(
        Output(topic="feed.t", key=key, value=None, headers=((name, b"v"),))
    )
    assert where == Position("feed.t", 4, 7)
    read = DefaultRecordBatch(bytes(batch._build()))
    assert not read.is_transactional
    if key is None:
        (record,) = read
        assert (record.key, record.value) == (None, None)
        assert list(record.headers) == [("x", b"v")]
    else:
        assert b"\xed\xa0\x80" in bytes(batch._build())
