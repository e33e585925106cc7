"""What the bot decided and said before, read from the view of replies.

In: an event or an uri, as the bot meets it. Out: ``Seen`` and ``ReplySet``. A decision that only
skipped a repeat is never the first of anything: after a crash it may be on the log before the
one it repeats.
"""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from bot.knowledge import ReplyPart, ReplySet
from bot.values import Seen, Source, written
from bot.views.replies import key_of
from schemas.codes import Outcome, SkipReason
from schemas.envelope import Envelope
from schemas.feed import Facet, Ref, Visibility
from schemas.fields import parse_time

_FIRST = (
    "SELECT id FROM decisions WHERE {key} = :{key} AND id <> :id AND review = 0"  # noqa: S608
    " AND duplicate_of IS NULL"
    f" AND (:redriven = 0 OR outcome <> '{Outcome.DEAD_LETTERED.value}')"
    " ORDER BY seen_ms, origin LIMIT 1"
)
_BY_EVENT = _FIRST.format(key="event")
_BY_REVISION = _FIRST.format(key="revision")
_EARLIER = (
    "SELECT id, outcome FROM decisions WHERE uri = :uri AND id <> :id"  # noqa: S608
    " AND revision IS NOT NULL AND duplicate_of IS NULL"
    f" ORDER BY outcome = '{Outcome.REPLIED.value}' DESC,"
    f" reason = '{SkipReason.EDITED.value}', seen_ms, origin LIMIT 1"
)
_SEEN = (
    f"SELECT ({_BY_EVENT}), ({_BY_REVISION}), earlier.id, earlier.outcome"  # noqa: S608
    f" FROM (SELECT 1) LEFT JOIN ({_EARLIER}) AS earlier"
)
_OBEYED = (
    "SELECT id FROM decisions WHERE event = ? AND id <> ? AND review = 1"  # noqa: S608
    f" AND duplicate_of IS NULL AND outcome <> '{Outcome.DEAD_LETTERED.value}' LIMIT 1"
)
_OUTCOMES = "SELECT input_offset, seen_ms FROM decisions WHERE input = ? AND input_offset >= ?"
_PARTS = (
    "SELECT p.reply_id, p.source_uri, p.source_revision, p.conversation, p.part, p.parts,"
    " p.decision_id, p.private, p.content, c.revision, c.content, c.decision_id,"
    " r.reply_id IS NOT NULL"
    " FROM parts p LEFT JOIN corrections c USING (reply_id) LEFT JOIN retractions r"
    " USING (reply_id) WHERE p.uri IN (SELECT value FROM json_each(?))"
    " ORDER BY p.seen_ms, p.origin, p.part"
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
    post, event = written(data), key_of(envelope.source, envelope.id)
    about: dict[str, Any] = {"id": decision_id, "redriven": redriven, "event": event}
    if post is None:
        found = db.execute(_BY_EVENT, about).fetchone()
        return Seen(found[0] if found else None)
    about |= {"revision": key_of(post.uri, post.revision), "uri": key_of(post.uri)}
    same_event, same_revision, earlier, outcome = db.execute(_SEEN, about).fetchone()
    return Seen(same_event or same_revision, earlier, answered=outcome == Outcome.REPLIED)


def reviewed(db: sqlite3.Connection, source: str, event_id: str, decision_id: str) -> str | None:
    """The decision on the review of that event, other than ``decision_id``; none where it has
    none, or became a dead letter."""
    found = db.execute(_OBEYED, (key_of(source, event_id), decision_id)).fetchone()
    return found[0] if found else None


def part_of(db: sqlite3.Connection, reply_id: str) -> tuple[Ref, str, str, bool] | None:
    """What a part of a reply answers, its conversation, its decision, and whether it is private."""
    row = db.execute(
        "SELECT source_uri, source_revision, conversation, decision_id, private FROM parts"
        " WHERE reply_id = ?",
        (reply_id,),
    ).fetchone()
    return (Ref(uri=row[0], revision=row[1]), row[2], row[3], bool(row[4])) if row else None


def replies_to_each(db: sqlite3.Connection, source_uris: Sequence[str]) -> Mapping[str, ReplySet]:
    """All parts of all replies to these posts, whatever their revision, in the order they were
    made; by the uris of those posts that have any."""
    keys = json.dumps([key_of(uri) for uri in source_uris])
    found: dict[str, list[Any]] = {}
    for row in db.execute(_PARTS, (keys,)).fetchall():
        found.setdefault(row[1], []).append(row)
    return {uri: _replies(db, uri, found[uri]) for uri in source_uris if uri in found}


def _replies(db: sqlite3.Connection, source_uri: str, rows: Sequence[Any]) -> ReplySet:
    last = rows[-1]
    answered = db.execute(_ANSWERED, (key_of(source_uri),)).fetchone()
    revision, decision = answered or (last[2], last[6])
    return ReplySet(
        source=Ref(uri=source_uri, revision=revision),
        conversation_id=last[3],
        decision_id=decision,
        parts=tuple(_part(row) for row in rows),
        private=bool(last[7]),
    )


def _part(row: tuple[Any, ...]) -> ReplyPart:
    said = json.loads(row[8])
    now = said if row[10] is None else json.loads(row[10])  # a correction says everything anew
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
