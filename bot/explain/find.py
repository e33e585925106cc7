"""Finding the decision that somebody asks about, on the audit topics, newest first.

In: a word (the id of a decision or of a reply, the URI of a post or message, or a place such as
``feed.mentions/2/4711``) and a bounded reader. Out: the decision. The topics are read in
stretches from their ends backwards, since what is asked about is mostly of today, and no further
than to the decision itself. What is there but can't be read is told as that: of another schema,
or torn. Nothing is written and no group is joined. Next: ``bot/explain/gather.py``.
"""

import functools
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from bot.errors import Trouble
from bot.explain.case import PRIVATE_AUDIT, PUBLIC_AUDIT, Decided, decided_of, said_of
from bot.observe import AUDIT_TOPICS, REPLY_TOPICS, Position
from consumers.errors import RangeGone
from consumers.reader import Bound, Progress, Range
from schemas.codec import Undecodable
from schemas.codes import ErrorCode, Outcome
from schemas.fields import check_id, format_time
from schemas.record import Record
from schemas.topics import TOPICS

FIRST_STRETCH = 1_000  # offsets of each partition that are read at first
GROWTH = 4  # each further stretch is so many times as long
LONGEST_STRETCH = 64_000
OLDEST = 100  # offsets at the start of a partition that are looked at for its oldest record

Tell = Callable[[str, Progress], None]
"""Told the topic and how far it is read."""


class Reader(Protocol):
    """``consumers.reader.RangeReader``, as far as it is needed here."""

    async def bounds(self, span: Range) -> dict[int, tuple[int, int]]: ...

    def read(
        self, span: Range, progress: Callable[[Progress], None] = ...
    ) -> AsyncIterator[Record]: ...


@dataclass(frozen=True)
class Subject:
    """What is asked about; ``place`` is there where the word is one."""

    word: str
    place: Position | None = None

    @classmethod
    def of(cls, word: str) -> "Subject":
        """Raises ``Trouble`` for what can be neither an id nor a place."""
        try:
            check_id(word.strip() and word)
        except ValueError:
            todo = "Name the id of a decision or a reply, a URI, or topic/partition/offset."
            what = "that is no id and no URI."
            raise Trouble(what, where="twite explain", todo=todo, status=2) from None
        try:
            place = Position.parse(word)
        except ValueError:
            return cls(word)
        return cls(word, place if place.topic in TOPICS else None)

    @functools.cached_property
    def needle(self) -> bytes:
        """What the bytes of a record hold that may be meant, as our own encoder writes it."""
        place = self.place
        if place is None:
            return json.dumps(self.word, ensure_ascii=False).encode()
        return (
            f'"topic":"{place.topic}","partition":{place.partition},"offset":{place.offset},'
        ).encode()

    def may_be_in(self, record: Record) -> bool:
        """Whether a record has to be looked at: cheaper than to read it."""
        named = ("ce_id", self.word.encode())  # also where the value is torn
        return self.needle in (record.value or b"") or named in record.headers

    def means(self, decided: Decided) -> bool:
        """Whether this decision is asked about."""
        if self.place is not None:
            return self.place in (decided.input, decided.at)
        data = decided.data
        named = {data.decision_id, *data.reply_ids}
        return self.word in named or bool(data.source_ref and data.source_ref.uri == self.word)

    def settles(self, decided: Decided) -> bool:
        """Whether nothing older can be meant: of a post or a reply, the decision that answered."""
        exactly = self.place is not None or self.word == decided.data.decision_id
        return exactly or decided.data.outcome is Outcome.REPLIED


@dataclass(slots=True)
class Hits:
    """What was found so far, newest first within a partition; ``broken``: what can't be read."""

    found: list[Decided] = field(default_factory=list)
    broken: list[tuple[Position, str]] = field(default_factory=list)

    def add(self, record: Record, subject: Subject) -> None:
        """Take in a record whose bytes hold what is asked about."""
        try:
            decided = decided_of(record)
        except Undecodable as error:
            self.broken.append((Position.of(record), _what_is_wrong(error)))
            return
        if decided is not None and subject.means(decided):
            self.found.append(decided)

    def settled(self, subject: Subject) -> Decided | None:
        """The newest that settles it."""
        settling = [one for one in self.found if subject.settles(one)]
        return max(settling, key=_age, default=None)

    @property
    def newest(self) -> Decided | None:
        return max(self.found, key=_age, default=None)


async def find(
    reader: Reader,
    subject: Subject,
    *,
    private: bool = False,
    since_ms: int | None = None,
    tell: Tell = lambda topic, progress: None,
) -> Decided:
    """The decision that is asked about. ``private``: ``bot.audit-private`` is read as well;
    ``since_ms``: no further back than this, by Kafka's time. Raises ``Trouble``."""
    subject = await _resolved(reader, subject, private=private)
    hits = await look(reader, subject, private=private, since_ms=since_ms, tell=tell)
    if found := hits.settled(subject) or hits.newest:
        return found
    raise await _not_found(reader, subject, hits, private=private, since_ms=since_ms)


async def look(
    reader: Reader,
    subject: Subject,
    *,
    private: bool,
    since_ms: int | None,
    tell: Tell = lambda topic, progress: None,
) -> Hits:
    """Everything that is read until the decision is there. Raises ``TopicMissing``."""
    hits = Hits()
    for topic in AUDIT_TOPICS if private else (PUBLIC_AUDIT,):
        await _search(reader, topic, subject, since_ms, hits, tell)
        if hits.settled(subject):
            break
    return hits


async def _resolved(reader: Reader, subject: Subject, *, private: bool) -> Subject:
    """A place of a reply or of a decision names the decision that stands behind it."""
    place = subject.place
    if place is None or place.topic not in (*AUDIT_TOPICS, *REPLY_TOPICS):
        return subject
    if TOPICS[place.topic].private and not private:
        todo = "--private reads what is not public or unlisted."
        raise Trouble("that stands on a private topic.", where=str(place), todo=todo)
    record = await read_one(reader, place)
    if record is None:
        raise Trouble("no record stands there (any more).", where=str(place))
    try:
        told = decided_of(record) if place.topic in AUDIT_TOPICS else said_of(record)
    except Undecodable as error:
        raise Trouble(_what_is_wrong(error), where=str(place)) from None
    if told is None:
        raise Trouble("that is no decision and no reply.", where=str(place))
    return Subject(told.data.decision_id)


async def read_one(reader: Reader, place: Position) -> Record | None:
    """The record at a place; none where it is gone, or no record stands there."""
    bounds = Bound({place.partition: place.offset}), Bound({place.partition: place.offset + 1})
    try:
        async for record in reader.read(Range(place.topic, (place.partition,), *bounds)):
            return record
    except RangeGone:
        return None
    return None


async def _search(
    reader: Reader,
    topic: str,
    subject: Subject,
    since_ms: int | None,
    hits: Hits,
    tell: Tell,
) -> None:
    """Reads backwards until the decision is there, or the beginning is reached."""
    bounds = await reader.bounds(_span(topic, subject, since_ms))
    total, before = sum(end - start for start, end in bounds.values()), 0
    for stretch in stretches(bounds):
        told = functools.partial(_tell_on, tell, topic, before, total)
        async for record in read(reader, topic, stretch, told):
            if subject.may_be_in(record):
                hits.add(record, subject)
        if hits.settled(subject):
            return
        before += sum(end - start for start, end in stretch.values())


def _tell_on(tell: Tell, topic: str, before: int, total: int, progress: Progress) -> None:
    tell(topic, Progress(before + progress.done, total))


def _span(topic: str, subject: Subject, since_ms: int | None) -> Range:
    """A decision stands in the partition of its input."""
    partitions = None if subject.place is None else (subject.place.partition,)
    return Range(topic, partitions, start=Bound(timestamp_ms=since_ms))


def stretches(bounds: Mapping[int, tuple[int, int]]) -> Iterator[dict[int, tuple[int, int]]]:
    """All of ``bounds`` in pieces, newest first, of each partition as many offsets as of the
    others, and more with each piece."""
    ends = {partition: end for partition, (_, end) in bounds.items()}
    length = FIRST_STRETCH
    while ends:
        starts = {p: max(bounds[p][0], end - length) for p, end in ends.items()}
        yield {partition: (starts[partition], end) for partition, end in ends.items()}
        ends = {p: start for p, start in starts.items() if start > bounds[p][0]}
        length = min(GROWTH * length, LONGEST_STRETCH)


async def read(
    reader: Reader,
    topic: str,
    stretch: Mapping[int, tuple[int, int]],
    progress: Callable[[Progress], None] = lambda progress: None,
) -> AsyncIterator[Record]:
    """The records of a stretch. What retention takes away meanwhile was the oldest anyway."""
    starts = {partition: start for partition, (start, _) in stretch.items()}
    ends = {partition: end for partition, (_, end) in stretch.items()}
    try:
        span = Range(topic, tuple(stretch), Bound(starts), Bound(ends))
        async for record in reader.read(span, progress):
            yield record
    except RangeGone:
        return


async def _not_found(
    reader: Reader, subject: Subject, hits: Hits, *, private: bool, since_ms: int | None
) -> Trouble:
    """Why there is nothing to explain, and what to do."""
    if hits.broken:
        place, wrong = hits.broken[0]
        todo = "A Twite of the version that wrote it may read it."
        return Trouble(f"what stands there names it, but {wrong}", where=str(place), todo=todo)
    topics = AUDIT_TOPICS if private else (PUBLIC_AUDIT,)
    kept = "" if since_ms is not None else await _kept(reader, topics)
    what = f"no decision on {' and '.join(topics)} names it.{kept}"
    return Trouble(what, where=subject.word, todo=" ".join(_advice(private, since_ms)))


def _advice(private: bool, since_ms: int | None) -> Sequence[str]:
    advice = ["Is it still waiting for its answer?"]
    if since_ms is not None:
        advice.append("An earlier --since, or none, looks further back.")
    if not private:
        advice.append(
            f"What is not public or unlisted is decided on {PRIVATE_AUDIT}: --private looks there."
        )
    return advice


async def _kept(reader: Reader, topics: Sequence[str]) -> str:
    """How far back the topics go, by the time of their oldest records."""
    oldest = []
    for topic in topics:
        bounds = await reader.bounds(Range(topic))
        first = {p: (start, min(end, start + OLDEST)) for p, (start, end) in bounds.items()}
        if first:
            oldest += [record.timestamp_ms async for record in read(reader, topic, first)]
    if not oldest:
        return ""
    since = format_time(datetime.fromtimestamp(min(oldest) // 1000, UTC))
    return f" Decisions are kept there since {since}: older ones are past retention."


def _what_is_wrong(error: Undecodable) -> str:
    if error.code is ErrorCode.UNSUPPORTED_VERSION:
        return "it is of a version of the schema that this Twite does not know."
    return f"it can't be read: {error.code} ({error.detail}). It is torn, or was edited."


def _age(decided: Decided) -> tuple[int, int]:
    return decided.record.timestamp_ms, decided.record.offset
