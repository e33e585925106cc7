"""Who reads how much of a step's prompt tokens.

A short prompt need not wait until a long one has been read: they read side by side, the one with
the least left first, but a quarter of each step is the others'.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from model.reply import Reply

_OTHERS = 4  # the part of a step that is left to those with more to read: 1/4


@dataclass(frozen=True, slots=True)
class Reader:
    """A newcomer whose prompt is being read, and the row for it."""

    reply: Reply
    row: int


def shares(unread: Sequence[int], budget: int) -> list[int]:
    """Tokens for each of those who read, ``budget`` in all at most; together they use it up
    where there is enough to read. ``unread``: what each has left."""
    given = [0] * len(unread)
    behind = sum(unread)
    for reader in sorted(range(len(unread)), key=lambda n: unread[n]):
        behind -= unread[reader]
        reserved = min(behind, budget // _OTHERS)
        given[reader] = min(unread[reader], budget - reserved)
        budget -= given[reader]
    return given
