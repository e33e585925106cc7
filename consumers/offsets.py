"""Which records of a partition are finished, and how that fits into a committed offset.

Records finish out of order. What is committed is the first unfinished offset and, in the
commit's metadata, a map of what is finished beyond it, so that after a crash only
unfinished records run again. Kafka allows 4,096 characters of metadata.

The map is a version letter, a codec letter and base64. Version ``1``:

- ``b``: a bitset, least significant bit first; bit *i* is offset + *i*, 1 means finished.
- ``r``: run lengths as LEB128 numbers, unfinished and finished in turn, unfinished first.

The shorter wins. A reader that does not know the version uses the plain offset: work is
done again, nothing is lost.
"""

import base64
import binascii
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

METADATA_LIMIT = 4_096  # characters; Kafka's offset.metadata.max.bytes
INTAKE_SHARE = 0.75
MAX_SPAN = 100_000  # offsets between the first unfinished record and the last one taken in
_VERSION = "1"


@dataclass(frozen=True, slots=True)
class Committed:
    """What a partition's commit says: everything below ``offset`` and in ``ahead`` is done."""

    offset: int
    ahead: frozenset[int] = frozenset()

    def covers(self, offset: int) -> bool:
        """Is this record finished and published?"""
        return offset < self.offset or offset in self.ahead


class OffsetTracker:
    """The records taken in from one partition, in ascending order, and which are finished.

    Offsets that never show up (transaction markers, compacted records) count as finished.
    """

    def __init__(self, committed: Committed) -> None:
        self._skip = set(committed.ahead)
        self._horizon = max(committed.ahead, default=-1) + 1
        self._end = committed.offset
        self._order: deque[int] = deque()
        self._unfinished: set[int] = set()

    @property
    def unfinished(self) -> frozenset[int]:
        """Offsets taken in and not yet published."""
        return frozenset(self._unfinished)

    @property
    def end(self) -> int:
        """One past the last offset taken in."""
        return self._end

    @property
    def reach(self) -> int:
        """One past the last offset that may be committed: taken in here, or by an earlier owner."""
        return max(self._end, self._horizon)

    def is_foreign(self, offset: int) -> bool:
        """Was it not taken in here, nor named by the earlier owner's map?"""
        return offset >= self._end and offset not in self._skip

    @property
    def position(self) -> int:
        """The first unfinished offset: what may be committed."""
        while self._order and self._order[0] not in self._unfinished:
            self._order.popleft()
        return self._order[0] if self._order else self._end

    def take(self, offset: int) -> bool:
        """Take in the next record; False if it was finished by an earlier owner, or is old."""
        if offset < self._end:
            return False
        self._end = offset + 1
        if offset in self._skip:
            self._skip.remove(offset)
            return False
        if self._end >= self._horizon:
            self._skip.clear()  # what is left never shows up: markers, compacted records
        self._order.append(offset)
        self._unfinished.add(offset)
        return True

    def finish(self, offsets: Iterable[int]) -> None:
        """These records are published and committed."""
        self._unfinished.difference_update(offsets)

    def commit_with(self, offsets: Collection[int]) -> tuple[int, str]:
        """Offset and metadata to commit once ``offsets`` are published too; changes nothing."""
        unfinished = sorted(self._unfinished.difference(offsets))
        # What an earlier owner's map named beyond our end must stay in the map.
        end = self.reach
        unfinished += [o for o in range(self._end, end) if o not in self._skip]
        if not unfinished:
            return end, ""
        return unfinished[0], encode_map(unfinished, end)

    @property
    def fill(self) -> float:
        """The share of the metadata that the map may come to need, whatever finishes next."""
        span = self.reach - self.position
        as_bits = span // 8 + 2
        runs = 2 * (len(self._unfinished) + len(self._skip) + 1)
        as_runs = 3 * runs  # a LEB128 number of three bytes holds two million
        text = 2 + 4 * (min(as_bits, as_runs) + 2) // 3
        return max(text / METADATA_LIMIT, INTAKE_SHARE * span / MAX_SPAN)

    @property
    def has_room(self) -> bool:
        """May more be taken in? Whatever finishes next, the map must still fit.

        With nothing in hand there is always room, or a map that is too wide would never end.
        """
        return not self._unfinished or self.fill < INTAKE_SHARE


def encode_map(unfinished: list[int], end: int) -> str:
    """The finished offsets from ``unfinished[0]`` to ``end``, as commit metadata.

    ``unfinished`` ascends. Returns "" where nothing beyond the first is finished, or
    where no encoding fits (then records may run again after a crash, none is lost).
    """
    runs = list(_runs(unfinished, end))
    if len(runs) <= 1:
        return ""
    candidates = [("r", _leb128(runs))]
    if end - unfinished[0] <= METADATA_LIMIT * 6:
        candidates.append(("b", _bits(unfinished, end)))
    kind, data = min(candidates, key=lambda candidate: len(candidate[1]))
    text = _VERSION + kind + base64.b64encode(data).decode("ascii")
    return text if len(text) <= METADATA_LIMIT else ""


def decode_map(offset: int, metadata: str) -> Committed:
    """The commit as a value; metadata that is not ours, or damaged, counts as none."""
    if metadata[:1] != _VERSION or metadata[1:2] not in ("b", "r"):
        return Committed(offset)
    try:
        data = base64.b64decode(metadata[2:], validate=True)
        runs = _from_leb128(data) if metadata[1] == "r" else None
    except (binascii.Error, ValueError):
        return Committed(offset)
    ahead = _ahead_of_bits(data) if runs is None else _ahead_of_runs(runs)
    return Committed(offset, frozenset(offset + distance for distance in ahead))


def _runs(unfinished: list[int], end: int) -> Iterator[int]:
    """Lengths of unfinished and finished runs in turn; a last unfinished run is left out."""
    start = unfinished[0]
    previous = start - 1
    for current in unfinished:
        if current != previous + 1:
            yield previous + 1 - start
            yield current - previous - 1
            start = current
        previous = current
    if end > previous + 1:
        yield previous + 1 - start
        yield end - previous - 1


def _bits(unfinished: list[int], end: int) -> bytes:
    first = unfinished[0]
    bits = bytearray(b"\xff" * ((end - first + 7) // 8))
    for spare in range(end - first, len(bits) * 8):
        bits[spare // 8] &= ~(1 << spare % 8)
    for offset in unfinished:
        bits[(offset - first) // 8] &= ~(1 << (offset - first) % 8)
    return bytes(bits).rstrip(b"\0")


def _leb128(numbers: list[int]) -> bytes:
    out = bytearray()
    for number in numbers:
        while number > 0x7F:
            out.append(number & 0x7F | 0x80)
            number >>= 7
        out.append(number)
    return bytes(out)


def _from_leb128(data: bytes) -> list[int]:
    """Raises ValueError for a number that does not end, or for more than any map spans."""
    numbers: list[int] = []
    number, shift = 0, 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if shift > 28:
            raise ValueError("run too long")
        if not byte & 0x80:
            numbers.append(number)
            number, shift = 0, 0
    if shift or sum(numbers) > 4 * MAX_SPAN:
        raise ValueError("truncated, or too long")
    return numbers


def _ahead_of_bits(data: bytes) -> Iterator[int]:
    return (i * 8 + bit for i, byte in enumerate(data) for bit in range(8) if byte >> bit & 1)


def _ahead_of_runs(runs: list[int]) -> Iterator[int]:
    at = 0
    for i, length in enumerate(runs):
        if i % 2:
            yield from range(at, at + length)
        at += length
