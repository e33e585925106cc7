"""What became of an input: decisions, replies and dead letters read back from their topics.

An input may also be a review (``bot/reviews.py``): what its decision corrected and took back
stands beside it as ``changes``.

A reader looks at all outcome topics without a group, sees committed records only, and starts
where they ended before the input was published, so it misses nothing. Records go through
``Outcomes``, which joins a decision with its replies or its dead letter by ids, whatever order
they arrive in, and counts what came twice. The demo, ``twite mention`` and ``twite dm`` print
what it gives.
"""

import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Self

from aiokafka import AIOKafkaConsumer, TopicPartition

from bot.clients import consumer, require_topics
from bot.settings import KafkaSettings
from consumers.records import to_record
from schemas import names
from schemas.audit import DecisionRecorded
from schemas.codec import Undecodable, decode
from schemas.codes import Outcome as Kind
from schemas.dead_letters import parse_redrive_mark
from schemas.record import Record
from schemas.replies import ReplyCorrected, ReplyCreated, ReplyRetracted

REPLY_TOPICS = (names.BOT_REPLIES, names.BOT_DIRECT_REPLIES)
AUDIT_TOPICS = (names.BOT_AUDIT, names.BOT_AUDIT_PRIVATE)
DEAD_LETTER_TOPICS = (names.BOT_DEAD_LETTERS, names.BOT_DEAD_LETTERS_PRIVATE)
OUTCOME_TOPICS = (*REPLY_TOPICS, *AUDIT_TOPICS, *DEAD_LETTER_TOPICS)

POLL_MS = 100


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where a record stands."""

    topic: str
    partition: int
    offset: int

    @classmethod
    def of(cls, record: Record) -> Self:
        return cls(record.topic, record.partition, record.offset)

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``topic/partition/offset``. Raises ``ValueError``."""
        topic, partition, offset = text.rsplit("/", 2)
        return cls(topic, int(partition), int(offset))

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply, and where it stands."""

    data: ReplyCreated
    at: Position


@dataclass(frozen=True, slots=True)
class Change:
    """A correction or retraction of a reply, and where it stands."""

    data: ReplyCorrected | ReplyRetracted
    at: Position


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What the headers of a dead letter say; the record itself stays where it is."""

    code: str
    detail: str
    attempts: str
    at: Position


@dataclass(frozen=True, slots=True)
class Outcome:
    """The one outcome of an input: its decision at ``at``, with what belongs to it."""

    input: Position
    decision: DecisionRecorded
    at: Position
    replies: tuple[Reply, ...] = ()
    dead_letter: DeadLetter | None = None
    changes: tuple[Change, ...] = ()


@dataclass(slots=True)
class Outcomes:
    """Joins records into outcomes. ``decisions`` and ``dead_letters`` count by input,
    ``replies`` by reply id, ``corrections`` by reply id and decision, ``retractions`` by reply
    id: whatever is above 1 happened twice."""

    decisions: Counter[Position] = field(default_factory=Counter)
    replies: Counter[str] = field(default_factory=Counter)
    corrections: Counter[str] = field(default_factory=Counter)
    retractions: Counter[str] = field(default_factory=Counter)
    dead_letters: Counter[Position] = field(default_factory=Counter)
    unreadable: list[Position] = field(default_factory=list)
    _replies: dict[str, Reply] = field(default_factory=dict)
    _changes: dict[tuple[str, str], Change] = field(default_factory=dict)  # by reply, decision
    _letters: dict[Position, DeadLetter] = field(default_factory=dict)
    _waiting: dict[Position, tuple[DecisionRecorded, Position]] = field(default_factory=dict)
    _inputs: dict[str, Position] = field(default_factory=dict)  # by decision id

    def add(self, record: Record) -> list[Outcome]:
        """Take in one record; the outcomes that are whole with it."""
        letter = record.topic in DEAD_LETTER_TOPICS
        origin = self._add_letter(record) if letter else self._add_event(record)
        outcome = self._join(origin) if origin in self._waiting else None
        if outcome is None:
            return []
        del self._waiting[outcome.input]
        return [outcome]

    @property
    def torn(self) -> list[Position]:
        """Inputs with a decision whose replies or dead letter are not there."""
        return sorted(self._waiting)

    @property
    def doubles(self) -> list[str]:
        """Everything that is there more than once."""
        counts: tuple[Counter[Position] | Counter[str], ...] = (
            self.decisions,
            self.replies,
            self.dead_letters,
            self.corrections,
            self.retractions,
        )
        return [f"{key} ({n} times)" for count in counts for key, n in count.items() if n > 1]

    def times(self, changed: ReplyCorrected | ReplyRetracted) -> int:
        """How often a correction or retraction is there."""
        if isinstance(changed, ReplyRetracted):
            return self.retractions[changed.reply_id]
        return self.corrections[_correction(changed)]

    @property
    def undecided_replies(self) -> list[str]:
        """Replies, corrections and retractions that no decision names."""
        return sorted([*self._replies, *(f"{one} in {by}" for one, by in self._changes)])

    def _add_letter(self, record: Record) -> Position | None:
        if parse_redrive_mark(record):
            return None  # says that an operator had a dead letter's original published again
        headers = {
            name: (value or b"").decode("utf-8", "replace") for name, value in record.headers
        }
        try:
            origin = Position.parse(headers.get("twite_origin", ""))
        except ValueError:
            self.unreadable.append(Position.of(record))
            return None
        self.dead_letters[origin] += 1
        self._letters[origin] = DeadLetter(
            headers.get("twite_error_code", "?"),
            headers.get("twite_error_detail", ""),
            headers.get("twite_attempts", "?"),
            Position.of(record),
        )
        return origin

    def _add_event(self, record: Record) -> Position | None:
        try:
            data = decode(record).data
        except Undecodable:
            self.unreadable.append(Position.of(record))
            return None
        if isinstance(data, ReplyCreated):
            self.replies[data.reply_id] += 1
            self._replies[data.reply_id] = Reply(data, Position.of(record))
            return self._inputs.get(data.decision_id)
        if isinstance(data, ReplyCorrected | ReplyRetracted):
            return self._add_change(data, Position.of(record))
        return self._add_decision(data, record) if isinstance(data, DecisionRecorded) else None

    def _add_change(self, data: ReplyCorrected | ReplyRetracted, at: Position) -> Position | None:
        if isinstance(data, ReplyRetracted):
            self.retractions[data.reply_id] += 1
        else:
            self.corrections[_correction(data)] += 1
        self._changes[data.reply_id, data.decision_id] = Change(data, at)
        return self._inputs.get(data.decision_id)

    def _add_decision(self, decision: DecisionRecorded, record: Record) -> Position:
        where = decision.input
        origin = Position(where.topic, where.partition, where.offset)
        self.decisions[origin] += 1
        if self.decisions[origin] == 1:
            self._waiting[origin] = (decision, Position.of(record))
            self._inputs[decision.decision_id] = origin
        return origin

    def _join(self, origin: Position) -> Outcome | None:
        decision, at = self._waiting[origin]
        letter = self._letters.get(origin)
        if decision.outcome is Kind.DEAD_LETTERED and letter is None:
            return None
        keys = [(reply, decision.decision_id) for reply in decision.reply_ids]
        if not all(key in self._changes or key[0] in self._replies for key in keys):
            return None
        changes = tuple(self._changes.pop(key) for key in keys if key in self._changes)
        changed = {change.data.reply_id for change in changes}
        replies = tuple(self._replies.pop(reply) for reply, _ in keys if reply not in changed)
        return Outcome(origin, decision, at, replies, letter, changes)


def _correction(data: ReplyCorrected) -> str:
    """One reply can be corrected by more than one decision."""
    return f"{data.reply_id} in {data.decision_id}"


@dataclass(frozen=True, slots=True)
class OutcomeReader:
    """Reads the outcome topics from fixed starts. Made by ``open_reader``."""

    consumer: AIOKafkaConsumer
    starts: Mapping[TopicPartition, int]

    async def read(self, timeout_ms: int = POLL_MS) -> list[Record]:
        """What is there next, in order within each partition; empty after ``timeout_ms``."""
        batches = await self.consumer.getmany(timeout_ms=timeout_ms)
        return [to_record(message) for batch in batches.values() for message in batch]

    async def read_to_end(self, patience_s: float = 30.0) -> AsyncIterator[Record]:
        """From where the reader stands to what is committed now.

        Raises ``TimeoutError`` when nothing comes for ``patience_s``.
        """
        ends = await self.consumer.end_offsets(list(self.starts))
        progress = time.monotonic()
        while not await self.has_read(ends):
            for record in await self.read():
                progress = time.monotonic()
                yield record
            if time.monotonic() - progress > patience_s:
                raise TimeoutError(f"the outcome topics gave nothing for {patience_s:g} s")

    async def has_read(self, ends: Mapping[TopicPartition, int]) -> bool:
        """Whether it stands at these offsets or behind them."""
        return not [place for place, end in ends.items() if await self._position(place) < end]

    async def _position(self, place: TopicPartition) -> int:
        position: int = await self.consumer.position(place)
        return position


@asynccontextmanager
async def open_reader(
    kafka: KafkaSettings,
    starts: Mapping[TopicPartition, int] | None = None,
    topics: Sequence[str] = OUTCOME_TOPICS,
) -> AsyncIterator[OutcomeReader]:
    """A reader from ``starts``, or from the present ends.

    Raises ``BrokerUnreachable`` and ``TopicMissing``.
    """
    counts = await require_topics(kafka, list(topics))
    places = [TopicPartition(topic, p) for topic, count in counts.items() for p in range(count)]
    async with consumer(kafka) as client:
        client.assign(places)
        begin = dict(starts or await client.end_offsets(places))
        for place, offset in begin.items():
            client.seek(place, offset)
        yield OutcomeReader(client, begin)


async def read_all(kafka: KafkaSettings, starts: Mapping[TopicPartition, int]) -> Outcomes:
    """Everything committed since ``starts``, read anew: what the demo counts in the end."""
    outcomes = Outcomes()
    begin = {place: start for place, start in starts.items() if place.topic in OUTCOME_TOPICS}
    async with open_reader(kafka, begin) as reader:
        async for record in reader.read_to_end():
            outcomes.add(record)
    return outcomes


async def wait_for(
    reader: OutcomeReader, outcomes: Outcomes, origin: Position, timeout_s: float
) -> Outcome | None:
    """The outcome of one input, or None when ``timeout_s`` is over."""
    give_up_at = time.monotonic() + timeout_s
    while time.monotonic() < give_up_at:  # a cancelled getmany would lose records
        for record in await reader.read():
            for outcome in outcomes.add(record):
                if outcome.input == origin:
                    return outcome
    return None
