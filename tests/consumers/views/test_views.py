"""The readers' side of a view: who may read when, and who is woken by which news."""

import asyncio
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from consumers.handler import StopPartition
from consumers.views.followed import Followed
from consumers.views.store import Files, Store
from consumers.views.views import OpenView, ViewLost
from tests.consumers.views.notes import Notes
from tests.consumers.views.records import SOURCE, notes


class ScriptedThread:
    """Notes what a view asks of the thread that follows."""

    def __init__(self) -> None:
        self.probed = 0
        self.rebuilt: list[int] = []

    def probe(self, followed: Followed) -> None:
        self.probed += 1

    def rebuild(self, followed: Followed, generation: int) -> None:
        self.rebuilt.append(generation)


@pytest.fixture
def followed(tmp_path: Path) -> Iterator[Followed]:
    with closing(Store.open(Notes(), Files(tmp_path, "c", "notes", 0))) as store:
        store.begin_at({SOURCE: 0})
        store.write([(SOURCE, notes(0, 3))])
        followed = Followed(store, (SOURCE,))
        followed.place({SOURCE: 0})
        yield followed


@pytest.fixture
def thread() -> ScriptedThread:
    return ScriptedThread()


@pytest.fixture
def view(followed: Followed, thread: ScriptedThread) -> Iterator[OpenView]:
    opened = OpenView(Notes(), followed, followed.news(), thread)  # type: ignore[arg-type]
    yield opened
    opened.close()


def ready(view: OpenView, followed: Followed, *, as_of_ms: int = 0) -> None:
    followed.ready = True
    view.hear(replace(followed.news(), as_of_ms=as_of_ms))


def test_it_can_be_read_once_it_is_caught_up(view: OpenView, followed: Followed) -> None:
    with pytest.raises(ViewLost):
        view.rows("SELECT 1")
    ready(view, followed)
    assert view.rows("SELECT count(*) FROM note WHERE at < ?", (2,)) == [(2,)]
    assert (view.positions, view.is_ready) == ({"notes/0": 3}, True)


def test_a_lost_view_lets_go_of_the_partition() -> None:
    assert issubclass(ViewLost, StopPartition)


def test_a_rebuilt_file_is_opened_again(view: OpenView, followed: Followed) -> None:
    ready(view, followed)
    assert view.rows("SELECT count(*) FROM note") == [(3,)]
    followed.displace("damaged")
    followed.store.begin_anew("damaged")
    view.hear(followed.news())
    with pytest.raises(ViewLost):
        view.rows("SELECT count(*) FROM note")
    ready(view, followed)
    assert view.rows("SELECT count(*) FROM note") == [(0,)]


def test_damage_has_the_file_built_again(
    view: OpenView, followed: Followed, thread: ScriptedThread
) -> None:
    followed.store.write([(SOURCE, notes(3, 3000))])
    followed.store.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path = followed.store.path
    followed.store.close()
    with path.open("r+b") as file:
        file.seek(4096 * 4)
        file.write(b"\xff" * (path.stat().st_size - 4096 * 4))
    ready(view, followed)
    with pytest.raises(ViewLost):
        view.rows("SELECT sum(length(text)) FROM note")
    assert thread.rebuilt == [0]


def test_a_mistake_in_a_statement_is_no_damage(
    view: OpenView, followed: Followed, thread: ScriptedThread
) -> None:
    ready(view, followed)
    with pytest.raises(sqlite3.OperationalError):
        view.rows("SELECT nothing FROM nowhere")
    assert thread.rebuilt == []


async def test_what_it_has_is_told_at_once(
    view: OpenView, followed: Followed, thread: ScriptedThread
) -> None:
    ready(view, followed, as_of_ms=1000)
    assert await view.reached(1000, 0.0)
    assert not await view.reached(1001, 0.0)
    assert thread.probed == 1


async def test_waiting_ends_with_the_news(
    view: OpenView, followed: Followed, thread: ScriptedThread
) -> None:
    ready(view, followed)
    waiting = [asyncio.create_task(view.reached(at, 30.0)) for at in (50, 60, 9000)]
    await asyncio.sleep(0)
    assert thread.probed == 1  # whoever asks for an earlier time is answered by the same probe
    ready(view, followed, as_of_ms=100)
    assert await asyncio.gather(*waiting[:2]) == [True, True]
    assert not waiting[2].done()
    ready(view, followed, as_of_ms=9000)
    assert await waiting[2]


async def test_waiting_is_bounded(view: OpenView, followed: Followed) -> None:
    ready(view, followed)
    assert not await view.reached(50, 0.01)
    ready(view, followed, as_of_ms=100)
    assert await view.reached(50, 0.01)


async def test_a_time_ahead_of_our_clock_counts_as_now(view: OpenView, followed: Followed) -> None:
    ready(view, followed)
    hour_ahead = round(time.time() * 1000) + 3_600_000
    waiting = asyncio.create_task(view.reached(hour_ahead, 30.0))
    await asyncio.sleep(0)
    ready(view, followed, as_of_ms=round(time.time() * 1000) + 1)
    assert await waiting


async def test_closing_wakes_whoever_waits(view: OpenView, followed: Followed) -> None:
    ready(view, followed)
    waiting = asyncio.create_task(view.reached(50, 30.0))
    await asyncio.sleep(0)
    view.close()
    assert not await waiting
    with pytest.raises(ViewLost):
        view.rows("SELECT 1")


def test_its_state_is_there_for_the_metrics(view: OpenView, followed: Followed) -> None:
    ready(view, followed, as_of_ms=round(time.time() * 1000))
    state = view.state()
    assert (state.view, state.partition, state.ready) == ("notes", "0", True)
    assert 0 <= state.lag_seconds < 60
