"""``bot.reviews``: replies to be looked at again, as a ``consumers.handler.Handler``.

In: ``ReviewAsked`` records of one partition, which is that of the conversation of the reply. Out:
for each its one decision record, and beside it the corrections and retractions. What was decided
here counts before the views have read it back, so that nothing is taken back twice.

However many edits there are, a reply is not made anew for each: a review that a later one has
overtaken is skipped, and corrections have limits (``bot/corrections.py``). Nothing that is deleted
waits for any of that: reviews of deletions have lanes of their own, and where what was answered
is gone no slot of the slow ones is needed. Several reviews of one reply may so be at work at once;
the one that is done later looks again at the reply that the first left.

Where the model is to be asked, the review waits for the views: words that are gone must not come
back from an old one. Where they stay behind, the partition is given back and prepared anew.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal, Protocol

import structlog

from bot.audit import dead_letter_record
from bot.changes import Changes, built_on
from bot.commanded import words
from bot.conversation import REMAKES, Decision
from bot.corrections import author_of, is_limited
from bot.judged import Judged, Review, check_audience, is_private, state_of, version_of
from bot.knowledge import Knowledge, KnowledgeUnavailable, ReplySet
from bot.obeyed import Obeyed
from bot.overtaken import Overtaken
from bot.publishing import Place, Publishing
from bot.quotas import Correction, QuotasUnavailable
from bot.reviews import (
    Making,
    Said,
    Verdict,
    commanded,
    has_read_back,
    judge,
    renewed,
    retracted,
    settled_without_asking,
    without_question,
)
from bot.values import Asked, Question, Setup, is_open, visibility_of
from consumers.handler import GiveUp, Job, Look, NotYet, RetryLater, StopPartition
from consumers.lanes import Share
from model.engine import EngineError, RequestRefused
from schemas import codec, headers, names
from schemas.audit import DecisionRecorded, InputRef, RuleVerdict
from schemas.codec import Undecodable
from schemas.codes import Outcome, SkipReason
from schemas.dead_letters import dead_letter, dead_letter_topic, redrive_of
from schemas.envelope import Envelope
from schemas.faults import Fault
from schemas.ids import decision_id
from schemas.record import Output, Record
from schemas.replies import ReplyCorrected, ReplyCreated, ReplyRetracted
from schemas.reviews import ReferenceMade, ReviewAsked

log = structlog.get_logger(__name__)


class Ask(Protocol):
    """Answers a question as today: ``bot.conversation.answer`` with all that it needs, under the
    rules of ``bot.corrections.decide``."""

    async def __call__(self, asked: Asked, correction: Correction | None = None) -> Decision: ...


PENDING = 10_000  # replies whose last decision the views have not shown yet

_KINDS = {
    (ReplyCreated, False): names.REPLY_CREATED,
    (ReplyCorrected, False): names.REPLY_CORRECTED,
    (ReplyRetracted, False): names.REPLY_RETRACTED,
    (ReplyCreated, True): names.DIRECT_REPLY_CREATED,
    (ReplyCorrected, True): names.DIRECT_REPLY_CORRECTED,
    (ReplyRetracted, True): names.DIRECT_REPLY_RETRACTED,
}


class ReviewsHandler:
    """The handler of one assignment of one partition of ``bot.reviews``. In the last of
    ``max_attempts`` views that are still behind stop the partition."""

    def __init__(
        self,
        setup: Setup,
        publishing: Publishing,
        changes: Changes,
        knowledge: Knowledge,
        ask: Ask,
        *,
        max_attempts: int = 5,
    ) -> None:
        self._setup = setup
        self._publishing = publishing
        self._changes = changes
        self._knowledge = knowledge
        self._ask = ask
        self._max_attempts = max_attempts
        self._pending: OrderedDict[str, ReplySet] = OrderedDict()  # by source URI
        self._obeyed = Obeyed(knowledge)
        self._overtaken = Overtaken()

    def open(self, record: Record) -> Job:
        """The review, in a lane of its reply. Raises ``GiveUp`` for what is none."""
        try:
            event = codec.decode(record)
        except Undecodable as error:
            raise GiveUp(error.code.value, error.detail, private=True) from None
        data: ReviewAsked = event.data
        review = Review(record, event.envelope, data, self._publishing.now())
        self._overtaken.read(record.offset, data)
        flows = ((("change", data.change.uri), 1.0),)
        share = Share(flows=flows, priority=float(data.change.deleted))
        kind = _kind_of(data)
        return Job(record, (kind, data.source.uri), review, share, quick=kind == "retractions")

    async def handle(self, job: Job, *, attempt: int) -> Sequence[Output]:
        """What the review came to, and its decision record. Raises ``NotYet`` besides."""
        review: Review = job.payload
        try:
            judged = await self._judged(review, attempt)
        except KnowledgeUnavailable as error:
            raise RetryLater(f"{type(error).__name__}: {error}") from error
        except (EngineError, QuotasUnavailable) as error:
            raise RetryLater(type(error).__name__) from error
        except NotYet as error:
            look = None if error.look is None else self._look(review, error.look)
            raise NotYet(error.seconds, look) from None
        outputs = self._outputs(review, judged)
        self._remember(judged.verdict)
        if review.data.moderation is not None and judged.duplicate_of is None:
            self._obeyed.add(review.envelope, self._making(review).decision_id)
        self._overtaken.done(review.record.offset, review.data)
        self._log(review.record, judged.verdict)
        return outputs

    def give_up(self, record: Record, error: GiveUp, *, attempts: int) -> Sequence[Output]:
        """The dead letter and its decision record, both private: they tell of private posts."""
        letter = dead_letter(record, dead_letter_topic(True), error.code, error.detail, attempts)
        review, envelope = _try_review(record), _try_envelope(record)
        source = (envelope.source, envelope.id) if envelope else None
        told = dead_letter_record(
            record, None, source, self._setup, self._publishing.now(), error.code
        )
        key: str | bytes | None = record.key
        if review is not None:
            self._overtaken.done(record.offset, review)
            key = review.conversation_id
            told = told.model_copy(update={"source_ref": review.source, "conversation_id": key})
        log.warning("a review failed", offset=record.offset, code=error.code, attempts=attempts)
        return letter, self._publishing.decision(told, key, envelope, private=True)

    def _look(self, review: Review, look: Look) -> Look:
        """The same, but for what a later review has overtaken: that one need not wait."""

        async def overtaken_or() -> float:
            overtaken = self._overtaken.is_overtaken(review.record.offset, review.data)
            return 0.0 if overtaken else await look()

        return overtaken_or

    def _is_plain(self, review: ReviewAsked) -> bool:
        """Whether what has to go is clear, wherever the views are: the source is gone, and the
        whole reply to it is known. What was decided on it since was decided here."""
        change = review.change
        if not change.deleted or change.uri != review.source.uri:
            return False
        replies = self._replies(review.source.uri)
        return replies is not None and len(replies.parts) >= max(p.parts for p in replies.parts)

    async def _caught_up(self, attempt: int) -> None:
        """Everything that led to the review was committed before now."""
        if await self._knowledge.reached(round(self._publishing.now().timestamp() * 1000)):
            return
        if attempt >= self._max_attempts:
            raise StopPartition("the views stay behind the reviews")
        raise RetryLater("the views are behind the reviews")

    async def _judged(self, review: Review, attempt: int) -> Judged:
        """The verdict on the reply as it is now that there is one. Raises ``RetryLater``,
        ``StopPartition``, ``NotYet`` and what asking raises."""
        uri = review.data.source.uri
        for _ in range(REMAKES):
            if self._overtaken.is_overtaken(review.record.offset, review.data):
                overtaken = Verdict(Outcome.SKIPPED, SkipReason.OVERTAKEN)
                return Judged(overtaken, self._replies(uri))
            if not self._is_plain(review.data):
                await self._caught_up(attempt)
            judged = await self._judge(review)
            if state_of(judged.replies) == state_of(self._replies(uri)):
                return judged
        raise RetryLater("the reply changes again and again")

    async def _judge(self, review: Review) -> Judged:
        """The verdict on the reply as it is at first. Raises ``EngineError``, ``NotYet``,
        ``KnowledgeUnavailable`` and ``QuotasUnavailable``."""
        data, knowledge, making = review.data, self._knowledge, self._making(review)
        replies = self._replies(data.source.uri)
        if data.moderation is not None:
            return self._commanded(review, replies)
        settled = settled_without_asking(data, replies, knowledge, making)
        if settled is not None or replies is None:
            return Judged(settled or Verdict(Outcome.SKIPPED, SkipReason.UNKNOWN_REPLY), replies)
        question = knowledge.question(data.source.uri, data.conversation_id)
        if question is None:
            return Judged(without_question(data.change, replies, making), replies)
        asked = self._asked(review, renewed(question, data.change, knowledge))
        try:
            decision = await self._ask(asked, self._correction(review, replies))
        except RequestRefused:  # no prompt of today's question is one for the model
            verdict = retracted(replies, SkipReason.NO_ANSWER, making)
            return Judged(verdict, replies, asked)
        verdict = judge(decision, replies, data.change, making)
        return Judged(verdict, replies, asked, decision)

    def _commanded(self, review: Review, replies: ReplySet | None) -> Judged:
        """What a moderator's command comes to; no model is asked. Raises
        ``KnowledgeUnavailable``."""
        data, setup = review.data, self._setup
        first = self._obeyed.first(review.envelope, self._making(review).decision_id)
        if first is not None:
            verdict = Verdict(Outcome.SKIPPED, SkipReason.DUPLICATE)
            return Judged(verdict, replies, duplicate_of=first)
        checked = None
        if data.text is not None:
            question = self._knowledge.question(data.source.uri, data.conversation_id)
            checked = words(data.text, question, setup.bot, setup.limits)
        verdict = commanded(checked, replies, self._making(review), setup.bot.account)
        return Judged(verdict, replies, checks=checked.verdicts if checked else ())

    def _correction(self, review: Review, replies: ReplySet) -> Correction | None:
        """For whom it counts to ask the model; none where nothing may hold it up."""
        change = review.data.change
        if not is_limited(change, replies, self._knowledge):
            return None
        return Correction(
            decision_id=self._making(review).decision_id,
            reply=review.data.source.uri,
            author=author_of(change),
            since=review.since,
        )

    def _replies(self, source_uri: str) -> ReplySet | None:
        """The reply as it stands, decisions made here included."""
        shown = self._knowledge.replies_to(source_uri)
        made = self._pending.get(source_uri)
        if made is None:
            return shown
        if has_read_back(shown, made):
            del self._pending[source_uri]
            return shown
        return made

    def _remember(self, verdict: Verdict) -> None:
        if verdict.after is not None:
            self._pending[verdict.after.source.uri] = verdict.after
            self._pending.move_to_end(verdict.after.source.uri)
            if len(self._pending) > PENDING:
                self._pending.popitem(last=False)

    def _asked(self, review: Review, question: Question) -> Asked:
        """The question, to be decided at the place of the review."""
        record = review.record
        return Asked(
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            timestamp_ms=record.timestamp_ms,
            envelope=review.envelope,
            data=question,
        )

    def _making(self, review: Review) -> Making:
        bot, record = self._setup.bot, review.record
        place = record.topic, record.partition, record.offset
        decision = decision_id(bot.id, bot.cluster_id, *place)
        return Making(bot, decision, self._publishing.now())

    def _outputs(self, review: Review, judged: Judged) -> tuple[Output, ...]:
        check_audience(judged)
        said = [self._said(one, review, judged.replies) for one in judged.verdict.said]
        record = self._record(review, judged)
        private = is_private(review, judged)
        key = review.data.conversation_id
        audit = self._publishing.decision(record, key, review.envelope, private=private)
        return (*said, audit, *self._references(review, judged, private=private))

    def _said(self, said: Said, review: Review, replies: ReplySet | None) -> Output:
        """On the topic where the reply stands, which is never changed."""
        private = replies is None or replies.private
        topic = names.BOT_DIRECT_REPLIES if private else names.BOT_REPLIES
        kind = _KINDS[type(said), private]
        event = said.reply_id if isinstance(said, ReplyCreated) else _event_id(said)
        place = Place(topic, review.data.conversation_id)
        return self._publishing.output(place, kind, event, said, review.envelope)

    def _references(self, review: Review, judged: Judged, *, private: bool) -> tuple[Output, ...]:
        """What a corrected reply is built on now and was not before; no more, or one change
        could ask for reviews for ever where a platform's revisions contradict each other."""
        verdict, decision = judged.verdict, judged.decision
        if verdict.outcome is not Outcome.CORRECTED or decision is None or judged.replies is None:
            return ()
        before = {ref for part in judged.replies.parts for ref in part.built_on}
        source = decision.replies[0].in_reply_to
        now = built_on(source, decision.record.context, self._setup.bot.id)
        return tuple(
            self._changes.reference(
                ReferenceMade(
                    uri=ref.uri,
                    revision=ref.revision,
                    version=version_of(ref, review, judged.asked),
                    conversation_id=review.data.conversation_id,
                    partition=review.record.partition,
                    source=source,
                    decision_id=decision.record.decision_id,
                    private=private,
                ),
                review.envelope,
            )
            for ref in now
            if ref not in before
        )

    def _record(self, review: Review, judged: Judged) -> DecisionRecorded:
        verdict, moderation = judged.verdict, review.data.moderation
        rule = RuleVerdict(name="review", verdict=verdict.reason.value, detail=_why(review.data))
        decision = judged.decision
        record = self._bare_record(review) if decision is None else decision.record
        return record.model_copy(
            update={
                "outcome": verdict.outcome,
                "reason": verdict.reason.value,
                "reply_ids": verdict.reply_ids,
                "rules": (*record.rules, *judged.checks, rule),
                "moderation": moderation,
                "duplicate_of": judged.duplicate_of,
            }
        )

    def _bare_record(self, review: Review) -> DecisionRecorded:
        """Of a review for which the model was not asked."""
        making, record = self._making(review), review.record
        return DecisionRecorded(
            decision_id=making.decision_id,
            outcome=Outcome.SKIPPED,
            input=InputRef(
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                source=review.envelope.source,
                id=review.envelope.id,
                timestamp_ms=record.timestamp_ms,
                redrive_of=redrive_of(record),
            ),
            source_ref=review.data.source,
            conversation_id=review.data.conversation_id,
            positions=self._knowledge.positions(),
            code_version=self._setup.code_version,
            settings_digest=self._setup.settings_digest,
            recorded_at=making.now,
        )

    def _log(self, record: Record, verdict: Verdict) -> None:
        log.debug(
            "reviewed",
            partition=record.partition,
            offset=record.offset,
            outcome=verdict.outcome.value,
            reason=verdict.reason.value,
        )


def _event_id(said: ReplyCorrected | ReplyRetracted) -> str:
    """One reply can be corrected more than once."""
    return f"{said.reply_id}/{said.decision_id}"


def _why(review: ReviewAsked) -> str:
    """Why a reply is looked at again, for the audit."""
    if review.moderation is not None:
        return f"a moderator commanded: {review.moderation.command}"
    return "a post was deleted" if review.change.deleted else "a post was edited"


def _kind_of(review: ReviewAsked) -> Literal["edits", "deletions", "retractions"]:
    """What a review waits behind, for the same reply. Retractions never ask the model, and only
    edits wait for limits: not those that let fewer people see a post."""
    change = review.change
    if review.moderation is not None:
        return "retractions"
    if change.deleted:
        return "retractions" if change.uri == review.source.uri else "deletions"
    narrow = change.post is not None and not is_open(visibility_of(change.post))
    return "deletions" if narrow else "edits"


def _try_review(record: Record) -> ReviewAsked | None:
    try:
        data = codec.decode(record).data
    except Undecodable:
        return None
    return data if isinstance(data, ReviewAsked) else None


def _try_envelope(record: Record) -> Envelope | None:
    try:
        return headers.read(record.headers)
    except Fault:
        return None
