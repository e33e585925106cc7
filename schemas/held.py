"""Replies that wait for a moderator: ``twite.bot.reply.held.v1``.

On ``bot.held``, in the conversation of the reply and beside all transactions, so that losing one
loses nothing: the outcome is the decision record's alone.
"""

import hashlib
import json
from collections.abc import Sequence

from schemas.fields import Bool, Id, Many, Payload, Str, Time
from schemas.replies import ReplyCreated


class ReplyHeld(Payload):
    """A reply that is made and waits; of one decision the last record counts.

    ``private``: not all may read it; ``texts``: its parts, none where it waits no more (``waiting``
    false); ``text_digest``: of all that would be published of it, which an approval must name;
    ``held_until``: then it is skipped.
    """

    decision_id: Id
    conversation_id: Id
    source_uri: Id
    author_id: Id
    private: Bool
    waiting: Bool = True
    texts: Many[Str] = ()
    text_digest: Str
    held_until: Time


def digest_of(replies: Sequence[ReplyCreated]) -> str:
    """The sha256, in hex, of what people would see of a reply: the same however often, and
    whenever, the same words are made."""
    shown = [
        reply.model_dump(mode="json", include={"reply_id", "text", "facets", "langs", "visibility"})
        for reply in replies
    ]
    told = json.dumps(shown, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(told.encode()).hexdigest()
