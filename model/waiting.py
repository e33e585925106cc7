"""Who of those that wait is next: a queue without clocks, threads or torch.

In come replies with their priority, their prompt's length and the room that they need in the
cache; ``take`` hands out the next one that fits. Higher priority goes first, then the shorter
prompt (by powers of two, so that prompts of about one length keep their order), then who came
first. Nobody is overtaken more than ``patience`` times: then it is next, and whoever is behind it
waits, also where a smaller one would fit.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

PATIENCE = 16


@dataclass(slots=True)
class _Entry(Generic[T]):
    item: T
    priority: int
    size: int
    need: int
    overtaken: int = 0


class Waiting(Generic[T]):
    """The queue. ``patience``: how often one that waits may be overtaken."""

    def __init__(self, patience: int = PATIENCE) -> None:
        self._patience = patience
        self._entries: list[_Entry[T]] = []  # in the order of their arrival

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, item: T, *, priority: int, size: int, need: int) -> None:
        """``size``: tokens to read; ``need``: tokens of the cache that it may come to hold."""
        self._entries.append(_Entry(item, priority, size, need))

    def take(self, room: int, at_most: int | None = None) -> T | None:
        """The next one, if it fits into ``room`` tokens; it is in the queue no more. With
        ``at_most`` only those with so many tokens to read are asked: the others are overtaken,
        and hold nobody up."""
        at = self._next(room, at_most)
        if at is None:
            return None
        for earlier in self._entries[:at]:
            earlier.overtaken += 1
        return self._entries.pop(at).item

    def drop(self, unwanted: list[T]) -> None:
        """Forget those."""
        gone = {id(item) for item in unwanted}
        self._entries = [entry for entry in self._entries if id(entry.item) not in gone]

    def all(self) -> list[T]:
        """Everybody who waits, in the order of their arrival."""
        return [entry.item for entry in self._entries]

    def _next(self, room: int, at_most: int | None) -> int | None:
        asked = [
            (at, entry)
            for at, entry in enumerate(self._entries)
            if at_most is None or entry.size <= at_most
        ]
        for at, entry in asked:
            if entry.overtaken >= self._patience:
                return at if entry.need <= room else None
        fitting = [(_rank(entry), at) for at, entry in asked if entry.need <= room]
        return min(fitting)[1] if fitting else None


def _rank(entry: _Entry[T]) -> tuple[int, int]:
    return -entry.priority, entry.size.bit_length()
