"""Finished records of one partition on their way into transactions, in the order they came.

In comes what the handler made of each record, out go batches from the head, bounded in records
and bytes. After the broker refused a batch its records go one by one, so that the one it is
about can be set aside.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from schemas.record import Output

Kind = Literal["done", "given_up"]


@dataclass(slots=True, eq=False)
class Finished:
    """A handled record. ``at``: when it was finished, on the monotonic clock."""

    offset: int
    outputs: Sequence[Output]
    kind: Kind
    at: float


class Outbox:
    """What is finished and not committed yet. Bounds of a batch: ``max_records``, ``max_bytes``."""

    def __init__(self, max_records: int, max_bytes: int) -> None:
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._waiting: deque[Finished] = deque()
        self._alone = 0  # so many records are to be published one by one

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Finished]:
        return iter(self._waiting)

    @property
    def since(self) -> float:
        """When the oldest was finished; now where there is none."""
        return self._waiting[0].at if self._waiting else time.monotonic()

    def add(self, offset: int, outputs: Sequence[Output], kind: Kind) -> None:
        """Append a record that was finished just now."""
        self._waiting.append(Finished(offset, outputs, kind, time.monotonic()))

    def batch(self) -> list[Finished]:
        """From the head, which stays as it is: at least one where there is one."""
        if self._alone:
            self._alone -= 1
            return [self._waiting[0]]
        batch: list[Finished] = []
        room = self._max_bytes
        for finished in self._waiting:
            for output in finished.outputs:
                room -= len(output.value) if output.value else 0
            if batch and (room < 0 or len(batch) >= self._max_records):
                break
            batch.append(finished)
        return batch

    def published(self, batch: Sequence[Finished]) -> None:
        """Forget a batch taken from the head, as far as it was not forgotten meanwhile."""
        for finished in batch:
            if self._waiting and self._waiting[0] is finished:
                self._waiting.popleft()

    def refused(self, batch: Sequence[Finished]) -> Finished | None:
        """Something in this batch will never be taken: that, where it is found, else None."""
        self._alone = len(batch)
        if len(batch) == 1 and self._waiting and self._waiting[0] is batch[0]:
            return self._waiting.popleft()
        return None

    def take_out(self, unwanted: Callable[[Finished], bool]) -> list[Finished]:
        """Forget some, and return them."""
        out = [finished for finished in self._waiting if unwanted(finished)]
        self._waiting = deque(f for f in self._waiting if not unwanted(f))
        return out

    def clear(self) -> None:
        """Forget all: they are somebody else's now."""
        self._waiting.clear()
