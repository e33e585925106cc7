"""From a lane to the one outcome, against handlers that fail in their last duty: giving up."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import pytest
from aiokafka import TopicPartition
from structlog.testing import capture_logs

from consumers.config import WorkerConfig
from consumers.handler import GiveUp, Job, NotYet, RetryLater, StopPartition
from consumers.metrics import Metrics
from consumers.slots import Slots, Work
from schemas.record import Output, Record
from tests.wait import wait_until

CONFIG = WorkerConfig(
    bootstrap_servers="none:1",
    group_id="g",
    topics=("in", "quiet"),
    max_in_flight=1000,
    output_topics=("out",),
    silent_topics=frozenset({"quiet"}),
    max_attempts=3,
    retry_base_s=0.001,
    retry_cap_s=0.002,
)
LETTER = Output(topic="out", key=b"k", value=b"letter")


class Handler:
    """Gives up on every record whose value is not ``fine``; ``letter`` makes the dead letter."""

    def __init__(self, letter: Callable[[], Any] = lambda: [LETTER]) -> None:
        self._letter = letter
        self.handled: list[int] = []
        self.given_up: list[tuple[int, int]] = []

    def open(self, record: Record) -> Job:
        return Job(record, record.key, None)

    async def handle(self, job: Job, *, attempt: int) -> Sequence[Output]:
        self.handled.append(job.record.offset)
        if job.record.topic == "quiet":
            return ()
        if job.record.value != b"fine":
            raise GiveUp("toy", "asked to")
        return [Output(topic="out", key=b"k", value=b"answer")]

    def give_up(self, record: Record, error: GiveUp, *, attempts: int) -> Sequence[Output]:
        self.given_up.append((record.offset, attempts))
        outputs: Sequence[Output] = self._letter()
        return outputs


@dataclass(eq=False)
class Partition:
    """One assignment, as far as a slot looks at it."""

    handler: Handler
    source: TopicPartition = field(default_factory=lambda: TopicPartition("in", 0))
    is_open: bool = True
    abandoned: bool = False
    stands_at: int | None = None
    finished: list[tuple[int, str, Sequence[Output]]] = field(default_factory=list)

    def finish(self, offset: int, outputs: Sequence[Output], kind: str) -> None:
        self.finished.append((offset, kind, outputs))

    def enter(self, task: object, work: object) -> None: ...

    def leave(self, task: object) -> None: ...

    def stand_still(self, offset: int) -> None:
        self.stands_at = offset

    def abandon(self) -> None:
        self.abandoned = True


def _nothing() -> None: ...


def slots_of(metrics: Metrics | None = None, wanted: Callable[[], int] = lambda: 4) -> Slots:
    return Slots(CONFIG, metrics or Metrics(), wanted, _nothing)


def put(
    slots: Slots,
    partition: Any,
    offset: int,
    value: bytes,
    *,
    lane: str = "a",
    topic: str = "in",
    dispatch: bool = True,
    quick: bool = False,
) -> None:
    record = Record(topic=topic, partition=0, offset=offset, timestamp_ms=0, key=b"k", value=value)
    job = Job(record, lane, None, quick=quick)
    slots.put((partition, lane), Work(partition, record, job), job)
    if dispatch:
        slots.dispatch()


def garbage() -> Any:
    return "text"


def cancelled() -> Any:
    raise asyncio.CancelledError


def raising(error: BaseException) -> Callable[[], Any]:
    def fail() -> Any:
        raise error

    return fail


@pytest.mark.parametrize(
    "letter",
    [
        lambda: None,
        list,
        lambda: [LETTER, "text"],
        lambda: [Output(topic="nowhere", key=b"k", value=b"v")],
        lambda: [Output(topic="out", key=b"k", value=garbage())],
        lambda: iter([LETTER]),
        raising(ValueError("bug")),
        raising(RetryLater("later")),
        raising(GiveUp("again", "given up twice")),
        cancelled,
    ],
)
async def test_a_faulty_dead_letter_stops_the_partition_loudly_and_no_record_is_lost(
    letter: Callable[[], Any],
) -> None:
    partition, slots = Partition(handler := Handler(letter)), slots_of()
    with capture_logs() as logs:
        put(slots, partition, 7, b"bad")
        put(slots, partition, 8, b"fine")
        put(slots, partition, 9, b"fine", lane="b")
        await wait_until(lambda: partition.stands_at is not None)
    await wait_until(lambda: len(partition.finished) == 1)
    assert partition.stands_at == 7
    assert handler.given_up == [(7, 1)] * CONFIG.max_attempts, "tried again, but not for ever"
    assert sorted(handler.handled) == [7, 9], "handled once; what is behind it in its lane waits"
    assert partition.finished[0][:2] == (9, "done")
    said = [line for line in logs if line["event"] == "giving up failed"]
    assert [(line["offset"], line["log_level"]) for line in said] == [(7, "error")] * 3


async def test_the_lane_of_a_record_that_cannot_be_given_up_goes_with_its_partition() -> None:
    partition, slots = Partition(Handler(list)), slots_of()
    put(slots, partition, 7, b"bad")
    put(slots, partition, 8, b"fine")
    await wait_until(lambda: partition.stands_at is not None)
    assert (slots.lanes.busy, slots.lanes.waiting) == (1, 1)
    slots.drop(lambda lane: lane[0] is partition)  # type: ignore[comparison-overlap]
    assert (slots.lanes.busy, slots.lanes.waiting, slots.waiting_bytes) == (0, 0, 0)


async def test_a_partition_that_goes_meanwhile_leaves_no_busy_lane() -> None:
    partition, slots = Partition(Handler(list)), slots_of()
    partition.is_open = False
    put(slots, partition, 7, b"bad")
    await wait_until(lambda: slots.lanes.busy == 0)
    assert partition.stands_at is None
    assert partition.finished == []


async def test_a_dead_letter_that_comes_late_is_counted_once_with_the_handlers_attempts() -> None:
    letters = iter([None, [LETTER]])
    metrics = Metrics()
    partition = Partition(handler := Handler(lambda: next(letters)))
    put(slots_of(metrics), partition, 7, b"bad")
    await wait_until(lambda: bool(partition.finished))
    assert partition.finished == [(7, "given_up", [LETTER])]
    assert handler.given_up == [(7, 1), (7, 1)]
    assert handler.handled == [7]
    assert [s.value for s in metrics.dead_letters.family().samples] == [1.0]


class Waiting(Handler):
    """Asks to be tried later, always for the same reason; ``details``: of its dead letters."""

    def __init__(self) -> None:
        super().__init__()
        self.details: list[str] = []

    async def handle(self, job: Job, *, attempt: int) -> Sequence[Output]:
        raise RetryLater("OperationalError: database is locked")

    def give_up(self, record: Record, error: GiveUp, *, attempts: int) -> Sequence[Output]:
        self.details.append(error.detail)
        return super().give_up(record, error, attempts=attempts)


async def test_why_it_is_tried_later_is_logged_and_stands_in_the_dead_letter() -> None:
    partition, slots = Partition(handler := Waiting()), slots_of()
    with capture_logs() as logs:
        put(slots, partition, 7, b"bad")
        await wait_until(lambda: len(partition.finished) == 1)
    assert handler.details == ["OperationalError: database is locked in attempt 3"]
    later = [line["why"] for line in logs if line["event"] == "retry later"]
    assert later == ["OperationalError: database is locked"] * 2


async def test_a_handler_may_stop_the_partition_where_it_cannot_give_up() -> None:
    partition, slots = Partition(Handler(raising(StopPartition("no")))), slots_of()
    put(slots, partition, 7, b"bad")
    await wait_until(lambda: partition.abandoned)
    assert partition.finished == []
    assert slots.lanes.busy == 0


async def test_a_silent_topic_is_finished_without_outputs() -> None:
    partition = Partition(Handler())
    put(slots_of(), partition, 7, b"", topic="quiet")
    await wait_until(lambda: bool(partition.finished))
    assert partition.finished == [(7, "done", ())]


class Slow(Handler):
    """Waits with every record until all may go on."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()

    async def handle(self, job: Job, *, attempt: int) -> Sequence[Output]:
        await self.go_on.wait()
        return [LETTER]


async def test_every_ready_record_gets_a_slot_as_far_as_there_are_some() -> None:
    wanted = 100
    partition, slots = Partition(handler := Slow()), slots_of(wanted=lambda: wanted)
    for offset in range(300):
        put(slots, partition, offset, b"fine", lane=f"lane {offset}", dispatch=False)
    slots.dispatch()
    await wait_until(lambda: slots.in_flight == 100)
    await asyncio.sleep(0)
    assert (slots.in_flight, slots.lanes.ready) == (100, 200), "no more than there are"
    wanted = 150
    slots.dispatch()
    await wait_until(lambda: slots.in_flight == 150)
    handler.go_on.set()
    await wait_until(lambda: len(partition.finished) == 300)
    assert slots.in_flight == 0


async def test_handlers_that_never_wait_let_the_loop_turn() -> None:
    """Nobody waits in here but the loop: its turns are what heartbeats need."""

    class Slow(Handler):
        async def handle(self, job: Job, *, attempt: int) -> Sequence[Output]:
            begun = time.monotonic()
            while time.monotonic() < begun + 0.005:
                pass
            return await super().handle(job, attempt=attempt)

    partition = Partition(Slow())
    slots = Slots(CONFIG, Metrics(), lambda: 100, lambda: None)
    for offset in range(100):
        put(slots, partition, offset, b"fine")
    slots.dispatch()
    most, before = 0, 0
    while len(partition.finished) < 100:
        await asyncio.sleep(0)
        most = max(most, len(partition.finished) - before)
        before = len(partition.finished)
    assert most <= 5


class Early(Handler):
    """For ``early`` records the time comes at the fifth look, which is the first attempt."""

    def __init__(self) -> None:
        super().__init__()
        self.attempts: list[int] = []
        self.running: list[int] = []

    async def handle(self, job: Job, *, attempt: int) -> Sequence[Output]:
        self.running.append(job.record.offset)
        if job.record.value == b"early":
            self.attempts.append(attempt)
            if len(self.attempts) < 5:
                raise NotYet(0.001)
        return [LETTER]


async def test_a_record_whose_time_has_not_come_keeps_its_lane_but_no_slot_and_no_attempt() -> None:
    metrics = Metrics()
    partition, slots = Partition(handler := Early()), slots_of(metrics, wanted=lambda: 1)
    put(slots, partition, 7, b"early", dispatch=False)
    put(slots, partition, 8, b"fine", dispatch=False)
    put(slots, partition, 9, b"fine", lane="b")
    await wait_until(lambda: len(partition.finished) == 3)
    assert [offset for offset, _, _ in partition.finished] == [9, 7, 8]
    assert handler.attempts == [1] * 5
    assert handler.running[:2] == [7, 9], "the only slot was free meanwhile"
    assert slots.parked == 0
    assert not metrics.retries.family().samples


async def test_what_failed_before_a_wait_is_not_counted_behind_it() -> None:
    """Over a long wait something fails now and then; that is no row of failures."""

    class Shaky(Handler):
        def __init__(self) -> None:
            super().__init__()
            self.looks = 0

        async def handle(self, job: Job, *, attempt: int) -> Sequence[Output]:
            self.looks += 1
            if self.looks > 4 * CONFIG.max_attempts:
                return [LETTER]
            raise NotYet(0.001) if self.looks % 2 else RetryLater("shaky")

    partition, slots = Partition(Shaky()), slots_of()
    put(slots, partition, 7, b"fine")
    await wait_until(lambda: bool(partition.finished))
    assert [kind for _, kind, _ in partition.finished] == ["done"]


class Paused(Handler):
    """Nothing is for today until ``moot`` is set; then what waits is looked at by its value."""

    def __init__(self, seconds: float = 3600.0) -> None:
        super().__init__()
        self.seconds = seconds
        self.moot = False
        self.looks: list[float] = []
        self.during: Callable[[], None] = lambda: None

    async def handle(self, job: Job, *, attempt: int) -> Sequence[Output]:
        self.looks.append(time.monotonic())
        if not self.moot:
            self.during()
            raise NotYet(self.seconds)
        return [LETTER]


async def parked(handler: Handler, **options: Any) -> tuple[Any, Slots]:
    """A record that waits for an hour, alone in its lane."""
    partition, slots = Partition(handler), slots_of()
    put(slots, partition, 7, b"early", **options)
    await wait_until(lambda: slots.parked == 1)
    return partition, slots


@pytest.mark.parametrize("quick", [False, True])
async def test_what_comes_behind_a_record_has_it_looked_at_again(quick: bool) -> None:
    partition, slots = await parked(handler := Paused(), quick=quick)
    handler.moot = True
    put(slots, partition, 8, b"fine", quick=quick)
    await wait_until(lambda: len(partition.finished) == 2)
    assert [offset for offset, _, _ in partition.finished] == [7, 8]
    assert (slots.parked, slots.waiting_bytes) == (0, 0)


async def test_what_comes_behind_a_record_while_it_is_looked_at_counts_too() -> None:
    partition, slots = Partition(handler := Paused()), slots_of()

    def comes() -> None:
        if len(handler.looks) == 1:
            put(slots, partition, 8, b"fine")
        handler.moot = True

    handler.during = comes
    put(slots, partition, 7, b"early")
    await wait_until(lambda: len(partition.finished) == 2)
    assert len(handler.looks) == 3


async def test_a_flood_behind_a_record_has_it_looked_at_now_and_then_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("consumers.slots.LOOK_AGAIN_S", 1800.0)
    partition, slots = await parked(handler := Paused())
    for offset in range(8, 1008):
        put(slots, partition, offset, b"fine")
        slots.look_again()
        await asyncio.sleep(0)
    assert (len(handler.looks), slots.parked, slots.lanes.waiting) == (1, 1, 1000)
    slots.drop(lambda lane: True)


async def test_a_back_off_is_waited_out_whatever_comes_behind_it() -> None:
    class Failing(Handler):
        async def handle(self, job: Job, *, attempt: int) -> Sequence[Output]:
            await super().handle(job, attempt=attempt)
            raise RetryLater("once more")

    slow = replace(CONFIG, retry_base_s=3600.0, retry_cap_s=7200.0)
    partition, slots = Partition(handler := Failing()), Slots(slow, Metrics(), lambda: 4, _nothing)
    put(slots, partition, 7, b"fine")
    await wait_until(lambda: slots.parked == 1)
    put(slots, partition, 8, b"fine")
    slots.look_again()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert (handler.handled, slots.parked) == ([7], 1)
    slots.drop(lambda lane: True)


async def test_all_that_waits_in_a_partition_can_be_looked_at_again_now() -> None:
    handler, other = Paused(), Paused()
    partition: Any = Partition(handler)
    elsewhere: Any = Partition(other, TopicPartition("in", 1))
    slots = slots_of()
    for offset in range(5):
        put(slots, partition, offset, b"early", lane=f"lane {offset}")
        put(slots, elsewhere, offset, b"early", lane=f"lane {offset}")
    await wait_until(lambda: slots.parked == 10)
    handler.moot = other.moot = True
    slots.look_again(lambda source: source.partition == 0)
    await wait_until(lambda: len(partition.finished) == 5)
    assert (slots.parked, elsewhere.finished) == (5, [])
    slots.look_again()
    await wait_until(lambda: len(elsewhere.finished) == 5)


async def test_a_change_while_the_handler_looks_is_not_missed() -> None:
    partition, slots = Partition(handler := Paused()), slots_of()

    def changes() -> None:
        slots.look_again(lambda source: source.partition == 0)
        handler.moot = True

    handler.during = changes
    put(slots, partition, 7, b"early")
    await wait_until(lambda: len(partition.finished) == 1)
    assert len(handler.looks) == 2


async def test_parked_records_count_as_memory_until_they_are_done_or_dropped() -> None:
    partition, slots = await parked(handler := Paused())
    held = slots.waiting_bytes
    assert held >= len(b"early")
    assert (slots.bytes_of(["in"]), slots.bytes_of(["quiet"])) == (held, 0)
    slots.look_again()
    await wait_until(lambda: len(handler.looks) == 2 and slots.parked == 1)
    assert slots.waiting_bytes == held, "counted once, however often it is looked at"
    slots.drop(lambda lane: lane[0] is partition)
    assert (slots.waiting_bytes, slots.parked, slots.lanes.busy) == (0, 0, 0)


async def test_what_waits_for_its_time_is_counted_apart_from_what_is_in_a_hurry() -> None:
    partition, slots = await parked(handler := Paused())
    put(slots, partition, 8, b"fine")
    put(slots, partition, 9, b"fine", lane="given back", dispatch=False)
    assert slots.held_room(["in"]) == 1, "the one behind it; the other lane is in a hurry"
    assert 0 < slots.busy_bytes(["in"]) < slots.waiting_bytes
    handler.moot = True
    slots.look_again()
    await wait_until(lambda: len(partition.finished) == 3)
    assert (slots.held_room(["in"]), slots.busy_bytes(["in"]), slots.waiting_bytes) == (0, 0, 0)


async def test_what_was_behind_a_record_before_it_had_to_wait_is_held_too() -> None:
    partition, slots = Partition(Paused()), slots_of(wanted=lambda: 1)
    for offset in (7, 8, 9):
        put(slots, cast("Any", partition), offset, b"fine", dispatch=False)
    slots.dispatch()
    await wait_until(lambda: slots.parked == 1)
    assert (slots.held_room(["in"]), slots.busy_bytes(["in"])) == (2, 0)
    slots.drop(lambda lane: True)
    assert (slots.held_room(["in"]), slots.busy_bytes(["in"]), slots.waiting_bytes) == (0, 0, 0)


async def test_what_is_held_beyond_its_bound_counts_as_any_other() -> None:
    config = replace(CONFIG, max_held=2, max_held_bytes=600)
    partition: Any = Partition(Paused())
    slots = Slots(config, Metrics(), lambda: 4, _nothing)
    for offset in range(5):
        put(slots, partition, offset, b"fine", lane=f"lane {offset}")
    await wait_until(lambda: slots.parked == 5)
    assert slots.held_room(["in"]) == -3
    assert slots.busy_bytes(["in"]) == slots.waiting_bytes - 600
    slots.drop(lambda lane: True)


async def test_a_record_parked_in_a_partition_that_closes_is_left_to_the_next_owner() -> None:
    partition, slots = await parked(handler := Paused())
    partition.is_open = False
    slots.look_again()
    await wait_until(lambda: slots.parked == 0)
    assert (len(handler.looks), partition.finished) == (1, [])
    assert (slots.waiting_bytes, slots.lanes.busy) == (0, 0)


class Looking(Handler):
    """Every record waits until ``now``, which is looked at without a slot."""

    def __init__(self) -> None:
        super().__init__()
        self.now = False
        self.looks: Counter[int] = Counter()

    async def handle(self, job: Job, *, attempt: int) -> Sequence[Output]:
        await super().handle(job, attempt=attempt)
        if not self.now:
            raise NotYet(0.001, partial(self.look, job.record.offset))
        return [LETTER]

    async def look(self, offset: int) -> float:
        self.looks[offset] += 1
        return 0.0 if self.now else 0.001


async def test_looks_at_whether_a_time_has_come_hold_no_slot() -> None:
    metrics = Metrics()
    partition, slots = Partition(handler := Looking()), slots_of(metrics, wanted=lambda: 1)
    for offset in range(5):
        put(slots, partition, offset, b"fine", lane=f"lane {offset}")
    await wait_until(lambda: len(handler.looks) == 5 and min(handler.looks.values()) > 3)
    assert (sorted(handler.handled), slots.parked, slots.in_flight) == ([0, 1, 2, 3, 4], 5, 0)
    handler.now = True
    await wait_until(lambda: len(partition.finished) == 5)
    assert len(handler.handled) == 10
    assert (slots.parked, slots.waiting_bytes) == (0, 0)


async def test_a_look_that_fails_has_the_record_handled() -> None:
    class Failing(Looking):
        async def look(self, offset: int) -> float:
            self.now = True
            raise ValueError("the storage is away")

    partition = Partition(Failing())
    put(slots_of(), partition, 7, b"fine")
    await wait_until(lambda: len(partition.finished) == 1)


async def test_what_is_dropped_while_it_is_looked_at_stays_dropped() -> None:
    class Dropping(Looking):
        async def look(self, offset: int) -> float:
            slots.drop(lambda lane: True)
            return await super().look(offset)

    partition, slots = Partition(handler := Dropping()), slots_of()
    put(slots, partition, 7, b"fine")
    await wait_until(lambda: bool(handler.looks))
    await asyncio.sleep(0)
    assert (slots.parked, slots.lanes.busy, slots.waiting_bytes) == (0, 0, 0)
    assert handler.handled == [7]


async def test_quick_records_wait_for_no_slow_one() -> None:
    partition, slots = Partition(handler := Slow()), slots_of(wanted=lambda: 1)
    put(slots, partition, 7, b"fine", lane="slow")
    await wait_until(lambda: slots.in_flight == 1)

    class Quick(Handler):
        async def handle(self, job: Job, *, attempt: int) -> Sequence[Output]:
            if attempt == 1 and job.record.offset == 8:
                raise RetryLater("once")
            return await super().handle(job, attempt=attempt)

    quick = Partition(Quick())
    for offset, lane in ((8, "a"), (9, "a"), (10, "b")):
        put(slots, quick, offset, b"fine", lane=lane, quick=True)
    await wait_until(lambda: len(quick.finished) == 3)
    assert [offset for offset, _, _ in quick.finished] == [10, 8, 9], "in order in their lane"
    assert (partition.finished, slots.in_flight, slots.limit) == ([], 1, 1)
    handler.go_on.set()
    await wait_until(lambda: len(partition.finished) == 1)
    assert (slots.quick.busy, slots.quick.waiting, slots.waiting_bytes) == (0, 0, 0)


async def test_slow_records_take_no_quick_slot() -> None:
    partition, slots = Partition(handler := Slow()), slots_of(wanted=lambda: 2)
    for offset in range(10):
        put(slots, partition, offset, b"fine", lane=f"lane {offset}")
    await wait_until(lambda: slots.in_flight == 2)
    await asyncio.sleep(0)
    assert (slots.in_flight, slots.lanes.ready) == (2, 8)
    handler.go_on.set()
    await wait_until(lambda: len(partition.finished) == 10)


async def test_a_quick_record_that_is_given_up_leaves_its_own_lane() -> None:
    partition, slots = Partition(Handler(list)), slots_of()
    put(slots, partition, 7, b"bad", quick=True)
    put(slots, partition, 8, b"fine", quick=True)
    await wait_until(lambda: partition.stands_at is not None)
    assert (slots.quick.busy, slots.quick.waiting) == (1, 1)
    slots.drop(lambda lane: lane[0] is partition)  # type: ignore[comparison-overlap]
    assert (slots.quick.busy, slots.quick.waiting, slots.waiting_bytes) == (0, 0, 0)
