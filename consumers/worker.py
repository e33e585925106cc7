"""The worker: reads what there is room for, handles lanes side by side, publishes exactly once.

In come the topics of one consumer group, out go whatever outputs the handler makes of each
record, in the same transaction as its offset. Partitions come and go by the group's
assignment; each has its own handler object, its own producer and its own publishing task
(``consumers.partition``). The way of one record here:

    getmany → take in → open → its lane → handle (retry, give up) → finish → transaction
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import cast

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError

from consumers.backoff import full_jitter
from consumers.batches import BatchTooLarge
from consumers.config import WorkerConfig
from consumers.group import Group, connect
from consumers.handler import GiveUp, Handler, Job, RetryLater, StopPartition
from consumers.lanes import NO_SHARE, Lanes
from consumers.metrics import Metrics, WorkerState
from consumers.offsets import Committed
from consumers.partition import AssignedPartition, Kind
from consumers.records import to_record, where
from consumers.transactions import asked_to_stop, output_size
from schemas.record import Output, Record

log = structlog.get_logger(__name__)

POLL_TIMEOUT_MS = 200
POLL_RECORDS = 500
STOP_TIMEOUT_S = 5.0

Lane = tuple[AssignedPartition, Hashable]


@dataclass(slots=True)
class Work:
    """A record between its lane and its outcome."""

    partition: AssignedPartition
    record: Record
    job: Job | GiveUp
    attempts: int = 0
    ready_at: float = 0.0  # since when it waits for a slot only; monotonic, s
    enqueued_at: float = field(default_factory=time.monotonic)

    @property
    def size(self) -> int:
        """Bytes that it holds while it waits."""
        return len(self.record.value or b"") + 512


class Worker(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """One member of a consumer group. ``run`` returns after ``stop``, or raises.

    ``handler_factory(topic, partition)`` makes the handler of one assignment. ``slots`` says
    how many records may be in the handler's hands now, at most ``max_in_flight``: whoever
    does the work sets the pace, up and down, and 0 stops the reading too. ``recover`` says what
    is finished in a partition for which the group has no offset (group offsets expire).
    """

    def __init__(
        self,
        config: WorkerConfig,
        handler_factory: Callable[[str, int], Handler],
        slots: Callable[[], int] | None = None,
        *,
        recover: Callable[[TopicPartition], Awaitable[Committed | None]] | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._config = config
        self._handler_factory = handler_factory
        self._recover = recover or _nothing_finished
        self.metrics = metrics or Metrics()
        self._turned_at = time.monotonic()
        self._parked = 0
        self._wanted_slots = slots or (lambda: config.max_in_flight)
        self._lanes: Lanes[Lane, Work] = Lanes(_topic, config.weights)
        self._waiting_bytes = 0
        self._running = 0
        self._partitions: dict[TopicPartition, AssignedPartition] = {}
        self._turn = 0
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()
        self._rejoin_wanted = False
        self._assigned = False
        self._group: Group | None = None

    def stop(self) -> None:
        """Take in nothing more, finish what fits into the grace, leave. For signal handlers."""
        self._stopping.set()
        self._changed.set()

    @property
    def open_partitions(self) -> frozenset[TopicPartition]:
        """Partitions that are assigned, started and being read."""
        return frozenset(tp for tp, p in self._partitions.items() if p.is_open)

    @property
    def is_assigned(self) -> bool:
        """The group has answered: with partitions, or with none because others have them all."""
        return self._assigned

    def state(self) -> WorkerState:
        """What can be read off the worker now; only from its own event loop."""
        consumer = self._group.consumer if self._group is not None else None
        lanes, partitions = self._lanes, list(self._partitions.values())
        return WorkerState(
            in_flight=self._running,
            slots=self._slots(),
            waiting_lane=lanes.waiting - lanes.ready,
            waiting_slot=lanes.ready,
            waiting_retry=self._parked,
            waiting_commit=sum(partition.pending for partition in partitions),
            waiting_bytes=self._waiting_bytes,
            lanes=lanes.lanes,
            lane_depth_max=lanes.deepest,
            loop_lag_seconds=time.monotonic() - self._turned_at,
            partitions=tuple(p.state(_highwater(consumer, p.source)) for p in partitions),
        )

    async def run(self) -> None:
        """Work until ``stop``. Raises ``ConsumersError`` where it cannot start."""
        group = await connect(self._config, self._stopping)
        if group is None:
            return
        self._group = group
        group.consumer.subscribe(list(self._config.topics), listener=self)
        try:
            await self._read(group.consumer)
        finally:
            await self._close_all(list(self._partitions))
            await group.close()

    # Reading: only what there is room for, from partitions that have room.

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        while not self._stopping.is_set():
            self._turned_at = time.monotonic()
            self._rejoin(consumer)
            asked = self._with_room(consumer)
            room = self._room()
            if not asked or room < 1:
                await self._wait_for_change()
                continue
            try:
                await self._poll(consumer, asked, room)
            except (KafkaError, IllegalStateError) as error:
                log.warning("poll failed", error=repr(error))
                await self._wait_for_change()
            self._dispatch()

    def _rejoin(self, consumer: AIOKafkaConsumer) -> None:
        """Ask the group for partitions anew, after one was fenced."""
        if self._rejoin_wanted:
            self._rejoin_wanted = False
            log.info("rejoining the group", group=self._config.group_id)
            consumer.subscribe(list(self._config.topics), listener=self)

    def _slots(self) -> int:
        return max(0, min(self._config.max_in_flight, self._wanted_slots()))

    def _room(self) -> int:
        """How many records to take in now: enough to keep the slots busy, not more.

        Where all that waits is the flood of a few authors, reading goes on, within bounds,
        to find the others behind them.
        """
        config, waiting = self._config, self._lanes.waiting
        wanted = config.waiting_per_slot * self._slots()
        if waiting >= config.max_waiting or self._waiting_bytes >= config.max_waiting_bytes:
            return 0
        if waiting < wanted:
            return wanted - waiting
        return min(POLL_RECORDS, config.max_waiting - waiting) if self._lanes.flows < wanted else 0

    def _with_room(self, consumer: AIOKafkaConsumer) -> dict[TopicPartition, AssignedPartition]:
        assigned = consumer.assignment()
        return {tp: p for tp, p in self._partitions.items() if p.has_room and tp in assigned}

    async def _wait_for_change(self) -> None:
        self._changed.clear()
        waiter = asyncio.ensure_future(self._changed.wait())
        await asyncio.wait([waiter], timeout=POLL_TIMEOUT_MS / 1000)
        waiter.cancel()

    async def _poll(
        self,
        consumer: AIOKafkaConsumer,
        asked: dict[TopicPartition, AssignedPartition],
        room: int,
    ) -> None:
        """Partitions take turns: ``getmany`` alone would empty one before it asks the next."""
        self._turn += 1
        order = sorted(asked)
        order = order[self._turn % len(order) :] + order[: self._turn % len(order)]
        share = max(1, room // len(order))
        found = False
        for source in order:
            found = await self._ask(consumer, source, asked, share) or found
        if not found:
            with contextlib.suppress(BatchTooLarge):  # the next turn tells whose it is
                batches = await consumer.getmany(*order, timeout_ms=POLL_TIMEOUT_MS, max_records=1)
                self._take_in(batches, asked)

    async def _ask(
        self,
        consumer: AIOKafkaConsumer,
        source: TopicPartition,
        asked: dict[TopicPartition, AssignedPartition],
        share: int,
    ) -> bool:
        """Take in what is there of one partition, up to ``share`` records."""
        partition = asked[source]
        room = 1 if partition.cautious else share
        try:
            batches = await consumer.getmany(source, timeout_ms=0, max_records=room)
        except BatchTooLarge as error:
            # The records before that batch went down with it: ask again, one by one.
            consumer.seek(source, partition.end)
            if room == 1:
                partition.block(error)
            partition.cautious = True
            return True
        return self._take_in(batches, asked)

    def _take_in(
        self,
        batches: dict[TopicPartition, list[ConsumerRecord]],
        asked: dict[TopicPartition, AssignedPartition],
    ) -> bool:
        for source, messages in batches.items():
            partition = asked[source]
            if self._partitions.get(source) is not partition:
                continue  # reassigned while we waited: these belong to the earlier assignment
            for message in messages:
                if partition.take(message.offset, message.timestamp):
                    self._enqueue(partition, to_record(message))
        return any(batches.values())

    def _enqueue(self, partition: AssignedPartition, record: Record) -> None:
        job: Job | GiveUp
        lane: Hashable = ("given up", record.offset)
        share = NO_SHARE
        try:
            job = partition.handler.open(record)
            lane, share = job.lane, job.share
        except GiveUp as error:
            job = error
        except Exception as error:
            log.error("open failed", error=type(error).__name__, **where(record))
            job = GiveUp("handler-error", f"{type(error).__name__} while opening the record")
        work = Work(partition, record, job)
        self.metrics.records.labels(record.topic).inc()
        self._waiting_bytes += work.size
        if self._lanes.put((partition, lane), work, share):
            self._now_ready(work)

    def _now_ready(self, work: Work | None) -> None:
        """It waits for a slot only, from now on."""
        if work is not None:
            work.ready_at = time.monotonic()
            self._observe("lane", work.ready_at - work.enqueued_at)

    def _observe(self, stage: str, seconds: float) -> None:
        self.metrics.stage_seconds.labels(stage).observe(seconds)

    # Handling: one task per record, at most ``max_in_flight`` at a time.

    def _dispatch(self) -> None:
        while self._running < self._slots() and not self._stopping.is_set():
            taken = self._lanes.take()
            if taken is None:
                return
            lane, work = taken
            self._waiting_bytes -= work.size
            self._running += 1
            self._observe("slot", time.monotonic() - work.ready_at)
            name = f"handle {work.record.topic}/{work.record.partition}/{work.record.offset}"
            task = asyncio.create_task(self._handle(lane, work), name=name)
            work.partition.running.add(task)
            task.add_done_callback(work.partition.running.discard)

    async def _handle(self, lane: Lane, work: Work) -> None:
        work.attempts += 1
        started = time.monotonic()
        why = "cancelled"
        try:
            kind, outputs = await self._outcome(work)
        except RetryLater as error:
            why = "error"
            self._park(lane, work, error)
        except StopPartition as error:
            why = "error"
            log.warning("handler stops the partition", error=repr(error), **where(work.record))
            self._done(lane)
            work.partition.abandon()
        except asyncio.CancelledError:
            self._done(lane)
            raise
        except Exception as error:
            why = "error"
            log.exception("giving up failed", **where(work.record))
            self._park(lane, work, RetryLater(repr(error)))
        else:
            why = ""
            work.partition.finish(work.record.offset, outputs, kind)
            self._done(lane)
        finally:
            self._spent(time.monotonic() - started, why)
            self._running -= 1
            self._changed.set()
            self._dispatch()

    def _done(self, lane: Lane) -> None:
        self._now_ready(self._lanes.done(lane))

    def _spent(self, seconds: float, lost: str) -> None:
        self._observe("handler", seconds)
        if lost:
            self.metrics.lost_seconds.labels(lost).inc(seconds)

    async def _outcome(self, work: Work) -> tuple[Kind, Sequence[Output]]:
        """The outputs of one attempt, a dead letter's included. Raises ``RetryLater``."""
        try:
            outputs = await self._attempt(work)
            self._check_sizes(outputs)
        except GiveUp as error:
            log.info("given up", code=error.code, attempts=work.attempts, **where(work.record))
            self.metrics.dead_letters.labels(error.code).inc()
            given_up = work.partition.handler.give_up(work.record, error, attempts=work.attempts)
            return "given_up", given_up
        return "done", outputs

    async def _attempt(self, work: Work) -> Sequence[Output]:
        if isinstance(work.job, GiveUp):
            raise work.job
        timeout = asyncio.timeout(self._config.deadline_s)
        try:
            async with timeout:
                return await work.partition.handler.handle(work.job, attempt=work.attempts)
        except (GiveUp, StopPartition):
            raise
        except BaseException as error:
            if asked_to_stop(error):
                raise
            if timeout.expired():
                detail = f"no answer within {self._config.deadline_s:g} s"
                raise GiveUp("deadline", detail) from error
            if not isinstance(error, RetryLater):
                log.error("handler failed", error=type(error).__name__, **where(work.record))
            if work.attempts >= self._config.max_attempts:
                detail = f"{type(error).__name__} in attempt {work.attempts}"
                raise GiveUp("retries-exhausted", detail) from error
            raise RetryLater(str(error)) from error

    def _check_sizes(self, outputs: Sequence[Output]) -> None:
        """A record that the broker refuses would fail its whole batch."""
        largest = max(map(output_size, outputs), default=0)
        if largest > self._config.max_request_bytes:
            detail = f"an output of {largest} bytes, allowed are {self._config.max_request_bytes}"
            raise GiveUp("output-too-large", detail)

    def _park(self, lane: Lane, work: Work, error: RetryLater) -> None:
        """Wait in the lane, which stays busy, so that its order holds; the slot is free."""
        delay = full_jitter(work.attempts, self._config.retry_base_s, self._config.retry_cap_s)
        log.info(
            "retry later", attempt=work.attempts, delay_s=round(delay, 3), **where(work.record)
        )
        asyncio.get_running_loop().call_later(delay, self._unpark, lane, work)

    def _unpark(self, lane: Lane, work: Work) -> None:
        self._parked -= 1
        if not work.partition.is_open:
            self._done(lane)
            return
        self._lanes.put_back(lane)
        work.ready_at = time.monotonic()
        self._waiting_bytes += work.size
        self._dispatch()

    # The group: partitions come and go.

    def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        """Only starts tasks: no heartbeat runs in here, and its exceptions are swallowed."""
        if self._group is None:
            return
        self.metrics.rebalances.inc()
        self._assigned = True
        for source in assigned:
            self._partitions[source] = AssignedPartition(
                source,
                self._handler_factory(source.topic, source.partition),
                self._config,
                read_back=self._group.committed,
                recover=self._recover,
                seek=self._group.seek,
                let_go=self._let_go,
                changed=self._changed.set,
                metrics=self.metrics,
            )

    async def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        """Heartbeats go on meanwhile: finish within the grace, cancel the rest, publish."""
        await self._close_all([source for source in revoked if source in self._partitions])

    async def _close_all(self, sources: Sequence[TopicPartition]) -> None:
        closing = {source: self._partitions[source] for source in sources}
        for partition in closing.values():
            partition.shut()
        self._drop(lambda lane: lane[0] in closing.values())
        deadline = asyncio.get_running_loop().time() + self._config.grace_s
        await asyncio.gather(*(partition.close(deadline) for partition in closing.values()))
        for source, partition in closing.items():
            if self._partitions.get(source) is partition:
                del self._partitions[source]

    def _drop(self, unwanted: Callable[[Lane], bool]) -> None:
        """Leave what waits there to the next owner."""
        self._waiting_bytes -= sum(work.size for work in self._lanes.drop(unwanted))

    def _let_go(self, source: TopicPartition) -> None:
        self._drop(lambda lane: lane[0].source == source)
        self._rejoin_wanted = True
        self._changed.set()


def _topic(lane: Lane) -> str:
    return str(lane[0].source.topic)


async def _nothing_finished(source: TopicPartition) -> Committed | None:
    return None


def _highwater(consumer: AIOKafkaConsumer | None, source: TopicPartition) -> int | None:
    if consumer is None or source not in consumer.assignment():
        return None
    return cast("int | None", consumer.highwater(source))
