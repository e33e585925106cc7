"""Mentions of the bot at a steady rate, and what comes on ``bot.replies``: what programs that
measure a whole worker from outside have in common.

In: ``rate`` a second for ``seconds``, and a ``name`` that no other run has. Every mention is in one
of ``THREADS`` conversations, by turns. Times are this machine's, in seconds.
"""

import asyncio
import time
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from bot.events import Person, addressed, mention, post
from bot.settings import BotSettings
from schemas import codec, names
from schemas.feed import Post
from schemas.record import Output
from tests.bench.kafka import PARTITIONS

TAIL_S = 60.0  # how long the last answers may take
THREADS = 997


class Asking:
    """One run. A subclass says in ``take`` what it does with an event of the bot, and in
    ``is_done`` when all that it waits for has come; ``asked_one`` is told of each mention."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self.asked = asked
        self.count = int(asked["rate"] * asked["seconds"])
        self.bot = BotSettings()
        self.producer = AIOKafkaProducer(
            bootstrap_servers=asked["bootstrap"], enable_idempotence=True
        )
        self.consumer = AIOKafkaConsumer(
            bootstrap_servers=asked["bootstrap"],
            isolation_level="read_committed",
            enable_auto_commit=False,
        )

    def is_done(self) -> bool:
        raise NotImplementedError

    def take(self, kind: str, value: bytes, now: float) -> None:
        raise NotImplementedError

    def asked_one(self, number: int, asking: Post) -> None:
        """Before it is sent."""

    async def run(self) -> None:
        """Raises ``TimeoutError`` where something never comes."""
        await self.producer.start()
        await self.consumer.start()
        sources = [TopicPartition(names.BOT_REPLIES, partition) for partition in range(PARTITIONS)]
        self.consumer.assign(sources)
        for source, end in (await self.consumer.end_offsets(sources)).items():
            self.consumer.seek(source, end)
        reading = asyncio.create_task(self._read(), name="read")
        await self._mention_all()
        async with asyncio.timeout(TAIL_S):
            await reading
        await self.consumer.stop()
        await self.producer.stop()

    async def _mention_all(self) -> None:
        """Evenly spaced; a late one does not delay the next."""
        start = time.perf_counter()
        for i in range(self.count):
            wait = start + i / self.asked["rate"] - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            asking = self._asking(i)
            self.asked_one(i, asking)
            await self.send(_mentioning(self.bot, asking), lane_of(i))

    def _asking(self, number: int) -> Post:
        lane, run = lane_of(number), self.asked["name"]
        text, facets = addressed(self.bot, f"what would you look at first here? ({number})")
        return post(
            Person(f"acct:{lane}", f"asker{lane}"),
            text,
            conversation_id=f"{run}:{lane}",
            facets=facets,
            uri=f"{run}:{lane}:{number}",
        )

    async def send(self, output: Output, lane: int) -> Any:
        """A future of where it stands."""
        return await self.producer.send(
            output.topic,
            output.value,
            output.key,
            partition=lane % PARTITIONS,
            headers=list(output.headers),
        )

    async def _read(self) -> None:
        while not self.is_done():
            found = await self.consumer.getmany(timeout_ms=100)
            now = time.time()
            for messages in found.values():
                for message in messages:
                    self.take(dict(message.headers)["ce_type"].decode(), message.value, now)


def lane_of(number: int) -> int:
    return number % THREADS


def _mentioning(bot: BotSettings, asking: Post) -> Output:
    event = mention(bot, asking)
    return codec.encode(names.FEED_MENTIONS, asking.conversation_id, event.envelope, event.data)
