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
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import cast

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import IllegalStateError, KafkaError

from consumers.batches import BatchTooLarge
from consumers.config import WorkerConfig
from consumers.errors import told
from consumers.group import Group, connect
from consumers.handler import GiveUp, Handler
from consumers.hooks import Hook, nothing
from consumers.metrics import Metrics, WorkerState
from consumers.offsets import Committed
from consumers.partition import AssignedPartition, Published, nothing_published
from consumers.records import to_record, where
from consumers.slots import Slots, Work
from schemas.record import Record

log = structlog.get_logger(__name__)

POLL_TIMEOUT_MS = 200
POLL_RECORDS = 500
QUICK_POLL_S = 0.05  # between two looks for quick records while slow ones fill the room
ASK_RECORDS = 250  # taken in of one partition before the event loop turns


class Worker(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """One member of a consumer group. ``run`` returns after ``stop``, or raises.

    ``handler_factory(topic, partition)`` makes the handler of one assignment. ``slots`` says
    how many records may be in the handler's hands now, at most ``max_in_flight``: whoever
    does the work sets the pace, up and down, and 0 stops the reading too. ``recover`` says what
    is finished in a partition for which the group has no offset (group offsets expire), and
    ``published`` what has its outcome on the log although the group's offset does not say so
    (asked after ``prepare``, and after a transaction that failed): such records are not handled.
    ``prepare`` is awaited in each assignment after the partition is fenced off from its owner
    before and its offset is known, and before anything of it is read; ``release`` after it is
    closed, once for each ``prepare`` that was begun, whatever became of that.
    """

    def __init__(
        self,
        config: WorkerConfig,
        handler_factory: Callable[[str, int], Handler],
        slots: Callable[[], int] | None = None,
        *,
        recover: Callable[[TopicPartition], Awaitable[Committed | None]] | None = None,
        published: Published | None = None,
        prepare: Hook | None = None,
        release: Hook | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self._config = config
        self._handler_factory = handler_factory
        self._recover = recover or _nothing_finished
        self._published = published or nothing_published
        self._prepare = prepare or nothing
        self._release = release or nothing
        self.metrics = metrics or Metrics()
        self._turned_at = time.monotonic()
        self._slots = Slots(
            config, self.metrics, slots or (lambda: config.max_in_flight), self._wake
        )
        self._partitions: dict[TopicPartition, AssignedPartition] = {}
        self._stale: set[asyncio.Task[None]] = set()
        self._turn = 0
        self._quick_at = 0.0  # when quick records are looked for again, monotonic
        self._stopping = asyncio.Event()
        self._changed = asyncio.Event()
        self._rejoin_wanted = False
        self._assigned = False
        self._group: Group | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def stop(self) -> None:
        """Take in nothing more, finish what fits into the grace, leave. For signal handlers."""
        self._stopping.set()
        self._slots.stop()
        self._wake()

    def look_again(self, partition: int | None = None) -> None:
        """Something has changed that records said ``NotYet`` for: those of this partition of all
        topics (None: all) are handled again now. From any thread; nothing before ``run``."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # that loop is closed
                self._loop.call_soon_threadsafe(self._look_again, partition)

    def _look_again(self, partition: int | None) -> None:
        self._slots.look_again(lambda source: partition in (None, source.partition))

    def _wake(self) -> None:
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
        slots, lanes = self._slots, (self._slots.lanes, self._slots.quick)
        ready = sum(each.ready for each in lanes)
        partitions = list(self._partitions.values())
        return WorkerState(
            in_flight=slots.in_flight,
            slots=slots.limit,
            waiting_lane=sum(each.waiting for each in lanes) - ready,
            waiting_slot=ready,
            waiting_retry=slots.parked,
            waiting_commit=sum(partition.pending for partition in partitions),
            waiting_bytes=slots.waiting_bytes,
            lanes=sum(each.lanes for each in lanes),
            lane_depth_max=max(each.deepest for each in lanes),
            loop_lag_seconds=time.monotonic() - self._turned_at,
            partitions=tuple(p.state(_highwater(consumer, p.source)) for p in partitions),
        )

    async def run(self) -> None:
        """Work until ``stop``. Raises ``ConsumersError`` where it cannot start."""
        self._loop = asyncio.get_running_loop()
        try:
            while not self._stopping.is_set():
                group = await connect(self._config, self._stopping)
                if group is not None:
                    await self._belong(group)
        finally:
            self._stopping.set()

    async def _belong(self, group: Group) -> None:
        """Work as a member of the group, until ``stop`` or until its client is dead."""
        self._group = group
        self._rejoin_wanted = False
        self._slots.checker.partitions = group.partitions
        group.consumer.subscribe(list(self._config.topics), listener=self)
        try:
            await self._read(group)
        except BaseException:
            self._stopping.set()
            raise
        finally:
            await self._close_all(list(self._partitions))
            await asyncio.gather(*self._stale, return_exceptions=True)
            await group.close()

    # Reading: only what there is room for, from partitions that have room.

    async def _read(self, group: Group) -> None:
        consumer = group.consumer
        while not self._stopping.is_set():
            self._turned_at = time.monotonic()
            if group.is_dead():
                log.error(
                    "the group's client died: joining with a new one", group=self._config.group_id
                )
                return
            self._slots.expire()
            self._slots.dispatch()  # there may be more slots than before
            self._rejoin(group)
            asked = self._with_room(consumer)
            room = self._room()
            try:
                if asked and room > 0:
                    await self._poll(consumer, asked, room)
                elif not await self._poll_quick(consumer, asked):
                    await self._wait_for_change()
            except (KafkaError, IllegalStateError) as error:
                log.warning("poll failed", error=told(error))
                await self._wait_for_change()
            self._slots.dispatch()

    def _rejoin(self, group: Group) -> None:
        """Ask the group for partitions anew, after one was fenced."""
        if self._rejoin_wanted and not group.is_looking():
            self._rejoin_wanted = False
            log.info("rejoining the group", group=self._config.group_id)
            group.consumer.subscribe(list(self._config.topics), listener=self)

    def _room(self) -> int:
        """How many records to take in now: enough to keep the slots busy, not more.

        Where all that waits is the flood of a few authors, reading goes on, within bounds,
        to find the others behind them. What waits of quick topics doesn't count: they are read
        besides, and would keep the others out for as long as more comes. Nor does what waits for
        its time, up to ``max_held``.
        """
        slots, quick = self._slots, self._config.quick_topics
        others = frozenset(self._config.topics) - quick
        left = self._left(others)
        waiting = slots.lanes.waiting_but(quick) - slots.held_room(others)
        wanted = self._config.waiting_per_slot * slots.limit
        if waiting < wanted:
            return min(left, wanted - waiting)
        return min(POLL_RECORDS, left) if slots.lanes.flows_but(quick) < wanted else 0

    def _left(self, topics: Collection[str]) -> int:
        """How many more records of these topics may wait at all. Quick topics and the others each
        have the bytes for themselves: those that wait long for their time keep nobody out."""
        config, slots = self._config, self._slots
        if slots.busy_bytes(topics) >= config.max_waiting_bytes:
            return 0
        waiting = slots.lanes.waiting + slots.quick.waiting - slots.held_room(config.topics)
        return max(0, config.max_waiting - waiting)

    def _with_room(self, consumer: AIOKafkaConsumer) -> dict[TopicPartition, AssignedPartition]:
        assigned = consumer.assignment()
        quick = self._config.quick_topics
        full = quick if self._left(quick) < 1 else ()
        return {
            tp: p
            for tp, p in self._partitions.items()
            if p.has_room and tp in assigned and tp.topic not in full
        }

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
        share = min(ASK_RECORDS, max(1, room // len(order)))
        found = False
        for source in order:
            if await self._ask(consumer, source, asked, share):
                found = True
                await asyncio.sleep(0)
        if not found:
            with contextlib.suppress(BatchTooLarge):  # the next turn tells whose it is
                batches = await consumer.getmany(*order, timeout_ms=POLL_TIMEOUT_MS, max_records=1)
                self._take_in(consumer, batches, asked)

    async def _poll_quick(
        self, consumer: AIOKafkaConsumer, asked: dict[TopicPartition, AssignedPartition]
    ) -> bool:
        """What is there of quick topics, now and then: nobody has to wait for slow records who
        asks for nothing of the kind. Whether there was anything."""
        topics = self._config.quick_topics
        now, room = time.monotonic(), min(POLL_RECORDS, self._left(topics))
        quick = {tp: p for tp, p in asked.items() if tp.topic in topics}
        if now < self._quick_at or not quick or room < 1:
            return False
        self._quick_at = now + QUICK_POLL_S
        share = max(1, room // len(quick))
        return any([await self._ask(consumer, source, quick, share) for source in sorted(quick)])

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
            if self._partitions.get(source) is not partition:
                self._read_again(consumer, source)
                return True
            # The records before that batch went down with it: ask again, one by one.
            consumer.seek(source, partition.end)
            if room == 1:
                partition.block(error)
            partition.cautious = True
            return True
        return self._take_in(consumer, batches, asked)

    def _take_in(
        self,
        consumer: AIOKafkaConsumer,
        batches: dict[TopicPartition, list[ConsumerRecord]],
        asked: dict[TopicPartition, AssignedPartition],
    ) -> bool:
        for source, messages in batches.items():
            partition = asked[source]
            if self._partitions.get(source) is not partition:
                self._read_again(consumer, source)
                continue
            taken = 0
            for message in messages:
                if message.offset < partition.end:
                    partition.moved_back(message.offset)
                    break
                if partition.take(message.offset, message.timestamp):
                    taken += 1
                    self._enqueue(partition, to_record(message))
            self.metrics.records.add(source.topic, by=taken)
        return any(batches.values())

    def _read_again(self, consumer: AIOKafkaConsumer, source: TopicPartition) -> None:
        """Reassigned while we waited, and nobody can tell whether what came was fetched before
        or after the new assignment's seek. Dropped without a seek, it would never come again:
        ``getmany`` waits for a rebalance to end, so it may well return the first records of
        the new one."""
        partition = self._partitions.get(source)
        if partition is not None and partition.is_open and source in consumer.assignment():
            consumer.seek(source, partition.end)

    def _enqueue(self, partition: AssignedPartition, record: Record) -> None:
        try:
            job = partition.handler.open(record)
            if job.done and record.topic in self._config.silent_topics:
                partition.finish(record.offset, ())
            else:
                self._slots.put((partition, job.lane), Work(partition, record, job), job)
            return
        except GiveUp as error:
            given_up = error
        except Exception as error:
            log.error("open failed", error=type(error).__name__, **where(record))
            given_up = GiveUp("handler-error", f"{type(error).__name__} while opening the record")
        lane = ("given up", record.offset)
        self._slots.put((partition, lane), Work(partition, record, given_up), None)

    # The group: partitions come and go.

    def on_partitions_assigned(self, assigned: Sequence[TopicPartition]) -> None:
        """Only starts tasks: no heartbeat runs in here, and its exceptions are swallowed."""
        if self._group is None or self._stopping.is_set():
            return
        self.metrics.rebalances.add()
        self._assigned = True
        self._group.assigned()
        for source in assigned:
            self._partitions[source] = self._take(self._group, source)

    def _take(self, group: Group, source: TopicPartition) -> AssignedPartition:
        return AssignedPartition(
            source,
            self._handler_factory(source.topic, source.partition),
            self._config,
            read_back=group.committed,
            recover=self._recover,
            published=self._published,
            is_member=group.is_member,
            seek=group.seek,
            let_go=self._let_go,
            changed=self._wake,
            metrics=self.metrics,
            prepare=self._prepare,
            release=self._release,
            before=self._drop_stale(source),
        )

    def _drop_stale(self, source: TopicPartition) -> asyncio.Task[None] | None:
        """An assignment that was never revoked: whatever it held is the new one's."""
        stale = self._partitions.pop(source, None)
        if stale is None:
            return None
        stale.forget()
        self._slots.drop(lambda lane: lane[0] is stale)
        now = asyncio.get_running_loop().time()
        closing = asyncio.create_task(stale.close(now), name=f"close {source}")
        self._stale.add(closing)
        closing.add_done_callback(self._stale.discard)
        return closing

    async def on_partitions_revoked(self, revoked: Sequence[TopicPartition]) -> None:
        """Heartbeats go on meanwhile: finish within the grace, cancel the rest, publish."""
        await self._close_all([source for source in revoked if source in self._partitions])

    async def _close_all(self, sources: Sequence[TopicPartition]) -> None:
        closing = {source: self._partitions[source] for source in sources}
        for partition in closing.values():
            partition.shut()
        self._slots.drop(lambda lane: lane[0] in closing.values())
        deadline = asyncio.get_running_loop().time() + self._config.grace_s
        await asyncio.gather(*(partition.close(deadline) for partition in closing.values()))
        for source, partition in closing.items():
            if self._partitions.get(source) is partition:
                del self._partitions[source]

    def _let_go(self, source: TopicPartition) -> None:
        self._slots.drop(lambda lane: lane[0].source == source)
        self._rejoin_wanted = True
        self._changed.set()


async def _nothing_finished(source: TopicPartition) -> Committed | None:
    return None


def _highwater(consumer: AIOKafkaConsumer | None, source: TopicPartition) -> int | None:
    if consumer is None or source not in consumer.assignment():
        return None
    return cast("int | None", consumer.highwater(source))
