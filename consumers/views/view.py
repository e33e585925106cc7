"""What a view is: tables that are made of the records of a few topics, and nothing else.

In: one record after another, each topic's partition in offset order. Out: rows in a SQLite
database. ``consumers/views/store.py`` keeps the file and the offsets,
``consumers/views/follow.py`` brings the records. A view object holds no state of its own, so
one object serves all partitions, on the threads that write them.

Kafka is the only source of truth: a file may be thrown away at any time, and building it again
must give the same rows. So

- rows depend on records only: no clock, no random number, no other file;
- how records of *different* topics (or partitions) interleave is chance: any interleaving gives
  the same rows;
- forgetting is by Kafka's time: trimming what was built of all records gives the same rows as
  trimming what was built of the records since then.

``twite views verify`` and ``tests/consumers/views/contract.py`` hold a view to that.
"""

import sqlite3
from typing import Literal, Protocol

from schemas.record import Record

Scope = Literal["partition", "all"]


class BadRecord(Exception):
    """A record that this view can make nothing of: counted by its code, and skipped.

    ``code`` is a stable word, a member of ``schemas.codes.ErrorCode`` where one fits. Raise it
    before anything is written.
    """

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class View(Protocol):
    """A materialised view of topics. One SQLite file holds its rows and their offsets."""

    @property
    def name(self) -> str:
        """A word of ``a-z``, digits and ``-``: the folder of its files, a label of metrics."""
        ...

    @property
    def layout(self) -> int:
        """Of the tables and of what is put into them; a file of another one is built again."""
        ...

    @property
    def topics(self) -> tuple[str, ...]:
        """What it is made of."""
        ...

    @property
    def scope(self) -> Scope:
        """``partition``: one file for each partition number, which the topics share.
        ``all``: one file for all partitions of the topics, which are small."""
        ...

    def create(self, db: sqlite3.Connection) -> None:
        """Make the tables and indexes. Names that begin with ``view_`` are the store's own.

        Give every table a primary key (``verify`` sorts by all columns).
        """
        ...

    def apply(self, db: sqlite3.Connection, record: Record) -> None:
        """Write what this record says. A value of None is a tombstone of its key.

        Runs on a thread, inside a transaction that the store commits together with the
        offset: no ``commit`` and no ``BEGIN`` in here. Called once for each committed record,
        500 and more in a transaction; use constant SQL texts, which sqlite3 keeps compiled.
        Raises ``BadRecord``. Any other exception means a mistake in the view: the record's
        writes are undone, it is counted as ``view-error`` and skipped.
        """
        ...

    def oldest_ms(self, db: sqlite3.Connection) -> int | None:
        """Kafka's time of the oldest row that ``trim`` can remove; None where there is none.

        Asked often: must be answered from an index.
        """
        ...

    def trim(self, db: sqlite3.Connection, before_ms: int, limit: int) -> int:
        """Remove at most ``limit`` rows that are older than ``before_ms`` (Kafka's time).

        Returns how many were removed; fewer than ``limit`` means that no more are left. Small
        steps, each in a transaction of the store: ``limit`` is a few hundred.
        """
        ...
