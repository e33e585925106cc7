"""Mentions the bot at a steady rate, deletes some of what was answered, waits for retractions.

Of every ``every`` mentions one is deleted, ``rest_s`` seconds after its reply was read. Tells
``done`` with one delay per deletion, in ms: from the call of ``send``, and from when the broker
appended it (by its own clock, in whole ms), until the retraction was read under
``read_committed``. ``doubled``: retractions that came twice.
"""

import asyncio
import json
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from bot.events import SOURCE, Person, addressed, mention, post
from bot.settings import BotSettings
from schemas import codec, names
from schemas.envelope import Envelope
from schemas.feed import DeletedBy, Post, PostDeleted
from schemas.record import Output
from tests.bench.kafka import PARTITIONS
from tests.bench.programs.toy import spec, tell

TAIL_S = 60.0  # how long the last retractions may take
THREADS = 997


class Deleting:
    """One run: ``rate`` mentions a second for ``seconds``."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self.asked = asked
        self.count = int(asked["rate"] * asked["seconds"])
        self.bot = BotSettings()
        self.waiting: dict[str, tuple[Post, int]] = {}  # to be deleted once answered, by URI
        self.replies: dict[str, str] = {}  # URI by reply id
        self.called: dict[str, float] = {}
        self.appended: dict[str, float] = {}
        self.seen: Counter[str] = Counter()
        self.seen_at: dict[str, float] = {}
        self.deleting: set[asyncio.Task[None]] = set()
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
        sources = [TopicPartition(names.BOT_REPLIES, partition) for partition in range(PARTITIONS)]
        self.consumer.assign(sources)
        for source, end in (await self.consumer.end_offsets(sources)).items():
            self.consumer.seek(source, end)
        reading = asyncio.create_task(self._read(), name="read")
        await self._mention_all()
        async with asyncio.timeout(TAIL_S):
            await reading
        self._tell()
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
            if i % self.asked["every"] == 0:
                self.waiting[asking.uri] = asking, i % THREADS
            await self._send(mentioning(self.bot, asking), i % THREADS)

    def _asking(self, number: int) -> Post:
        lane, run = number % THREADS, self.asked["name"]
        text, facets = addressed(self.bot, f"what would you look at first here? ({number})")
        return post(
            Person(f"acct:{lane}", f"asker{lane}"),
            text,
            conversation_id=f"{run}:{lane}",
            facets=facets,
            uri=f"{run}:{lane}:{number}",
        )

    async def _send(self, output: Output, lane: int) -> Any:
        return await self.producer.send(
            output.topic,
            output.value,
            output.key,
            partition=lane % PARTITIONS,
            headers=list(output.headers),
        )

    async def _read(self) -> None:
        wanted = -(-self.count // self.asked["every"])
        while len(self.seen) < wanted:
            found = await self.consumer.getmany(timeout_ms=100)
            now = time.time()
            for messages in found.values():
                for message in messages:
                    self._take(dict(message.headers)["ce_type"].decode(), message.value, now)

    def _take(self, kind: str, value: bytes, now: float) -> None:
        data = json.loads(value)
        if kind == names.REPLY_CREATED:
            uri = data["in_reply_to"]["uri"]
            if (waiting := self.waiting.pop(uri, None)) is not None:
                self.replies[data["reply_id"]] = uri
                task = asyncio.create_task(self._delete(*waiting), name="delete")
                self.deleting.add(task)
                task.add_done_callback(self.deleting.discard)
        elif kind == names.REPLY_RETRACTED:
            uri = self.replies[data["reply_id"]]
            self.seen[uri] += 1
            self.seen_at.setdefault(uri, now)

    async def _delete(self, asking: Post, lane: int) -> None:
        await asyncio.sleep(self.asked["rest_s"])
        output = deletion(asking)
        self.called[asking.uri] = time.time()
        appended = await (await self._send(output, lane))
        self.appended[asking.uri] = appended.timestamp / 1000

    def _tell(self) -> None:
        skip = len(self.called) // 10  # connections and caches warm up meanwhile
        uris = sorted(self.called, key=lambda uri: self.called[uri])[skip:]
        tell(
            "done",
            from_send_ms=[1000 * (self.seen_at[uri] - self.called[uri]) for uri in uris],
            from_append_ms=[1000 * (self.seen_at[uri] - self.appended[uri]) for uri in uris],
            doubled=sum(count > 1 for count in self.seen.values()),
        )


def mentioning(bot: BotSettings, asking: Post) -> Output:
    event = mention(bot, asking)
    return codec.encode(names.FEED_MENTIONS, asking.conversation_id, event.envelope, event.data)


def deletion(asking: Post) -> Output:
    """The event that tells of it."""
    now = datetime.now(UTC)
    data = PostDeleted(
        ref=asking.ref,
        conversation_id=asking.conversation_id,
        deleted_by=DeletedBy.AUTHOR,
        deleted_at=now,
    )
    event = Envelope(id=f"{asking.uri}#deleted", source=SOURCE, type=names.POST_DELETED, time=now)
    return codec.encode(names.FEED_POSTS, asking.conversation_id, event, data)


async def main() -> None:
    """One run."""
    await Deleting(spec()).run()


if __name__ == "__main__":
    asyncio.run(main())
