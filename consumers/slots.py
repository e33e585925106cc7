"""Handling records: as many at a time as there are slots, each to its one outcome.

In: lanes with ``Work``. A slot takes the record whose turn it is, hands it to the handler, and
goes on with the next; what comes out goes to the record's partition to be published. Quick
records have a few slots of their own, so that they never wait for the slow ones. Errors
are treated by their kind: retry later (parked in its lane, which stays busy, with back-off, at
most so many times), not yet (parked as long and as often as the handler says, but looked at again
at once where something comes behind it in its lane, or where ``look_again`` says that something
has changed), give up (a dead letter), stop the partition. A record that takes longer than its
deadline is cancelled and given up. Where even giving up fails, it is tried again as often; then
the partition stands still before that record, which is neither lost nor passed.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass, field
from typing import cast

import structlog
from aiokafka import TopicPartition

from consumers.backoff import full_jitter
from consumers.config import WorkerConfig
from consumers.errors import told
from consumers.handler import GiveUp, Job, Look, NotYet, RetryLater, StopPartition
from consumers.lanes import Lanes
from consumers.metrics import Metrics
from consumers.outbox import Kind
from consumers.outputs import Checker
from consumers.partition import AssignedPartition
from consumers.records import where
from consumers.transactions import asked_to_stop
from schemas.record import Output, Record

log = structlog.get_logger(__name__)

Lane = tuple[AssignedPartition, Hashable]

# Handlers that never wait must still let the event loop turn: a heartbeat that is late by the
# session's timeout costs all partitions. Seconds.
_TURN_S = 0.02
# A handler that never waits is through with all records before a second task is needed.
_STARTED_AT_ONCE = 8
_QUICK_SLOTS = 4  # for records that wait for nothing scarce
# Between two looks at a record whose time has not come, however much comes behind it. Seconds.
LOOK_AGAIN_S = 0.05


@dataclass(slots=True)
class Work:
    """A record between its lane and its outcome. Times are monotonic, in seconds."""

    partition: AssignedPartition
    record: Record
    job: Job | GiveUp
    attempts: int = 0
    faults: int = 0  # so many of them only tried to give up, in vain
    ending: str = ""  # why its handler was cancelled: deadline, partition
    look_again: bool = False  # something has changed since the handler last began with it
    quick: bool = field(init=False)
    ready_at: float = 0.0  # since when it waits for a slot only
    enqueued_at: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        # ``job`` changes where it is given up, which must not change its lane.
        self.quick = isinstance(self.job, Job) and self.job.quick

    @property
    def size(self) -> int:
        """Bytes that it holds while it waits."""
        return len(self.record.value or b"") + 512


@dataclass(slots=True)
class _Parked:
    """A record that waits in its lane, which stays busy. ``soonest``: when it may be looked at
    again if something changes (loop time), none where it waits out a back-off or is being looked
    at; ``look`` tells without a slot whether its time has come. ``held`` and ``held_bytes``: of
    what waits for that time, it and what is behind it in its lane."""

    work: Work
    timer: asyncio.TimerHandle
    soonest: float | None = None
    look: Look | None = None
    held: int = 0
    held_bytes: int = 0


class _GivingUpFailed(Exception):
    """The handler has no dead letter for its record, or a faulty one; ``__cause__`` says why."""


class Slots:
    """The tasks that call the handler. ``wanted`` says how many there may be now;
    ``changed`` tells the worker that there is room again."""

    def __init__(
        self,
        config: WorkerConfig,
        metrics: Metrics,
        wanted: Callable[[], int],
        changed: Callable[[], None],
    ) -> None:
        self.lanes: Lanes[Lane, Work] = Lanes(_topic, config.weights)
        self.quick: Lanes[Lane, Work] = Lanes(_topic, config.weights)
        self.checker = Checker(config)
        self._config = config
        self._metrics = metrics
        self._wanted = wanted
        self._changed = changed
        self._stopped = False
        self._more_to_start = False
        self._turn_ends = 0.0
        self._turn_asked = False
        self._running: set[asyncio.Task[None]] = set()
        self._running_quick: set[asyncio.Task[None]] = set()
        self._since: dict[asyncio.Task[None], tuple[float, Work]] = {}  # the longest first
        self._stuck: list[tuple[Lane, Work]] = []  # busy until their partition goes
        self._parked: dict[Lane, _Parked] = {}
        self._due: dict[Lane, _Parked] = {}  # those to be looked at
        self._looker: asyncio.Task[None] | None = None
        self._bytes: Counter[str] = Counter()  # of what waits or is parked, by topic
        self._held: Counter[str] = Counter()  # records that wait for their time, and behind those
        self._held_behind: Counter[str] = Counter()  # of them, those behind
        self._held_bytes: Counter[str] = Counter()

    @property
    def limit(self) -> int:
        """How many records may be in the handler's hands now, but for quick ones."""
        return max(0, min(self._config.max_in_flight, self._wanted()))

    @property
    def in_flight(self) -> int:
        """How many are."""
        return len(self._since)

    @property
    def parked(self) -> int:
        """How many wait in their lanes for their time, or for the next attempt."""
        return len(self._parked)

    @property
    def waiting_bytes(self) -> int:
        """Bytes of what waits, parked records among them."""
        return self._bytes.total()

    def bytes_of(self, topics: Collection[str]) -> int:
        """The same, of these topics only."""
        return sum(self._bytes[topic] for topic in topics)

    def busy_bytes(self, topics: Collection[str]) -> int:
        """The same, without what waits for its time, up to ``max_held_bytes``."""
        held = sum(self._held_bytes[topic] for topic in topics)
        return self.bytes_of(topics) - min(held, self._config.max_held_bytes)

    def held_room(self, topics: Collection[str]) -> int:
        """How many of the records of these topics that wait in lanes wait behind one whose time
        has not come; what is held beyond ``max_held`` is taken off again."""
        held, behind = (
            sum(counts[topic] for topic in topics) for counts in (self._held, self._held_behind)
        )
        return behind - max(0, held - self._config.max_held)

    def put(self, lane: Lane, work: Work, job: Job | None) -> None:
        """A record that is to be handled when its lane and a slot are free. The one before it may
        be waiting for its time: what comes later may make that moot."""
        self._bytes[work.record.topic] += work.size
        if (parked := self._parked.get(lane)) is not None and parked.held:
            self._hold(work.record.topic, parked, work.size)
        lanes = self._lanes_of(work)
        ready = lanes.put(lane, work, job.share) if job else lanes.put(lane, work)
        if ready:
            self._now_ready(work)
        elif (head := lanes.taken(lane)) is not None:
            self._look_again(lane, head)

    def look_again(self, wanted: Callable[[TopicPartition], bool] = lambda source: True) -> None:
        """Something has changed that records may be waiting for: those of these partitions whose
        time had not come are handled again now, and so are those that the handler has in hand,
        should it find that theirs has not. On the event loop only; ``Worker.look_again`` is for
        others."""
        parked = ((lane, one.work) for lane, one in self._parked.items())
        for lane, work in list(parked):
            if wanted(lane[0].source):
                self._look_again(lane, work)
        for _, work in self._since.values():
            work.look_again = work.look_again or wanted(work.partition.source)

    def drop(self, unwanted: Callable[[Lane], bool]) -> None:
        """Leave what waits in these lanes to the next owner."""
        for work in (*self.lanes.drop(unwanted), *self.quick.drop(unwanted)):
            self._bytes[work.record.topic] -= work.size
        for lane in [lane for lane in self._parked if unwanted(lane)]:
            self._done(lane, self._leave_park(lane))
        for lane, work in [stuck for stuck in self._stuck if unwanted(stuck[0])]:
            self._stuck.remove((lane, work))
            self._done(lane, work)

    def stop(self) -> None:
        """Start nothing more; what runs may finish."""
        self._stopped = True

    def dispatch(self) -> None:
        """Give every ready record a slot, as far as there are some; a few now, the others
        when those have begun, for then perhaps nothing is left to do."""
        if self._stopped:
            return
        for _ in range(min(_QUICK_SLOTS - len(self._running_quick), self.quick.ready)):
            self._start(self._running_quick, self.quick)
        idle = min(self.limit - len(self._running), self.lanes.ready)
        for _ in range(min(idle, _STARTED_AT_ONCE)):
            self._start(self._running, self.lanes)
        if idle > _STARTED_AT_ONCE and not self._more_to_start:
            self._more_to_start = True
            asyncio.get_running_loop().call_soon(self._dispatch_more)

    def _start(self, running: set[asyncio.Task[None]], lanes: Lanes[Lane, Work]) -> None:
        task = asyncio.create_task(self._serve(lanes), name="slot")
        running.add(task)
        task.add_done_callback(running.discard)

    def _dispatch_more(self) -> None:
        self._more_to_start = False
        self.dispatch()

    def expire(self) -> None:
        """Cancel whatever is past its deadline; called at every turn of the worker."""
        latest = time.monotonic() - self._config.deadline_s
        for task, (since, work) in self._since.items():
            if since > latest:
                return
            work.ending = "deadline"
            task.cancel()

    async def _serve(self, lanes: Lanes[Lane, Work]) -> None:
        """One slot: record after record, until there is none or the slot is not wanted."""
        task = cast("asyncio.Task[None]", asyncio.current_task())
        while True:
            if time.monotonic() >= self._turn_ends:
                await self._young_turn()
            too_many = lanes is self.lanes and len(self._running) > self.limit
            if self._stopped or too_many:
                return
            taken = lanes.take()
            if taken is None:
                return
            await self._handle(task, *taken)
            self._changed()

    async def _young_turn(self) -> None:
        """Returns in a turn of the loop that is young: all slots together begin nothing more in
        one after ``_TURN_S``."""
        while time.monotonic() >= self._turn_ends:
            if not self._turn_asked:
                self._turn_asked = True
                asyncio.get_running_loop().call_soon(self._begin_turn)
            await asyncio.sleep(0)

    def _begin_turn(self) -> None:
        self._turn_asked = False
        self._turn_ends = time.monotonic() + _TURN_S

    async def _handle(self, task: asyncio.Task[None], lane: Lane, work: Work) -> None:
        started = time.monotonic()
        self._enter(task, work, started)
        lost, stop = "error", False
        try:
            kind, outputs = await self._outcome(work)
            work.partition.finish(work.record.offset, outputs, kind)
            lost = ""
            self._done(lane, work)
        except RetryLater as error:
            self._park(lane, work, str(error))
        except NotYet as error:
            self._wait(lane, work, error)
            lost = ""
        except _GivingUpFailed as error:
            self._giving_up_failed(lane, work, error.__cause__ or error)
        except StopPartition as error:
            log.warning("handler stops the partition", error=told(error), **where(work.record))
            self._done(lane, work)
            stop = True
        except asyncio.CancelledError:
            lost = "cancelled"
            self._done(lane, work)
            if not work.ending:
                raise
        finally:
            self._leave(task, work, time.monotonic() - started, lost)
        if stop:  # only now: it cancels what is in hand, which must not be this task
            work.partition.abandon()

    def _enter(self, task: asyncio.Task[None], work: Work, now: float) -> None:
        work.attempts += 1
        work.ending = ""
        work.look_again = False
        self._bytes[work.record.topic] -= work.size
        self._metrics.slot_seconds.add(now - work.ready_at)
        self._since[task] = (now, work)
        work.partition.enter(task, work)

    def _leave(self, task: asyncio.Task[None], work: Work, seconds: float, lost: str) -> None:
        del self._since[task]
        work.partition.leave(task)
        while work.ending and task.cancelling():
            task.uncancel()  # the record was cancelled, not the slot
        self._metrics.handler_seconds.add(seconds)
        lost = work.ending or lost
        if lost:
            self._metrics.lost_seconds.add(lost, by=seconds)

    async def _outcome(self, work: Work) -> tuple[Kind, Sequence[Output]]:
        """The outputs of one attempt, a dead letter's included. Raises ``RetryLater``, ``NotYet``,
        ``StopPartition`` or ``_GivingUpFailed``."""
        try:
            if isinstance(work.job, GiveUp):
                raise work.job
            outputs = await work.partition.handler.handle(work.job, attempt=work.attempts)
            self.checker.check(work.record.topic, outputs)
            self.checker.check_sizes(outputs)
            return "done", outputs
        except BaseException as error:
            given_up = self._given_up(work, error)
        return "given_up", self._give_up(work, given_up)

    def _given_up(self, work: Work, error: BaseException) -> GiveUp:
        """An attempt failed: the reason to give up now; raises where there is none."""
        if isinstance(error, GiveUp):
            return error
        if isinstance(error, StopPartition | NotYet):
            raise error
        if work.ending == "deadline":
            return GiveUp("deadline", f"no answer within {self._config.deadline_s:g} s")
        if asked_to_stop(error):
            raise error
        if not isinstance(error, RetryLater):
            log.error("handler failed", error=told(error), **where(work.record))
        if work.attempts < self._config.max_attempts:
            raise RetryLater(_why(error)) from error
        detail = f"{_why(error)} in attempt {work.attempts}"
        return GiveUp("retries-exhausted", detail)

    def _give_up(self, work: Work, error: GiveUp) -> Sequence[Output]:
        """The dead letter. Where there is none the record stays given up: it is not handled
        again, which may cost minutes each time, only the giving up is."""
        work.job = error
        attempts = work.attempts - work.faults
        try:
            outputs = work.partition.handler.give_up(work.record, error, attempts=attempts)
            self.checker.check(work.record.topic, outputs)
        except StopPartition:
            raise
        except BaseException as fault:
            if asked_to_stop(fault):
                raise
            raise _GivingUpFailed from fault
        log.info("given up", code=error.code, attempts=attempts, **where(work.record))
        self._metrics.dead_letters.add(error.code)
        return outputs

    def _giving_up_failed(self, lane: Lane, work: Work, cause: BaseException) -> None:
        """Again, at most so many times; then its partition waits for a better handler."""
        work.faults += 1
        log.error("giving up failed", error=told(cause), attempt=work.faults, **where(work.record))
        if work.faults < self._config.max_attempts:
            self._park(lane, work, type(cause).__name__)
        elif work.partition.is_open:
            self._stuck.append((lane, work))
            work.partition.stand_still(work.record.offset)
        else:
            self._done(lane, work)

    def _park(self, lane: Lane, work: Work, why: str) -> None:
        """Wait in the lane, which stays busy, so that its order holds; the slot is free."""
        delay = full_jitter(work.attempts, self._config.retry_base_s, self._config.retry_cap_s)
        place = where(work.record)
        log.info("retry later", why=why, attempt=work.attempts, delay_s=round(delay, 3), **place)
        self._metrics.retries.add(work.record.topic)
        self._park_for(lane, work, delay)

    def _wait(self, lane: Lane, work: Work, error: NotYet) -> None:
        """Its time has not come: no attempt was made, and what failed before has passed."""
        work.attempts = 0
        log.debug("not yet", delay_s=round(error.seconds, 3), **where(work.record))
        parked = self._park_for(lane, work, error.seconds)
        parked.look = error.look
        for one in (work, *self._lanes_of(work).behind(lane)):
            self._hold(work.record.topic, parked, one.size)
        self._wait_on(lane, parked, error.seconds)

    def _hold(self, topic: str, parked: _Parked, size: int) -> None:
        """One more waits for that time; the first is the parked record itself."""
        self._held_behind[topic] += 1 if parked.held else 0
        self._held[topic] += 1
        self._held_bytes[topic] += size
        parked.held += 1
        parked.held_bytes += size

    def _hold_no_more(self, parked: _Parked) -> None:
        topic = parked.work.record.topic
        self._held_behind[topic] -= max(0, parked.held - 1)
        self._held[topic] -= parked.held
        self._held_bytes[topic] -= parked.held_bytes

    def _wait_on(self, lane: Lane, parked: _Parked, seconds: float) -> None:
        """For so long, or until something changes, as it may have done just now."""
        if parked.work.look_again:
            seconds = min(seconds, LOOK_AGAIN_S)
        loop = asyncio.get_running_loop()
        parked.timer.cancel()
        parked.timer = loop.call_later(seconds, self._unpark, lane)
        parked.soonest = loop.time() + LOOK_AGAIN_S

    def _look_again(self, lane: Lane, work: Work) -> None:
        """Handle it again at once, but not again and again: a flood may come behind it."""
        work.look_again = True
        parked = self._parked.get(lane)
        if parked is None or parked.soonest is None or parked.timer.when() <= parked.soonest:
            return
        parked.timer.cancel()
        loop = asyncio.get_running_loop()
        parked.timer = loop.call_at(parked.soonest, self._unpark, lane)

    def _park_for(self, lane: Lane, work: Work, seconds: float) -> _Parked:
        self._bytes[work.record.topic] += work.size
        timer = asyncio.get_running_loop().call_later(seconds, self._unpark, lane)
        self._parked[lane] = _Parked(work, timer)
        return self._parked[lane]

    def _unpark(self, lane: Lane) -> None:
        parked = self._parked[lane]
        if not parked.work.partition.is_open:
            self._done(lane, self._leave_park(lane))
        elif parked.look is None:
            self._put_back(lane)
        else:
            parked.soonest = None
            self._due[lane] = parked
            if self._looker is None or self._looker.done():
                self._looker = asyncio.create_task(self._look_at_due(), name="looker")

    async def _look_at_due(self) -> None:
        """One after the other, and no slot is held."""
        while self._due and not self._stopped:
            if time.monotonic() >= self._turn_ends:
                await self._young_turn()
            if self._due:
                lane = next(iter(self._due))
                await self._look_at(lane, self._due.pop(lane))

    async def _look_at(self, lane: Lane, parked: _Parked) -> None:
        seconds, parked.work.look_again = 0.0, False
        if parked.look is not None:
            with contextlib.suppress(Exception):  # the handler will meet it, and tell
                seconds = await parked.look()
        if self._parked.get(lane) is not parked:
            return  # dropped meanwhile
        if seconds > 0:
            self._wait_on(lane, parked, seconds)
        else:
            self._put_back(lane)

    def _put_back(self, lane: Lane) -> None:
        parked = self._parked.pop(lane)
        self._hold_no_more(parked)
        work = parked.work
        self._lanes_of(work).put_back(lane)
        work.ready_at = time.monotonic()
        self.dispatch()

    def _leave_park(self, lane: Lane) -> Work:
        """It waits no more, and is not handled any more either."""
        parked = self._parked.pop(lane)
        self._due.pop(lane, None)
        self._hold_no_more(parked)
        parked.timer.cancel()
        self._bytes[parked.work.record.topic] -= parked.work.size
        return parked.work

    def _done(self, lane: Lane, work: Work) -> None:
        if (following := self._lanes_of(work).done(lane)) is not None:
            self._now_ready(following)

    def _lanes_of(self, work: Work) -> Lanes[Lane, Work]:
        return self.quick if work.quick else self.lanes

    def _now_ready(self, work: Work) -> None:
        """It waits for a slot only, from now on."""
        work.ready_at = time.monotonic()
        self._metrics.lane_seconds.add(work.ready_at - work.enqueued_at)


def _topic(lane: Lane) -> str:
    return str(lane[0].source.topic)


def _why(error: BaseException) -> str:
    """What made an attempt fail: the handler's own words, which hold nothing that people wrote,
    or the type of the error."""
    return (str(error) if isinstance(error, RetryLater) else "") or type(error).__name__
