"""What the bot's views share: reading records, and forgetting rows by age.

In: records of Kafka. Out: decoded events, or plain objects where the bot itself wrote them, or
``BadRecord``. Every table has a column ``seen_ms``, Kafka's time of the record that its row comes
from, with an index. Where two records tell of the same row the later one wins, by ``seen_ms`` and
then ``origin_of``, so that the order in which topics are read makes no difference.
"""

import sqlite3
from collections.abc import Iterable
from typing import Any

from pydantic_core import from_json

from consumers.views.view import BadRecord
from schemas import codec
from schemas.codes import ErrorCode
from schemas.envelope import Event
from schemas.faults import Fault
from schemas.record import Record

RANK = 1 << 60  # beyond any offset
_TYPE = "ce_type"


def event_of(record: Record) -> Event[Any]:
    """The event of the platform on a record, checked. Raises ``BadRecord``."""
    try:
        return codec.decode(record)
    except Fault as fault:
        raise BadRecord(fault.code.value) from None


def own_event(record: Record) -> tuple[str, dict[str, Any]]:
    """Type and data of an event that the bot wrote: read, not checked, which takes a tenth of
    the time. Raises ``BadRecord`` where it is none."""
    kind = next((value for name, value in record.headers if name == _TYPE), None)
    if kind is None:
        raise BadRecord(ErrorCode.HEADER_MISSING.value)
    if record.value is None:
        raise BadRecord(ErrorCode.NO_VALUE.value)
    try:
        data = from_json(record.value)
    except ValueError:
        raise BadRecord(ErrorCode.NOT_JSON.value) from None
    if not isinstance(data, dict):
        raise BadRecord(ErrorCode.SCHEMA.value)
    return kind.decode(errors="replace"), data


def origin_of(record: Record, topics: tuple[str, ...]) -> int:
    """Decides between records of one millisecond: place of the topic, then the offset."""
    return topics.index(record.topic) * RANK + record.offset


def indexes(tables: Iterable[str]) -> str:
    """The statements that make the index on ``seen_ms`` of each table."""
    return ";".join(f"CREATE INDEX {table}_by_time ON {table} (seen_ms)" for table in tables)


def oldest(db: sqlite3.Connection, tables: Iterable[str]) -> int | None:
    """The earliest ``seen_ms`` of these tables."""
    times = (
        db.execute(f"SELECT min(seen_ms) FROM {table}").fetchone()[0]  # noqa: S608 - own names
        for table in tables
    )
    return min((time for time in times if time is not None), default=None)


def trim(db: sqlite3.Connection, tables: Iterable[str], before_ms: int, limit: int) -> int:
    """Remove up to ``limit`` rows older than ``before_ms``; returns how many."""
    removed = 0
    for table in tables:
        removed += db.execute(
            f"DELETE FROM {table} WHERE rowid IN"  # noqa: S608 - own names
            f" (SELECT rowid FROM {table} WHERE seen_ms < ? LIMIT ?)",
            (before_ms, limit - removed),
        ).rowcount
    return removed
