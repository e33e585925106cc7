"""Views over real Kafka: built, followed, killed, rebuilt, and always what the log says."""

import asyncio
import os
import random
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete

from consumers import batches
from consumers.errors import PartitionsDiffer, TopicMissing
from consumers.metrics import Metrics
from consumers.views.compare import Comparison, NotComparable, compare
from consumers.views.files import InUse, lags, rebuild, survey
from consumers.views.follow import FollowConfig
from consumers.views.store import Files
from consumers.views.views import OpenView, ViewLost, Views
from tests.conftest import MakeTopics
from tests.consumers.views.notes import Notes
from tests.kafka import toy, viewing
from tests.kafka.viewing import CLUSTER, is_caught_up, reached, texts, view_of
from tests.wait import wait_until

pytestmark = pytest.mark.kafka


@dataclass
class Place:
    """A topic of two partitions, and a folder for its views."""

    config: FollowConfig
    topic: str
    directory: Path
    scratch: Path

    @property
    def view(self) -> Notes:
        return view_of(self.topic)

    @property
    def files(self) -> Files:
        return Files(self.directory, CLUSTER, "notes", 0)

    async def say(self, *words: bytes | None, partition: int = 0, key: bytes = b"k") -> None:
        records = [(partition, key, word) for word in words]
        await toy.produce(self.config.bootstrap_servers, self.topic, records)

    @asynccontextmanager
    async def open(self, **changes: object) -> AsyncIterator[OpenView]:
        config = replace(self.config, **changes)  # type: ignore[arg-type]
        async with viewing.viewing(config, self.directory, [self.view]) as views:
            yield views.of(0)["notes"]

    async def verified(self, copy: int = 0, **changes: object) -> Comparison:
        config = replace(self.config, **changes)  # type: ignore[arg-type]
        folder = self.scratch / f"{time.monotonic_ns()}"
        folder.mkdir()
        return await compare(config, self.view, self.files.path(copy), CLUSTER, folder)


@pytest.fixture
async def place(bootstrap: str, kafka_topics: MakeTopics, tmp_path: Path) -> Place:
    (topic,) = await kafka_topics("notes", partitions=2)
    (tmp_path / "scratch").mkdir()
    return Place(
        FollowConfig(bootstrap_servers=bootstrap), topic, tmp_path / "views", tmp_path / "scratch"
    )


@pytest.fixture
async def admin(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await client.start()
    yield client
    await client.close()


async def test_a_view_is_built_followed_and_kept(place: Place) -> None:
    await place.say(b"one", b"two")
    await place.say(b"elsewhere", partition=1)
    async with place.open() as view:
        assert texts(view) == [b"one", b"two"]
        await place.say(b"three")
        await reached(view)
        assert texts(view) == [b"one", b"two", b"three"]
        assert view.positions == {f"{place.topic}/0": 3}
    await place.say(b"four")
    async with place.open() as view:
        assert texts(view) == [b"one", b"two", b"three", b"four"]
    assert (await place.verified()).equal


async def test_only_what_was_committed_is_seen(place: Place, unique: Callable[[str], str]) -> None:
    async with AIOKafkaProducer(
        bootstrap_servers=place.config.bootstrap_servers, transactional_id=unique("t")
    ) as producer:
        for word, kept in [(b"kept", True), (b"aborted", False)]:
            await producer.begin_transaction()
            await (await producer.send(place.topic, word, key=b"k", partition=0))
            await (producer.commit_transaction() if kept else producer.abort_transaction())
        async with place.open() as view:
            assert texts(view) == [b"kept"]
            await producer.begin_transaction()
            await (await producer.send(place.topic, b"open", key=b"k", partition=0))
            await reached(view)  # behind an open transaction is no lag
            assert texts(view) == [b"kept"]
            await producer.commit_transaction()
            # That it returned does not mean yet that others can read it.
            await wait_until(lambda: texts(view) == [b"kept", b"open"])


async def test_opening_waits_for_what_stands_behind_an_open_transaction_of_ours(
    place: Place, unique: Callable[[str], str]
) -> None:
    own = frozenset({place.topic})
    async with AIOKafkaProducer(
        bootstrap_servers=place.config.bootstrap_servers, transactional_id=unique("t")
    ) as producer:
        await producer.begin_transaction()
        await (await producer.send(place.topic, b"open", key=b"k", partition=0))
        await place.say(b"behind")

        async def opened() -> list[bytes]:
            async with place.open(own_topics=own) as view:
                return texts(view)

        opening = asyncio.create_task(opened())
        done, _ = await asyncio.wait([opening], timeout=2.0)
        assert not done
        await producer.commit_transaction()
        assert await opening == [b"open", b"behind"]


async def test_a_view_of_several_topics_and_one_of_all_partitions(
    place: Place, kafka_topics: MakeTopics
) -> None:
    (other, small) = await kafka_topics("other", "small", partitions=2)
    views = [view_of(place.topic, other), Notes((small,), "small", scope="all")]
    for topic in (place.topic, other, small):
        records = [(p, b"k", b"%d" % p) for p in (0, 1)]
        await toy.produce(place.config.bootstrap_servers, topic, records)
    async with viewing.viewing(place.config, place.directory, views, [1]) as opened:
        assert set(opened.of(1)) == {"notes", "small"}
        assert texts(opened.of(1)["notes"]) == [b"1", b"1"]
        assert texts(opened.of(1)["small"]) == [b"0", b"1"]
        assert set(opened.of(0)) == {"small"}


async def test_partitions_come_and_go(place: Place) -> None:
    await place.say(b"zero")
    await place.say(b"one", partition=1)
    async with viewing.viewing(place.config, place.directory, [place.view], [0]) as views:
        first = views.of(0)["notes"]
        await views.open(1)
        await views.open(0)  # a second user of the same partition
        assert [texts(views.of(p)["notes"]) for p in (0, 1)] == [[b"zero"], [b"one"]]
        await views.release(0)
        await place.say(b"more")
        await reached(first)
        assert texts(first) == [b"zero", b"more"]
        await views.release(0)
        assert views.of(0) == {}
        with pytest.raises(ViewLost):
            texts(first)
        assert [state.partition for state in views.states()] == ["1"]
        await place.say(b"meanwhile")
        await views.open(0)
        assert texts(views.of(0)["notes"]) == [b"zero", b"more", b"meanwhile"]


@pytest.mark.parametrize("harm", ["missing", "damaged", "layout"])
async def test_a_file_that_is_no_good_is_built_again(place: Place, harm: str) -> None:
    await place.say(b"one", b"two")
    async with place.open():
        pass
    path = place.files.path(0)
    if harm == "missing":
        path.unlink()
    elif harm == "damaged":
        path.write_bytes(os.urandom(path.stat().st_size))
    else:
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("UPDATE view_meta SET value = 99 WHERE key = 'layout'")
    async with place.open() as view:
        assert texts(view) == [b"one", b"two"]
    assert (await place.verified()).equal


async def test_a_view_that_breaks_while_it_is_read_comes_back(place: Place) -> None:
    await place.say(*(os.urandom(400) for _ in range(2000)))
    async with viewing.viewing(place.config, place.directory, [place.view]) as views:
        view = views.of(0)["notes"]
        before = texts(view)
        with pytest.raises(ViewLost):
            raise view.lost(sqlite3.DatabaseError("database disk image is malformed"))
        await wait_until(lambda: not is_caught_up(views))
        with pytest.raises(ViewLost):
            texts(view)
        await views.open(0)  # as a worker does that let go of the partition
        assert is_caught_up(views)
        assert texts(view) == before


async def test_a_recreated_topic_is_another_log(place: Place, admin: AIOKafkaAdminClient) -> None:
    await place.say(b"old one", b"old two")
    async with place.open():
        pass
    await _recreate(admin, place.topic)
    # Longer than before: only the last record known tells that it is another one.
    await place.say(b"new one", b"new two", b"new three")
    with pytest.raises(AssertionError, match="differs"):
        assert (await place.verified()).equal, "differs"
    async with place.open() as view:
        assert texts(view) == [b"new one", b"new two", b"new three"]
    assert (await place.verified()).equal


async def test_a_topic_recreated_while_it_is_followed(
    place: Place, admin: AIOKafkaAdminClient
) -> None:
    await place.say(b"old one", b"old two")
    async with viewing.viewing(place.config, place.directory, [place.view]) as views:
        view = views.of(0)["notes"]
        await _recreate(admin, place.topic)
        await place.say(b"new")
        await wait_until(
            lambda: is_caught_up(views) and view.positions.get(f"{place.topic}/0") == 1
        )
        assert texts(view) == [b"new"]


async def _recreate(admin: AIOKafkaAdminClient, topic: str) -> None:
    await admin.delete_topics([topic])

    async def created() -> bool:
        answer = await admin.create_topics([NewTopic(topic, 2, 1)])
        return bool(answer.topic_errors[0][1] == 0)

    while not await created():  # noqa: ASYNC110 - the deletion takes a moment
        await asyncio.sleep(0.05)


async def test_a_log_trimmed_past_the_view_is_read_from_its_beginning(
    place: Place, admin: AIOKafkaAdminClient
) -> None:
    source = TopicPartition(place.topic, 0)
    await place.say(b"one", b"two", b"three")
    async with place.open():
        pass
    await place.say(b"four", b"five", b"six")
    await admin.delete_records({source: RecordsToDelete(before_offset=2)})
    async with place.open() as view:  # nothing was missed: what the log forgot is still known
        assert texts(view)[0] == b"one"
    await place.say(b"seven", b"eight")
    await admin.delete_records({source: RecordsToDelete(before_offset=7)})
    with pytest.raises(NotComparable, match="not the one"):
        await place.verified()
    async with place.open() as view:
        assert texts(view) == [b"eight"]


async def test_what_a_log_forgot_is_left_out_of_a_comparison(
    place: Place, admin: AIOKafkaAdminClient
) -> None:
    hour = 3600 * 1000
    now = round(time.time() * 1000)
    async with AIOKafkaProducer(bootstrap_servers=place.config.bootstrap_servers) as producer:
        for number, age in enumerate([3, 2, 1, 0]):
            at = now - age * hour
            await producer.send_and_wait(
                place.topic, b"%d" % number, key=b"k", partition=0, timestamp_ms=at
            )
    async with place.open() as view:
        assert len(texts(view)) == 4
    await admin.delete_records({TopicPartition(place.topic, 0): RecordsToDelete(before_offset=2)})
    found = await place.verified()
    assert found.equal
    assert [(table.table, table.rows) for table in found.tables] == [("note", 1)]


async def test_old_records_are_not_read_and_old_rows_are_trimmed(place: Place) -> None:
    day = 24 * 3600 * 1000
    now = round(time.time() * 1000)
    async with AIOKafkaProducer(bootstrap_servers=place.config.bootstrap_servers) as producer:
        for number, age in enumerate([9, 5, 3, 0]):
            at = now - age * day
            await producer.send_and_wait(
                place.topic, b"%d" % number, key=b"k", partition=0, timestamp_ms=at
            )
    async with place.open(max_age_ms=6 * day) as view:
        assert texts(view) == [b"1", b"2", b"3"]
    assert (await place.verified()).equal
    async with place.open(max_age_ms=4 * day) as view:
        await wait_until(lambda: texts(view) == [b"2", b"3"])
    found = await place.verified()
    assert found.equal
    assert found.since_ms is not None


async def test_a_file_that_grew_too_large_loses_its_oldest(place: Place) -> None:
    await place.say(*(b"%06d" % i + os.urandom(150) for i in range(20_000)))
    limit = 1024 * 1024
    async with place.open(max_bytes=limit) as view:
        await wait_until(lambda: len(texts(view)) < 10_000 and 0 < view.state().used_bytes <= limit)
        left = texts(view)
        assert len(left) > 1000
        assert left[-1].startswith(b"019999")
    assert (await place.verified()).equal


async def test_bad_records_are_counted_and_passed(place: Place) -> None:
    await place.say(b"one", b"bad", b"boom", b"two")
    async with place.open() as view:
        assert texts(view) == [b"one", b"two"]
        bad = view.rows("SELECT code, records FROM view_bad ORDER BY code")
        assert bad == [("bad-json", 1), ("view-error", 1)]


async def test_a_batch_that_may_not_be_unpacked_is_passed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches.TolerantRecords, "limit_bytes", 1 << 20)
    await place.say(b"one", b"two")
    await place.say(b"elsewhere", partition=1)
    huge = [(0, b"k", bytes(2_000_000))]
    await toy.produce(place.config.bootstrap_servers, place.topic, huge, "zstd")
    await place.say(b"three")
    metrics = Metrics()
    views = Views(place.config, place.directory, CLUSTER, [place.view], metrics)
    await views.start()
    try:
        await asyncio.gather(views.open(0), views.open(1))
        assert texts(views.of(0)["notes"]) == [b"one", b"two", b"three"]
        assert texts(views.of(1)["notes"]) == [b"elsewhere"]
        assert metrics.view_bad.total == 1
    finally:
        await views.close()


async def test_a_consumer_that_breaks_is_replaced(place: Place) -> None:
    await place.say(b"one")
    async with viewing.viewing(place.config, place.directory, [place.view]) as views:
        view = views.of(0)["notes"]
        follower = views._thread._follower
        consumer = follower._consumer
        assert consumer is not None
        await views._thread.call(consumer.stop())
        await wait_until(lambda: follower._consumer is not consumer)
        await place.say(b"two")
        await reached(view)
        assert texts(view) == [b"one", b"two"]


async def test_two_processes_share_a_directory(place: Place) -> None:
    await place.say(b"one")
    async with _process(place) as (_, line):
        assert line == "caught up 1"
        async with place.open() as view:
            assert texts(view) == [b"one"]
            found = survey(place.directory, CLUSTER, [place.view])
            assert [(file.copy, file.in_use, file.state) for file in found] == [
                (0, True, "ok"),
                (1, True, "ok"),
            ]
            with pytest.raises(InUse):
                await rebuild(place.config, place.view, place.files, lambda left: None)
    for copy in (0, 1):
        assert (await place.verified(copy)).equal


async def test_a_kill_while_a_view_is_written_leaves_it_as_the_log_says(place: Place) -> None:
    """Killed again and again at random moments; each time the file goes on from where it was."""
    chance = random.Random(5)
    total = 30_000
    words = [b"%d %s" % (i, os.urandom(100).hex().encode()) for i in range(total)]
    await place.say(*words)
    moved: list[int] = []
    for _ in range(6):
        arguments = _arguments(place)
        process = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
        start = _rows(place)
        async with asyncio.timeout(60):
            while _rows(place) <= start and process.returncode is None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await asyncio.sleep(chance.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        await process.wait()
        moved.append(_rows(place))
        await place.say(*words[: total // 10])
        found = await place.verified()
        assert found.equal, found
        assert found.tables[0].rows == moved[-1]
    assert moved == sorted(moved)
    assert len(set(moved)) > 1
    async with place.open() as view:
        assert len(texts(view)) == total + 6 * (total // 10)
    assert (await place.verified()).equal


def _rows(place: Place) -> int:
    path = place.files.path(0)
    if not path.exists():
        return 0
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as db:
        try:
            return int(db.execute("SELECT count(*) FROM note").fetchone()[0])
        except sqlite3.OperationalError:
            return 0  # its tables are not there yet


def _arguments(place: Place) -> list[str]:
    servers = place.config.bootstrap_servers
    program = [sys.executable, "-m", "tests.kafka.viewing"]
    return [*program, servers, str(place.directory), place.topic, "0"]


@asynccontextmanager
async def _process(place: Place) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Another process that follows the same partition, and what it said when it was ready."""
    process = await asyncio.create_subprocess_exec(
        *_arguments(place), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        line = b""
        while not line.startswith(b"caught up"):
            line = await asyncio.wait_for(process.stdout.readline(), 60)
            assert line
        yield process, line.decode().strip()
    finally:
        process.kill()
        await process.wait()


async def test_rebuild_and_survey(place: Place) -> None:
    await place.say(b"one", b"two")
    assert survey(place.directory, CLUSTER, [place.view]) == []
    left: list[int] = []
    assert await rebuild(place.config, place.view, place.files, left.append) > 0
    await place.say(b"three")
    (file,) = survey(place.directory, CLUSTER, [place.view])
    assert (file.key, file.state, file.rows, file.in_use) == ("0", "ok", 2, False)
    assert await lags(place.config, [file]) == {file.path: 1}
    (other,) = survey(place.directory, CLUSTER, [Notes(("x",), layout=2)])
    assert other.state == "other layout"
    file.path.write_bytes(b"garbage" * 1000)
    (broken,) = survey(place.directory, CLUSTER, [place.view])
    assert broken.state == "damaged"
    with pytest.raises(NotComparable, match="damaged"):
        await place.verified()


async def test_a_row_that_is_wrong_is_found(place: Place) -> None:
    await place.say(b"one", b"two", b"three")
    async with place.open():
        pass
    with closing(sqlite3.connect(place.files.path(0))) as db, db:
        db.execute("UPDATE note SET text = 'changed' WHERE at = 1")
        db.execute("DELETE FROM note WHERE at = 2")
    found = await place.verified()
    (table,) = found.tables
    assert (table.rows, table.only_view, table.only_log) == (2, 1, 2)
    assert not found.equal


async def test_topics_that_are_missing_or_do_not_fit_are_told(
    place: Place, kafka_topics: MakeTopics
) -> None:
    (three,) = await kafka_topics("three", partitions=3)
    with pytest.raises(TopicMissing):
        async with viewing.viewing(place.config, place.directory, [view_of("not-there")]):
            pass
    with pytest.raises(PartitionsDiffer):
        async with viewing.viewing(place.config, place.directory, [view_of(place.topic, three)]):
            pass
