"""A worker with a toy handler, to try the runtime with: also as a process that can be killed.

    python -m tests.kafka.toy BOOTSTRAP GROUP TOPIC OUT AUDIT LATENCY_S LOG

The lane is the record's key. Each handled record gives one output on OUT and one on AUDIT,
both naming the input; each handler call appends a line to LOG.
"""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from consumers.config import WorkerConfig
from consumers.handler import GiveUp, Job, RetryLater
from consumers.worker import Worker
from schemas.record import Header, Output, Record

PARTITIONS = 4


@dataclass
class ToyTopics:
    """Three topics and a group of one test."""

    source: str
    out: str
    audit: str
    group: str


class ToyHandler:
    """``b"retry N"`` fails N - 1 times, ``b"give up"`` is given up, all else is answered."""

    def __init__(self, out: str, audit: str, latency_s: float = 0.0, log: Path | None = None):
        self._out, self._audit, self._latency_s, self._log = out, audit, latency_s, log
        self.handled: list[tuple[int, int]] = []

    def open(self, record: Record) -> Job:
        if record.value == b"bad":
            raise GiveUp("bad", "cannot be opened")
        return Job(record, record.key, None)

    async def handle(self, job: Job, *, attempt: int) -> Sequence[Output]:
        record = job.record
        self.handled.append((record.partition, record.offset))
        if self._log:
            with self._log.open("a") as log:
                log.write(f"{record.partition}/{record.offset}\n")
        if self._latency_s:
            await asyncio.sleep(self._latency_s)
        word, _, count = (record.value or b"").partition(b" ")
        if word == b"retry" and attempt < int(count):
            raise RetryLater("not yet")
        if word == b"give":
            raise GiveUp("toy", "asked to")
        if word == b"hang":
            await asyncio.Event().wait()
        if word == b"cancelled":
            raise asyncio.CancelledError
        return self._outputs(record, b"done")

    def give_up(self, record: Record, error: GiveUp, *, attempts: int) -> Sequence[Output]:
        return self._outputs(record, f"{error.code} after {attempts}".encode())

    def _outputs(self, record: Record, word: bytes) -> Sequence[Output]:
        place = f"{record.partition}/{record.offset}".encode()
        return [
            Output(topic=topic, key=record.key, value=place, headers=(("word", word),))
            for topic in (self._out, self._audit)
        ]


def toy_config(bootstrap_servers: str, topics: ToyTopics, **changes: object) -> WorkerConfig:
    """A worker's settings for tests: quick retries, short sessions."""
    settings: dict[str, object] = {
        "bootstrap_servers": bootstrap_servers,
        "group_id": topics.group,
        "topics": (topics.source,),
        "output_topics": (topics.out, topics.audit),
        "retry_base_s": 0.01,
        "retry_cap_s": 0.1,
        "grace_s": 2.0,
    }
    return WorkerConfig(**{**settings, **changes})  # type: ignore[arg-type]


async def make_topics(bootstrap_servers: str, name: str, partitions: int = PARTITIONS) -> ToyTopics:
    """Fresh topics for one test."""
    topics = ToyTopics(f"{name}.in", f"{name}.out", f"{name}.audit", f"{name}.group")
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        wanted = (topics.source, topics.out, topics.audit)
        await admin.create_topics([NewTopic(topic, partitions, 1) for topic in wanted])
    finally:
        await admin.close()
    return topics


async def produce(
    bootstrap_servers: str,
    topic: str,
    records: Sequence[tuple[int, bytes | None, bytes | None]],
    compression_type: str | None = None,
) -> None:
    """Publish (partition, key, value) in order."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap_servers,
        enable_idempotence=True,
        compression_type=compression_type,
        max_request_size=64 << 20,
    )
    await producer.start()
    try:
        sent = [
            await producer.send(topic, value=value, key=key, partition=partition)
            for partition, key, value in records
        ]
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


async def commit(bootstrap_servers: str, topics: ToyTopics, *, partition: int, offset: int) -> None:
    """Set the group's offset, as an operator or a stranger may."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers, group_id=topics.group, enable_auto_commit=False
    )
    consumer.assign([source := TopicPartition(topics.source, partition)])
    await consumer.start()
    try:
        await consumer.commit({source: offset})
    finally:
        await consumer.stop()


@asynccontextmanager
async def reading(bootstrap_servers: str, topic: str) -> AsyncIterator["Reading"]:
    """What other programs see of a topic, from its beginning, under ``read_committed``."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers,
        isolation_level="read_committed",
        enable_auto_commit=False,
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, p) for p in range(PARTITIONS)]
        consumer.assign(partitions)
        for partition in partitions:
            consumer.seek(partition, 0)
        yield Reading(consumer)
    finally:
        await consumer.stop()


class Reading:
    """Records read so far, as (partition of the output, input named, word)."""

    def __init__(self, consumer: AIOKafkaConsumer) -> None:
        self._consumer = consumer
        self.seen: list[tuple[int, str, str]] = []
        self.headers: list[tuple[Header, ...]] = []

    async def until(self, count: int, timeout_s: float = 60.0) -> list[tuple[int, str, str]]:
        """Read until there are ``count`` records; fails when they do not come."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while len(self.seen) < count:
            if asyncio.get_running_loop().time() > deadline:
                raise AssertionError(f"{len(self.seen)} of {count} records after {timeout_s} s")
            await self.more()
        return self.seen

    async def more(self, timeout_ms: int = 100) -> None:
        """Read what there is now."""
        for batch in (await self._consumer.getmany(timeout_ms=timeout_ms)).values():
            for message in batch:
                word = dict(message.headers)["word"].decode()
                self.headers.append(tuple(message.headers))
                self.seen.append((message.partition, (message.value or b"").decode(), word))

    async def settle(self) -> list[tuple[int, str, str]]:
        """Read to the end of what is committed now."""
        assigned = sorted(self._consumer.assignment())
        ends = await self._consumer.end_offsets(assigned)
        while any([await self._consumer.position(tp) < ends[tp] for tp in assigned]):
            await self.more()
        return self.seen


@asynccontextmanager
async def working(config: WorkerConfig, handler: ToyHandler) -> AsyncIterator[Worker]:
    """A worker in this process, stopped at the end."""
    worker = Worker(config, lambda topic, partition: handler)
    task = asyncio.create_task(worker.run(), name="toy worker")
    try:
        yield worker
    finally:
        worker.stop()
        await task


async def main(arguments: Sequence[str]) -> None:
    """Run until SIGTERM."""
    bootstrap_servers, group, source, out, audit, latency_s, log = arguments
    topics = ToyTopics(source, out, audit, group)
    handler = ToyHandler(out, audit, float(latency_s), Path(log))
    worker = Worker(toy_config(bootstrap_servers, topics), lambda topic, partition: handler)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
    await worker.run()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
