"""Where a view stands on its logs: nothing twice, nothing left out, another log noticed."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from consumers.views.followed import Followed, OtherLog
from consumers.views.store import Files, Store
from schemas.record import Record
from tests.consumers.views.notes import Notes
from tests.consumers.views.records import SOURCE, note, notes

OTHER = TopicPartition("other", 0)
FIRSTS = {SOURCE: 0, OTHER: 0}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    view = Notes(("notes", "other"))
    with closing(Store.open(view, Files(tmp_path, "c", "notes", 0))) as store:
        store.begin_at({SOURCE: 0, OTHER: 0})
        yield store


def placed(store: Store) -> Followed:
    followed = Followed(store, (SOURCE, OTHER))
    followed.place(FIRSTS)
    return followed


def read(followed: Followed, records: list[Record], position: int) -> list[int]:
    """Offsets that are applied when these records come."""
    wanted = followed.wants(SOURCE, records, position)
    if wanted:
        followed.store.write([(SOURCE, wanted)])
    followed.moved(SOURCE, position)
    return [record.offset for record in wanted]


def test_only_what_is_new_is_applied(store: Store) -> None:
    followed = placed(store)
    assert followed.start(SOURCE) == 0
    assert read(followed, notes(0, 5), 5) == [0, 1, 2, 3, 4]
    assert read(followed, notes(3, 8), 8) == [5, 6, 7]
    assert read(followed, notes(2, 8), 8) == []


def test_nothing_behind_a_limit_is_applied(store: Store) -> None:
    followed = Followed(store, (SOURCE, OTHER), limits={SOURCE: 3, OTHER: 0})
    followed.place(FIRSTS)
    assert not followed.is_at_limits()
    assert read(followed, notes(0, 9), 9) == [0, 1, 2]
    assert followed.is_at_limits()


def test_markers_move_it_too(store: Store) -> None:
    followed = placed(store)
    assert followed.moved(SOURCE, 4)
    assert not followed.moved(SOURCE, 4)
    assert not followed.moved(SOURCE, 2)
    assert followed.news().positions == {"notes/0": 4, "other/0": 0}


def test_it_goes_on_behind_the_record_that_it_knows(store: Store) -> None:
    read(placed(store), notes(0, 5), 5)
    again = placed(store)
    assert (again.start(SOURCE), again.start(OTHER)) == (4, 0)
    assert read(again, notes(4, 7), 7) == [5, 6]


@pytest.mark.parametrize(
    ("records", "position"),
    [
        ([note(4, b"changed")], 5),
        ([note(4, b"text 4", key=b"other")], 5),
        ([note(4, b"text 4", at_ms=1)], 5),
        ([note(5, b"text 5")], 6),
        ([], 6),
    ],
    ids=["text", "key", "time", "gone", "a marker there"],
)
def test_another_record_in_its_place_is_another_log(
    store: Store, records: list[Record], position: int
) -> None:
    read(placed(store), notes(0, 5), 5)
    again = placed(store)
    with pytest.raises(OtherLog):
        again.wants(SOURCE, records, position)


def test_nothing_is_said_before_the_place_is_reached(store: Store) -> None:
    read(placed(store), notes(0, 5), 5)
    again = placed(store)
    assert list(again.wants(SOURCE, [], 4)) == []
    assert read(again, notes(4, 6), 6) == [5]


def test_a_log_that_begins_behind_the_known_record_is_believed(store: Store) -> None:
    read(placed(store), notes(0, 5), 5)
    again = Followed(store, (SOURCE, OTHER))
    again.place({SOURCE: 5, OTHER: 0})
    assert again.start(SOURCE) == 5
    assert read(again, notes(5, 6), 6) == [5]


def test_it_has_everything_only_where_all_its_logs_are_read(store: Store) -> None:
    followed = placed(store)
    assert followed.heard(SOURCE, end=5, asked_ms=100)
    followed.heard(OTHER, end=0, asked_ms=90)
    assert (followed.as_of_ms, followed.lag_records) == (0, 5)
    read(followed, notes(0, 5), 5)
    followed.heard(SOURCE, end=5, asked_ms=100)
    assert (followed.as_of_ms, followed.lag_records) == (90, 0)
    assert not followed.heard(SOURCE, end=5, asked_ms=100)


def test_an_end_that_was_asked_for_tells_when_it_is_reached(store: Store) -> None:
    followed = placed(store)
    followed.probes = [(500, {SOURCE: 3, OTHER: 0}), (900, {SOURCE: 9, OTHER: 0})]
    assert not followed.probed()
    read(followed, notes(0, 4), 4)
    assert followed.probed()
    assert followed.as_of_ms == 500
    assert [asked for asked, _ in followed.probes] == [900]


def test_one_that_was_displaced_stands_nowhere(store: Store) -> None:
    followed = placed(store)
    read(followed, notes(0, 5), 5)
    followed.ready = followed.arranged = True
    followed.displace("damaged")
    news = followed.news()
    assert (news.ready, news.generation, news.positions, news.as_of_ms) == (False, 1, {}, 0)
    assert not followed.arranged


@given(
    st.lists(st.integers(1, 7), max_size=8),
    st.lists(st.integers(0, 3), max_size=8),
    st.integers(0, 30),
)
def test_each_record_once_however_it_is_cut_and_reread(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], back: list[int], restart: int
) -> None:
    """Batches overlap by chance, and the process is started anew once."""
    folder = tmp_path_factory.mktemp("view")
    store = Store.open(Notes(("notes", "other")), Files(folder, "c", "notes", 0))
    with closing(store):
        store.begin_at({SOURCE: 0, OTHER: 0})
        followed, applied, position = placed(store), list[int](), 0
        for i, size in enumerate(sizes):
            if i == restart:
                followed = placed(store)
                position = followed.start(SOURCE)
            first = max(0, position - (back[i] if i < len(back) and i != restart else 0))
            applied += read(followed, notes(first, position + size), position + size)
            position += size
        assert applied == list(range(position))


# Forgetting.


def steps(followed: Followed, max_age_ms: int | None, max_bytes: int | None, rows: int) -> int:
    """Trim until there is nothing more to do; how many steps that took."""
    count = 1
    followed.look_at = 0.0
    while followed.trim_a_step(max_age_ms, max_bytes, rows):
        count += 1
        assert count < 10_000
    return count


def test_old_rows_go_in_small_steps(store: Store) -> None:
    followed = placed(store)
    now = round(time.time() * 1000)
    records = [note(i, at_ms=now - (100 - i) * 60_000) for i in range(100)]
    read(followed, records, 100)
    assert steps(followed, 30 * 60_000 + 30_000, None, rows=10) > 7
    left = [at for (at,) in store.db.execute("SELECT at FROM note ORDER BY at")]
    assert left == list(range(70, 100))
    assert not followed.trim_a_step(0, None, rows=10)  # not again at once


@pytest.mark.parametrize(
    "times",
    [
        lambda i: 5,
        lambda i: i,
        lambda i: i * 3_600_000,
        lambda i: i // 1000 * 10**9 + i,
    ],
    ids=["at once", "steadily", "slowly", "in bursts"],
)
def test_the_oldest_go_where_the_file_is_too_large(
    store: Store, times: Callable[[int], int]
) -> None:
    followed = placed(store)
    records = [note(i, b"%06d" % i + b"x" * 100, at_ms=times(i)) for i in range(10_000)]
    read(followed, records, 10_000)
    limit = store.used_bytes() // 2
    steps(followed, None, limit, rows=100)
    assert store.used_bytes() <= limit
    left = [at for (at,) in store.db.execute("SELECT at FROM note ORDER BY at")]
    assert len(left) > 3_000
    assert left == list(range(left[0], 10_000))


def test_an_empty_file_that_is_too_large_is_left_alone(store: Store) -> None:
    assert steps(placed(store), 1, 1, rows=10) == 1
