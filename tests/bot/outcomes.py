"""Outcomes and records for tests, as the observer and a consumer would have made them."""

from datetime import UTC, datetime

from bot.observe import Change, Outcome, Position, Reply
from schemas.audit import DecisionRecorded, InputRef
from schemas.codes import Outcome as Kind
from schemas.feed import Account, Ref, Visibility
from schemas.record import Output, Record
from schemas.replies import ReplyCorrected, ReplyCreated, ReplyRetracted

NOW = datetime(2026, 1, 1, tzinfo=UTC)
INPUT = Position("feed.mentions", 1, 42)


def replied(text: str, reply_id: str = "reply-1", origin: Position = INPUT) -> Outcome:
    """An input that was answered with ``text``."""
    ref = Ref(uri="post:1", revision="r")
    data = ReplyCreated(
        reply_id=reply_id,
        conversation_id="c",
        in_reply_to=ref,
        root=ref,
        author=Account(id="bot", handle="twite", bot=True),
        text=text,
        visibility=Visibility.PUBLIC,
        part=1,
        parts=1,
        decision_id=f"decision-{origin}",
        hops=1,
        created_at=NOW,
    )
    decided = decision(Kind.REPLIED, (reply_id,), origin=origin)
    at = Position("bot.audit", origin.partition, 7)
    return Outcome(origin, decided, at, (Reply(data, Position("bot.replies", 1, 7)),))


def changed(text: str | None = None, reply_id: str = "reply-1") -> Outcome:
    """A review that corrected a reply to ``text``, or took it back."""
    reason = "deleted" if text is None else "edited"
    kind = Kind.RETRACTED if text is None else Kind.CORRECTED
    decided = decision(kind, (reply_id,), reason)
    shared = {
        "reply_id": reply_id,
        "decision_id": decided.decision_id,
        "reason": reason,
        "conversation_id": "c",
    }
    data: ReplyCorrected | ReplyRetracted
    if text is None:
        data = ReplyRetracted(**shared, retracted_at=NOW)
    else:
        data = ReplyCorrected(**shared, revision="r2", text=text, corrected_at=NOW)
    change = Change(data, Position("bot.replies", 1, 9))
    return Outcome(INPUT, decided, Position("bot.audit", 1, 9), changes=(change,))


def decision(
    outcome: Kind,
    replies: tuple[str, ...] = (),
    reason: str | None = None,
    origin: Position = INPUT,
) -> DecisionRecorded:
    """The decision on the input at ``origin``."""
    return DecisionRecorded(
        decision_id=f"decision-{origin}",
        outcome=outcome,
        reason=reason,
        input=InputRef(topic=origin.topic, partition=origin.partition, offset=origin.offset),
        conversation_id="c",
        reply_ids=replies,
        code_version="1",
        settings_digest="d",
        recorded_at=NOW,
    )


def as_record(output: Output) -> Record:
    """As a consumer would read what was produced."""
    return Record(
        topic=output.topic,
        partition=0,
        offset=0,
        timestamp_ms=0,
        key=output.key,
        value=output.value,
        headers=output.headers,
    )
