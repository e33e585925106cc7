"""What goes into a transaction, and what it relies on inside the client library."""

import asyncio
import inspect
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import IllegalOperation, KafkaError, ProducerFenced
from aiokafka.producer import sender
from aiokafka.producer.message_accumulator import BatchBuilder

from consumers.batches import record_size
from consumers.config import WorkerConfig
from consumers.errors import Fenced, NoSuchPartition
from consumers.transactions import REFUSALS, TransactionalPublisher
from schemas.record import Output

SOURCE = TopicPartition("in", 1)


@dataclass
class FakeProducer:
    """A producer for topics of three partitions that notes what it is told."""

    batch_bytes: int = 4096
    calls: list[Any] = field(default_factory=list)
    _sender: Any = None
    error: Exception | None = None

    def create_batch(self) -> BatchBuilder:
        return BatchBuilder(self.batch_bytes, 0, is_transactional=True)

    async def partitions_for(self, topic: str) -> set[int]:
        return {0, 1, 2}

    async def begin_transaction(self) -> None:
        self.calls.append("begin")

    async def send_batch(
        self, batch: BatchBuilder, topic: str, *, partition: int
    ) -> "asyncio.Future[None]":
        self.calls.append((topic, partition, batch.record_count()))
        future = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future

    async def send_offsets_to_transaction(self, offsets: Any, group_id: str) -> None:
        self.calls.append(("offset", offsets[SOURCE].offset))
        if self.error:
            raise self.error

    async def commit_transaction(self) -> None:
        self.calls.append("commit")


async def publish(producer: FakeProducer, *outputs: Output) -> list[Any]:
    config = WorkerConfig(bootstrap_servers="none:1", group_id="g", topics=("in",))
    publisher = TransactionalPublisher(config, SOURCE)
    publisher._producer = cast("Any", producer)
    await publisher.publish(outputs, 7, "")
    return producer.calls


def output(topic: str, partition: int | None = None, value: bytes = b"v") -> Output:
    return Output(topic=topic, key=b"k", value=value, partition=partition)


async def test_outputs_go_to_the_partition_of_the_input_or_to_the_one_they_name() -> None:
    outputs = [output("a"), output("b", 0), output("a", 2), output("a", 1), output("b")]
    assert await publish(FakeProducer(), *outputs) == [
        "begin",
        ("a", 1, 2),
        ("b", 0, 1),
        ("a", 2, 1),
        ("b", 1, 1),
        ("offset", 7),
        "commit",
    ]


async def test_a_full_batch_goes_before_the_next_of_its_partition() -> None:
    outputs = [output("a", 2, bytes(3000)), output("a", 0), output("a", 2, bytes(3000))]
    sent = (await publish(FakeProducer(), *outputs))[1:-2]
    assert sent == [("a", 2, 1), ("a", 2, 1), ("a", 0, 1)]


async def test_an_offset_alone_is_committed() -> None:
    assert await publish(FakeProducer()) == ["begin", ("offset", 7), "commit"]


@pytest.mark.parametrize("error", [IllegalOperation("state"), AssertionError()])
@pytest.mark.parametrize(
    ("died_of", "expected"), [(ProducerFenced(), Fenced), (KafkaError(), None), (None, None)]
)
async def test_whatever_is_asked_of_a_sender_that_was_fenced_is_fenced(
    error: Exception, died_of: Exception | None, expected: type[Exception] | None
) -> None:
    async def send() -> None:
        if died_of is None:
            await asyncio.Event().wait()
        else:
            raise died_of

    task = asyncio.create_task(send())
    await asyncio.wait([task], timeout=0 if died_of is None else None)
    producer = FakeProducer(_sender=SimpleNamespace(sender_task=task), error=error)
    with pytest.raises(expected or type(error)):
        await publish(producer)
    task.cancel()


async def test_a_partition_that_is_not_there_is_a_refusal_and_nothing_is_committed() -> None:
    producer = FakeProducer()
    with pytest.raises(NoSuchPartition, match="a has no partition 3"):
        await publish(producer, output("a"), output("a", 3))
    assert "commit" not in producer.calls
    assert issubclass(NoSuchPartition, REFUSALS)


def test_the_pause_between_transactions_is_where_we_set_it() -> None:
    """A new version of the library may move it; then the worker is slow, not wrong."""
    assert isinstance(sender.BACKOFF_OVERRIDE, float)
    used = inspect.getsource(sender.AddPartitionsToTxnHandler.handle_response)
    assert "return BACKOFF_OVERRIDE" in used


def test_the_size_of_an_output_counts_everything() -> None:
    small = record_size(Output(topic="t", key=None, value=None))
    headers = (("name", b"12345"), ("null", None), ("n\udcff", b""))
    large = record_size(Output(topic="t", key=b"123", value=b"1234567", headers=headers))
    assert large - small == 3 + 7 + (4 + 5 + 10) + (4 + 10) + (2 + 10)
