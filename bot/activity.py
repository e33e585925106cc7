"""What a worker tells of itself while it works: a line every few seconds, none while it idles.

In come the handlers of its partitions, each wrapped so that its outcomes are counted, and the
state that the runtime shows; out go log lines with numbers only. What is counted was handled,
which is a moment before it is committed.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from consumers.handler import GiveUp, Handler, Job
from consumers.metrics import WorkerState
from schemas import names
from schemas.record import Output, Record

log = structlog.get_logger(__name__)

EVERY_S = 10.0
REPLIES = frozenset({names.BOT_REPLIES, names.BOT_DIRECT_REPLIES})
KINDS = ("answered", "skipped", "dead_lettered")


@dataclass(slots=True)
class Activity:
    """Outcomes of all partitions since the last line."""

    counts: Counter[str] = field(default_factory=Counter)

    def line(self, state: WorkerState) -> dict[str, int] | None:
        """What to tell now, and count anew; None where nothing is going on."""
        waiting = state.waiting_lane + state.waiting_slot + state.waiting_retry
        if not (self.counts or state.in_flight or waiting):
            return None
        told = {kind: self.counts[kind] for kind in KINDS}
        self.counts.clear()
        return told | {"in_flight": state.in_flight, "waiting": waiting}


@dataclass(frozen=True, slots=True)
class Counted:
    """A handler whose outcomes are counted."""

    handler: Handler
    activity: Activity

    def open(self, record: Record) -> Job:
        return self.handler.open(record)

    async def handle(self, job: Job, *, attempt: int) -> Sequence[Output]:
        outputs = await self.handler.handle(job, attempt=attempt)
        replied = any(output.topic in REPLIES for output in outputs)
        self.activity.counts["answered" if replied else "skipped"] += 1
        return outputs

    def give_up(self, record: Record, error: GiveUp, *, attempts: int) -> Sequence[Output]:
        self.activity.counts["dead_lettered"] += 1
        return self.handler.give_up(record, error, attempts=attempts)


async def tell(
    activity: Activity, state: Callable[[], WorkerState], every_s: float = EVERY_S
) -> None:
    """A line every ``every_s`` seconds in which something was going on, until cancelled."""
    while True:
        await asyncio.sleep(every_s)
        if line := activity.line(state()):
            log.info("working", **line)
