"""What the bot decided and said before, read from the view of replies.

In: an event or an uri, as the bot meets it. Out: ``Seen`` and ``ReplySet``. A decision that only
skipped a repeat is never the first of anything: after a crash it may be on the log before the
one it repeats.
"""

import json
import sqlite3
from typing import Any

from bot.knowledge import ReplyPart, ReplySet
from bot.values import Seen, Source, written
from bot.views.replies import key_of
from schemas.codes import Outcome, SkipReason
from schemas.envelope import Envelope
from schemas.feed import Facet, Ref, Visibility
from schemas.fields import parse_time

_FIRST = (
    "SELECT id FROM decisions WHERE {key} = ? AND id <> ? AND duplicate_of IS NULL"  # noqa: S608
    f" AND (? = 0 OR outcome <> '{Outcome.DEAD_LETTERED.value}')"
    " ORDER BY seen_ms, origin LIMIT 1"
)
_BY_EVENT = _FIRST.format(key="event")
_BY_REVISION = _FIRST.format(key="revision")
_EARLIER = (
    "SELECT id, outcome FROM decisions WHERE uri = ? AND id <> ? AND revision IS NOT NULL"  # noqa: S608
    f" AND duplicate_of IS NULL ORDER BY outcome = '{Outcome.REPLIED.value}' DESC,"
    f" reason = '{SkipReason.EDITED.value}', seen_ms, origin LIMIT 1"
)
_OUTCOMES = "SELECT input_offset, seen_ms FROM decisions WHERE input = ? AND input_offset >= ?"
_PARTS = (
    "SELECT p.reply_id, p.source_uri, p.source_revision, p.conversation, p.part, p.parts,"
    " p.decision_id, p.private, p.content, c.revision, c.content, c.decision_id,"
    " r.reply_id IS NOT NULL"
    " FROM parts p LEFT JOIN corrections c USING (reply_id) LEFT JOIN retractions r"
    " USING (reply_id) WHERE p.uri = ? ORDER BY p.seen_ms, p.origin, p.part"
)
_ANSWERED = (
    "SELECT source_revision, id FROM decisions WHERE uri = ? AND outcome IN"  # noqa: S608
    f" ('{Outcome.REPLIED.value}', '{Outcome.CORRECTED.value}')"
    " ORDER BY seen_ms DESC, origin DESC LIMIT 1"
)


def outcomes(db: sqlite3.Connection, topic: str, offset: int) -> dict[int, int]:
    """The inputs of a topic, from that offset on, that have their decision: offset, and Kafka's
    time of the decision in ms. The view is one partition's, and so are they."""
    return dict(db.execute(_OUTCOMES, (topic, offset)).fetchall())


def seen(
    db: sqlite3.Connection,
    envelope: Envelope,
    data: Source,
    decision_id: str,
    redriven: bool,
) -> Seen:
    """What was decided about the same event, the same revision, or another revision."""
    first = _first(db, _BY_EVENT, key_of(envelope.source, envelope.id), decision_id, redriven)
    post = written(data)
    if post is None:
        return Seen(first)
    if first is None:
        key = key_of(post.uri, post.revision)
        first = _first(db, _BY_REVISION, key, decision_id, redriven)
    earlier = db.execute(_EARLIER, (key_of(post.uri), decision_id)).fetchone()
    if earlier is None:
        return Seen(first)
    return Seen(first, earlier[0], answered=earlier[1] == Outcome.REPLIED)


def replies_to(db: sqlite3.Connection, source_uri: str) -> ReplySet | None:
    """All parts of all replies to a post, whatever its revision, in the order they were made."""
    key = key_of(source_uri)
    rows = [row for row in db.execute(_PARTS, (key,)).fetchall() if row[1] == source_uri]
    if not rows:
        return None
    last = rows[-1]
    revision, decision = db.execute(_ANSWERED, (key,)).fetchone() or (last[2], last[6])
    return ReplySet(
        source=Ref(uri=source_uri, revision=revision),
        conversation_id=last[3],
        decision_id=decision,
        parts=tuple(_part(row) for row in rows),
        private=bool(last[7]),
    )


def _first(
    db: sqlite3.Connection, statement: str, key: int, decision_id: str, redriven: bool
) -> str | None:
    row = db.execute(statement, (key, decision_id, int(redriven))).fetchone()
    return row[0] if row else None


def _part(row: tuple[Any, ...]) -> ReplyPart:
    said = json.loads(row[8])
    now = said | (json.loads(row[10]) if row[10] is not None else {})
    return ReplyPart(
        reply_id=row[0],
        source=Ref(uri=row[1], revision=row[2]),
        conversation_id=row[3],
        part=row[4],
        parts=row[5],
        text=now.get("text", ""),
        facets=tuple(Facet.model_validate(facet) for facet in now.get("facets", ())),
        langs=tuple(now.get("langs", ())),
        visibility=Visibility(said["visibility"]),
        built_on=tuple(Ref.model_validate(ref) for ref in now.get("built_on", ())),
        decision_id=row[11] or row[6],
        created_at=parse_time(said["created_at"]),
        revision=row[9],
        retracted=bool(row[12]),
    )
