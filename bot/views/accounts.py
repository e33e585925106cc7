"""The view of accounts: who wants no answers, who blocked the bot, who is gone.

In: ``feed.accounts``, the whole state of one account in each record. Out: one row for each
account that is not as everybody is; a tombstone forgets the account. Never trimmed: the topic is
compacted, so an old word holds.
"""

import json
import sqlite3
from collections.abc import Collection
from typing import Literal

from bot.knowledge import UNKNOWN_ACCOUNT, AccountState
from bot.views.records import event_of
from consumers.views.view import BadRecord
from schemas import names
from schemas.codes import ErrorCode
from schemas.record import Record

_REFUSING = (
    "SELECT id FROM accounts WHERE id IN (SELECT value FROM json_each(?))"
    " AND (opted_out OR blocked_bot OR deleted)"
)


class AccountsView:
    """See the module."""

    name = "accounts"
    layout = 1
    topics: tuple[str, ...] = (names.FEED_ACCOUNTS,)
    scope: Literal["partition", "all"] = "all"

    def create(self, db: sqlite3.Connection) -> None:
        db.execute(
            "CREATE TABLE accounts (id TEXT PRIMARY KEY NOT NULL, opted_out INTEGER NOT NULL,"
            " blocked_bot INTEGER NOT NULL, deleted INTEGER NOT NULL) WITHOUT ROWID"
        )

    def apply(self, db: sqlite3.Connection, record: Record) -> None:
        if record.value is None:
            _forget(db, key_of(record))
            return
        data = event_of(record).data
        state = data.opted_out, data.blocked_bot, data.deleted
        if any(state):
            db.execute("REPLACE INTO accounts VALUES (?, ?, ?, ?)", (data.account_id, *state))
        else:
            _forget(db, data.account_id)

    def oldest_ms(self, db: sqlite3.Connection) -> int | None:
        return None

    def trim(self, db: sqlite3.Connection, before_ms: int, limit: int) -> int:
        return 0


def state_of(db: sqlite3.Connection, account_id: str) -> AccountState:
    """What an account wants; that of everybody where nothing is known."""
    row = db.execute(
        "SELECT opted_out, blocked_bot, deleted FROM accounts WHERE id = ?", (account_id,)
    ).fetchone()
    return AccountState(*map(bool, row)) if row else UNKNOWN_ACCOUNT


def refusing(db: sqlite3.Connection, account_ids: Collection[str]) -> set[str]:
    """Those of them that do not consent."""
    return {one for (one,) in db.execute(_REFUSING, (json.dumps(list(account_ids)),)).fetchall()}


def key_of(record: Record) -> str:
    """The key of a tombstone. Raises ``BadRecord`` where it can't be anybody's."""
    try:
        return (record.key or b"").decode()
    except UnicodeDecodeError:
        raise BadRecord(ErrorCode.KEY_MISMATCH.value) from None


def _forget(db: sqlite3.Connection, account_id: str) -> None:
    db.execute("DELETE FROM accounts WHERE id = ?", (account_id,))
