"""A right payload of every event type, and records made of them."""

import copy
import json
from typing import Any

from schemas import names
from schemas.record import Record
from schemas.types import EVENT_TYPES

Json = dict[str, Any]

ACCOUNT: Json = {"id": "acct:1", "handle": "ann"}
BOT: Json = {"id": "acct:bot", "handle": "twite", "display_name": "Twite", "bot": True}
TIME = "2026-11-24T06:00:00Z"
REF: Json = {"uri": "post:1", "revision": "r1"}

WRITTEN: Json = {
    "uri": "post:1",
    "revision": "r1",
    "version": 2,
    "conversation_id": "conv:1",
    "author": ACCOUNT,
    "text": "héllo @twite",
    "facets": [{"type": "mention", "byte_start": 7, "byte_end": 13, "account_id": "acct:bot"}],
    "attachments": [{"type": "image", "alt": "a cat"}],
    "langs": ["en"],
    "created_at": TIME,
    "root": {"uri": "post:0", "revision": None},
    "parent": REF,
    "hops": 1,
}
POST: Json = {**WRITTEN, "visibility": "public"}
MESSAGE: Json = {**WRITTEN, "participants": ["acct:1", "acct:bot"], "quoted": POST}
DELETED: Json = {
    "ref": REF,
    "conversation_id": "conv:1",
    "deleted_by": "author",
    "deleted_at": TIME,
}
REPLY: Json = {
    "reply_id": "reply:1",
    "conversation_id": "conv:1",
    "in_reply_to": REF,
    "root": REF,
    "author": BOT,
    "text": "hello",
    "langs": ["en"],
    "visibility": "public",
    "part": 1,
    "parts": 1,
    "built_on": [REF],
    "decision_id": "decision:1",
    "hops": 2,
    "created_at": TIME,
}
CORRECTED: Json = {
    "reply_id": "reply:1",
    "decision_id": "decision:2",
    "reason": "edited",
    "revision": "2",
    "text": "hello again",
    "conversation_id": "conv:1",
}
RETRACTED: Json = {
    "reply_id": "reply:1",
    "decision_id": "decision:2",
    "reason": "deleted",
    "conversation_id": "conv:1",
}
CHANGED: Json = {
    "uri": "post:1",
    "revision": "r2",
    "version": 3,
    "message": MESSAGE,
    "at": TIME,
}
DECISION: Json = {
    "decision_id": "decision:1",
    "outcome": "replied",
    "input": {"topic": "feed.mentions", "partition": 0, "offset": 7, "source": "s", "id": "1"},
    "source_ref": REF,
    "conversation_id": "conv:1",
    "reply_ids": ["reply:1"],
    "context": [{"ref": REF, "author_id": "acct:1", "trust": "untrusted", "included": True}],
    "prompt": {
        "template": "mention",
        "template_hash": "abc",
        "messages": [{"role": "user", "content": "hi", "ref": REF, "trust": "untrusted"}],
        "token_ids": [1, 2, 3],
        "segments": [{"start": 0, "end": 3, "trust": "trusted"}],
    },
    "engine": {
        "name": "echo",
        "model": "echo",
        "revision": "1",
        "weights_digest": "none",
        "precision": "none",
        "attention": "none",
        "versions": {"torch": "2"},
    },
    "sampling": {
        "temperature": 0,
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "max_tokens": 128,
        "stop": ["x"],
        "seed": 7,
    },
    "output": {"text": "hello", "token_ids": [4], "logprobs": [-0.1], "finish_reason": "stop"},
    "rules": [{"name": "own-post", "verdict": "pass"}],
    "positions": {"posts": 12},
    "timings_ms": {"model": 1.5},
    "code_version": "0.1.0",
    "settings_digest": "def",
    "recorded_at": TIME,
    "salt": "00ff",
}

SAMPLES: dict[str, Json] = {
    names.POST_CREATED: {"post": POST},
    names.POST_EDITED: {"post": POST, "previous_revision": "r0"},
    names.POST_DELETED: DELETED,
    names.MENTION_CREATED: {
        "post": POST,
        "mentioned_account_id": "acct:bot",
        "reason": "reply",
        "ancestors": [POST],
        "ancestors_complete": True,
        "quoted": POST,
    },
    names.MESSAGE_CREATED: {"message": MESSAGE},
    names.MESSAGE_EDITED: {"message": MESSAGE, "previous_revision": "r0"},
    names.MESSAGE_DELETED: DELETED,
    names.ACCOUNT_CHANGED: {"account_id": "acct:1", "opted_out": True},
    names.FEEDBACK_GIVEN: {"reply_id": "reply:1", "account_id": "acct:1", "kind": "like"},
    names.REPLY_CREATED: REPLY,
    names.REPLY_CORRECTED: CORRECTED,
    names.REPLY_RETRACTED: RETRACTED,
    names.DIRECT_REPLY_CREATED: {**REPLY, "visibility": "direct"},
    names.DIRECT_REPLY_CORRECTED: CORRECTED,
    names.DIRECT_REPLY_RETRACTED: RETRACTED,
    names.DIRECT_ACTIVITY: {
        "conversation_id": "conv:1",
        "decision_id": "decision:1",
        "state": "partial",
        "text": "hel",
    },
    names.REPLY_HELD: {
        "decision_id": "decision:1",
        "conversation_id": "conv:1",
        "source_uri": "post:1",
        "author_id": "acct:1",
        "private": False,
        "texts": ["hello"],
        "text_digest": "a" * 64,
        "held_until": TIME,
    },
    names.DECISION_RECORDED: DECISION,
    names.MODERATION_COMMANDED: {
        "command": "takedown",
        "subject": "reply:1",
        "reason": "rude",
        "moderator": "mod:1",
    },
    names.REFERENCE_MADE: {
        "uri": "post:1",
        "revision": "r1",
        "version": 2,
        "conversation_id": "conv:1",
        "partition": 3,
        "source": REF,
        "decision_id": "decision:1",
        "private": False,
    },
    names.REFERENCED_CHANGED: CHANGED,
    names.REVIEW_ASKED: {
        "conversation_id": "conv:1",
        "source": REF,
        "decision_id": "decision:1",
        "private": False,
        "change": CHANGED,
    },
    names.AUDIT_SEALED: {
        "topic": "bot.audit",
        "partition": 3,
        "number": 7,
        "begin": 10,
        "end": 13,
        "offsets": [10, 12],
        "digests": ["a" * 64, "b" * 64],
        "previous": "c" * 64,
        "digest": "d" * 64,
    },
    names.REPLAY_COMPARED: {
        "replay_id": "replay:1",
        "mode": "frozen",
        "decision_id": "decision:1",
        "decision": "bot.audit/0/7",
        "input": {"topic": "feed.mentions", "partition": 0, "offset": 7},
        "change": "text-changed",
        "notes": ["another model answered"],
        "asked_model": True,
        "before": {"outcome": "replied", "text": "hello", "length": 5},
        "after": {"outcome": "replied", "text": "hullo", "length": 5},
        "score": {"verdict": "diverged", "diverged_at": 1, "margin": 0.25},
        "compared_at": TIME,
    },
}

KEYS = {
    names.ACCOUNT_CHANGED: b"acct:1",
    names.MODERATION_COMMANDED: b"reply:1",
    names.REFERENCE_MADE: b"post:1",
    names.REFERENCED_CHANGED: b"post:1",
    names.REPLAY_COMPARED: b"replay:1",
    names.AUDIT_SEALED: b"bot.audit/3",
}


def sample(name: str) -> Json:
    """A payload that may be changed."""
    return copy.deepcopy(SAMPLES[name])


def headers(name: str, **changed: bytes | None) -> tuple[tuple[str, bytes], ...]:
    """Right headers of a type; ``ce_id=b"…"`` changes one, null leaves it out."""
    values: dict[str, bytes | None] = {
        "ce_specversion": b"1.0",
        "ce_id": b"event:1",
        "ce_source": b"platform",
        "ce_type": name.encode(),
        "ce_time": TIME.encode(),
        "content-type": b"application/json",
    }
    values.update({key.replace("content_", "content-"): v for key, v in changed.items()})
    return tuple((key, value) for key, value in values.items() if value is not None)


def record(name: str, data: Any = None, **changed: Any) -> Record:
    """A right record of a type; ``data`` replaces its payload, ``changed`` any of its parts."""
    value = json.dumps(SAMPLES[name] if data is None else data).encode()
    parts: dict[str, Any] = {
        "topic": EVENT_TYPES[name].topics[0],
        "partition": 3,
        "offset": 17,
        "timestamp_ms": 1_795_000_000_000,
        "key": KEYS.get(name, b"conv:1"),
        "value": value,
        "headers": headers(name),
        **changed,
    }
    return Record(**parts)
