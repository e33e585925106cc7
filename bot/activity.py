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
KINDS = ("answered", "skipped", "corrected", "retracted", "dead_lettered")
_SAID = {
    names.REPLY_CREATED: "answered",
    names.DIRECT_REPLY_CREATED: "answered",
    names.REPLY_CORRECTED: "corrected",
    names.DIRECT_REPLY_CORRECTED: "corrected",
    names.REPLY_RETRACTED: "retracted",
    names.DIRECT_REPLY_RETRACTED: "retracted",
}
_BY_TYPE = {name.encode(): kind for name, kind in _SAID.items()}


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
        self.activity.counts[kind_of(outputs)] += 1
        return outputs

    def give_up(self, record: Record, error: GiveUp, *, attempts: int) -> Sequence[Output]:
        self.activity.counts["dead_lettered"] += 1
        return self.handler.give_up(record, error, attempts=attempts)


def kind_of(outputs: Sequence[Output]) -> str:
    """What the outputs of one input come to. Of a reply with more or fewer parts the first part
    tells, which is always corrected."""
    for output in outputs:
        for name, value in output.headers:
            if name == "ce_type" and value in _BY_TYPE:
                return _BY_TYPE[value]
    return "skipped"


async def tell(
    activity: Activity, state: Callable[[], WorkerState], every_s: float = EVERY_S
) -> None:
    """A line every ``every_s`` seconds in which something was going on, until cancelled."""
    while True:
        await asyncio.sleep(every_s)
        if line := activity.line(state()):
            log.info("working", **line)
