"""Looking at a reply again, as a post that it was built on was edited or deleted.

In: the reply as it stands, and what answering the same question today comes to. Out: a
``Verdict``: the reply is kept, corrected (a new revision of the same reply) or retracted.
Pure values in and out; nothing here touches Kafka or the model. Next: ``bot/review_handler.py``
publishes it.

Taken back is for good: a reply that was retracted never comes back. A correction is never seen
by more people than the reply was: where it would have to be narrower, the reply is retracted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

from bot.conversation import Decision
from bot.knowledge import Knowledge, ReplyPart, ReplySet
from bot.reply import Checked
from bot.reply import Said as Worded
from bot.values import BotIdentity, Question, narrowest, visibility_of
from schemas.codes import Outcome, SkipReason
from schemas.feed import Account, Message, MessageCreated, Post
from schemas.ids import reply_id
from schemas.replies import ReplyCorrected, ReplyCreated, ReplyRetracted
from schemas.reviews import PostChanged, ReviewAsked

P = TypeVar("P", Post, Message)
Said = ReplyCreated | ReplyCorrected | ReplyRetracted

# Reasons why nothing would be said today that are no reason to take back what was said: they
# are about how much the bot may do, or about its being switched off.
NO_REASON_TO_RETRACT = frozenset({SkipReason.QUOTA, SkipReason.TOO_OLD, SkipReason.STOPPED})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of the reply. ``said`` is to be published, ``after`` is the reply then."""

    outcome: Outcome
    reason: SkipReason
    said: tuple[Said, ...] = ()
    after: ReplySet | None = None

    @property
    def reply_ids(self) -> tuple[str, ...]:
        return tuple(one.reply_id for one in self.said)


@dataclass(frozen=True, slots=True)
class Making:
    """What every event of one review shares."""

    bot: BotIdentity
    decision_id: str
    now: datetime


def reason_of(change: PostChanged) -> SkipReason:
    """Why the reply is looked at."""
    return SkipReason.DELETED if change.deleted else SkipReason.EDITED


def settled_without_asking(
    review: ReviewAsked, replies: ReplySet | None, knowledge: Knowledge, making: Making
) -> Verdict | None:
    """The verdict where the model need not be asked; none where it must be."""
    change = review.change
    if replies is None:
        return Verdict(Outcome.SKIPPED, SkipReason.UNKNOWN_REPLY)
    if not replies.standing:
        return Verdict(Outcome.SKIPPED, SkipReason.TAKEN_BACK)
    if _is_gone(review.source.uri, change, knowledge):
        return retracted(replies, SkipReason.DELETED, making)
    if _is_built_on_newest(replies, change, knowledge):
        return Verdict(Outcome.SKIPPED, SkipReason.KEPT)
    return None


def without_question(change: PostChanged, replies: ReplySet, making: Making) -> Verdict:
    """Where nobody knows any more what was asked: words that were deleted must not stay."""
    if change.deleted:
        return retracted(replies, SkipReason.DELETED, making)
    return Verdict(Outcome.SKIPPED, SkipReason.UNKNOWN_REPLY)


def renewed(question: Question, change: PostChanged, knowledge: Knowledge) -> Question:
    """The question as it would be put today: its post in the newest revision, the quoted post
    as the change has it where no view tells of it. What became of ancestors, and of what the
    views know, ``bot/gather.py`` finds out."""
    if isinstance(question, MessageCreated):
        message = _newest(question.message, change, knowledge)
        quoted = _quoted(question.message.quoted, change, knowledge)
        return MessageCreated(message=message.model_copy(update={"quoted": quoted}))
    post = _newest(question.post, change, knowledge)
    quoted = _quoted(question.quoted, change, knowledge)
    return question.model_copy(update={"post": post, "quoted": quoted})


def judge(decision: Decision, replies: ReplySet, change: PostChanged, making: Making) -> Verdict:
    """What an answer of today means for the reply that stands."""
    if not decision.replies:
        return _nothing_to_say(decision, replies, change, making)
    now, then = decision.replies[0].visibility, replies.standing[0].visibility
    if narrowest(now, then) != then:
        return retracted(replies, SkipReason.VISIBILITY, making)
    if _texts(decision.replies) == _texts(replies.standing):
        return Verdict(Outcome.SKIPPED, SkipReason.KEPT)
    return corrected(decision.replies, replies, reason_of(change), making)


def commanded(
    text: Checked | None, replies: ReplySet | None, making: Making, author: Account
) -> Verdict:
    """What a moderator's command means for the reply; ``text`` none: it is taken back.

    The new words are a moderator's, so they are built on nothing: an edit does not change them
    any more, and only the deletion of what was answered takes them back.
    """
    if replies is None:
        return Verdict(Outcome.SKIPPED, SkipReason.UNKNOWN_REPLY)
    if not replies.standing:
        return Verdict(Outcome.SKIPPED, SkipReason.TAKEN_BACK)
    if text is None:
        return retracted(replies, SkipReason.MODERATED, making)
    if not text.parts:
        return Verdict(Outcome.SKIPPED, SkipReason.NO_ANSWER)
    new = [_worded(said, replies, making, author) for said in text.parts[:1]]
    return corrected(new, replies, SkipReason.MODERATED, making)


def _worded(said: Worded, replies: ReplySet, making: Making, author: Account) -> ReplyCreated:
    """A moderator's words in the place of the first part that stands."""
    first = replies.standing[0]
    return ReplyCreated(
        reply_id=first.reply_id,
        conversation_id=replies.conversation_id,
        in_reply_to=replies.source,
        root=replies.source,
        author=author,
        text=said.text,
        facets=said.facets,
        langs=(),
        visibility=first.visibility,
        part=1,
        parts=1,
        decision_id=making.decision_id,
        hops=0,
        created_at=making.now,
    )


def retracted(replies: ReplySet, reason: SkipReason, making: Making) -> Verdict:
    """Every part that stands is taken back."""
    said = tuple(_retraction(part, reason, making) for part in replies.standing)
    gone = tuple(replace(part, retracted=True) for part in replies.parts)
    after = replace(replies, parts=gone, decision_id=making.decision_id)
    return Verdict(Outcome.RETRACTED, reason, said, after)


def corrected(
    new: Sequence[ReplyCreated], replies: ReplySet, reason: SkipReason, making: Making
) -> Verdict:
    """Every part gets its new text; surplus parts are taken back, missing ones are made."""
    said: list[Said] = []
    after: dict[str, ReplyPart] = {part.reply_id: part for part in replies.parts}
    for part, reply in zip(replies.standing, new, strict=False):
        said.append(_correction(part, reply, reason, making))
        after[part.reply_id] = _part(reply, part, making, len(new))
    for part in replies.standing[len(new) :]:
        said.append(_retraction(part, reason, making))
        after[part.reply_id] = replace(part, retracted=True)
    for reply in new[len(replies.standing) :]:
        made = _missing_part(reply, replies, making)
        said.append(made)
        after[made.reply_id] = ReplyPart.of(made)
    parts = tuple(after.values())
    return Verdict(
        Outcome.CORRECTED,
        reason,
        tuple(said),
        replace(replies, source=new[0].in_reply_to, parts=parts, decision_id=making.decision_id),
    )


def has_read_back(view: ReplySet | None, made: ReplySet) -> bool:
    """Whether the view shows what was decided here."""
    parts = {part.reply_id: part for part in view.parts} if view else {}
    return all(
        (there := parts.get(part.reply_id)) is not None
        and (there.retracted, there.revision) == (part.retracted, part.revision)
        for part in made.parts
    )


def _is_gone(uri: str, change: PostChanged, knowledge: Knowledge) -> bool:
    if change.uri == uri and change.deleted:
        return True
    newest = knowledge.latest(uri)
    return newest is not None and newest.deleted


def _is_built_on_newest(replies: ReplySet, change: PostChanged, knowledge: Knowledge) -> bool:
    """Whether a review of a later change has taken this one in already."""
    latest = max(replies.standing, key=lambda part: part.decision_id == replies.decision_id)
    used = {ref.uri: ref.revision for ref in latest.built_on}
    if change.uri not in used:
        return True
    if change.deleted:
        return False
    if used[change.uri] == change.revision:
        return True
    newest = knowledge.latest(change.uri)
    return (
        newest is not None
        and newest.post is not None
        and change.version is not None
        and newest.post.version > change.version
        and newest.revision == used[change.uri]
    )


def _nothing_to_say(
    decision: Decision, replies: ReplySet, change: PostChanged, making: Making
) -> Verdict:
    reason = SkipReason(decision.record.reason or SkipReason.NO_ANSWER)
    if reason not in NO_REASON_TO_RETRACT:
        return retracted(replies, reason, making)
    if change.deleted:  # it can't be told whether the words that are gone are in the reply
        return retracted(replies, SkipReason.DELETED, making)
    return Verdict(Outcome.SKIPPED, reason)


def _newest(post: P, change: PostChanged, knowledge: Knowledge) -> P:
    """The newest revision of a post that is known, of the same kind, author and place."""
    newest = post
    known = knowledge.latest(post.uri)
    told = (change.post or change.message) if change.uri == post.uri else None
    for other in (known.post if known else None, told):
        if isinstance(other, type(post)) and _is_revision(other, newest):
            newest = other
    return newest


def _quoted(quoted: Post | None, change: PostChanged, knowledge: Knowledge) -> Post | None:
    """The quoted post that the question is put with. The platform vouched for the revision that
    came with the question, not for one that fewer people may see."""
    if quoted is None or quoted.uri != change.uri:
        return quoted
    now = change.post
    if now is None:
        return None
    if knowledge.changed(quoted) is not None or not _is_revision(now, quoted):
        return quoted
    before, after = visibility_of(quoted), visibility_of(now)
    if before is None or after is None or narrowest(before, after) != before:
        return None
    return now


def _is_revision(new: Post | Message, old: Post | Message) -> bool:
    """Whether it can be a later revision: what names another author or another conversation is
    none (``bot.views.written.changed`` has the same rule)."""
    same = (new.author.id, new.conversation_id) == (old.author.id, old.conversation_id)
    return same and new.version >= old.version


def _texts(parts: Sequence[ReplyCreated] | Sequence[ReplyPart]) -> list[tuple[object, ...]]:
    return [(part.text, part.facets) for part in parts]


def _retraction(part: ReplyPart, reason: SkipReason, making: Making) -> ReplyRetracted:
    return ReplyRetracted(
        reply_id=part.reply_id,
        decision_id=making.decision_id,
        reason=reason.value,
        conversation_id=part.conversation_id,
        retracted_at=making.now,
    )


def _correction(
    part: ReplyPart, reply: ReplyCreated, reason: SkipReason, making: Making
) -> ReplyCorrected:
    """``revision`` is the decision's id: nothing else ever has it."""
    return ReplyCorrected(
        reply_id=part.reply_id,
        decision_id=making.decision_id,
        reason=reason.value,
        revision=making.decision_id,
        conversation_id=part.conversation_id,
        text=reply.text,
        facets=reply.facets,
        langs=reply.langs,
        labels=reply.labels,
        built_on=reply.built_on,
        prompt_hash=reply.prompt_hash,
        corrected_at=making.now,
    )


def _missing_part(reply: ReplyCreated, replies: ReplySet, making: Making) -> ReplyCreated:
    """A part more than there were: with the id that it would have had from the beginning, or
    another one where that was taken back."""
    first = replies.parts[0]
    taken = {part.reply_id for part in replies.parts}
    bot, source = making.bot.id, first.source
    own = reply_id(bot, source.uri, source.revision or "", reply.part)
    other = reply_id(bot, source.uri, making.decision_id, reply.part)
    made = {"reply_id": other if own in taken else own, "visibility": first.visibility}
    return reply.model_copy(update=made)


def _part(reply: ReplyCreated, part: ReplyPart, making: Making, parts: int) -> ReplyPart:
    return replace(
        part,
        text=reply.text,
        facets=reply.facets,
        langs=reply.langs,
        built_on=reply.built_on,
        parts=parts,
        decision_id=making.decision_id,
        revision=making.decision_id,
    )
