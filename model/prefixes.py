"""What the rows of the cache hold, so that a prompt is not read again where it begins alike.

In come the tokens of rows, out comes the row that shares the longest beginning with a new prompt.
A few rows more than those that answer hold prompts (with their replies) that have ended: the
earlier turns of private talks, and some of everything else, whose system prompt others share.
Their number is fixed and so is the memory; the one that was of use longest ago makes room.
Pure bookkeeping: whoever uses it copies the rows.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

Ids = Sequence[int]

LEAST = 8  # tokens below which sharing is not worth the copy


@dataclass(frozen=True, slots=True)
class Held:
    """A row and the tokens whose keys and values it holds from its start. Only prompts with the
    same ``weights`` (an adapter's name) may share them."""

    row: int
    ids: tuple[int, ...]
    weights: Hashable = None
    key: Hashable = None


def shared(one: Ids, other: Ids) -> int:
    """How many tokens both begin with."""
    low, high = 0, min(len(one), len(other))
    while low < high:  # both agree up to low; slices are compared faster than loops run
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def best(rows: Iterable[Held], ids: Ids, weights: Hashable = None) -> tuple[int, int] | None:
    """(row, tokens) to begin with, or None. At least one token of ``ids`` is left to read, since
    the next token is drawn from what the last one gives."""
    found = [(min(shared(held.ids, ids), len(ids) - 1), held.row)
             for held in rows if held.weights == weights]  # fmt: skip
    tokens, row = max(found, default=(0, 0))
    return (row, tokens) if tokens >= LEAST else None


class Kept:
    """The rows that hold what has ended. ``rows``: their numbers; ``length``: tokens at most
    that are kept of one. A quarter of them, one at least, is for what has no key."""

    def __init__(self, rows: Sequence[int], length: int) -> None:
        self._length = length
        self._without_key = max(1, len(rows) // 4)
        self._free = list(rows)
        self._held: dict[int, Held] = {}  # the one of use longest ago first

    def held(self) -> list[Held]:
        """All that is kept."""
        return list(self._held.values())

    def used(self, row: int) -> None:
        """A row was of use just now, if it is one of these."""
        if row in self._held:
            self._held[row] = self._held.pop(row)

    def keep(self, ids: Ids, weights: Hashable = None, key: Hashable = None) -> Held | None:
        """Where to copy a row that has ended, and how much of it; None: not worth it."""
        kept = tuple(ids[: self._length])
        row = self._place(kept, weights, key) if len(kept) >= LEAST else None
        if row is None:
            return None
        self._held.pop(row, None)
        self._held[row] = Held(row, kept, weights, key)
        return self._held[row]

    def forget(self) -> None:
        """Nothing is known of the rows any more."""
        self._free.extend(self._held)
        self._held.clear()

    def _place(self, ids: Ids, weights: Hashable, key: Hashable) -> int | None:
        held = self.held()
        if key is not None and (
            same := [h.row for h in held if (h.key, h.weights) == (key, weights)]
        ):
            return same[0]
        if any(h.weights == weights and h.ids[: len(ids)] == ids for h in held):
            return None
        keyless = [h.row for h in held if h.key is None]
        if key is None and len(keyless) >= self._without_key:
            return keyless[0]
        if self._free:
            return self._free.pop()
        return held[0].row if held else None
