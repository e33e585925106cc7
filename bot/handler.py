"""The bot as a ``consumers.handler.Handler``: records in, records to publish out.

``open`` decodes in offset order, names the lane and takes note for repeats; ``handle`` asks
``bot.conversation.answer`` and turns its decision into outputs; ``give_up`` makes the dead
letter and its decision record. Guaranteed: one decision record for each record, beside it the
reply or the dead letter; what may hold private text goes to private topics only; outputs are
the same for the same record and the same knowledge, but for times. ``bot/publishing.py`` says
what their envelopes hold; ``ce_id`` is the id of the reply or decision.
"""

import functools
import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import structlog

from bot import policy
from bot.approval import Approval
from bot.audience import ForAll, audience_of, is_confidential
from bot.audit import dead_letter_record
from bot.changes import Changes
from bot.conversation import Decision, answer
from bot.echoes import Echoes
from bot.held import HeldLog
from bot.knowledge import Knowledge, KnowledgeUnavailable
from bot.memory import NoKnowledge
from bot.pins import Pins
from bot.presence import Presence
from bot.publishing import Place, Publishing
from bot.quotas import Quotas, QuotasUnavailable
from bot.standing import cause_of
from bot.values import Asked, Setup, Source, conversation_of, written
from consumers.handler import GiveUp, Job, RetryLater
from consumers.lanes import NO_SHARE, Share
from model.engine import Engine, EngineError, RequestRefused
from schemas import codec, headers, names
from schemas.codes import ErrorCode, Outcome
from schemas.dead_letters import dead_letter, dead_letter_topic, redrive_of
from schemas.envelope import Envelope
from schemas.faults import Fault
from schemas.feed import MentionCreated
from schemas.ids import decision_id
from schemas.record import Output, Record
from schemas.topics import TOPICS

log = structlog.get_logger(__name__)

HEADER_BYTES = 32  # what Kafka adds to a header, generously
RECORD_BYTES = 256  # what it adds to a record and its batch
AUTHORS_PER_THREAD = 4  # a busy thread has the share of so many authors


_REPLIES_FOR = {
    True: (names.BOT_REPLIES, names.REPLY_CREATED),
    False: (names.BOT_DIRECT_REPLIES, names.DIRECT_REPLY_CREATED),
}
"""Topic and event type of replies for all, and of those for the asker."""


def utc_now() -> datetime:
    return datetime.now(UTC)


class BotHandler:
    """The bot for one assignment of one partition.

    ``knowledge`` is shared by the handlers of all topics of the partition (none: what passes
    through this one); ``quotas`` and ``echoes`` by all handlers (none: no limits); ``changes``
    makes what ``bot.references`` is told of a decision (none: nothing); ``presence`` shows private
    talks that an answer is on its way (none: nobody sees it); ``held`` tells moderators which
    replies wait for them (none: nobody is asked); ``pins`` knows the prompts that they may pin.
    ``now`` and ``counter`` (seconds) are the clocks.
    """

    def __init__(
        self,
        setup: Setup,
        engine: Engine,
        knowledge: Knowledge | None = None,
        *,
        quotas: Quotas | None = None,
        echoes: Echoes | None = None,
        changes: Changes | None = None,
        presence: Presence | None = None,
        held: HeldLog | None = None,
        pins: Pins | None = None,
        now: Callable[[], datetime] = utc_now,
        counter: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._setup = setup
        self._knowledge = knowledge or NoKnowledge()
        self._echoes = echoes or Echoes(counter=counter)
        self._changes = changes
        self._pins = pins or Pins()
        self._presence = presence
        self._now = now
        self._publishing = Publishing(setup.bot.id, now)
        self._approval = None
        if held is not None:
            self._approval = Approval(setup, self._knowledge, self._publishing, held)
        self._answer = functools.partial(
            answer,
            setup=setup,
            engine=engine,
            knowledge=self._knowledge,
            decide=self._within(quotas) if quotas is not None else None,
            now=now,
            counter=counter,
        )

    def open(self, record: Record) -> Job:
        """The decoded input with its lane. Raises ``GiveUp`` for what is no input of the bot."""
        try:
            asked = _asked(record)
        except Fault as fault:
            private = codec.is_private(record)
            raise GiveUp(fault.code.value, fault.detail, private=private) from None
        self._knowledge.meet(
            asked.envelope,
            asked.data,
            self._decision_id(record),
            redriven=asked.redrive_of is not None,
        )
        return Job(record, lane_of(asked.data), asked, share_of(asked.data))

    async def handle(self, job: Job, *, attempt: int) -> Sequence[Output]:
        """The replies and the decision record. Raises ``RetryLater``, ``NotYet``, ``GiveUp`` and,
        where a view is lost, ``StopPartition``."""
        try:
            asked = self._seen(job)
            decision = self._named(asked, await self._decided(asked, job.record))
        except RequestRefused as error:
            raise _refused(error, job.record) from error
        except EngineError as error:
            raise RetryLater(error.code) from error
        except KnowledgeUnavailable as error:
            raise RetryLater(f"{type(error).__name__}: {error}") from error
        except QuotasUnavailable as error:
            raise RetryLater(type(error).__name__) from error
        outputs = self._outputs(asked, decision)
        _check_sizes(outputs, job.record)
        self._remember(asked, decision)
        _log(job.record, decision.record.outcome, decision.record.reason, attempt)
        return outputs

    def give_up(self, record: Record, error: GiveUp, *, attempts: int) -> Sequence[Output]:
        """The dead letter and its decision record; where they go is told from the record itself,
        as an error of the runtime can't know it."""
        asked, envelope = _try_asked(record), _try_envelope(record)
        private = codec.is_private(record)
        letter = dead_letter(record, dead_letter_topic(private), error.code, error.detail, attempts)
        source = (envelope.source, envelope.id) if envelope else None
        decision = dead_letter_record(record, asked, source, self._setup, self._now(), error.code)
        key = conversation_of(asked.data) if asked else record.key
        audit = self._publishing.decision(decision, key, envelope, private=private)
        self._knowledge.failed(decision.decision_id)
        _log(record, decision.outcome, error.code, attempts)
        return letter, audit

    async def _decided(self, asked: Asked, record: Record) -> Decision:
        """The decision, approved where a moderator wants that. Raises ``NotYet``."""
        make = functools.partial(self._watched, asked, record)
        return await (self._approval.decided(asked, make) if self._approval else make())

    def _named(self, asked: Asked, decision: Decision) -> Decision:
        """A skip tells which command of a moderator it came of."""
        told = decision.record
        if told.outcome is not Outcome.SKIPPED or told.moderation is not None:
            return decision
        cause = cause_of(told.reason, asked, self._knowledge)
        if cause is None:
            return decision
        return replace(decision, record=told.model_copy(update={"moderation": cause}))

    async def _watched(self, asked: Asked, record: Record) -> Decision:
        """The decision; whoever watches hears of its end, whatever came of it."""
        watcher = self._presence.watch(asked, self._decision_id(record)) if self._presence else None
        if watcher is not None and self._approval is not None and self._approval.is_wanted(asked):
            watcher = None
        try:
            setup = self._pins.setup_for(self._setup, asked.data, self._knowledge)
            return await self._answer(asked, setup=setup, watcher=watcher)
        finally:
            if watcher is not None:
                watcher.done()

    def _seen(self, job: Job) -> Asked:
        """The input with what was met before it, in this run or days ago."""
        asked: Asked = job.payload
        seen = self._knowledge.seen(
            asked.envelope,
            asked.data,
            self._decision_id(job.record),
            redriven=asked.redrive_of is not None,
        )
        return replace(asked, seen=seen)

    def _remember(self, asked: Asked, decision: Decision) -> None:
        """What was decided counts from now on, before any view has read it."""
        self._knowledge.decided(decision.record, decision.replies)
        post = written(asked.data)
        for reply in decision.replies:
            self._echoes.said(reply.text, reply.conversation_id, to=post.text if post else "")

    def _within(self, quotas: Quotas) -> Callable[[Asked], Awaitable[policy.Verdict]]:
        """The whole policy, quotas included."""
        settings = policy.Settings.of(self._setup.bot, self._setup.limits)

        async def decide(asked: Asked) -> policy.Verdict:
            return await policy.decide(
                asked, settings, self._knowledge, quotas, self._echoes, self._now()
            )

        return decide

    def _outputs(self, asked: Asked, decision: Decision) -> tuple[Output, ...]:
        key, cause = conversation_of(asked.data), asked.envelope
        audience = audience_of(asked.data, decision.context, decision.replies)
        topic, kind = _REPLIES_FOR[isinstance(audience, ForAll)]
        replies = [
            self._publishing.output(Place(topic, key), kind, reply.reply_id, reply, cause)
            for reply in audience.replies
        ]
        private = is_confidential(asked.data, decision.context)
        audit = self._publishing.decision(decision.record, key, cause, private=private)
        changes = self._changes.of_decision(decision, asked) if self._changes else ()
        return (*replies, audit, *changes)

    def _decision_id(self, record: Record) -> str:
        bot = self._setup.bot
        place = record.topic, record.partition, record.offset
        return decision_id(bot.id, bot.cluster_id, *place)


def lane_of(data: Source) -> tuple[str, ...]:
    """Conversation and author for mentions: strangers under one post do not wait for each
    other. The conversation for private talks."""
    if isinstance(data, MentionCreated):
        return ("mention", data.post.conversation_id, data.post.author.id)
    return ("dm", conversation_of(data))


def share_of(data: Source) -> Share:
    """Whose turn a record uses up: its author's, and for mentions that of the thread, which may
    have several authors' worth, so that neither one author nor one thread starves the others."""
    post = written(data)
    if post is None:
        return NO_SHARE
    author = (("author", post.author.id), 1.0)
    if not isinstance(data, MentionCreated):
        return Share(flows=(author,))
    return Share(flows=(author, (("thread", post.conversation_id), 1 / AUTHORS_PER_THREAD)))


def _asked(record: Record) -> Asked:
    """The input on a record. Raises ``Fault`` where there is none."""
    event = codec.decode(record)
    if not isinstance(event.data, Source):
        raise Fault(ErrorCode.WRONG_TOPIC, "the bot does not read events of this type")
    return Asked(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp_ms,
        envelope=event.envelope,
        data=event.data,
        redrive_of=redrive_of(record),
    )


def _try_asked(record: Record) -> Asked | None:
    try:
        return _asked(record)
    except Fault:
        return None


def _try_envelope(record: Record) -> Envelope | None:
    try:
        return headers.read(record.headers)
    except Fault:
        return None


def _check_sizes(outputs: Sequence[Output], record: Record) -> None:
    """Before anything is sent: one record that the broker refuses fails its whole batch."""
    for output in outputs:
        limit = TOPICS[output.topic].max_message_bytes
        if size_of(output) > limit:
            detail = f"{size_of(output)} bytes for {output.topic}, at most {limit}"
            private = codec.is_private(record)
            raise GiveUp(ErrorCode.OUTPUT_TOO_LARGE.value, detail, private=private)


def size_of(output: Output) -> int:
    """At most how many bytes an output takes in Kafka, uncompressed."""
    headers = sum(
        len(name.encode(errors="surrogateescape")) + len(value or b"")
        for name, value in output.headers
    )
    body = len(output.key or b"") + len(output.value or b"")
    return RECORD_BYTES + HEADER_BYTES * len(output.headers) + headers + body


def _refused(error: RequestRefused, record: Record) -> GiveUp:
    detail = f"the engine refused the prompt ({error.code})"
    private = codec.is_private(record)
    return GiveUp(ErrorCode.HANDLER_ERROR.value, detail, private=private)


def _log(record: Record, outcome: Outcome, reason: str | None, attempts: int) -> None:
    """Where and what, never the words. Only dead letters are worth anybody's attention."""
    tell = log.warning if outcome is Outcome.DEAD_LETTERED else log.debug
    tell(
        "decided",
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        digest=hashlib.sha256(record.value or b"").hexdigest()[:12],
        outcome=outcome.value,
        reason=None if reason is None else str(reason),
        attempts=attempts,
    )
