"""One assigned partition: its gate, its offsets, and the task that publishes what is finished.

The life of an assignment: start the producer (which fences the owner before us), read the
committed offset and its map, let the caller prepare its views, seek, open the gate. Then the
worker takes records in, and
whatever handler finishes hands its outputs to ``finish``; the publishing task puts all that
is waiting into one transaction. After any exception the producer is thrown away, a new one
started, the offset read back, and only what did not get through is published again, without
asking the handler again. Fenced means somebody else owns the partition: let go.
"""

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

import structlog
from aiokafka import TopicPartition

from consumers.backoff import full_jitter
from consumers.batches import BatchTooLarge, record_size
from consumers.config import WorkerConfig
from consumers.errors import Fenced, OffsetBeyondEnd, told
from consumers.handler import Handler
from consumers.hooks import Hook, Hooks, nothing
from consumers.metrics import Metrics, PartitionState
from consumers.offsets import Committed, OffsetTracker
from consumers.outbox import Finished, Kind, Outbox
from consumers.transactions import REFUSALS, TransactionalPublisher, asked_to_stop
from schemas.record import Output

log = structlog.get_logger(__name__)

_CANCEL_TIMEOUT_S = 5.0
_CLOCKS_MS = 5_000  # by which the clocks of two brokers may differ

Member = Callable[[], Awaitable[bool]]
"""Are we still in the group? Raises where nobody can say."""
Published = Callable[[TopicPartition, int], Awaitable[Mapping[int, int]]]
"""Which records from that offset on have their outcome on the log: offset, Kafka's time in ms."""


async def nothing_published(source: TopicPartition, offset: int) -> Mapping[int, int]:
    """For callers whose outputs do not say what they are the outcome of."""
    return {}


async def always_member() -> bool:
    """For callers without a group."""
    return True


class Publisher(Protocol):
    """What this file needs of ``TransactionalPublisher``."""

    async def start(self) -> None: ...
    async def publish(self, outputs: Sequence[Output], offset: int, metadata: str) -> None: ...
    async def discard(self) -> None: ...


class Cancellable(Protocol):
    """What a handler works on; it is told why before its task is cancelled."""

    ending: str


class AssignedPartition:
    """State of one partition from assignment to revocation.

    ``read_back`` reads the committed offset (None: nothing committed), ``recover`` says what is
    finished where nothing is committed (None: nothing is), ``published`` what is finished beyond
    what is committed, ``seek`` moves the consumer (None:
    to the beginning), ``let_go`` asks the worker to rejoin the group and ``changed`` tells it
    that there is room again. ``prepare`` and ``release``: see ``consumers.hooks``. ``before``:
    the closing of an earlier assignment of this partition, which is waited for.
    """

    def __init__(
        self,
        source: TopicPartition,
        handler: Handler,
        config: WorkerConfig,
        *,
        read_back: Callable[[TopicPartition], Awaitable[Committed | None]],
        recover: Callable[[TopicPartition], Awaitable[Committed | None]],
        published: Published = nothing_published,
        is_member: Member = always_member,
        seek: Callable[[TopicPartition, int | None], Awaitable[int]],
        let_go: Callable[[TopicPartition], None],
        changed: Callable[[], None],
        metrics: Metrics,
        prepare: Hook = nothing,
        release: Hook = nothing,
        before: "asyncio.Task[None] | None" = None,
        new_publisher: Callable[[WorkerConfig, TopicPartition], Publisher] = TransactionalPublisher,
    ) -> None:
        self.source = source
        self.handler = handler
        self._running: dict[asyncio.Task[None], Cancellable] = {}
        self._quiet = asyncio.Event()  # nothing is in the handler's hands
        self._quiet.set()
        self._config = config
        self._read_back = read_back
        self._recover = recover
        self._published = published
        self._is_member = is_member
        self._outcomes: Mapping[int, int] = {}  # on the log already: offset, Kafka's time in ms
        self._last_outcome = -1
        self._stale = False  # the group's offset is behind them, and nothing new may come
        self._metrics = metrics
        self._seek = seek
        self._let_go = let_go
        self._changed = changed
        self._new_publisher = new_publisher
        self._publisher: Publisher | None = None
        self._tracker: OffsetTracker | None = None
        self._hooks = Hooks(source, prepare, release, self._pause)
        self._before = before
        self._outbox = Outbox(config.max_batch_records, config.max_request_bytes)
        self._timestamps: dict[int, int] = {}  # unfinished records: Kafka's time, ms
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._open = False
        self._blocked = False
        self.cautious = False  # ask for one record at a time: a batch could not be read
        self._failures = 0
        self._task = asyncio.create_task(self._run(), name=f"publish {source}")

    # What the worker calls.

    @property
    def has_room(self) -> bool:
        """May the worker ask Kafka for records of this partition?"""
        ready = self._open and not self._blocked
        return ready and self._tracker is not None and self._tracker.has_room

    @property
    def is_open(self) -> bool:
        """Assigned, started, and not on its way out."""
        return self._open

    def take(self, offset: int, timestamp_ms: int = 0) -> bool:
        """Take a record in; False where it was finished before, or the gate is shut."""
        if not self._open or self._tracker is None or not self._tracker.take(offset):
            return False
        if _has_outcome(self._outcomes, offset, timestamp_ms):
            self._tracker.finish((offset,))
            if offset == self._last_outcome:
                self._commit_soon()
            return False
        self._timestamps[offset] = timestamp_ms
        return True

    def finish(self, offset: int, outputs: Sequence[Output], kind: Kind = "done") -> None:
        """A record's outcome is ready to be published."""
        self._outbox.add(offset, outputs, kind)
        self._idle.clear()
        self._wake.set()

    def _commit_soon(self) -> None:
        """All whose outcome the group's offset did not know have passed: let it know again."""
        self._stale = True
        self._idle.clear()
        self._wake.set()

    @property
    def pending(self) -> int:
        """Finished records that wait for their commit."""
        return len(self._outbox)

    def state(self, highwater: int | None) -> PartitionState:
        """For the metrics. ``highwater``: the end of the log as the consumer knows it."""
        tracker, now = self._tracker, time.time()
        position = tracker.position if tracker is not None else 0
        oldest_ms = self._timestamps.get(position)
        return PartitionState(
            topic=self.source.topic,
            partition=self.source.partition,
            state="blocked" if self._blocked else "open" if self._open else "opening",
            lag_records=max(0, highwater - self.end) if highwater and tracker else 0,
            lag_seconds=0.0 if oldest_ms is None else max(0.0, now - oldest_ms / 1000),
            commit_age_seconds=max(0.0, time.monotonic() - self._outbox.since),
            map_fill_ratio=tracker.fill if tracker is not None else 0.0,
        )

    @property
    def end(self) -> int:
        """One past the last offset taken in; 0 before the gate opens."""
        return self._tracker.end if self._tracker is not None else 0

    def block(self, error: BatchTooLarge) -> None:
        """Stand still before a batch that may not be unpacked; the other partitions go on.

        Its records can't be read, so they have no outcome, so they can't be passed.
        """
        self._blocked = True
        log.error(
            "partition stands still: a worker with a larger max_batch_bytes must read it",
            partition=str(self.source),
            offset=error.first,
            error=str(error),
        )

    def stand_still(self, offset: int) -> None:
        """Take in nothing more, for ``offset`` can be neither handled nor given up."""
        self._blocked = True
        log.error(
            "partition stands still: its handler fails to give up on this record, which stays"
            " unfinished; mend the handler's give_up, then restart the worker",
            partition=str(self.source),
            offset=offset,
        )

    def shut(self) -> None:
        """Take nothing more in; what is running may still finish."""
        self._open = False

    async def close(self, deadline: float) -> None:
        """Let what runs finish until ``deadline`` (loop time), cancel the rest, publish, go."""
        self.shut()
        await self._drain(deadline)
        await self._flush()
        await self._stop_publishing()
        await self._hooks.release()

    def enter(self, task: asyncio.Task[None], work: Cancellable) -> None:
        """A record of this partition is in the handler's hands, in this task."""
        self._running[task] = work
        self._quiet.clear()

    def leave(self, task: asyncio.Task[None]) -> None:
        """It is not any more."""
        del self._running[task]
        if not self._running:
            self._quiet.set()

    async def _drain(self, deadline: float) -> None:
        remaining = deadline - asyncio.get_running_loop().time()
        if not await _within(self._quiet, remaining):
            self._cancel_running()
            if not await _within(self._quiet, _CANCEL_TIMEOUT_S):
                log.error("a handler ignores its cancellation", partition=str(self.source))

    def _cancel_running(self) -> None:
        for task, work in self._running.items():
            work.ending = "partition"
            task.cancel()

    async def _flush(self) -> None:
        """What is finished gets one more commit's time to be published."""
        waiter = asyncio.create_task(self._idle.wait(), name=f"flush {self.source}")
        await asyncio.wait(
            [waiter, self._task],
            timeout=self._config.commit_timeout_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
        waiter.cancel()

    async def _stop_publishing(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task], timeout=_CANCEL_TIMEOUT_S)
        if not self._task.done():
            log.error("a partition ignores its cancellation", partition=str(self.source))
        if self._publisher is not None:
            await self._publisher.discard()

    # The task of this partition, told once from top to bottom.

    async def _run(self) -> None:
        try:
            tracker = await self._take_over()
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._outbox or self._stale:
                    await self._publish(tracker)
                self._idle.set()
        except Fenced:
            log.warning("fenced: another worker owns the partition", partition=str(self.source))
            self._metrics.transactions.add("fenced")
            self.abandon()
        except Exception as error:
            log.exception("partition stopped", partition=str(self.source), error=told(error))
            self.abandon()

    def moved_back(self, offset: int) -> None:
        """A record stands where others were read before: this is another log than before."""
        log.error(
            "the log moved back (the topic was recreated, or lost records); letting go of it",
            partition=str(self.source),
            offset=offset,
            expected=self.end,
        )
        self.abandon()

    def abandon(self) -> None:
        """Publish nothing more and ask the group again; never start again in place."""
        self.forget()
        self._let_go(self.source)

    def forget(self) -> None:
        """Whatever it holds is another owner's: cancel what runs, leave the rest."""
        self.shut()
        self._outbox.clear()
        self._stale = False
        self._idle.set()
        self._cancel_running()

    async def _take_over(self) -> OffsetTracker:
        if self._before is not None:
            await asyncio.wait([self._before])
        committed = await self._restart(recover=True)
        await self._hooks.prepare()
        start = await self._find(None if committed is None else committed.offset)
        committed = committed or Committed(start)
        self._outcomes = await self._look_up(committed, committed.offset)
        self._last_outcome = max(self._outcomes, default=-1)
        tracker = OffsetTracker(committed)
        self._tracker = tracker
        self._open = True
        log.info("partition open", partition=str(self.source), offset=start)
        self._changed()
        return tracker

    async def _find(self, offset: int | None) -> int:
        """Seek; waits, and says so, while there is no such place on the log."""
        for attempt in itertools.count(1):
            try:
                return await self._seek(self.source, offset)
            except OffsetBeyondEnd as error:
                log.error(str(error), partition=str(self.source))
            await self._pause(attempt)
        raise AssertionError("unreachable")

    async def _look_up(self, committed: Committed, start: int) -> Mapping[int, int]:
        """What has its outcome on the log, from ``start`` on, although the group's offset does
        not say so.

        Both were written in one transaction, so it is the broker that has lost the offset: Kafka
        4.4's group coordinator was seen to do that, killed while it read its log. Raises
        ``Fenced`` where somebody else has committed meanwhile.
        """
        for attempt in itertools.count(1):
            try:
                found = await self._published(self.source, start)
                behind = {o: at_ms for o, at_ms in found.items() if not committed.covers(o)}
                now = await self._read_back(self.source) if behind else None
                break
            except BaseException as error:
                if asked_to_stop(error):
                    raise
                place = str(self.source)
                log.warning("outcomes can't be read yet", partition=place, error=told(error))
            await self._pause(attempt)
        if now not in (None, committed):
            raise Fenced(f"{self.source}: another worker commits")
        if behind:
            log.error(
                "the group's offset is behind what was published: the broker lost commits (or"
                " somebody moved them back); what has its outcome is not done again",
                partition=str(self.source),
                offset=committed.offset,
                outcomes=len(behind),
                last=max(behind),
            )
        return behind

    async def _publish(self, tracker: OffsetTracker) -> None:
        batch = self._outbox.batch() if self._outbox else []
        offsets = [finished.offset for finished in batch]
        outputs = [output for finished in batch for output in finished.outputs]
        stale, self._stale = self._stale, False
        offset, metadata = tracker.commit_with(offsets)
        started = time.monotonic()
        try:
            if self._publisher is None:
                raise RuntimeError("publish before start")
            await self._publisher.publish(outputs, offset, metadata)
        except Fenced:
            raise
        except BaseException as error:
            if asked_to_stop(error):
                raise
            self._failures += 1
            self._metrics.transactions.add("failed")
            log.warning("transaction failed", partition=str(self.source), error=told(error))
            self._stale = self._open and (self._stale or stale)
            await self._pause(self._failures)
            await self._settle(tracker)
            if isinstance(error, REFUSALS):
                self._refused(batch, error)
        else:
            self._failures = 0
            self._metrics.transactions.add("committed")
            self._metrics.transaction_seconds.add(time.monotonic() - started)
            self._metrics.transaction_records.add(len(batch))
            self._outbox.published(batch)
            self._done(tracker, batch)

    def _refused(self, batch: Sequence[Finished], error: BaseException) -> None:
        """The broker will never take something in this batch: find it, and set it aside.

        What is set aside stays unfinished, so its offset is never passed; the others go on.
        """
        if (aside := self._outbox.refused(batch)) is not None:
            log.error(
                "this record's outputs can't be published; it stays unfinished until the output"
                " topics allow them (max.message.bytes, partitions) and a worker restarts",
                error=told(error),
                partition=str(self.source),
                offset=aside.offset,
                bytes=[record_size(output) for output in aside.outputs],
            )

    def _done(self, tracker: OffsetTracker, batch: Sequence[Finished]) -> None:
        tracker.finish(finished.offset for finished in batch)
        now = time.monotonic()
        for finished in batch:
            self._timestamps.pop(finished.offset, None)
            self._metrics.commit_seconds.add(now - finished.at)
        for kind, count in Counter(finished.kind for finished in batch).items():
            self._metrics.outcomes.add(self.source.topic, kind, by=count)
        self._changed()

    async def _settle(self, tracker: OffsetTracker) -> None:
        """Did the failed transaction commit? Only a new producer and a read back can tell."""
        committed = await self._restart() or Committed(0)
        start = max(committed.offset, tracker.position)
        outcomes = await self._look_up(committed, start)
        ours = {finished.offset for finished in self._outbox}

        def is_through(offset: int) -> bool:
            at_ms = self._timestamps.get(offset, 0)
            return committed.covers(offset) or _has_outcome(outcomes, offset, at_ms)

        others = [o for o in (*committed.ahead, *outcomes) if tracker.is_foreign(o)]
        others = [o for o in others if o not in self._outcomes]
        mine = tracker.unfinished - ours
        if committed.offset > tracker.reach or others or any(map(is_through, mine)):
            raise Fenced(f"{self.source}: another worker finished what is in flight here")
        through = self._outbox.take_out(lambda f: is_through(f.offset))
        self._done(tracker, through)
        self._stale |= self._open and any(f.offset in outcomes for f in through)

    async def _restart(self, *, recover: bool = False) -> Committed | None:
        """A fresh producer, then the committed offset; tries until it works.

        Raises ``Fenced`` where the group has given our place away: a process that stood still
        would take the id from the new owner, which is at work.
        """
        for attempt in itertools.count(1):
            if self._publisher is not None:
                await self._publisher.discard()
            self._publisher = self._new_publisher(self._config, self.source)
            try:
                if not await self._is_member():
                    raise Fenced(f"{self.source}: the group has given our place away")
                await self._publisher.start()
                committed = await self._read_back(self.source)
                if committed is None and recover:
                    committed = await self._recover(self.source)
                return committed
            except Fenced:
                raise
            except BaseException as error:
                if asked_to_stop(error):
                    raise
                log.warning("no producer yet", partition=str(self.source), error=told(error))
            await self._pause(attempt)
        raise AssertionError("unreachable")

    async def _pause(self, attempt: int) -> None:
        base, cap = self._config.retry_base_s, self._config.retry_cap_s
        await asyncio.sleep(full_jitter(attempt, base, cap))


def _has_outcome(outcomes: Mapping[int, int], offset: int, timestamp_ms: int) -> bool:
    """Is that of this very record? A log that was made anew has the same offsets, but later."""
    at_ms = outcomes.get(offset)
    return at_ms is not None and at_ms >= timestamp_ms - _CLOCKS_MS


async def _within(event: asyncio.Event, seconds: float) -> bool:
    """Was the event set in time?"""
    if not event.is_set() and seconds > 0:
        waiter = asyncio.ensure_future(event.wait())
        await asyncio.wait([waiter], timeout=seconds)
        waiter.cancel()
    return event.is_set()
