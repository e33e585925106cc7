"""What a worker is given: a handler, and the kinds of error it may raise.

Errors are named by what the runtime does next, as in kopf: try again, give up on
this record, or stop this partition. ``NotYet`` is no error: the record's time has not come.
"""

from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Any, Protocol

from consumers.lanes import NO_SHARE, Share
from schemas.record import Output, Record
from schemas.value import value

Look = Callable[[], Awaitable[float]]


class RetryLater(Exception):
    """Trouble that may pass: the record waits in its lane and is handled again."""


class NotYet(Exception):
    """It is too early for this record: it waits in its lane, without a slot and without using up
    an attempt, and is handled again after ``seconds``.

    ``look`` tells whether its time has come then: it is asked instead, without a slot, and says
    how many seconds more to wait; 0 has the record handled, and so does an error. One is asked
    after the other, so it may wait for a moment only.
    """

    def __init__(self, seconds: float, look: Look | None = None) -> None:
        super().__init__(f"in {seconds:g} s")
        self.seconds = seconds
        self.look = look


class GiveUp(Exception):
    """This record can never be handled: it becomes a dead letter now.

    ``code`` is a stable word for programs, ``detail`` one line for people that never
    holds what was written. ``private`` keeps the record off the public topics.
    """

    def __init__(self, code: str, detail: str, *, private: bool = True) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.private = private


class StopPartition(Exception):
    """This worker must not go on with the partition: it lets go of it and asks again."""


@value
class Job:
    """A record that was opened: its lane, and whatever the handler made of its bytes.

    ``share`` says whose share of the worker it uses up (author, thread); without one it is
    served in the order of arrival. ``done``: a record of ``silent_topics`` of which nothing
    comes; it takes no slot, waits for nobody, and ``handle`` is not called. ``quick``: handling
    it takes no more than a moment and nothing that is scarce, so it has slots of its own; all
    records of its lane are so, or none.
    """

    record: Record
    lane: Hashable
    payload: Any
    share: Share = NO_SHARE
    done: bool = False
    quick: bool = False


class Handler(Protocol):
    """The caller's side of the runtime. One handler object lives for one assignment of
    one partition, so what it remembers goes when the partition goes."""

    def open(self, record: Record) -> Job:
        """Decode, in offset order and without waiting; raises ``GiveUp``."""
        ...

    async def handle(self, job: Job, *, attempt: int) -> Sequence[Output]:
        """The slow part: everything to publish for this record, at least its one outcome
        (nothing is allowed for records of ``silent_topics`` only).

        ``attempt`` counts from 1. Raises ``RetryLater``, ``NotYet``, ``GiveUp`` or
        ``StopPartition``; any other exception counts as ``RetryLater``.
        """
        ...

    def give_up(self, record: Record, error: GiveUp, *, attempts: int) -> Sequence[Output]:
        """What to publish for a record that is given up: its dead letter and what goes with it.

        Where it raises or its outputs are faulty it is called again, with back-off; after
        ``max_attempts`` the partition stands still before the record, for its offset must not
        be passed without an outcome. ``StopPartition`` lets go of the partition at once.
        """
        ...
