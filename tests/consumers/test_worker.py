"""The reading side of the worker against a consumer that is in the middle of a rebalance."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
from aiokafka import TopicPartition

from consumers.batches import BatchTooLarge
from consumers.config import WorkerConfig
from consumers.handler import Job, NotYet
from consumers.partition import AssignedPartition
from consumers.slots import Work
from consumers.worker import Worker
from schemas.record import Output, Record
from tests.wait import wait_until

SOURCE, OTHER = TopicPartition("in", 0), TopicPartition("in", 1)
CONFIG = WorkerConfig(bootstrap_servers="none:1", group_id="g", topics=("in",))


@dataclass
class Message:
    offset: int
    timestamp: int = 0


@dataclass
class Assignment:
    """One assignment of a partition, as far as the reading side looks at it."""

    end: int
    is_open: bool = True
    cautious: bool = False
    has_room: bool = True
    taken: list[int] = field(default_factory=list)

    def take(self, offset: int, timestamp_ms: int) -> bool:
        self.taken.append(offset)
        return False  # taken before: nothing to handle


@dataclass
class Rebalancing:
    """A consumer whose ``getmany`` returns when the group has settled anew."""

    found: Callable[[], dict[TopicPartition, list[Message]]]
    assigned: set[TopicPartition] = field(default_factory=lambda: {SOURCE, OTHER})
    sought: list[tuple[TopicPartition, int]] = field(default_factory=list)

    async def getmany(self, *sources: TopicPartition, **_: Any) -> Any:
        return self.found()

    def assignment(self) -> set[TopicPartition]:
        return self.assigned

    def seek(self, source: TopicPartition, offset: int) -> None:
        self.sought.append((source, offset))


def reading(worker: Worker, **now: Assignment | None) -> dict[TopicPartition, list[Message]]:
    """The group settles: SOURCE is assigned anew while ``getmany`` waits."""
    after = now["after"]
    partitions = cast("dict[TopicPartition, Any]", worker._partitions)
    partitions.pop(SOURCE)
    if after is not None:
        partitions[SOURCE] = after
    return {SOURCE: [Message(49)], OTHER: [Message(7)]}


def worker_with(before: Assignment, other: Assignment) -> Worker:
    worker = Worker(CONFIG, lambda topic, partition: cast("Any", None))
    worker._partitions.update(cast("Any", {SOURCE: before, OTHER: other}))
    return worker


async def ask(worker: Worker, consumer: Rebalancing) -> None:
    asked = cast("dict[TopicPartition, AssignedPartition]", dict(worker._partitions))
    await worker._ask(cast("Any", consumer), SOURCE, asked, 10)


async def test_records_that_come_in_the_middle_of_a_rebalance_are_read_again() -> None:
    """``getmany`` waits for the group to settle and may then return what the new assignment
    has sought: it must not be dropped, or it is passed over for ever."""
    before, other, after = Assignment(end=48), Assignment(end=7), Assignment(end=49)
    worker = worker_with(before, other)
    consumer = Rebalancing(lambda: reading(worker, after=after))
    await ask(worker, consumer)
    assert consumer.sought == [(SOURCE, 49)]
    assert (before.taken, after.taken, other.taken) == ([], [], [7])


@pytest.mark.parametrize("after", [None, Assignment(end=0, is_open=False)])
async def test_what_is_not_open_is_left_to_its_own_seek(after: Assignment | None) -> None:
    worker = worker_with(Assignment(end=48), other := Assignment(end=7))
    consumer = Rebalancing(lambda: reading(worker, after=after))
    await ask(worker, consumer)
    assert consumer.sought == []
    assert other.taken == [7]


async def test_a_partition_lost_meanwhile_costs_the_others_nothing() -> None:
    """A seek in it would raise, and what else was read would be lost."""
    worker = worker_with(Assignment(end=48), other := Assignment(end=7))
    consumer = Rebalancing(lambda: reading(worker, after=Assignment(end=49)), assigned={OTHER})
    await ask(worker, consumer)
    assert consumer.sought == []
    assert other.taken == [7]


async def test_a_batch_too_large_of_an_earlier_assignment_is_read_again_by_the_new_one() -> None:
    before, after = Assignment(end=40), Assignment(end=49)
    worker = worker_with(before, Assignment(end=7))

    def fail() -> dict[TopicPartition, list[Message]]:
        reading(worker, after=after)
        raise BatchTooLarge(49, 60, 1)

    consumer = Rebalancing(fail)
    await ask(worker, consumer)
    assert consumer.sought == [(SOURCE, 49)]
    assert not before.cautious


@dataclass(eq=False)
class Stale:
    """An assignment that nobody revoked."""

    calls: list[str] = field(default_factory=list)

    def forget(self) -> None:
        self.calls.append("forget")

    async def close(self, deadline: float) -> None:
        self.calls.append("close")


async def test_an_assignment_that_was_never_revoked_is_closed_before_the_next_begins() -> None:
    worker = Worker(CONFIG, lambda topic, partition: cast("Any", None))
    assert worker._drop_stale(SOURCE) is None
    worker._partitions[SOURCE] = cast("Any", stale := Stale())
    closing = worker._drop_stale(SOURCE)
    assert stale.calls == ["forget"], "nothing more of it may be published"
    assert SOURCE not in worker._partitions
    assert closing is not None
    await closing
    assert stale.calls == ["forget", "close"]
    assert not worker._rejoin_wanted, "the group has just settled"


@dataclass(eq=False)
class Quiet:
    """An assigned partition whose records are done when they are opened."""

    source: TopicPartition = SOURCE
    finished: list[int] = field(default_factory=list)

    @property
    def handler(self) -> "Quiet":
        return self

    def open(self, record: Record) -> Job:
        return Job(record, "lane", None, done=True)

    def finish(self, offset: int, outputs: Sequence[Output]) -> None:
        assert outputs == ()
        self.finished.append(offset)


@pytest.mark.parametrize(("silent", "taken"), [({"in"}, [7]), ({"other"}, [])])
async def test_what_is_done_when_it_is_opened_takes_no_slot_where_silence_is_allowed(
    silent: set[str], taken: list[int]
) -> None:
    config = replace(CONFIG, silent_topics=frozenset(silent))
    worker = Worker(config, lambda topic, partition: cast("Any", None))
    record = Record(topic="in", partition=0, offset=7, timestamp_ms=0, key=None, value=b"")
    worker._enqueue(cast("Any", quiet := Quiet()), record)
    assert quiet.finished == taken
    assert worker._slots.lanes.waiting == 1 - len(taken)


async def test_quick_topics_are_read_also_while_slow_records_fill_the_room() -> None:
    """But not more often than now and then, and never beyond what may wait at all."""
    config = replace(CONFIG, topics=("in", "quick"), quick_topics=frozenset({"quick"}))
    quick = TopicPartition("quick", 0)
    assignments = {SOURCE: Assignment(end=0), quick: Assignment(end=5)}
    asked_for: list[tuple[TopicPartition, ...]] = []

    class Consumer(Rebalancing):
        async def getmany(self, *sources: TopicPartition, **_: Any) -> Any:
            asked_for.append(sources)
            return {quick: [Message(5)]}

    def worker_of(config: WorkerConfig) -> Worker:
        worker = Worker(config, lambda topic, partition: cast("Any", None))
        worker._partitions.update(cast("Any", assignments))
        return worker

    consumer, asked = cast("Any", Consumer(dict)), cast("Any", assignments)
    worker = worker_of(config)
    assert await worker._poll_quick(consumer, asked)
    assert (asked_for, assignments[quick].taken) == ([(quick,)], [5])
    assert not await worker._poll_quick(consumer, asked), "it has just been looked for"
    assert not await worker_of(replace(config, max_waiting=0))._poll_quick(consumer, asked)
    assert not await worker_of(replace(config, quick_topics=frozenset()))._poll_quick(
        consumer, asked
    )
    assert len(asked_for) == 1


async def test_a_backlog_of_quick_topics_keeps_nobody_else_out() -> None:
    """Their slow ones wait among the others, whose room is their own."""
    config = replace(CONFIG, topics=("in", "quick"), quick_topics=frozenset({"quick"}))
    worker = Worker(config, lambda topic, partition: cast("Any", None))
    before = worker._room()
    for offset in range(500):
        record = Record(
            topic="quick", partition=0, offset=offset, timestamp_ms=0, key=b"", value=b""
        )
        source = Quiet(TopicPartition("quick", 0))
        work = Work(cast("Any", source), record, Job(record, offset, None))
        worker._slots.put((cast("Any", source), offset), work, cast("Any", work.job))
    assert worker._slots.lanes.waiting == 500
    assert worker._room() == before > 0


@pytest.mark.parametrize(("held", "others"), [("quick", "in"), ("in", "quick")])
async def test_bytes_that_wait_of_quick_topics_keep_no_others_out_and_the_other_way_round(
    held: str, others: str
) -> None:
    config = replace(
        CONFIG, topics=("in", "quick"), quick_topics=frozenset({"quick"}), max_waiting_bytes=1000
    )
    worker = Worker(config, lambda topic, partition: cast("Any", None))
    source = Quiet(TopicPartition(held, 0))
    value = bytes(1000)
    record = Record(topic=held, partition=0, offset=0, timestamp_ms=0, key=b"", value=value)
    work = Work(cast("Any", source), record, Job(record, 0, None))
    worker._slots.put((cast("Any", source), 0), work, cast("Any", work.job))
    assert worker._left([held]) == 0 < worker._left([others])
    assert (worker._room() > 0) is (held == "quick")
    there = {TopicPartition(topic, 0): Assignment(end=0) for topic in ("in", "quick")}
    worker._partitions.update(cast("Any", there))
    asked = worker._with_room(cast("Any", Rebalancing(dict, set(there))))
    assert [source.topic for source in asked] == (["in"] if held == "quick" else ["in", "quick"])


async def test_what_waits_for_its_time_keeps_nobody_else_out() -> None:
    """One author is paused, and writes on: 3 MB in one lane, 60 records in lanes of their own."""

    class Paused(Quiet):
        def enter(self, task: object, work: object) -> None: ...

        def leave(self, task: object) -> None: ...

        async def handle(self, job: Job, *, attempt: int) -> Sequence[Output]:
            raise NotYet(3600.0)

    config = replace(CONFIG, max_waiting=100, max_waiting_bytes=1_000_000)
    worker = Worker(config, lambda topic, partition: cast("Any", None))
    source, slots = Paused(), worker._slots
    for offset in range(160):
        value = bytes(30_000) if offset < 100 else b""
        record = Record(
            topic="in", partition=0, offset=offset, timestamp_ms=0, key=b"", value=value
        )
        lane = max(offset, 99)
        work = Work(cast("Any", source), record, Job(record, lane, None))
        slots.put((cast("Any", source), lane), work, cast("Any", work.job))
    assert worker._room() == 0, "nobody knows yet that it is to wait"
    while slots.lanes.ready:
        slots.dispatch()
        await asyncio.sleep(0)
    await wait_until(lambda: slots.parked == 61)
    assert slots.waiting_bytes > config.max_waiting_bytes
    assert (slots.lanes.waiting, worker._left(["in"])) == (99, 100)
    assert worker._room() == config.waiting_per_slot * slots.limit > 0
    slots.drop(lambda lane: True)


async def test_any_thread_may_ask_to_look_again_at_what_waits_for_its_time() -> None:
    worker = Worker(CONFIG, lambda topic, partition: cast("Any", None))
    worker.look_again()  # there is nothing yet
    asked: list[list[int]] = []

    def look_again(wanted: Callable[[TopicPartition], bool]) -> None:
        asked.append([source.partition for source in (SOURCE, OTHER) if wanted(source)])

    worker._slots.look_again = look_again  # type: ignore[method-assign,assignment]
    worker._loop = asyncio.get_running_loop()
    await asyncio.to_thread(worker.look_again, 1)
    await asyncio.to_thread(worker.look_again)
    await wait_until(lambda: len(asked) == 2)
    assert asked == [[1], [0, 1]]
