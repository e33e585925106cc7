"""The bare consume-transact-produce loop that P1 compares with: aiokafka and nothing else.

One transactional producer per partition, one task each, up to ``batch`` records a transaction,
every send awaited before the commit (without that the loop would be faster, and lose records).
It has no lanes, no map of what is finished, no retries, no bounds in bytes, no care for
rebalances: it is what exactly once costs at the least. With ``writes`` in its spec it writes
that instead of the toy's two records.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from tests.bench.kafka import PARTITIONS
from tests.bench.programs.toy import outputs_of, spec, tell

Headers = list[tuple[str, bytes]]
Row = tuple[str, bytes | None, bytes]


@dataclass
class Writes:
    """What is written to one topic: ``each`` records per input, all alike."""

    topic: str
    each: float
    bytes: int
    headers: list[tuple[str, int]]
    owed: float = 0.0

    def __post_init__(self) -> None:
        self.value = b"x" * self.bytes
        self.made_headers: Headers = [(name, b"h" * length) for name, length in self.headers]

    def times(self) -> int:
        """How many for this input: on average ``each``."""
        self.owed += self.each
        now = int(self.owed + 1e-9)
        self.owed -= now
        return now


class Loop:
    """All partitions of one topic."""

    def __init__(self) -> None:
        self.asked = spec()
        self.inputs = 0
        self.transactions = 0
        self.first = self.last = 0.0
        self.writes = [Writes(**one) for one in self.asked.get("writes", ())]
        self.processor_then = 0.0
        self.consumer = AIOKafkaConsumer(
            bootstrap_servers=self.asked["bootstrap"],
            group_id=self.asked["group"],
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            max_partition_fetch_bytes=8 << 20,
        )

    async def run(self) -> None:
        """Until ``total`` inputs are through."""
        self.consumer.subscribe([self.asked["source"]])
        await self.consumer.start()
        while len(self.consumer.assignment()) < PARTITIONS:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.02)
        sources = sorted(self.consumer.assignment())
        producers = [await self._producer(source) for source in sources]
        tell("ready")
        tasks = [
            asyncio.create_task(self._partition(source, producer))
            for source, producer in zip(sources, producers, strict=True)
        ]
        await asyncio.gather(*tasks)
        tell(
            "done",
            seconds=self.last - self.first,
            processor_s=time.process_time() - self.processor_then,
            inputs=self.inputs,
            transactions=self.transactions,
        )
        for producer in producers:
            await producer.stop()
        await self.consumer.stop()

    async def _producer(self, source: TopicPartition) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            bootstrap_servers=self.asked["bootstrap"],
            transactional_id=f"{self.asked['group']}.{source.topic}.{source.partition}",
            transaction_timeout_ms=20_000,
            max_request_size=8 << 20,
            **self.asked.get("producer", {}),
        )
        await producer.start()
        return producer

    async def _partition(self, source: TopicPartition, producer: AIOKafkaProducer) -> None:
        group, batch = self.asked["group"], self.asked["batch"]
        while self.inputs < self.asked["total"]:
            found = await self.consumer.getmany(source, timeout_ms=100, max_records=batch)
            messages = found.get(source, [])
            if not messages:
                continue
            if not self.first:
                self.first, self.processor_then = time.perf_counter(), time.process_time()
            await producer.begin_transaction()
            await self._send_all(producer, source.partition, messages)
            offsets = {source: messages[-1].offset + 1}
            await producer.send_offsets_to_transaction(offsets, group)
            await producer.commit_transaction()
            self.last = time.perf_counter()
            self.inputs += len(messages)
            self.transactions += 1

    async def _send_all(
        self, producer: AIOKafkaProducer, partition: int, messages: list[Any]
    ) -> None:
        if self.writes:
            await self._send_writes(producer, partition, messages)
            return
        rows = [
            row
            for message in messages
            for row in outputs_of(self.asked["outputs"], partition, message.offset, message.key)
        ]
        send = self._send_batches if self.asked.get("by_hand") else self._send
        await send(producer, partition, rows)

    async def _send_writes(
        self, producer: AIOKafkaProducer, partition: int, messages: list[Any]
    ) -> None:
        """As many records of the same sizes as another program wrote."""
        sent = [
            await producer.send(
                one.topic, one.value, message.key, partition=partition, headers=one.made_headers
            )
            for message in messages
            for one in self.writes
            for _ in range(one.times())
        ]
        await asyncio.gather(*sent)

    async def _send(self, producer: AIOKafkaProducer, partition: int, rows: list[Row]) -> None:
        """As everybody writes it."""
        sent = [
            await producer.send(topic, value, key, partition=partition)
            for topic, key, value in rows
        ]
        await asyncio.gather(*sent)

    async def _send_batches(
        self, producer: AIOKafkaProducer, partition: int, rows: list[Row]
    ) -> None:
        """Whole batches, made by hand: no future and no task switch per record."""
        open_batches: dict[str, Any] = {}
        sent = []
        for topic, key, value in rows:
            batch = open_batches.get(topic)
            if batch is None or batch.append(key=key, value=value, timestamp=None) is None:
                if batch is not None:
                    sent.append(await producer.send_batch(batch, topic, partition=partition))
                batch = open_batches[topic] = producer.create_batch()
                batch.append(key=key, value=value, timestamp=None)
        for topic, batch in open_batches.items():
            sent.append(await producer.send_batch(batch, topic, partition=partition))
        await asyncio.gather(*sent)


async def main() -> None:
    """aiokafka's clients must be made inside a running loop."""
    await Loop().run()


if __name__ == "__main__":
    asyncio.run(main())
