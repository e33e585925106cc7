"""What the bot says: replies, their corrections and retractions, and private activity.

The same payloads travel as ``twite.bot.reply.*`` on ``bot.replies`` (public, unlisted) and
as ``twite.bot.direct-reply.*`` on ``bot.direct-replies`` (everything narrower).
"""

from enum import StrEnum

from pydantic import model_validator
from pydantic_core import PydanticCustomError

from schemas.feed import Account, Ref, Texted, Visibility
from schemas.fields import Hops, Id, Many, Number, Payload, Str, Time

AUTOMATED = "automated"


class ActivityState(StrEnum):
    """Where an answer in a private talk stands."""

    TYPING = "typing"
    PARTIAL = "partial"
    DONE = "done"


class ReplyCreated(Texted):
    """One part of a reply; ``part`` counts from 1 to ``parts``.

    ``in_reply_to`` is always the source, the platform chains the parts. ``hops`` is the
    source's plus 1. ``built_on`` names everything the model saw, ``prompt_hash`` the prompt file
    (sha256 of its bytes, hex).
    """

    reply_id: Id
    conversation_id: Id
    in_reply_to: Ref
    root: Ref
    author: Account
    langs: Many[Str] = ()
    visibility: Visibility
    part: Number
    parts: Number
    labels: Many[Str] = (AUTOMATED,)
    built_on: Many[Ref] = ()
    decision_id: Id
    hops: Hops
    prompt_hash: Str | None = None
    created_at: Time

    @model_validator(mode="after")
    def _part_of_parts(self) -> "ReplyCreated":
        if self.part > self.parts:
            raise PydanticCustomError("part", "part is at most parts")
        return self


class ReplyCorrected(Texted):
    """The reply now reads so; ``revision`` is the new one, ``conversation_id`` the key."""

    reply_id: Id
    decision_id: Id
    reason: Str
    revision: Id
    conversation_id: Id | None = None
    langs: Many[Str] = ()
    labels: Many[Str] = (AUTOMATED,)
    built_on: Many[Ref] = ()
    prompt_hash: Str | None = None
    corrected_at: Time | None = None


class ReplyRetracted(Payload):
    """The reply is taken back; ``conversation_id`` is the key."""

    reply_id: Id
    decision_id: Id
    reason: Str
    conversation_id: Id | None = None
    retracted_at: Time | None = None


class DirectActivity(Payload):
    """``twite.bot.direct-activity.v1``: may be lost; the final reply always wins."""

    conversation_id: Id
    decision_id: Id
    state: ActivityState
    text: Str | None = None
