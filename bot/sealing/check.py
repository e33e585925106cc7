"""Whether a partition of the audit is what its seals say it was.

In: the seals of one partition and its records, each in the order of the log. Out: ``Verdict``: how
many hold, every record that was changed, removed or put in, every break of the chain, what nobody
sealed yet, and from where on it holds where retention has taken the front. Nothing of it touches
Kafka: ``bot/sealing/verify.py`` brings both from a cluster or from a file.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from bot.sealing.digests import digest_and_state
from bot.sealing.seals import Head, seal_digest
from schemas.record import Record
from schemas.seals import AuditSealed
from schemas.value import value

MOST_FAULTS: Final = 1_000  # told one by one for each partition; the others are counted


class Wrong(StrEnum):
    """What can be wrong, in words for people."""

    CHANGED = "changed since it was sealed"
    MISSING = "sealed, and gone"
    ADDED = "put in among sealed records"
    OUTSIDE = "stands outside of what the file says it holds"
    BROKEN_SEAL = "a seal was changed"
    BROKEN_LINK = "a seal does not follow the one before"
    NO_SEAL = "no seal stands here, on the topic of seals"
    SEALS_GONE = "the seals of the front are gone, its records are not"


@value
class Fault:
    """``place``: ``topic/partition/offset`` of a record, ``topic/partition seal N`` of a seal."""

    what: Wrong
    place: str


@dataclass
class Verdict:
    """What was found of one partition. ``first``: offset with which its log begins, ``end``: the
    one before which a file ends; ``good``: records that hold, ``erased`` of them without their
    texts; ``cut``: sealed records before ``first``, which retention took; ``unsealed``: proven by
    no seal; ``head``: the end of the chain."""

    topic: str
    partition: int
    first: int
    end: int | None = None
    records: int = 0
    good: int = 0
    erased: int = 0
    cut: int = 0
    unsealed: int = 0
    unsealed_from: int | None = None
    holds_from: int | None = None
    head: Head | None = None
    faulty: int = 0
    faults: list[Fault] = field(default_factory=list)

    def wrong(self, what: Wrong, offset: int | None = None, number: int | None = None) -> None:
        where = f"/{offset}" if number is None else f" seal {number}"
        self.add(Fault(what, f"{self.topic}/{self.partition}{where}"))

    def add(self, fault: Fault) -> None:
        self.faulty += 1
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(fault)


async def check(
    verdict: Verdict,
    seals: AsyncIterator[AuditSealed],
    records: AsyncIterator[Record],
    tell: Callable[[Verdict], None] = lambda verdict: None,
) -> Verdict:
    """Fills ``verdict``. Seals are taken as far as the records have come, so neither side is ever
    held as a whole. ``tell`` is called with every record."""
    found = _Checking(verdict)
    async for record in records:
        while found.sealed_to <= record.offset:
            following = await anext(seals, None)
            if following is None:
                break
            found.seal(following)
        found.record(record)
        tell(verdict)
    async for left in seals:
        found.seal(left)
    found.close()
    return verdict


class _Checking:
    """Both sides, as far as they were read. ``waiting``: sealed, and not met yet."""

    def __init__(self, verdict: Verdict) -> None:
        self._told = verdict
        self._waiting: deque[tuple[int, str]] = deque()
        self._begin = 0  # of the last seal
        self._last = -1  # offset of the record before
        self.sealed_to = 0

    def seal(self, seal: AuditSealed) -> None:
        head = self._told.head
        if seal.digest != seal_digest(seal) or len(seal.offsets) != len(seal.digests):
            self._told.wrong(Wrong.BROKEN_SEAL, number=seal.number)
        if head is not None and not _follows(seal, head):
            self._told.wrong(Wrong.BROKEN_LINK, number=seal.number)
        if head is None:
            self._told.holds_from = max(seal.begin, self._told.first)
            if seal.number and seal.begin > self._told.first:
                self._told.wrong(Wrong.SEALS_GONE, number=seal.number - 1)
        self._told.head = Head.of(seal)
        self._begin = seal.begin
        self._waiting.extend(zip(seal.offsets, seal.digests, strict=False))
        self.sealed_to = max(self.sealed_to, seal.end)

    def record(self, record: Record) -> None:
        self._told.records += 1
        if self._misplaced(record.offset):
            return
        self._miss(record.offset)
        digest, erased = digest_and_state(record)
        if self._waiting and self._waiting[0][0] == record.offset:
            if self._waiting.popleft()[1] == digest:
                self._told.good += 1
                self._told.erased += erased
            else:
                self._told.wrong(Wrong.CHANGED, record.offset)
        elif self._begin <= record.offset < self.sealed_to:
            self._told.wrong(Wrong.ADDED, record.offset)
        else:
            self._unsealed(record.offset)

    def _misplaced(self, offset: int) -> bool:
        """Offsets rise, within what a file says it holds: another was put there."""
        end = self._told.end
        if offset <= self._last:
            self._told.wrong(Wrong.ADDED, offset)
        elif end is not None and not self._told.first <= offset < end:
            self._told.wrong(Wrong.OUTSIDE, offset)
        else:
            self._last = offset
            return False
        return True

    def close(self) -> None:
        """There are no more records."""
        self._miss(None)

    def _unsealed(self, offset: int) -> None:
        self._told.unsealed += 1
        if self._told.unsealed_from is None:
            self._told.unsealed_from = offset

    def _miss(self, before: int | None) -> None:
        """Sealed offsets below ``before`` (None: all) that no record stands at."""
        while self._waiting and (before is None or self._waiting[0][0] < before):
            offset, _ = self._waiting.popleft()
            if offset < self._told.first:
                self._told.cut += 1
            elif self._told.end is None or offset < self._told.end:
                self._told.wrong(Wrong.MISSING, offset)


def _follows(seal: AuditSealed, head: Head) -> bool:
    return (seal.number, seal.begin, seal.previous) == (head.number + 1, head.end, head.digest)
