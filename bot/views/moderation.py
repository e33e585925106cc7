"""The view of what moderators command.

In: ``bot.moderation``. Out: the latest command on each subject. The topic is compacted by
subject, so only the latest command on a subject can ever count; ``unblock`` and ``resume`` undo
``block`` and ``stop``, and a tombstone undoes anything. Commands that nobody knows here are kept
and change nothing else. Never trimmed: a block holds however old it is.

Subjects: ``account:ID`` and ``conversation:ID`` (``block``, ``unblock``); ``everything``,
``mentions`` and ``direct-messages`` (``stop``, ``resume``). What may stand beside a block has
subjects of its own, or the later of two commands would undo the other: ``pause:account:ID`` and
``pause:conversation:ID`` (``pause``, ``resume``), ``cancel:account:ID`` and
``cancel:conversation:ID`` (``cancel``, of all that Kafka took in before the command),
``approval:`` before any of these and before a surface (``approve-first``, ``publish-directly``),
``held:DECISION_ID`` (``approve``, ``reject``), ``prompt:mention`` and ``prompt:direct`` (``pin``,
``unpin``). Commands on ``reply:ID`` are obeyed through ``bot.reviews``: ``bot/relay.py`` asks for
the reviews that were not written with them.
"""

import json
import sqlite3
from collections.abc import Collection
from typing import Literal

from bot.knowledge import Standing, Surface
from bot.views.accounts import key_of
from bot.views.records import event_of
from schemas import names
from schemas.control import Moderation
from schemas.record import Record

SURFACES: dict[Surface, str] = {"mention": "mentions", "direct": "direct-messages"}
_STOPPED = "SELECT 1 FROM commands WHERE subject IN ('everything', ?) AND command = 'stop'"
_ACCOUNT = "account:"
_BLOCKED_EACH = (
    "SELECT subject FROM commands WHERE command = 'block'"
    " AND subject IN (SELECT 'account:' || value FROM json_each(?))"
)
_BLOCKED = "SELECT 1 FROM commands WHERE subject = ? AND command = 'block'"

_PAUSED = "SELECT 1 FROM commands WHERE subject IN (?, ?) AND command = 'pause'"
_CANCELLED = "SELECT max(seen_ms) FROM commands WHERE subject IN (?, ?) AND command = 'cancel'"
_STANDING = (
    "SELECT subject, command, reason, moderator, seen_ms, commands.id, text_digest, prompt"
    " FROM json_each(?) AS wanted JOIN commands ON subject = wanted.value ORDER BY wanted.key"
)
_APPROVALS = (
    "SELECT 1 FROM commands WHERE subject >= 'approval:' AND subject < 'approval;'"
    " AND command = 'approve-first'"
    " UNION ALL SELECT 1 FROM commands WHERE subject >= 'held:' AND subject < 'held;'"
    " AND command = 'reject' LIMIT 1"
)
_UNASKED = (
    "SELECT subject, command, reason, moderator, seen_ms, id, text FROM commands"
    " WHERE subject >= 'reply:' AND subject < 'reply;' AND review_id IS NULL"
    " AND (command = 'retract' OR command = 'correct' AND text IS NOT NULL)"
)


class ModerationView:
    """See the module."""

    name = "moderation"
    layout = 3
    topics: tuple[str, ...] = (names.BOT_MODERATION,)
    scope: Literal["partition", "all"] = "all"

    def create(self, db: sqlite3.Connection) -> None:
        db.execute(
            "CREATE TABLE commands (subject TEXT PRIMARY KEY NOT NULL, command TEXT NOT NULL,"
            " reason TEXT NOT NULL, moderator TEXT NOT NULL, decision_id TEXT,"
            " seen_ms INTEGER NOT NULL, id TEXT NOT NULL, text_digest TEXT, prompt TEXT,"
            " text TEXT, review_id TEXT)"
            " WITHOUT ROWID"
        )

    def apply(self, db: sqlite3.Connection, record: Record) -> None:
        if record.value is None:
            db.execute("DELETE FROM commands WHERE subject = ?", (key_of(record),))
            return
        event = event_of(record)
        data = event.data
        db.execute(
            "REPLACE INTO commands VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                data.subject,
                data.command,
                data.reason,
                data.moderator,
                data.decision_id,
                record.timestamp_ms,
                event.envelope.id,
                data.text_digest,
                data.prompt,
                data.text,
                data.review_id,
            ),
        )

    def oldest_ms(self, db: sqlite3.Connection) -> int | None:
        return None

    def trim(self, db: sqlite3.Connection, before_ms: int, limit: int) -> int:
        return 0


def is_account_blocked(db: sqlite3.Connection, account_id: str) -> bool:
    return db.execute(_BLOCKED, (f"{_ACCOUNT}{account_id}",)).fetchone() is not None


def blocked_accounts(db: sqlite3.Connection, account_ids: Collection[str]) -> set[str]:
    """Those of them that are blocked."""
    found = db.execute(_BLOCKED_EACH, (json.dumps(list(account_ids)),)).fetchall()
    return {subject.removeprefix(_ACCOUNT) for (subject,) in found}


def is_conversation_blocked(db: sqlite3.Connection, conversation_id: str) -> bool:
    return db.execute(_BLOCKED, (f"conversation:{conversation_id}",)).fetchone() is not None


def is_stopped(db: sqlite3.Connection, surface: Surface) -> bool:
    return db.execute(_STOPPED, (SURFACES[surface],)).fetchone() is not None


def is_paused(db: sqlite3.Connection, whom: tuple[str, str]) -> bool:
    """``whom``: a conversation and an account; either may be paused."""
    return db.execute(_PAUSED, _subjects("pause", whom)).fetchone() is not None


def cancelled_ms(db: sqlite3.Connection, whom: tuple[str, str]) -> int | None:
    """When Kafka took in the last command that cancels what waits there, in ms since 1970."""
    found: int | None = db.execute(_CANCELLED, _subjects("cancel", whom)).fetchone()[0]
    return found


def has_approvals(db: sqlite3.Connection, _: None = None) -> bool:
    """Whether some replies are to be approved first, or one was rejected."""
    return db.execute(_APPROVALS).fetchone() is not None


def standing(db: sqlite3.Connection, subjects: tuple[str, ...]) -> tuple[Standing, ...]:
    """The last command on each of them that has one, in their order."""
    rows = db.execute(_STANDING, (json.dumps(subjects),)).fetchall()
    return tuple(
        Standing(
            Moderation(id=id_, command=command, subject=subject, moderator=who, reason=why),
            seen_ms,
            text_digest,
            prompt,
        )
        for subject, command, why, who, seen_ms, id_, text_digest, prompt in rows
    )


def unasked(db: sqlite3.Connection) -> list[tuple[Moderation, str | None, int]]:
    """Commands about replies for which nobody has asked for a review: the command, the words that
    the reply is to say (none: it is to be taken back), and when Kafka took it in, in ms."""
    return [
        (Moderation(id=id_, command=word, subject=subject, moderator=who, reason=why), text, at_ms)
        for subject, word, why, who, at_ms, id_, text in db.execute(_UNASKED).fetchall()
    ]


def _subjects(command: str, whom: tuple[str, str]) -> tuple[str, str]:
    conversation, account = whom
    return f"{command}:conversation:{conversation}", f"{command}:account:{account}"
