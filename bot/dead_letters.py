"""Dead letters as an operator sees them: found, counted, looked at.

In: what is wanted (topics, places, codes, times) and a bounded reader. Out: one ``Letter`` per
dead letter, without what people wrote, and whether it was re-driven already, which the marks
behind it on its partition say. Next: ``bot/letter_view.py`` shows them, ``bot/redrive.py``
publishes their originals again.
"""

import difflib
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field, replace

from bot.errors import Trouble
from bot.observe import DEAD_LETTER_TOPICS, Position
from consumers.reader import Bound, Range, RangeReader
from schemas import dead_letters
from schemas.codes import ErrorCode
from schemas.dead_letters import parse_dead_letter, parse_redrive_mark
from schemas.record import Record
from schemas.topics import TOPICS


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """What is told of a dead letter; its key, value and headers stay where they are.

    ``at``: where it stands; ``origin``: where its original stands; ``size``: bytes of key,
    value and headers; ``redriven``: the places where its original was published again.
    """

    at: Position
    origin: Position
    code: str
    detail: str
    attempts: int
    timestamp_ms: int
    size: int
    redriven: tuple[str, ...] = ()

    @property
    def private(self) -> bool:
        """Whether it may hold what people wrote in private."""
        return TOPICS[self.at.topic].private


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which dead letters. Nothing given: all. ``places`` are of originals or dead letters;
    ``since_ms`` is included, ``until_ms`` excluded, both by Kafka's time."""

    topics: tuple[str, ...] = DEAD_LETTER_TOPICS
    places: frozenset[Position] = frozenset()
    codes: frozenset[str] = frozenset()
    since_ms: int | None = None
    until_ms: int | None = None
    partition: int | None = None

    @property
    def everything(self) -> bool:
        """Is nothing said about which ones?"""
        asked = (self.places, self.codes, self.since_ms is not None, self.until_ms is not None)
        return not any(asked) and self.partition is None

    def fits(self, letter: Letter) -> bool:
        """Whether this one is among them."""
        return (
            (not self.places or not self.places.isdisjoint((letter.at, letter.origin)))
            and (not self.codes or letter.code in self.codes)
            and (self.until_ms is None or letter.timestamp_ms < self.until_ms)
            and (self.since_ms is None or letter.timestamp_ms >= self.since_ms)
            and self.partition in (None, letter.at.partition)
        )

    def span(self, topic: str) -> Range:
        """What must be read: from the first letter that can fit to the end, where marks are."""
        partitions = {place.partition for place in self.places}
        if self.partition is not None:
            partitions = {self.partition}
        return Range(
            topic, tuple(sorted(partitions)) or None, start=Bound(timestamp_ms=self.since_ms)
        )


@dataclass(slots=True)
class Found:
    """Dead letters by where they stand, in the order of their partitions; ``strange`` counts
    records that are neither dead letters nor marks."""

    letters: dict[Position, Letter] = field(default_factory=dict)
    strange: int = 0

    def add(self, record: Record) -> None:
        """Take in one record of a dead-letter topic."""
        letter = letter_of(record)
        if letter is not None:
            self.letters[letter.at] = letter
        elif mark := parse_redrive_mark(record):
            self._mark(Position.parse(mark.letter), mark.redriven_as)
        else:
            self.strange += 1

    def _mark(self, at: Position, redriven_as: str) -> None:
        letter = self.letters.get(at)
        if letter is not None:
            self.letters[at] = replace(letter, redriven=(*letter.redriven, redriven_as))

    def chosen(self, wanted: Wanted) -> list[Letter]:
        """Those that fit, oldest first."""
        fitting = (letter for letter in self.letters.values() if wanted.fits(letter))
        return sorted(fitting, key=lambda letter: (letter.timestamp_ms, letter.at))

    def require_codes(self, codes: Iterable[str]) -> None:
        """Raises ``Trouble`` for a code that neither the contract nor a dead letter here has."""
        known = {*map(str, ErrorCode), *(letter.code for letter in self.letters.values())}
        for code in sorted(set(codes) - known):
            close = difflib.get_close_matches(code, known, n=1)
            listed = ", ".join(sorted(known))
            todo = f"Did you mean {close[0]}?" if close else f"Known are {listed}."
            raise Trouble(f"there is no error code {code!r}.", where="--code", todo=todo, status=2)


async def find(reader: RangeReader, wanted: Wanted) -> Found:
    """Everything in the range of ``wanted``. Raises ``TopicMissing``, and ``Trouble`` where it
    asks for a code that there is not."""
    found = Found()
    for topic in wanted.topics:
        async for record in reader.read(wanted.span(topic)):
            found.add(record)
    found.require_codes(wanted.codes)
    return found


async def find_named(reader: RangeReader, wanted: Wanted) -> list[Letter]:
    """The dead letters that fit; raises ``Trouble`` where a named place has none."""
    letters = (await find(reader, wanted)).chosen(wanted)
    there = {place for letter in letters for place in (letter.at, letter.origin)}
    if missing := sorted(wanted.places - there):
        raise Trouble(
            f"no dead letter stands or comes from there{_among(wanted)}.",
            where=", ".join(map(str, missing)),
            todo="`twite dead-letters list` shows the places of all that are kept.",
        )
    return letters


def _among(wanted: Wanted) -> str:
    return "" if replace(wanted, places=frozenset()).everything else " among those asked for"


async def read_one(reader: RangeReader, at: Position) -> Record:
    """The record of a dead letter. Raises ``Trouble`` where it is gone."""
    bounds = Bound({at.partition: at.offset}), Bound({at.partition: at.offset + 1})
    async for record in reader.read(Range(at.topic, (at.partition,), *bounds)):
        return record
    raise Trouble("the dead letter is gone.", where=str(at))


async def read_records(
    reader: RangeReader, letters: Iterable[Letter]
) -> AsyncIterator[tuple[Letter, Record]]:
    """The records of the letters, each partition in the order of its offsets."""
    for (topic, partition), wanted in sorted(by_partition(letters).items()):
        bounds = Bound({partition: min(wanted)}), Bound({partition: max(wanted) + 1})
        async for record in reader.read(Range(topic, (partition,), *bounds)):
            if record.offset in wanted:
                yield wanted[record.offset], record


def by_partition(letters: Iterable[Letter]) -> Mapping[tuple[str, int], dict[int, Letter]]:
    """Letters by (topic, partition), then by offset."""
    found: dict[tuple[str, int], dict[int, Letter]] = {}
    for letter in letters:
        found.setdefault((letter.at.topic, letter.at.partition), {})[letter.at.offset] = letter
    return found


def letter_of(record: Record) -> Letter | None:
    """None where the record is no dead letter."""
    try:
        parsed = parse_dead_letter(record)
    except ValueError:
        return None
    return Letter(
        at=Position.of(record),
        origin=Position(parsed.topic, parsed.partition, parsed.offset),
        code=parsed.error_code,
        detail=parsed.error_detail,
        attempts=parsed.attempts,
        timestamp_ms=record.timestamp_ms,
        size=_size(parsed),
    )


def _size(letter: dead_letters.DeadLetter) -> int:
    headers = sum(
        len(name.encode(errors="surrogateescape")) + len(value or b"")
        for name, value in letter.headers
    )
    return len(letter.key or b"") + len(letter.value or b"") + headers
