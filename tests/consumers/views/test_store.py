"""A view's file: rows and offsets together, and begun anew whenever it can't be trusted."""

import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from consumers.views import store as store_module
from consumers.views.store import (
    Damaged,
    DirectoryUnusable,
    Files,
    Store,
    locked,
    positions_of,
    reading,
    sweep,
)
from tests.consumers.views import contract
from tests.consumers.views.notes import Notes
from tests.consumers.views.records import SOURCE, note, notes

Open = Callable[..., Store]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "views", "cluster/1", "notes", 0)


@pytest.fixture
def opened(files: Files) -> Iterator[Open]:
    stores: list[Store] = []

    def make(view: Notes | None = None) -> Store:
        stores.append(Store.open(view or Notes(), files))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


def begun(store: Store, at: int = 0) -> Store:
    store.begin_at({SOURCE: at})
    return store


def texts(store: Store) -> list[bytes]:
    return [text for (text,) in store.db.execute("SELECT text FROM note ORDER BY at")]


def test_the_contract_holds_for_the_view_of_the_tests() -> None:
    records = [note(i, b"t", topic=topic) for topic in ("a", "b") for i in range(6)]
    contract.check(Notes(("a", "b")), records, random.Random(1))


def test_a_missing_file_is_begun_where_it_is_told(opened: Open) -> None:
    store = begun(opened(), at=7)
    assert (store.why, store.positions[SOURCE].next) == ("missing", 7)


def test_rows_and_offsets_are_there_when_it_is_opened_again(opened: Open) -> None:
    store = begun(opened())
    written = store.write([(SOURCE, notes(0, 10))])
    assert (written.applied, dict(written.bad)) == (10, {})
    store.close()
    again = opened()
    assert again.why is None
    assert (again.positions[SOURCE].next, len(texts(again))) == (10, 10)
    assert again.positions[SOURCE].last == store_module.Last.of(notes(9, 10)[0])


def test_a_bad_record_is_counted_and_passed(opened: Open) -> None:
    store = begun(opened())
    written = store.write([(SOURCE, [note(0), note(1, b"bad"), note(2), note(3, b"bad")])])
    assert (written.applied, dict(written.bad)) == (2, {("notes", "bad-json"): 2})
    store.write([(SOURCE, [note(4, b"bad")])])
    assert store.db.execute("SELECT * FROM view_bad").fetchall() == [("notes", "bad-json", 3)]
    assert store.positions[SOURCE].next == 5


def test_a_record_that_trips_the_view_leaves_nothing_behind(opened: Open) -> None:
    store = begun(opened())
    batch = [note(0), note(1, b"bad"), note(2, b"boom"), note(3)]
    written = store.write([(SOURCE, batch)])
    assert dict(written.bad) == {("notes", "bad-json"): 1, ("notes", "view-error"): 1}
    assert [at for (at,) in store.db.execute("SELECT at FROM note")] == [0, 3]


def test_a_batch_that_fails_moves_nothing(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    store = begun(opened())
    store.write([(SOURCE, notes(0, 3))])

    def full(*_: object) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(store, "_save_bad", full)
        with pytest.raises(sqlite3.OperationalError):
            store.write([(SOURCE, notes(3, 5))])
    assert (store.positions[SOURCE].next, len(texts(store))) == (3, 3)
    store.write([(SOURCE, notes(3, 5))])
    assert (store.positions[SOURCE].next, len(texts(store))) == (5, 5)


@dataclass(frozen=True)
class WiderNotes(Notes):
    def create(self, db: sqlite3.Connection) -> None:
        super().create(db)
        db.execute("CREATE TABLE other (a PRIMARY KEY)")


@pytest.mark.parametrize("view", [Notes(layout=2), WiderNotes()], ids=["number", "tables"])
def test_another_layout_is_begun_anew(opened: Open, view: Notes) -> None:
    store = begun(opened())
    store.write([(SOURCE, notes(0, 3))])
    store.close()
    again = opened(view)
    assert (again.why, again.positions, texts(again)) == ("layout", {}, [])


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def cut_short(path: Path) -> None:
    os.truncate(path, 3000)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def strange(path: Path) -> None:
    path.write_bytes(b"no database at all" * 500)


@pytest.mark.parametrize("harm", [zeros, cut_short, emptied, strange])
def test_a_damaged_file_is_begun_anew(
    opened: Open, files: Files, harm: Callable[[Path], None]
) -> None:
    store = begun(opened())
    store.write([(SOURCE, notes(0, 500))])
    store.close()
    harm(files.path(0))
    again = opened()
    assert (again.why, again.positions) == ("damaged", {})
    begun(again).write([(SOURCE, notes(0, 2))])
    assert texts(again) == [b"text 0", b"text 1"]


def test_damage_in_the_middle_is_told_when_it_is_met(opened: Open, files: Files) -> None:
    store = begun(opened())
    store.write([(SOURCE, [note(i, os.urandom(200)) for i in range(5000)])])
    store.close()
    path = files.path(0)
    with path.open("r+b") as file:
        file.seek(5 * 4096)
        file.write(os.urandom(path.stat().st_size - 6 * 4096))
    again = opened()
    assert again.why is None  # what is looked at when opening is whole
    with pytest.raises(Damaged):
        again.write([(SOURCE, [note(5000, None, key=b"k")])])  # deletes everything
    again.begin_anew("damaged")
    assert begun(again).write([(SOURCE, notes(0, 5))]).applied == 5


def test_a_file_deleted_under_a_writer_is_damage_or_goes_on(opened: Open, files: Files) -> None:
    store = begun(opened())
    store.write([(SOURCE, notes(0, 5))])
    store_module.remove(files.path(0))
    try:
        store.write([(SOURCE, notes(5, 9))])
    except Damaged:
        store.begin_anew("damaged")
        assert store.positions == {}
    else:
        assert len(texts(store)) == 9


def test_another_store_takes_the_next_file(opened: Open, files: Files) -> None:
    first, second = opened(), opened()
    assert [first.path, second.path] == [files.path(0), files.path(1)]
    begun(first).write([(SOURCE, notes(0, 1))])
    begun(second).write([(SOURCE, notes(0, 2))])
    first.close()
    assert opened().path == files.path(0)


def test_a_killed_process_leaves_a_whole_file_and_no_lock(opened: Open, files: Files) -> None:
    program = (
        "import os, signal\n"
        "from pathlib import Path\n"
        "from consumers.views.store import Files, Store\n"
        "from tests.consumers.views.notes import Notes\n"
        "from tests.consumers.views.records import SOURCE, notes\n"
        f"store = Store.open(Notes(), Files(Path({str(files.directory)!r}), 'cluster/1',"
        " 'notes', 0))\n"
        "store.begin_at({SOURCE: 0})\n"
        "store.write([(SOURCE, notes(0, 100))])\n"
        "with store.transaction() as db:\n"
        "    for record in notes(100, 3000):\n"
        "        store.view.apply(db, record)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False)
    assert done.returncode == -9
    again = opened()
    assert (again.path, again.why) == (files.path(0), None)
    assert (again.positions[SOURCE].next, len(texts(again))) == (100, 100)


def test_readers_see_whole_batches_while_it_is_written(opened: Open, files: Files) -> None:
    store = begun(opened())
    store.write([(SOURCE, notes(0, 3))])
    with closing(reading(files.path(0))) as db:
        with store.transaction():
            store.view.apply(store.db, note(3))
            assert db.execute("SELECT count(*) FROM note").fetchone() == (3,)
        assert db.execute("SELECT count(*) FROM note").fetchone() == (4,)
        with pytest.raises(sqlite3.OperationalError):
            db.execute("DELETE FROM note")
        assert positions_of(db)[SOURCE].next == 3


def test_what_was_trimmed_is_noted_and_erased(opened: Open, files: Files) -> None:
    store = begun(opened())
    store.write([(SOURCE, [note(i, b"secret %d;" % i * 20) for i in range(50)])])
    assert [store.trim(30_000, 20), store.trim(30_000, 20)] == [20, 10]
    kept = store.db.execute("SELECT value FROM view_meta WHERE key = 'trimmed_ms'").fetchone()
    assert (kept, len(texts(store))) == ((30_000,), 20)
    store.close()
    content = files.path(0).read_bytes()
    assert b"secret 3;" not in content
    assert b"secret 40;" in content


def test_a_folder_that_can_not_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DirectoryUnusable, match="TWITE_VIEWS__DIRECTORY"):
        Store.open(Notes(), Files(tmp_path / "file", "c", "notes", 0))


def test_only_this_user_may_look_into_the_folder(opened: Open, files: Files) -> None:
    opened()
    assert files.folder.stat().st_mode & 0o077 == 0


def test_files_that_nobody_touched_for_long_are_deleted(opened: Open, files: Files) -> None:
    old, used = begun(opened()), begun(opened())
    old.close()
    long_ago = time.time() - 1000
    for path in (files.path(0), files.path(1)):
        os.utime(path, (long_ago, long_ago))
        Path(f"{path}-wal").unlink(missing_ok=True)
    assert sweep(files.directory, older_than_s=500) == 1
    assert not files.path(0).exists()
    assert used.path.exists()
    with locked(files.path(1)) as ours:
        assert not ours
