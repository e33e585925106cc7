"""Which decisions are made again, and in which order: found once, before the first is.

In: ``Wanted`` and a log. Out: ``Plan``, a line for each decision that is meant. Guaranteed: what
was asked for by its id and is nowhere, and records of the audit that nobody can read, are in it
as well, with why; the order is that in which the views moved on, partition by partition, so that
``rebuilt`` can go along with them. Next: ``bot/replay/run.py``.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bot.errors import Trouble
from bot.observe import AUDIT_TOPICS, Position
from bot.replay.log import Held, Log, fetch
from bot.replay.wanted import Stretch, Wanted
from bot.values import Source, written
from consumers.errors import TopicMissing
from consumers.reader import Bound, Range
from schemas.audit import DecisionRecorded
from schemas.codec import Undecodable, decode
from schemas.codes import ErrorCode
from schemas.record import Record
from schemas.replays import NotReplayed

AT_ONCE = 1000  # inputs that are looked at together, to find who asked
_OLDER = frozenset({ErrorCode.UNSUPPORTED_VERSION, ErrorCode.UNKNOWN_TYPE})
Tell = Callable[[int], None]
"""Hears how many records were read so far."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One decision. ``at``: its record, none where there is none; ``origin``: its input;
    ``order``: the sum of the offsets of all views that it read; ``why``: known already why it
    can't be replayed."""

    decision_id: str
    at: Position | None
    origin: Position | None = None
    order: int = 0
    why: NotReplayed | None = None

    def to_json(self) -> list[Any]:
        """For a line of a file."""
        at, origin = (str(p) if p else None for p in (self.at, self.origin))
        return [self.decision_id, at, origin, self.order, self.why.value if self.why else None]

    @classmethod
    def from_json(cls, value: Sequence[Any]) -> "Planned":
        """The other way. Raises ``ValueError``."""
        decision, at, origin, order, why = value
        return cls(
            decision,
            Position.parse(at) if at else None,
            Position.parse(origin) if origin else None,
            order,
            NotReplayed(why) if why else None,
        )


@dataclass(slots=True)
class Plan:
    """``unread``: records of the audit of which nobody can tell whether they are meant."""

    entries: list[Planned] = field(default_factory=list)
    unread: int = 0


async def make_plan(log: Log, held: Held, wanted: Wanted, tell: Tell = lambda read: None) -> Plan:
    """Reads the audit topics once. Raises ``Trouble``, and ``RangeGone`` for a range of the audit
    that is not there any more."""
    for stretch in wanted.stretches:
        await _require_there(held, stretch)
    plan, missing, open_authors = Plan(), set(wanted.ids), list[Planned]()
    read = 0
    async for record in _audit(log, wanted):
        read += 1
        tell(read)
        if not wanted.may_hold(record):
            continue
        decision = _decision(record)
        if isinstance(decision, NotReplayed):
            _take_unread(plan, wanted, record, decision, missing)
        elif wanted.holds(decision, record):
            missing.difference_update(wanted.named_by(decision))
            is_theirs = wanted.by_author(decision)
            if is_theirs is not False:
                (plan.entries if is_theirs else open_authors).append(_planned(decision, record))
    plan.entries += [one async for one in _theirs(log, held, open_authors, wanted)]
    plan.entries.sort(key=_order)
    plan.entries += [Planned(one, None, why=NotReplayed.UNKNOWN_ID) for one in sorted(missing)]
    return plan


def chunks(entries: Iterable[Planned], size: int, span: int) -> Iterator[list[Planned]]:
    """Neighbours of one partition, at most ``size``, and as far apart as ``span`` records of what
    the views read."""
    chunk: list[Planned] = []
    for entry in entries:
        if chunk and (
            len(chunk) >= size
            or _partition(entry) != _partition(chunk[0])
            or entry.order - chunk[0].order > span
        ):
            yield chunk
            chunk = []
        chunk.append(entry)
    if chunk:
        yield chunk


def _order(entry: Planned) -> tuple[int, int, int]:
    return _partition(entry), entry.order, entry.at.offset if entry.at else 0


def _partition(entry: Planned) -> int:
    """All topics of a conversation meet in the partition of the same number."""
    return entry.at.partition if entry.at else -1


async def _audit(log: Log, wanted: Wanted) -> AsyncIterator[Record]:
    """The records of the audit topics that can be meant. Raises ``RangeGone``."""
    for span in _spans(wanted):
        try:
            async for record in log.read(span):
                if _in_time(record, wanted):
                    yield record
        except TopicMissing:
            if span.topic == AUDIT_TOPICS[0]:
                raise


def _spans(wanted: Wanted) -> list[Range]:
    audits = [s for s in wanted.stretches if s.topic in AUDIT_TOPICS]
    if audits and len(audits) == len(wanted.stretches):
        return [_span(stretch) for stretch in audits]
    bounds = Bound(timestamp_ms=wanted.since_ms), Bound(timestamp_ms=wanted.until_ms)
    return [Range(topic, None, *bounds) for topic in AUDIT_TOPICS]


def _span(stretch: Stretch) -> Range:
    partition = stretch.partition
    start = Bound() if stretch.first is None else Bound({partition: stretch.first})
    end = Bound() if stretch.last is None else Bound({partition: stretch.last + 1})
    return Range(stretch.topic, (partition,), start, end)


def _in_time(record: Record, wanted: Wanted) -> bool:
    since, until = wanted.since_ms, wanted.until_ms
    after = since is None or record.timestamp_ms >= since
    return after and (until is None or record.timestamp_ms < until)


async def _require_there(held: Held, stretch: Stretch) -> None:
    """Raises ``Trouble`` where nothing of a range can be there."""
    there = (await held.bounds(stretch.topic)).get(stretch.partition)
    if there is None and stretch.topic not in AUDIT_TOPICS:
        return  # all inputs are gone; decisions on them may be there
    first, end = there or (0, 0)
    if (stretch.first or 0) < end:
        return  # what of it is gone, the reader or each result tells
    held_now = f"it holds {first} to {end - 1}" if end > first else "it holds nothing"
    raise Trouble(
        f"there is no such record: {held_now} now.",
        where=str(stretch),
        todo="Name offsets that the log has; what is older than a topic's retention.ms is gone.",
    )


def _decision(record: Record) -> DecisionRecorded | NotReplayed:
    try:
        data = decode(record).data
    except Undecodable as error:
        return NotReplayed.OLDER_SCHEMA if error.code in _OLDER else NotReplayed.TORN_RECORD
    return data if isinstance(data, DecisionRecorded) else NotReplayed.TORN_RECORD


def _take_unread(
    plan: Plan, wanted: Wanted, record: Record, why: NotReplayed, missing: set[str]
) -> None:
    at, event = Position.of(record), event_id(record)
    if event in missing:
        missing.discard(event)
    elif not wanted.by_place or not _holds_place(wanted, at):
        plan.unread += 1
        return
    plan.entries.append(Planned(event or str(at), at, why=why))


def _holds_place(wanted: Wanted, at: Position) -> bool:
    stretches = wanted.stretches
    return not stretches or any(s.holds(at.topic, at.partition, at.offset) for s in stretches)


def event_id(record: Record) -> str | None:
    """``ce_id``, also of a record that can't be read; none where it is no text."""
    for name, value in record.headers:
        if name == "ce_id" and value and value.isascii() and len(value) <= 512:
            text = value.decode()
            return text if text.isprintable() else None
    return None


def _planned(decision: DecisionRecorded, record: Record) -> Planned:
    at = decision.input
    origin = Position(at.topic, at.partition, at.offset)
    order = sum(decision.positions.values())
    return Planned(decision.decision_id, Position.of(record), origin, order)


async def _theirs(
    log: Log, held: Held, entries: Sequence[Planned], wanted: Wanted
) -> AsyncIterator[Planned]:
    """Those whose input a wanted author wrote."""
    for start in range(0, len(entries), AT_ONCE):
        some = entries[start : start + AT_ONCE]
        inputs = await fetch(log, held, [one.origin for one in some if one.origin])
        for one in some:
            record = inputs.get(one.origin) if one.origin else None
            if record is not None and _author(record) in wanted.authors:
                yield one


def _author(record: Record) -> str | None:
    try:
        data = decode(record).data
    except Undecodable:
        return None
    post = written(data) if isinstance(data, Source) else None
    return post.author.id if post is not None else None
