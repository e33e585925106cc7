"""What follows from an edit or a deletion: the reviews of the replies that were built on it.

In: where such an event stands, and every record of ``bot.references`` and ``bot.reviews`` that
a reader comes across. Out: the reviews that came of it, none where no reply was built on the
post; each review is an input of the bot, with an outcome of its own. Guaranteed: when
``followed`` returns, nothing more can come of what was published and decided before.

    feed.posts → bot.references → bot.reviews

Each arrow is one transaction: the event is committed together with what was made of it. So an
event that the group has committed has written what follows from it, and that is read up to the
end that the log has then, open transactions included: a broker may tell of a commit before it
shows its records.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from bot.clients import admin, consumer
from bot.observe import OUTCOME_TOPICS, Outcome, OutcomeReader, Outcomes, Position
from bot.settings import KafkaSettings
from schemas.names import BOT_REFERENCES, BOT_REVIEWS, FEED_ACCOUNTS
from schemas.record import Output, Record

TOPICS = (*OUTCOME_TOPICS, BOT_REFERENCES, BOT_REVIEWS)
"""What a reader must read for this."""

Turn = Callable[[], Awaitable[None]]
"""Returns when the reader has read once more. Raises where there is no more patience."""


@dataclass(slots=True)
class Chain:
    """Made by ``open_chain``. ``reviews``: those that were read, each with the id of the event
    that it came of."""

    group: str
    reader: OutcomeReader
    admin: AIOKafkaAdminClient
    ends: AIOKafkaConsumer
    reviews: dict[Position, str] = field(default_factory=dict)
    _references: dict[TopicPartition, int] = field(default_factory=dict)  # behind the last one

    def take(self, record: Record) -> bool:
        """A record was read; whether it is one of these topics."""
        if record.topic == BOT_REFERENCES:
            place = TopicPartition(record.topic, record.partition)
            self._references[place] = record.offset + 1
        elif record.topic == BOT_REVIEWS:
            self.reviews[Position.of(record)] = origin_of(record)
        return record.topic in (BOT_REFERENCES, BOT_REVIEWS)

    async def followed(self, events: Iterable[Position], turn: Turn) -> None:
        """Until all reviews are read that come of ``events`` and of what was decided before."""
        await self._committed(_behind(events), turn)
        await self._read(BOT_REFERENCES, turn)
        await self._committed(self._references, turn)
        await self._read(BOT_REVIEWS, turn)

    async def _committed(self, ends: Mapping[TopicPartition, int], turn: Turn) -> None:
        """Until the group has finished everything before these offsets."""
        places = list(ends)
        while places:
            found = await self.admin.list_consumer_group_offsets(self.group, partitions=places)
            places = [place for place in places if found[place].offset < ends[place]]
            if places:
                await turn()

    async def _read(self, topic: str, turn: Turn) -> None:
        """Until everything is read that the topic holds now."""
        places = [place for place in self.reader.starts if place.topic == topic]
        ends = await self.ends.end_offsets(places)
        while not await self.reader.has_read(ends):
            await turn()


@dataclass(slots=True)
class Following:
    """Follows one change to its end, reading by itself. ``until``: of ``time.monotonic``."""

    chain: Chain
    event_id: str
    until: float
    _outcomes: Outcomes = field(default_factory=Outcomes)
    _landed: dict[Position, Outcome] = field(default_factory=dict)

    async def outcomes_of(self, origin: Position) -> list[Outcome] | None:
        """Of the reviews that came of the event at ``origin``; None where there was no more
        time."""
        try:
            await self._follow(origin)
        except TimeoutError:
            return None
        return [self._landed[review] for review in self._reviews()]

    async def _follow(self, origin: Position) -> None:
        events = [] if origin.topic == FEED_ACCOUNTS else [origin]  # that is for views only
        followed = -1
        while followed < len(self._reviews()):
            followed = len(self._reviews())
            await self.chain.followed(events, self._turn)
            while not self._landed.keys() >= set(self._reviews()):
                await self._turn()

    def _reviews(self) -> list[Position]:
        return [at for at, event in self.chain.reviews.items() if event == self.event_id]

    async def _turn(self) -> None:
        if time.monotonic() > self.until:
            raise TimeoutError
        for record in await self.chain.reader.read():
            if not self.chain.take(record):
                self._landed |= {one.input: one for one in self._outcomes.add(record)}


@asynccontextmanager
async def open_chain(kafka: KafkaSettings, reader: OutcomeReader) -> AsyncIterator[Chain]:
    """``reader`` must read ``TOPICS``. Raises ``BrokerUnreachable``."""
    async with admin(kafka) as client, consumer(kafka, committed=False) as ends:
        yield Chain(kafka.group_id, reader, client, ends)


def origin_of(record: Record | Output) -> str:
    """The id of the event that this record came of in the end, itself where it names none."""
    headers = {name: (value or b"").decode("utf-8", "replace") for name, value in record.headers}
    return headers.get("ce_correlationid") or headers.get("ce_id", "")


def _behind(positions: Iterable[Position]) -> dict[TopicPartition, int]:
    ends: dict[TopicPartition, int] = {}
    for one in positions:
        place = TopicPartition(one.topic, one.partition)
        ends[place] = max(ends.get(place, 0), one.offset + 1)
    return ends
