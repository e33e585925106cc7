"""Appends inputs at a steady rate and waits for what comes of each: a reply, or itself.

With ``plain`` in its spec it reads the records that it appended itself: the plain round trip
that P5 compares with. Else it reads the replies to them, under ``read_committed``. Tells
``done`` with one delay per input, in ms: from the call of ``send``, and from when the broker
appended it (by its own clock, in whole ms, so up to 1 ms more than it was).
"""

import asyncio
import time
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from tests.bench.kafka import PARTITIONS, Input
from tests.bench.programs.toy import spec, tell

TAIL_S = 30.0  # how long the last replies may take


class RoundTrip:
    """One run: ``rate`` inputs a second for ``seconds``."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self.asked = asked
        self.count = int(asked["rate"] * asked["seconds"])
        self.called: dict[tuple[int, int], float] = {}
        self.appended: dict[tuple[int, int], float] = {}
        self.seen: dict[tuple[int, int], float] = {}
        bootstrap = asked["bootstrap"]
        self.producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True)
        self.consumer = AIOKafkaConsumer(
            bootstrap_servers=bootstrap,
            isolation_level="read_committed",
            enable_auto_commit=False,
        )

    async def run(self) -> None:
        await self.producer.start()
        await self.consumer.start()
        topic = self.asked["source"] if self.asked.get("plain") else self.asked["outputs"][0]
        sources = [TopicPartition(topic, partition) for partition in range(PARTITIONS)]
        self.consumer.assign(sources)
        for source, end in (await self.consumer.end_offsets(sources)).items():
            self.consumer.seek(source, end)
        reading = asyncio.create_task(self._read(), name="read")
        await self._append_all()
        async with asyncio.timeout(TAIL_S):
            await reading
        self._tell()
        await self.consumer.stop()
        await self.producer.stop()

    async def _append_all(self) -> None:
        """Evenly spaced; a late one does not delay the next."""
        start = time.perf_counter()
        acknowledged = []
        for i in range(self.count):
            wait = start + i / self.asked["rate"] - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            acknowledged.append(asyncio.ensure_future(self._append(Input(lane=i % 997))))
        await asyncio.gather(*acknowledged)

    async def _append(self, item: Input) -> None:
        called = time.time()
        metadata = await self.producer.send_and_wait(
            self.asked["source"], item.value, item.key, partition=item.lane % PARTITIONS
        )
        place = metadata.partition, metadata.offset
        self.called[place] = called
        self.appended[place] = metadata.timestamp / 1000

    async def _read(self) -> None:
        plain = self.asked.get("plain")
        while len(self.seen) < self.count:
            found = await self.consumer.getmany(timeout_ms=200)
            now = time.time()
            for messages in found.values():
                for message in messages:
                    if plain:
                        place = message.partition, message.offset
                    else:
                        partition, _, offset = message.value.split(b" ")[0].partition(b"/")
                        place = int(partition), int(offset)
                    self.seen.setdefault(place, now)

    def _tell(self) -> None:
        skip = self.count // 10  # connections and caches warm up meanwhile
        places = sorted(self.called, key=lambda place: self.called[place])[skip:]
        tell(
            "done",
            from_send_ms=[1000 * (self.seen[p] - self.called[p]) for p in places],
            from_append_ms=[1000 * (self.seen[p] - self.appended[p]) for p in places],
        )


async def main() -> None:
    """One run."""
    await RoundTrip(spec()).run()


if __name__ == "__main__":
    asyncio.run(main())
