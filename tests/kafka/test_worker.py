"""The runtime against Apache Kafka: order, exactly once, errors, crashes, rebalances."""

import asyncio
import itertools
import random
import signal
import sys
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from structlog.testing import capture_logs

from consumers.batches import RawBatch
from consumers.errors import PartitionsDiffer, TopicMissing
from consumers.handler import GiveUp, Job
from consumers.worker import Worker
from schemas.record import Output, Record
from tests.kafka import toy
from tests.kafka.toy import PARTITIONS, ToyHandler, ToyTopics, toy_config
from tests.wait import wait_until

pytestmark = pytest.mark.kafka


@pytest.fixture
async def topics(bootstrap: str) -> ToyTopics:
    return await toy.make_topics(bootstrap, f"t{uuid.uuid4().hex[:12]}")


def records(count: int, keys: int = 20) -> list[tuple[int, bytes | None, bytes | None]]:
    return [(i % PARTITIONS, b"key %d" % (i % keys), b"value %d" % i) for i in range(count)]


def places(seen: Sequence[tuple[int, str, str]]) -> Counter[str]:
    return Counter(place for _, place, _ in seen)


def expected(count: int) -> Counter[str]:
    return Counter(f"{i % PARTITIONS}/{i // PARTITIONS}" for i in range(count))


async def test_each_input_gives_its_outputs_once_and_on_its_own_partition(
    bootstrap: str, topics: ToyTopics
) -> None:
    await toy.produce(bootstrap, topics.source, records(400))
    handler = ToyHandler(topics.out, topics.audit)
    async with (
        toy.working(toy_config(bootstrap, topics), handler),
        toy.reading(bootstrap, topics.out) as out,
        toy.reading(bootstrap, topics.audit) as audit,
    ):
        seen = await out.until(400)
        assert places(seen) == expected(400)
        assert places(await audit.until(400)) == expected(400)
        assert all(place.startswith(f"{partition}/") for partition, place, _ in seen)


async def test_a_lane_keeps_its_order_while_others_overtake(
    bootstrap: str, topics: ToyTopics
) -> None:
    slow = [(0, b"slow", b"retry 3")] + [(0, b"slow", b"value")] * 3
    quick = [(0, b"quick %d" % i, b"value") for i in range(20)]
    await toy.produce(bootstrap, topics.source, slow + quick)
    handler = ToyHandler(topics.out, topics.audit)
    # Wide enough that the quick ones are surely through before the third try.
    config = toy_config(bootstrap, topics, retry_base_s=1.0, retry_cap_s=1.0)
    async with toy.working(config, handler), toy.reading(bootstrap, topics.out) as out:
        order = [place for _, place, _ in await out.until(24)]
    slow_order = [place for place in order if int(place.partition("/")[2]) < 4]
    assert slow_order == ["0/0", "0/1", "0/2", "0/3"]
    assert order[0] != "0/0", "the parked record held strangers up"


async def test_a_new_worker_does_only_what_is_unfinished(bootstrap: str, topics: ToyTopics) -> None:
    await toy.produce(bootstrap, topics.source, [(0, b"a", b"hang"), *[(0, b"b", b"value")] * 5])
    first, second = (ToyHandler(topics.out, topics.audit) for _ in range(2))
    config = toy_config(bootstrap, topics, grace_s=0.1)
    async with toy.working(config, first), toy.reading(bootstrap, topics.out) as out:
        await out.until(5)
    async with toy.working(config, second):
        await wait_until(lambda: bool(second.handled))
    assert second.handled == [(0, 0)], "finished records ran again"


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (b"bad", "bad after 1"),
        (b"give up", "toy after 1"),
        (b"retry 3", "done"),
        (b"retry 99", "retries-exhausted after 5"),
        (b"cancelled", "retries-exhausted after 5"),
        (b"hang", "deadline after 1"),
        (None, "done"),
    ],
)
async def test_errors_end_in_one_outcome_and_the_record_behind_is_answered(
    bootstrap: str, topics: ToyTopics, value: bytes | None, word: str
) -> None:
    await toy.produce(bootstrap, topics.source, [(1, b"k", value), (1, b"k", b"next")])
    handler = ToyHandler(topics.out, topics.audit)
    config = toy_config(bootstrap, topics, deadline_s=1.0)
    async with toy.working(config, handler), toy.reading(bootstrap, topics.out) as out:
        assert sorted(await out.until(2)) == [(1, "1/0", word), (1, "1/1", "done")]


async def test_a_record_with_neither_key_nor_value_can_be_published(
    bootstrap: str, topics: ToyTopics
) -> None:
    class Nothing(ToyHandler):
        async def handle(self, job: Job, *, attempt: int) -> Sequence[Output]:
            return [Output(topic=topics.out, key=None, value=None, headers=(("word", b"empty"),))]

    await toy.produce(bootstrap, topics.source, [(0, b"k", b"v")])
    config = toy_config(bootstrap, topics)
    async with toy.working(config, Nothing("", "")), toy.reading(bootstrap, topics.out) as out:
        assert await out.until(1) == [(0, "", "empty")]


async def test_a_header_name_that_is_not_utf_8_comes_through_byte_for_byte(
    bootstrap: str, topics: ToyTopics
) -> None:
    class Copy(ToyHandler):
        async def handle(self, job: Job, *, attempt: int) -> Sequence[Output]:
            headers = (*job.record.headers, ("word", b"copied"))
            return [Output(topic=topics.out, key=b"k", value=job.record.value, headers=headers)]

    odd = Output(topic="", key=b"k", value=b"odd", headers=(("n\udcff", b"v"), ("null", None)))
    await toy.produce(bootstrap, topics.source, [(0, b"k", b"before")])
    async with AIOKafkaProducer(bootstrap_servers=bootstrap) as producer:
        batch = RawBatch(odd, transactional=False)
        await (await producer.send_batch(batch, topics.source, partition=0))
    await toy.produce(bootstrap, topics.source, [(0, b"k", b"behind")])
    config = toy_config(bootstrap, topics)
    async with toy.working(config, Copy("", "")), toy.reading(bootstrap, topics.out) as out:
        seen = await out.until(3)
    assert [value for _, value, _ in seen] == ["before", "odd", "behind"]
    assert out.headers[1][:2] == odd.headers


async def test_a_batch_that_may_not_be_unpacked_stops_its_partition_and_no_other(
    bootstrap: str, topics: ToyTopics
) -> None:
    zeros = bytes(3 << 20)
    await toy.produce(bootstrap, topics.source, [(0, b"k", b"before")] * 3)
    await toy.produce(bootstrap, topics.source, [(0, b"k", zeros)], compression_type="zstd")
    await toy.produce(bootstrap, topics.source, [(0, b"k", b"behind"), (1, b"k", b"else")])
    handler = ToyHandler(topics.out, topics.audit)
    config = toy_config(bootstrap, topics, max_batch_bytes=2 << 20)
    async with toy.reading(bootstrap, topics.out) as out:
        async with toy.working(config, handler):
            await out.until(4)
            assert places(out.seen) == Counter(["0/0", "0/1", "0/2", "1/0"])
        async with toy.working(toy_config(bootstrap, topics), handler):
            await out.until(6)
    assert places(out.seen) == Counter(["0/0", "0/1", "0/2", "0/3", "0/4", "1/0"])


async def test_a_fenced_worker_rejoins_and_nothing_is_doubled(
    bootstrap: str, topics: ToyTopics
) -> None:
    handler = ToyHandler(topics.out, topics.audit, latency_s=0.01)
    config = toy_config(bootstrap, topics)
    async with toy.working(config, handler) as worker, toy.reading(bootstrap, topics.out) as out:
        await wait_until(lambda: len(worker.open_partitions) == PARTITIONS)
        await toy.produce(bootstrap, topics.source, records(100))
        await out.until(20)
        # What a new owner does first: start a producer with the partition's id.
        for partition in range(PARTITIONS):
            stranger = AIOKafkaProducer(
                bootstrap_servers=bootstrap,
                transactional_id=f"{topics.group}.{topics.source}.{partition}",
            )
            await stranger.start()
            await stranger.stop()
        await toy.produce(bootstrap, topics.source, records(100))
        await out.until(200)
        assert places(await out.settle()) == expected(200)


async def test_a_group_client_that_dies_is_replaced(bootstrap: str, topics: ToyTopics) -> None:
    """aiokafka's task for the group ends of an assertion or a fault; nobody would poll again."""
    await toy.produce(bootstrap, topics.source, records(40))
    handler = ToyHandler(topics.out, topics.audit)
    async with (
        toy.working(toy_config(bootstrap, topics), handler) as worker,
        toy.reading(bootstrap, topics.out) as out,
    ):
        await out.until(40)
        group = worker._group
        assert group is not None
        assert not group.is_dead()
        group.consumer._coordinator._coordination_task.cancel()
        await wait_until(lambda: worker._group is not group, 30)
        await toy.produce(bootstrap, topics.source, records(40))
        assert places(await out.until(80)) == expected(80)


async def test_two_workers_share_and_take_over_without_doubles(
    bootstrap: str, topics: ToyTopics
) -> None:
    config = toy_config(bootstrap, topics)
    first, second = (ToyHandler(topics.out, topics.audit, latency_s=0.02) for _ in range(2))
    await toy.produce(bootstrap, topics.source, records(200))
    async with toy.reading(bootstrap, topics.out) as out, toy.working(config, first):
        await out.until(50)
        async with toy.working(config, second) as joined:
            await wait_until(lambda: bool(joined.open_partitions))
            await toy.produce(bootstrap, topics.source, records(200))
            await wait_until(lambda: len(second.handled) > 20)
        await out.until(400)
        assert places(await out.settle()) == expected(400)
    partitions = defaultdict(set)
    for handler in (first, second):
        for partition, offset in handler.handled:
            partitions[partition].add(offset)
    assert all(len(partitions[p]) == 100 for p in range(PARTITIONS))


@contextmanager
def command(bootstrap: str, topics: ToyTopics, log: Path) -> Iterator[list[str]]:
    names = [topics.group, topics.source, topics.out, topics.audit]
    yield [sys.executable, "-m", "tests.kafka.toy", bootstrap, *names, "0.05", str(log)]


async def test_kill_9_again_and_again_leaves_one_outcome_each(
    bootstrap: str, topics: ToyTopics, tmp_path: Path
) -> None:
    """Workers die in the middle, three times; then one is left to finish."""
    count, kills = 600, 3
    await toy.produce(bootstrap, topics.source, records(count, keys=count))
    log = tmp_path / "calls"
    log.touch()
    with command(bootstrap, topics, log) as argv:
        async with toy.reading(bootstrap, topics.out) as out:
            for life in range(kills + 1):
                finished, called = set(places(await out.settle())), len(log.read_text().split())
                last = life == kills
                process = await asyncio.create_subprocess_exec(*argv)
                try:
                    await out.until(count if last else 100 * (life + 1))
                finally:
                    process.send_signal(signal.SIGTERM if last else signal.SIGKILL)
                    assert await process.wait() == (0 if last else -signal.SIGKILL)
                again = log.read_text().split()[called:]
                assert not finished.intersection(again), "what was finished ran again"
            assert places(await out.settle()) == expected(count)
        async with toy.reading(bootstrap, topics.audit) as audit:
            await audit.until(count)
            assert places(await audit.settle()) == expected(count)
    assert len(log.read_text().split()) > count, "no kill met a record in the handler's hands"


async def test_missing_topics_and_unequal_partitions_are_said_at_the_start(
    bootstrap: str, topics: ToyTopics
) -> None:
    handler = ToyHandler(topics.out, topics.audit)
    missing = toy_config(bootstrap, topics, output_topics=(topics.out, "nowhere"))
    with pytest.raises(TopicMissing, match=r"nowhere.*twite topics create"):
        async with toy.working(missing, handler):
            await asyncio.sleep(0)
    narrow = await toy.make_topics(bootstrap, f"n{uuid.uuid4().hex[:12]}", partitions=1)
    unequal = toy_config(bootstrap, topics, output_topics=(narrow.out,))
    with pytest.raises(PartitionsDiffer, match="same number of partitions"):
        async with toy.working(unequal, handler):
            await asyncio.sleep(0)


def test_places_counts_doubles() -> None:
    """The check of these tests can fail."""
    seen = [(0, "0/0", "done")] * 2
    assert places(seen) != expected(1)
    assert list(itertools.islice(expected(5), 2)) == ["0/0", "1/0"]


async def test_outputs_go_to_the_partition_that_they_name_and_silence_is_committed(
    bootstrap: str, topics: ToyTopics
) -> None:
    class Elsewhere(ToyHandler):
        async def handle(self, job: Job, *, attempt: int) -> Sequence[Output]:
            outputs = await super().handle(job, attempt=attempt)
            if job.record.value == b"silence":
                return []
            if job.record.value == b"nowhere":
                return [replace(output, partition=PARTITIONS) for output in outputs]
            return [replace(outputs[0], partition=3), outputs[1]]

    values = [b"one", b"silence", b"two", b"nowhere"]
    await toy.produce(bootstrap, topics.source, [(0, b"k%d" % i, v) for i, v in enumerate(values)])
    silent = toy_config(bootstrap, topics, silent_topics=frozenset({topics.source}))
    handler = Elsewhere(topics.out, topics.audit)
    async with (
        toy.reading(bootstrap, topics.out) as out,
        toy.reading(bootstrap, topics.audit) as audit,
    ):
        async with toy.working(silent, handler):
            await out.until(3)
            await audit.until(3)
        gone = (0, "0/3", "retries-exhausted after 5")
        assert sorted(out.seen) == [gone, (3, "0/0", "done"), (3, "0/2", "done")]
        assert sorted(audit.seen) == [(0, "0/0", "done"), (0, "0/2", "done"), gone]
        again = ToyHandler(topics.out, topics.audit)
        await toy.produce(bootstrap, topics.source, [(0, b"k", b"five")])
        async with toy.working(silent, again):
            await out.until(4)
    assert again.handled == [(0, 4)], "the silent one was handled again"


@pytest.mark.parametrize(("size", "codec"), [(5 << 20, "zstd"), (30 << 20, "gzip")])
async def test_what_came_compressed_can_be_given_up_compressed(
    bootstrap: str, topics: ToyTopics, size: int, codec: str
) -> None:
    """Its dead letter is larger than any record may be, but packs as well as it did."""

    class Letter(ToyHandler):
        def give_up(self, record: Record, error: GiveUp, *, attempts: int) -> Sequence[Output]:
            headers = (*record.headers, ("word", error.code.encode()))
            letter = Output(topic=topics.out, key=b"k", value=record.value, headers=headers)
            return [letter, *self._outputs(record, b"")[1:]]

    word = b"give up " + bytes(size)
    await toy.produce(bootstrap, topics.source, [(0, b"k", word)], compression_type=codec)
    await toy.produce(bootstrap, topics.source, [(0, b"k", b"behind")])
    handler = Letter(topics.out, topics.audit)
    config = toy_config(bootstrap, topics)
    async with toy.working(config, handler), toy.reading(bootstrap, topics.out) as out:
        letter, behind = await out.until(2)
        assert letter[1].encode() == word
        assert behind[1:] == ("0/1", "done")


async def test_what_the_broker_refuses_holds_up_nobody(bootstrap: str, topics: ToyTopics) -> None:
    class Huge(ToyHandler):
        async def handle(self, job: Job, *, attempt: int) -> Sequence[Output]:
            if job.record.value == b"huge":
                value = random.Random(1).randbytes(10 << 20)  # does not pack
                return [Output(topic=topics.out, key=b"k", value=value)]
            return await super().handle(job, attempt=attempt)

    values = [b"one", b"huge", b"two", b"three"]
    await toy.produce(bootstrap, topics.source, [(0, b"k%d" % i, v) for i, v in enumerate(values)])
    handler = Huge(topics.out, topics.audit)
    config = toy_config(bootstrap, topics, max_request_bytes=64 << 20)
    async with toy.working(config, handler), toy.reading(bootstrap, topics.out) as out:
        await out.until(3)
        await toy.produce(bootstrap, topics.source, [(0, b"k", b"four")])
        await out.until(4)
        assert places(await out.settle()) == Counter(["0/0", "0/2", "0/3", "0/4"])


async def test_an_offset_beyond_the_log_is_said_and_nothing_is_read(
    bootstrap: str, topics: ToyTopics
) -> None:
    await toy.produce(bootstrap, topics.source, [(0, b"k", b"v")] * 3)
    await toy.commit(bootstrap, topics, partition=0, offset=30)
    handler = ToyHandler(topics.out, topics.audit)
    with capture_logs() as logs:
        async with toy.working(toy_config(bootstrap, topics), handler) as worker:
            await wait_until(lambda: len(worker.open_partitions) == PARTITIONS - 1)
            await wait_until(lambda: any("the log ends at 3" in log["event"] for log in logs))
            assert handler.handled == []
    await toy.commit(bootstrap, topics, partition=0, offset=1)
    async with toy.working(toy_config(bootstrap, topics), handler):
        await wait_until(lambda: len(handler.handled) == 2)
    assert handler.handled == [(0, 1), (0, 2)]


async def test_views_are_prepared_behind_the_producer_and_released_at_the_end(
    bootstrap: str, topics: ToyTopics
) -> None:
    told: list[str] = []

    async def prepare(source: TopicPartition) -> None:
        told.append("prepare")
        assert source not in worker.open_partitions

    async def release(source: TopicPartition) -> None:
        told.append("release")
        assert source not in worker.open_partitions

    handler = ToyHandler(topics.out, topics.audit)
    worker = Worker(
        toy_config(bootstrap, topics), lambda *_: handler, prepare=prepare, release=release
    )
    task = asyncio.create_task(worker.run())
    await wait_until(lambda: len(worker.open_partitions) == PARTITIONS)
    assert told == ["prepare"] * PARTITIONS
    worker.stop()
    await task
    assert told[PARTITIONS:] == ["release"] * PARTITIONS


async def test_whoever_does_the_work_sets_the_pace(bootstrap: str, topics: ToyTopics) -> None:
    """No slot: nothing is read. Two slots: two at a time, and little waits in memory."""
    slots = 0
    handler = ToyHandler(topics.out, topics.audit, latency_s=0.01)
    most = waiting = 0

    class Counting(ToyHandler):
        async def handle(self, job: Job, *, attempt: int) -> Sequence[Output]:
            nonlocal most, waiting
            most = max(most, worker.state().in_flight)
            waiting = max(waiting, worker.state().waiting_slot)
            return await handler.handle(job, attempt=attempt)

    await toy.produce(bootstrap, topics.source, records(200, keys=200))
    config = toy_config(bootstrap, topics)
    worker = Worker(config, lambda topic, partition: Counting("", ""), slots=lambda: slots)
    task = asyncio.create_task(worker.run())
    async with toy.reading(bootstrap, topics.out) as out:
        await wait_until(lambda: len(worker.open_partitions) == PARTITIONS)
        await out.more(timeout_ms=500)
        assert handler.handled == []
        assert worker.state().waiting_slot == 0
        slots = 2
        await out.until(100)
        slots = 0
        await wait_until(lambda: worker.state().in_flight == 0)
        done = len(handler.handled)
        await out.more(timeout_ms=500)
        assert len(handler.handled) == done
        slots = 2
        await out.until(200)
    worker.stop()
    await task
    assert most == 2
    assert waiting <= 2 * config.waiting_per_slot + PARTITIONS  # at least one of each is asked
