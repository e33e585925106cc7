"""One partition against a broker that fails in every way that aiokafka is known to."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, MessageSizeTooLargeError
from structlog.testing import capture_logs

from consumers.config import WorkerConfig
from consumers.errors import Fenced, OffsetBeyondEnd
from consumers.metrics import Metrics
from consumers.offsets import Committed, decode_map
from consumers.partition import AssignedPartition
from schemas.record import Output
from tests.wait import wait_until

SOURCE = TopicPartition("in", 0)
CONFIG = WorkerConfig(
    bootstrap_servers="none:1",
    group_id="g",
    topics=("in",),
    retry_base_s=0.001,
    retry_cap_s=0.002,
    commit_timeout_s=0.5,
)


@dataclass
class FakeBroker:
    """What Kafka would hold: committed outputs and the offset, and the order of calls."""

    outputs: list[Output] = field(default_factory=list)
    committed: Committed | None = None
    recovered: Committed | None = None
    outcomes: dict[int, int] = field(default_factory=dict)
    refused: bytes = b""
    prepare_hangs: bool = False
    prepared: asyncio.Event = field(default_factory=asyncio.Event)
    member: bool = True
    metrics: Metrics = field(default_factory=Metrics)
    calls: list[str] = field(default_factory=list)
    faults: list[tuple[str, BaseException]] = field(default_factory=list)
    let_go: list[TopicPartition] = field(default_factory=list)

    def fault(self, step: str) -> None:
        if self.faults and self.faults[0][0] == step:
            raise self.faults.pop(0)[1]

    async def read_back(self, source: TopicPartition) -> Committed | None:
        self.calls.append("read back")
        self.fault("read back")
        return self.committed

    async def is_member(self) -> bool:
        self.fault("is member")
        return self.member

    async def recover(self, source: TopicPartition) -> Committed | None:
        self.calls.append("recover")
        self.fault("recover")
        return self.recovered

    async def published(self, source: TopicPartition, offset: int) -> Mapping[int, int]:
        self.fault("published")
        return {o: at_ms for o, at_ms in self.outcomes.items() if o >= offset}

    async def prepare(self, source: TopicPartition) -> None:
        self.calls.append("prepare")
        self.fault("prepare")
        if self.prepare_hangs:
            await self.prepared.wait()

    async def release(self, source: TopicPartition) -> None:
        self.calls.append("release")
        self.fault("release")

    async def seek(self, source: TopicPartition, offset: int | None) -> int:
        self.calls.append(f"seek {offset}")
        self.fault("seek")
        return offset or 0

    def new_publisher(self, config: WorkerConfig, source: TopicPartition) -> "FakePublisher":
        return FakePublisher(self)


@dataclass
class FakePublisher:
    broker: FakeBroker

    async def start(self) -> None:
        self.broker.calls.append("start")
        self.broker.fault("start")

    async def publish(self, outputs: Sequence[Output], offset: int, metadata: str) -> None:
        self.broker.calls.append(f"publish {len(outputs)}")
        self.broker.fault("before commit")
        if any(out.value == self.broker.refused for out in outputs):
            raise MessageSizeTooLargeError
        self.broker.outputs.extend(outputs)
        self.broker.committed = decode_map(offset, metadata)
        self.broker.fault("after commit")

    async def discard(self) -> None:
        self.broker.calls.append("discard")


class NoHandler:
    """A partition only carries its handler; the worker calls it."""

    def __getattr__(self, name: str) -> object:
        raise AssertionError("not called here")


class Hanging:
    """Something in the handler's hands that never ends by itself."""

    ending = ""

    async def run(self) -> None:
        await asyncio.Event().wait()


Opener = Callable[..., AssignedPartition]


@pytest.fixture
async def open_partition() -> AsyncIterator[Opener]:
    made: list[AssignedPartition] = []

    def make(broker: FakeBroker, before: "asyncio.Task[None] | None" = None) -> AssignedPartition:
        made.append(
            AssignedPartition(
                SOURCE,
                NoHandler(),  # type: ignore[arg-type]
                CONFIG,
                read_back=broker.read_back,
                recover=broker.recover,
                published=broker.published,
                is_member=broker.is_member,
                seek=broker.seek,
                let_go=broker.let_go.append,
                changed=lambda: None,
                metrics=broker.metrics,
                prepare=broker.prepare,
                release=broker.release,
                before=before,
                new_publisher=broker.new_publisher,
            )
        )
        return made[-1]

    yield make
    for partition in made:
        await close(partition)


async def close(partition: AssignedPartition) -> None:
    await partition.close(asyncio.get_running_loop().time())


def output(name: str) -> Output:
    return Output(topic="out", key=b"k", value=name.encode())


async def test_the_producer_starts_before_the_offset_is_read(open_partition: Opener) -> None:
    broker = FakeBroker(committed=Committed(7, frozenset({9})))
    partition = open_partition(broker)
    await wait_until(lambda: partition.is_open)
    assert broker.calls == ["start", "read back", "prepare", "seek 7"]
    assert not partition.take(6), "below the committed offset"
    assert [offset for offset in range(7, 11) if partition.take(offset)] == [7, 8, 10]


async def test_nothing_is_taken_in_before_the_gate_is_open(open_partition: Opener) -> None:
    broker = FakeBroker(faults=[("start", ConnectionError()), ("read back", TimeoutError())])
    partition = open_partition(broker)
    assert not partition.has_room
    assert not partition.take(0)
    await wait_until(lambda: partition.is_open)
    assert broker.calls.count("start") == 3
    assert broker.calls[-1] == "seek None"


async def test_records_finished_out_of_order_are_published_at_once(open_partition: Opener) -> None:
    broker = FakeBroker()
    partition = open_partition(broker)
    await wait_until(lambda: partition.is_open)
    for offset in range(3):
        assert partition.take(offset)
    partition.finish(2, [output("two")])
    await wait_until(lambda: bool(broker.outputs))
    assert broker.committed == Committed(0, frozenset({2}))


@pytest.mark.parametrize("step", ["before commit", "after commit"])
@pytest.mark.parametrize(
    "error", [AssertionError(), TimeoutError(), asyncio.CancelledError(), OSError("gone")]
)
async def test_whatever_a_transaction_raises_the_outputs_get_through_once(
    open_partition: Opener, step: str, error: BaseException
) -> None:
    broker = FakeBroker()
    partition = open_partition(broker)
    await wait_until(lambda: partition.is_open)
    assert partition.take(0)
    broker.faults = [(step, error)]
    partition.finish(0, [output("zero"), output("decision")])
    await wait_until(lambda: broker.committed == Committed(1))
    assert partition.take(1)
    partition.finish(1, [output("one")])
    await wait_until(lambda: broker.committed == Committed(2))
    assert [out.value for out in broker.outputs] == [b"zero", b"decision", b"one"]
    assert not broker.let_go


@pytest.mark.parametrize("step", ["before commit", "after commit"])
async def test_fenced_lets_go_and_never_starts_again_in_place(
    open_partition: Opener, step: str
) -> None:
    broker = FakeBroker()
    partition = open_partition(broker)
    await wait_until(lambda: partition.is_open)
    assert partition.take(0)
    starts = broker.calls.count("start")
    broker.faults = [(step, Fenced("somebody else"))]
    partition.finish(0, [output("zero")])
    await wait_until(lambda: bool(broker.let_go))
    assert broker.calls.count("start") == starts
    assert not partition.take(1)


async def test_a_read_back_that_covers_what_is_in_flight_here_means_another_owner(
    open_partition: Opener,
) -> None:
    broker = FakeBroker()
    partition = open_partition(broker)
    await wait_until(lambda: partition.is_open)
    assert partition.take(0)
    assert partition.take(1)
    broker.faults = [("before commit", TimeoutError())]
    broker.committed = Committed(2)
    partition.finish(0, [output("zero")])
    await wait_until(lambda: bool(broker.let_go))
    assert broker.outputs == []


async def test_who_lost_its_place_in_the_group_never_starts_a_producer_again(
    open_partition: Opener,
) -> None:
    """A process that stood still: its commit timed out, and its partition has a new owner."""
    broker = FakeBroker()
    partition = open_partition(broker)
    await wait_until(lambda: partition.is_open)
    assert partition.take(0)
    starts = broker.calls.count("start")
    broker.member = False
    broker.faults = [("before commit", TimeoutError())]
    partition.finish(0, [output("zero")])
    await wait_until(lambda: bool(broker.let_go))
    assert broker.calls.count("start") == starts
    assert not broker.outputs


async def test_while_nobody_can_say_who_is_in_the_group_it_waits(open_partition: Opener) -> None:
    broker = FakeBroker()
    partition = open_partition(broker)
    await wait_until(lambda: partition.is_open)
    assert partition.take(0)
    away = KafkaConnectionError("away")
    broker.faults = [("before commit", away), ("is member", away), ("is member", TimeoutError())]
    partition.finish(0, [output("zero")])
    await wait_until(lambda: broker.committed == Committed(1))
    assert [out.value for out in broker.outputs] == [b"zero"]
    assert not broker.let_go


@pytest.mark.parametrize("committed", [Committed(0, frozenset({3, 4})), Committed(9)])
async def test_a_read_back_beyond_what_was_taken_in_here_means_another_owner(
    open_partition: Opener, committed: Committed
) -> None:
    broker = FakeBroker()
    partition = open_partition(broker)
    await wait_until(lambda: partition.is_open)
    assert partition.take(0)
    broker.faults = [("before commit", TimeoutError())]
    broker.committed = committed
    partition.finish(0, [output("zero")])
    await wait_until(lambda: bool(broker.let_go))
    assert broker.outputs == []


async def test_what_an_earlier_owner_finished_beyond_it_is_no_sign_of_another_owner(
    open_partition: Opener,
) -> None:
    broker = FakeBroker(committed=Committed(0, frozenset({1, 3})))
    partition = open_partition(broker)
    await wait_until(lambda: partition.is_open)
    assert partition.take(0)
    broker.faults = [("after commit", TimeoutError())]
    partition.finish(0, [output("zero")])
    await wait_until(lambda: broker.committed == Committed(2, frozenset({3})))
    await wait_until(lambda: not partition.pending)
    assert not broker.let_go
    assert [o for o in range(1, 5) if partition.take(o)] == [2, 4]


async def test_who_commits_while_we_take_over_is_another_owner(open_partition: Opener) -> None:
    """One that stood still and took the producer's id back, after our offset was read."""
    broker = FakeBroker(committed=Committed(3), outcomes={3: 1_000})
    broker.prepare_hangs = True
    partition = open_partition(broker)
    await wait_until(lambda: "prepare" in broker.calls)
    broker.committed = Committed(4)
    broker.prepared.set()
    await wait_until(lambda: bool(broker.let_go))
    assert not partition.is_open


async def test_what_has_its_outcome_is_not_handled_again_though_the_offset_went_back(
    open_partition: Opener,
) -> None:
    broker = FakeBroker(committed=Committed(3), outcomes={2: 900, 3: 1_000, 5: 1_000, 6: 1_000})
    with capture_logs() as logs:
        partition = open_partition(broker)
        await wait_until(lambda: partition.is_open)
    (told,) = [line for line in logs if "lost commits" in line["event"]]
    assert (told["log_level"], told["outcomes"], told["last"]) == ("error", 3, 6)
    assert [o for o in range(3, 9) if partition.take(o, timestamp_ms=990)] == [4, 7, 8]
    partition.finish(4, [output("four")])
    await wait_until(lambda: broker.committed == Committed(7))


async def test_an_offset_that_went_back_is_committed_again_though_nothing_new_comes(
    open_partition: Opener,
) -> None:
    broker = FakeBroker(committed=Committed(3), outcomes={3: 1_000, 4: 1_000, 6: 1_000})
    partition = open_partition(broker)
    await wait_until(lambda: partition.is_open)
    assert [o for o in range(3, 6) if partition.take(o, timestamp_ms=990)] == [5]
    assert broker.committed == Committed(3), "not before the last of them has passed"
    assert not partition.take(6, timestamp_ms=990)
    await wait_until(lambda: broker.committed == Committed(5, frozenset({6})))
    assert not broker.outputs
    assert broker.calls.count("publish 0") == 1


async def test_an_offset_that_went_back_is_committed_again_though_the_first_try_fails(
    open_partition: Opener,
) -> None:
    broker = FakeBroker(committed=Committed(3), outcomes={3: 1_000})
    partition = open_partition(broker)
    await wait_until(lambda: partition.is_open)
    broker.faults = [("before commit", TimeoutError())]
    assert not partition.take(3, timestamp_ms=990)
    await wait_until(lambda: broker.committed == Committed(4))
    assert not broker.let_go


async def test_an_outcome_from_before_the_record_is_of_another_log(open_partition: Opener) -> None:
    broker = FakeBroker(outcomes={0: 1_000, 1: 90_000})
    partition = open_partition(broker)
    await wait_until(lambda: partition.is_open)
    assert partition.take(0, timestamp_ms=60_000)
    assert not partition.take(1, timestamp_ms=90_001), "clocks of two brokers differ a little"


async def test_an_offset_that_is_behind_makes_nobody_wait_in_the_usual_case(
    open_partition: Opener,
) -> None:
    broker = FakeBroker(committed=Committed(3, frozenset({5})), outcomes={1: 1, 2: 1, 5: 1})
    with capture_logs() as logs:
        partition = open_partition(broker)
        await wait_until(lambda: partition.is_open)
    assert not [line for line in logs if line["log_level"] == "error"]
    assert [o for o in range(3, 7) if partition.take(o)] == [3, 4, 6]


@pytest.mark.parametrize("lost", [True, False])
async def test_a_commit_that_the_broker_forgot_is_not_published_again(
    open_partition: Opener, lost: bool
) -> None:
    broker = FakeBroker(committed=Committed(0))
    partition = open_partition(broker)
    await wait_until(lambda: partition.is_open)
    assert partition.take(0, timestamp_ms=500)
    assert partition.take(1, timestamp_ms=500)
    broker.faults = [("before commit", TimeoutError()), ("published", OSError("away"))]
    if lost:
        broker.outputs, broker.outcomes = [output("zero")], {0: 600}
    partition.finish(0, [output("zero")])
    await wait_until(lambda: not partition.pending)
    await wait_until(lambda: broker.committed == Committed(1))
    partition.finish(1, [output("one")])
    await wait_until(lambda: broker.committed == Committed(2))
    assert [out.value for out in broker.outputs] == [b"zero", b"one"]
    assert not broker.let_go


async def test_an_outcome_of_what_is_in_flight_here_means_another_owner(
    open_partition: Opener,
) -> None:
    broker = FakeBroker(committed=Committed(0))
    partition = open_partition(broker)
    await wait_until(lambda: partition.is_open)
    assert partition.take(0, timestamp_ms=500)
    assert partition.take(1, timestamp_ms=500)
    broker.faults = [("before commit", TimeoutError())]
    broker.outcomes = {1: 600}
    partition.finish(0, [output("zero")])
    await wait_until(lambda: bool(broker.let_go))
    assert not broker.outputs


async def test_closing_publishes_what_is_finished_and_cancels_what_is_not(
    open_partition: Opener,
) -> None:
    broker = FakeBroker()
    partition = open_partition(broker)
    await wait_until(lambda: partition.is_open)
    assert partition.take(0)
    assert partition.take(1)
    work = Hanging()
    hanging = asyncio.create_task(work.run())
    partition.enter(hanging, work)
    hanging.add_done_callback(partition.leave)
    partition.finish(0, [output("zero")])
    await partition.close(asyncio.get_running_loop().time() + 0.01)
    assert hanging.cancelled()
    assert work.ending == "partition"
    assert broker.committed == Committed(1)
    assert broker.calls[-2:] == ["discard", "release"]


async def test_a_log_that_moved_back_is_let_go_of(open_partition: Opener) -> None:
    broker = FakeBroker(committed=Committed(7))
    partition = open_partition(broker)
    await wait_until(lambda: partition.is_open)
    partition.moved_back(3)
    assert broker.let_go == [SOURCE]
    assert not partition.take(7)


async def test_an_offset_beyond_the_end_is_waited_out(open_partition: Opener) -> None:
    broker = FakeBroker(committed=Committed(7))
    broker.faults = [("seek", OffsetBeyondEnd("in/0", 7, 3, "g"))] * 2
    partition = open_partition(broker)
    await wait_until(lambda: partition.is_open)
    assert broker.calls.count("seek 7") == 3
    assert broker.calls.count("start") == 1


async def test_what_the_broker_refuses_is_set_aside_and_the_rest_goes_on(
    open_partition: Opener,
) -> None:
    broker = FakeBroker(refused=b"huge")
    partition = open_partition(broker)
    await wait_until(lambda: partition.is_open)
    for offset in range(4):
        assert partition.take(offset)
    for offset, name in enumerate(["zero", "huge", "two", "three"]):
        partition.finish(offset, [output(name)])
    await wait_until(lambda: len(broker.outputs) == 3)
    assert broker.committed == Committed(1, frozenset({2, 3}))
    assert not broker.let_go


async def test_abandoned_in_the_middle_of_a_commit_it_goes_on_as_abandoned(
    open_partition: Opener,
) -> None:
    broker = FakeBroker()
    partition = open_partition(broker)
    await wait_until(lambda: partition.is_open)
    assert partition.take(0)

    def abandon(step: str) -> None:
        partition.abandon()

    broker.fault = abandon  # type: ignore[method-assign]
    with capture_logs() as logs:
        partition.finish(0, [output("zero")])
        await wait_until(lambda: broker.committed == Committed(1))
        await close(partition)
    assert not [line for line in logs if line["event"] == "partition stopped"]


# The caller's hooks: what is prepared is released, once, whatever happens between.


async def test_prepare_comes_before_the_gate_and_release_after_the_last_commit(
    open_partition: Opener,
) -> None:
    broker = FakeBroker(committed=Committed(7), prepare_hangs=True)
    partition = open_partition(broker)
    await wait_until(lambda: "prepare" in broker.calls)
    assert broker.calls == ["start", "read back", "prepare"]
    assert not partition.is_open
    assert not partition.take(7)
    await close(partition)
    assert broker.calls == ["start", "read back", "prepare", "discard", "release"]
    again = open_partition(broker := FakeBroker(committed=Committed(7)))
    await wait_until(lambda: again.is_open)
    assert again.take(7)
    again.finish(7, [output("seven")])
    await close(again)
    assert broker.calls[2:] == ["prepare", "seek 7", "publish 1", "discard", "release"]


async def test_prepare_is_tried_again_loudly_and_released_in_between(
    open_partition: Opener,
) -> None:
    broker = FakeBroker(faults=[("prepare", OSError("disk full")), ("prepare", ValueError("x"))])
    with capture_logs() as logs:
        partition = open_partition(broker)
        await wait_until(lambda: partition.is_open)
    tried = ["prepare", "release", "prepare", "release", "prepare"]
    assert broker.calls == ["start", "read back", "recover", *tried, "seek None"]
    said = [(line["log_level"], line["error"]) for line in logs if "preparing" in line["event"]]
    assert said == [("error", "OSError('disk full')"), ("error", "ValueError")]


@pytest.mark.parametrize("error", [asyncio.CancelledError(), TimeoutError()])
async def test_a_cancellation_that_nobody_asked_for_is_an_error_of_prepare(
    open_partition: Opener, error: BaseException
) -> None:
    broker = FakeBroker(faults=[("prepare", error)])
    partition = open_partition(broker)
    await wait_until(lambda: partition.is_open)
    assert broker.calls.count("prepare") == 2


async def test_what_was_never_prepared_is_not_released(open_partition: Opener) -> None:
    broker = FakeBroker(faults=[("start", ConnectionError())] * 1000)
    partition = open_partition(broker)
    await wait_until(lambda: broker.calls.count("start") > 1)
    await close(partition)
    assert "prepare" not in broker.calls
    assert "release" not in broker.calls


async def test_fenced_is_released_once_when_it_is_closed(open_partition: Opener) -> None:
    broker = FakeBroker()
    partition = open_partition(broker)
    await wait_until(lambda: partition.is_open)
    assert partition.take(0)
    broker.faults = [("before commit", Fenced("somebody else"))]
    partition.finish(0, [output("zero")])
    await wait_until(lambda: bool(broker.let_go))
    assert "release" not in broker.calls, "handlers may still be at work"
    await asyncio.gather(close(partition), close(partition))
    await close(partition)
    assert broker.calls.count("release") == 1


async def test_a_release_that_fails_is_told_and_holds_up_nothing(open_partition: Opener) -> None:
    broker = FakeBroker(faults=[("release", OSError("disk full"))])
    partition = open_partition(broker)
    await wait_until(lambda: partition.is_open)
    with capture_logs() as logs:
        await close(partition)
    assert [line["error"] for line in logs if "releasing" in line["event"]] == [
        "OSError('disk full')"
    ]


async def test_an_assignment_waits_for_the_end_of_the_one_before(open_partition: Opener) -> None:
    broker = FakeBroker()
    ended = asyncio.Event()

    async def closing() -> None:
        await ended.wait()
        broker.calls.append("end of the one before")

    partition = open_partition(broker, asyncio.create_task(closing()))
    await asyncio.sleep(0)
    assert broker.calls == []
    ended.set()
    await wait_until(lambda: partition.is_open)
    assert broker.calls[:2] == ["end of the one before", "start"]
