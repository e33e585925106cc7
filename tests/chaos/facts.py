"""What the checker knows: raw records made into plain facts, and commits into sets of offsets.

In: records and commits as any client library hands them out. Out: one fact per record. This
file and ``checker`` are written from the documented contract alone and import nothing of the
project, so that one mistake can't be on both sides.
"""

import base64
import hashlib
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Place = tuple[str, int]  # topic and partition
Key = tuple[str, int, int]  # topic, partition and offset

PRIVATE = {
    "bot.replies": False,
    "bot.audit": False,
    "bot.dead-letters": False,
    "bot.direct-replies": True,
    "bot.audit-private": True,
    "bot.dead-letters-private": True,
    "bot.references": True,
    "bot.reviews": True,
}
REPLIES = ("bot.replies", "bot.direct-replies")
AUDITS = ("bot.audit", "bot.audit-private")
LETTERS = ("bot.dead-letters", "bot.dead-letters-private")
REFERENCES, REVIEWS, POSTS = "bot.references", "bot.reviews", "feed.posts"
FEED = ("feed.mentions", "feed.direct-messages", POSTS)  # what the platform writes
INPUTS = (*FEED[:2], REVIEWS)  # every record of these has a decision
READ = (*FEED, REFERENCES, REVIEWS)  # what the group reads
OUTPUTS = tuple(PRIVATE)
OURS = ("twite_error_code", "twite_error_detail", "twite_attempts", "twite_origin")
EXPECT = "x-expect"  # what the feed says must become of an input, e.g. ``skipped:own-post``
_NAMESPACE = uuid.UUID("6f0c8a52-3d1e-5b7a-9c44-7477697465b0")


@dataclass(frozen=True, slots=True)
class Raw:
    """A record as plain values."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp_ms: int = 0


@dataclass(frozen=True, slots=True)
class Input:
    """One record of a feed topic. ``identities`` and ``lane`` are empty for garbage."""

    key: Key
    expect: str
    private: bool | None  # None: can't be told
    lane: tuple[str, ...]
    identities: tuple[tuple[str, ...], ...]
    event_id: str | None
    digest: str


@dataclass(frozen=True, slots=True)
class Reply:
    """One part of a reply as it stands on the log."""

    at: Key
    id: str
    header_id: str | None
    cause: str | None
    decision: str
    source: tuple[str, str | None]
    part: int
    text: str = ""
    built_on: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Amended:
    """A part of a reply corrected, or taken back (``revision`` is none)."""

    at: Key
    id: str
    header_id: str | None
    cause: str | None
    decision: str
    revision: str | None
    text: str = ""
    built_on: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Told:
    """What a record of the feed says of a post or message: a revision of it, or its end."""

    key: Key
    uri: str
    version: int
    text: str
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """One decision record as it stands on the log."""

    at: Key
    input: Key
    id: str
    header_id: str | None
    cause: str | None
    outcome: str
    reason: str | None
    duplicate_of: str | None
    replies: tuple[str, ...]
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter; ``digest`` is that of the record it holds."""

    at: Key
    input: Key
    code: str
    digest: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An output that is none of the above."""

    at: Key
    why: str


@dataclass(frozen=True, slots=True)
class Note:
    """What the bot tells itself."""

    at: Key


Fact = Reply | Amended | Decision | Letter | Note | Unreadable


def digest(raw: Raw, headers: Sequence[tuple[str, bytes | None]] | None = None) -> str:
    """Tells two records apart by key, value and headers."""
    parts = (raw.key, raw.value, tuple(raw.headers if headers is None else headers))
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


def input_fact(raw: Raw) -> Input:
    """A feed record; its ``x-expect`` header says what must become of it."""
    key = (raw.topic, raw.partition, raw.offset)
    headers = dict(raw.headers)
    expect = (headers.get(EXPECT) or b"").decode()
    if raw.topic == REVIEWS:
        return _review_fact(raw, key, _text(headers.get("ce_id")))
    if expect.startswith("dead_lettered"):
        private = None if raw.topic == INPUTS[0] else True
        return Input(key, expect, private, (), (), None, digest(raw))
    data = json.loads(raw.value or b"")
    post = data.get("post") or data.get("message") or {}
    event = _text(headers.get("ce_id"))
    identities: list[tuple[str, ...]] = [
        ("event", _text(headers.get("ce_source")) or "", event or "")
    ]
    if post:
        identities.append(("post", post["uri"], post["revision"]))
    visibility = post.get("visibility", "direct")
    private = visibility not in ("public", "unlisted")
    return Input(
        key, expect, private, _lane(raw.topic, post), tuple(identities), event, digest(raw)
    )


def _review_fact(raw: Raw, key: Key, event: str | None) -> Input:
    """The bot asks itself to look at a reply again: any outcome will do, but exactly one."""
    data = json.loads(raw.value or b"")
    source, change = data["source"]["uri"], data["change"]
    # Deletions overtake edits, and so do edits that let fewer people see a post; a deletion of the
    # source overtakes the others.
    shown = (change.get("post") or {"visibility": "public"})["visibility"]
    what = "edits" if shown in ("public", "unlisted") else "deletions"
    if change.get("deleted"):
        what = "retractions" if change["uri"] == source else "deletions"
    lane = (what, source)
    return Input(key, "", None, lane, (), event, digest(raw))


def told_facts(raw: Raw) -> Iterator[Told]:
    """What a good record of the feed tells of posts: its own, and those that come with it."""
    headers = dict(raw.headers)
    if (headers.get(EXPECT) or b"").startswith(b"dead_lettered"):
        return
    key, data = (raw.topic, raw.partition, raw.offset), json.loads(raw.value or b"")
    if "ref" in data:
        yield Told(key, data["ref"]["uri"], 0, "", deleted=True)
    for post in (data.get("post"), data.get("message"), *data.get("ancestors", ())):
        if post:
            yield Told(key, post["uri"], post.get("version", 1), post["text"])
    if data.get("quoted"):
        yield Told(key, data["quoted"]["uri"], data["quoted"].get("version", 1), "")


def output_fact(raw: Raw) -> Fact:
    """What one record of an output topic says."""
    at = (raw.topic, raw.partition, raw.offset)
    try:
        if raw.topic in LETTERS:
            return _letter(raw, at)
        if raw.topic in (REFERENCES, REVIEWS):
            return Note(at)
        data, headers = json.loads(raw.value or b""), dict(raw.headers)
        event, cause = _text(headers.get("ce_id")), _text(headers.get("ce_causationid"))
        built_on = tuple(ref["uri"] for ref in data.get("built_on", ()))
        if (headers.get("ce_type") or b"").endswith((b".corrected.v1", b".retracted.v1")):
            ids = data["reply_id"], event, cause, data["decision_id"]
            return Amended(at, *ids, data.get("revision"), data.get("text", ""), built_on)
        if raw.topic in REPLIES:
            ref = data["in_reply_to"]
            source = (ref["uri"], ref["revision"])
            ids = data["reply_id"], event, cause, data["decision_id"]
            return Reply(at, *ids, source, data["part"], data.get("text", ""), built_on)
        return _decision(raw, at, data, event, cause)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        return Unreadable(at, f"{type(error).__name__}: {error}"[:200])


def _decision(
    raw: Raw, at: Key, data: Mapping[str, Any], event: str | None, cause: str | None
) -> Decision:
    place = data["input"]
    return Decision(
        at=at,
        input=(place["topic"], place["partition"], place["offset"]),
        id=data["decision_id"],
        header_id=event,
        cause=cause,
        outcome=data["outcome"],
        reason=data.get("reason"),
        duplicate_of=data.get("duplicate_of"),
        replies=tuple(data["reply_ids"]),
        timestamp_ms=raw.timestamp_ms,
    )


def _letter(raw: Raw, at: Key) -> Letter:
    original, ours = raw.headers[:-4], raw.headers[-4:]
    if tuple(name for name, _ in ours) != OURS:
        raise ValueError("the last four headers are not a dead letter's")
    topic, partition, offset = (ours[3][1] or b"").decode().rsplit("/", 2)
    origin = (topic, int(partition), int(offset))
    return Letter(at, origin, (ours[0][1] or b"").decode(), digest(raw, original))


def _lane(topic: str, post: Mapping[str, Any]) -> tuple[str, ...]:
    if not post:
        return ()
    if topic == INPUTS[0]:
        return ("mention", post["conversation_id"], post["author"]["id"])
    return ("dm", post["conversation_id"])


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="replace")


def decision_id(bot: str, cluster: str, key: Key) -> str:
    """UUIDv5 of [bot id, cluster id, topic, partition, offset]."""
    return _uuid(bot, cluster, *key)


def reply_id(bot: str, uri: str, revision: str | None, part: int) -> str:
    """UUIDv5 of [bot id, source URI, source revision, part]."""
    return _uuid(bot, uri, revision, part)


def _uuid(*parts: object) -> str:
    text = json.dumps(parts, ensure_ascii=False, separators=(",", ":"))
    return str(uuid.uuid5(_NAMESPACE, text))


@dataclass(frozen=True, slots=True)
class Commit:
    """A committed offset with the text of its metadata."""

    offset: int
    metadata: str = ""

    @property
    def ahead(self) -> frozenset[int]:
        """Offsets beyond the committed one that are finished."""
        return frozenset(self.offset + distance for distance in _ahead(self.metadata))

    def covered(self, offsets: Iterable[int]) -> frozenset[int]:
        """Which of these offsets it says are finished."""
        ahead = self.ahead
        return frozenset(o for o in offsets if o < self.offset or o in ahead)


def _ahead(metadata: str) -> Iterator[int]:
    """Distances from the committed offset that are finished: version ``1``, then ``b`` for a
    bitset (least significant bit first) or ``r`` for run lengths (LEB128, unfinished first)."""
    if not metadata:
        return
    if metadata[0] != "1" or metadata[1] not in "br":
        raise ValueError(f"a map of an unknown kind: {metadata[:2]!r}")
    data = base64.b64decode(metadata[2:], validate=True)
    if metadata[1] == "b":
        yield from (i for i in range(8 * len(data)) if data[i >> 3] >> (i & 7) & 1)
        return
    at, finished = 0, False
    for length in _numbers(data):
        if finished:
            yield from range(at, at + length)
        at, finished = at + length, not finished


def _numbers(data: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            yield number
            number = shift = 0
