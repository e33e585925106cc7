"""What every view is held to, whatever it remembers: rows are a function of the records alone.

In: a view and records of its topics, of one partition. A view's own tests call ``check`` with
records that show all it knows; the chance in it comes from ``random``, seeded by the caller.
"""

import random
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing

from consumers.views.view import BadRecord, View
from schemas.record import Record

Rows = dict[str, list[tuple[object, ...]]]


def check(view: View, records: Sequence[Record], chance: random.Random) -> None:
    """Fails where an order of topics, or when something was forgotten, shows in the rows."""
    expected = rows_of(view, records)
    assert any(expected.values()), "records that leave no rows show nothing"
    for _ in range(5):
        assert rows_of(view, interleaved(records, chance)) == expected
    for cut_ms in {record.timestamp_ms for record in records}:
        _check_forgetting(view, records, cut_ms)


def _check_forgetting(view: View, records: Sequence[Record], cut_ms: int) -> None:
    """Trimmed at once, in small steps, or never read: the same rows."""
    since = [record for record in records if record.timestamp_ms >= cut_ms]
    if view.scope == "all":
        return  # never trimmed
    whole = rows_of(view, records, cut_ms, limit=10_000)
    assert rows_of(view, records, cut_ms, limit=1) == whole
    assert rows_of(view, since, cut_ms, limit=10_000) == whole


def rows_of(
    view: View, records: Iterable[Record], cut_ms: int | None = None, limit: int = 100
) -> Rows:
    """All rows by table, sorted, after the records and then a trim to ``cut_ms``."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        view.create(db)
        for record in records:
            apply(view, db, record)
        if cut_ms is not None:
            while (removed := view.trim(db, cut_ms, limit)) >= limit:
                assert removed == limit, "more than it was asked to"
            oldest = view.oldest_ms(db)
            assert oldest is None or oldest >= cut_ms, "something older is left"
        return dump(db)


def apply(view: View, db: sqlite3.Connection, record: Record) -> None:
    """As the store does it: a bad record is skipped, and must not have written anything."""
    before = db.total_changes
    try:
        view.apply(db, record)
    except BadRecord:
        assert db.total_changes == before, "a bad record has left rows"


def dump(db: sqlite3.Connection) -> Rows:
    """Every table's rows, in an order of their own."""
    names = [
        name
        for (name,) in db.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
            " AND name NOT LIKE 'view_%'"
        )
    ]
    return {
        name: sorted(db.execute(f'SELECT * FROM "{name}"').fetchall(), key=repr)  # noqa: S608
        for name in names
    }


def interleaved(records: Sequence[Record], chance: random.Random) -> list[Record]:
    """The same records, each topic's partition in its order, the topics mixed by chance."""
    queues: dict[tuple[str, int], list[Record]] = {}
    for record in records:
        queues.setdefault((record.topic, record.partition), []).append(record)
    mixed: list[Record] = []
    while queues:
        source = chance.choice(sorted(queues))
        mixed.append(queues[source].pop(0))
        if not queues[source]:
            del queues[source]
    return mixed
