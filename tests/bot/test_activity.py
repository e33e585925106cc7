"""A worker's own account of what it does: counted by outcome, and silent when idle."""

import asyncio
from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from bot.activity import Activity, Counted, tell
from consumers.handler import GiveUp, Job
from consumers.metrics import WorkerState
from schemas import names
from schemas.record import Output, Record

RECORD = Record(topic="t", partition=0, offset=0, timestamp_ms=0, key=None, value=None)


def state(*, in_flight: int = 0, waiting: int = 0) -> WorkerState:
    return WorkerState(
        in_flight=in_flight,
        slots=4,
        waiting_lane=waiting,
        waiting_slot=waiting,
        waiting_retry=waiting,
        waiting_commit=0,
        waiting_bytes=0,
        lanes=0,
        lane_depth_max=0,
        loop_lag_seconds=0.0,
    )


class Canned:
    """A handler that publishes events of the types it was given."""

    def __init__(self, *types: str) -> None:
        self.outputs = tuple(
            Output(topic="t", key=None, value=None, headers=(("ce_type", kind.encode()),))
            for kind in types
        )

    def open(self, record: Record) -> Job:
        return Job(record, "lane", None)

    async def handle(self, job: Job, *, attempt: int) -> Sequence[Output]:
        return self.outputs

    def give_up(self, record: Record, error: GiveUp, *, attempts: int) -> Sequence[Output]:
        return self.outputs


async def handled(activity: Activity, *types: str) -> None:
    counted = Counted(Canned(*types), activity)
    await counted.handle(counted.open(RECORD), attempt=1)


async def test_outcomes_are_counted_by_what_is_published() -> None:
    activity = Activity()
    await handled(activity, names.REPLY_CREATED, names.DECISION_RECORDED)
    await handled(activity, names.DIRECT_REPLY_CREATED, names.DECISION_RECORDED)
    await handled(activity, names.DECISION_RECORDED)
    await handled(activity, names.REPLY_CORRECTED, names.REPLY_RETRACTED, names.DECISION_RECORDED)
    await handled(activity, names.DIRECT_REPLY_RETRACTED, names.DECISION_RECORDED)
    outputs = Counted(Canned("letters"), activity).give_up(RECORD, GiveUp("c", "d"), attempts=1)
    assert len(outputs) == 1
    assert activity.line(state(in_flight=1, waiting=2)) == {
        "answered": 2,
        "skipped": 1,
        "corrected": 1,
        "retracted": 1,
        "dead_lettered": 1,
        "in_flight": 1,
        "waiting": 6,
    }
    assert activity.line(state()) is None


@pytest.mark.parametrize("busy", [state(in_flight=1), state(waiting=1)])
def test_a_worker_that_is_busy_without_an_outcome_says_so(busy: WorkerState) -> None:
    line = Activity().line(busy)
    assert line is not None
    assert line["answered"] == 0


async def test_a_line_comes_while_something_is_going_on_and_none_after_it() -> None:
    activity, turns, idle = Activity(), 0, asyncio.Event()

    def look() -> WorkerState:
        nonlocal turns
        turns += 1
        if turns == 3:
            idle.set()
        return state(in_flight=int(turns == 1))

    with capture_logs() as logs:
        telling = asyncio.create_task(tell(activity, look, every_s=0))
        await idle.wait()
        telling.cancel()
    assert [(entry["event"], entry["in_flight"]) for entry in logs] == [("working", 1)]
