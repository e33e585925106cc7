"""What the model would see: the bot's own way up to the prompt, without a model or a worker.

In: records of a conversation (a feed file's, or those that Kafka has) and the question among
them; or a decision that was recorded. Out: ``Preview``: the prompt as token ids with their
trust, and what is in it. Guaranteed: context, consent and prompt come from the same functions
and views as in a worker, over views that live in memory only; nothing is published.
Next: ``bot/cli/prompts.py`` shows it.
"""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

from bot import facts, policy
from bot.errors import Trouble
from bot.feed import Entry
from bot.gather import gather
from bot.known import KnowledgeOfViews
from bot.language import tongue_of
from bot.observe import Position
from bot.prompt import prompt_for
from bot.values import (
    Asked,
    Question,
    Setup,
    Template,
    conversation_of,
    is_private,
    post_of,
)
from bot.views import VIEWS, bot_views
from consumers.views.view import BadRecord, View
from consumers.views.views import ViewLost
from model.engine import ChatTokenizer, Prompt, Segment
from schemas.audit import ContextItem, DecisionRecorded
from schemas.codec import Undecodable, decode
from schemas.names import BOT_REFERENCES
from schemas.record import Record
from schemas.topics import TOPICS


def _seen(views: Sequence[View]) -> list[View]:
    """Those that tell of conversations."""
    return [view for view in views if BOT_REFERENCES not in view.topics]


TOPICS_OF_VIEWS = tuple(sorted({topic for view in _seen(VIEWS) for topic in view.topics}))
"""What is known of a conversation stands on these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """A prompt and where it comes from. ``at``: of the question's record, or of the decision;
    ``skipped``: why the policy would not ask the model, if so; ``recorded``: it is what the model
    saw, not what it would see now."""

    at: str
    uri: str | None
    conversation_id: str | None
    private: bool
    template: str
    template_hash: str
    context: tuple[ContextItem, ...]
    prompt: Prompt
    recorded: bool
    hint: str = ""
    skipped: str | None = None

    def tokens(self, trust: Literal["trusted", "untrusted"]) -> int:
        """How many tokens of this trust there are."""
        return sum(s.end - s.start for s in self.prompt.segments if s.trust == trust)


@dataclass
class MemoryView:
    """One view over a few records, in memory; ``bot.known.OpenView`` without a worker."""

    db: sqlite3.Connection
    positions: Mapping[str, int] = field(default_factory=dict)
    as_of_ms: int = 2**62

    async def reached(self, timestamp_ms: int, timeout_s: float) -> bool:
        return timestamp_ms <= self.as_of_ms

    def lost(self, error: sqlite3.Error) -> ViewLost:
        raise error


def knowledge_of(records: Sequence[Record], bot_id: str) -> KnowledgeOfViews:
    """What a worker would know after these records."""
    views = {view.name: in_memory(view, records) for view in _seen(bot_views(bot_id))}
    return KnowledgeOfViews(lambda: views, bot_id, wait_s=0.0)


def in_memory(
    view: View, records: Iterable[Record], positions: Mapping[str, int] | None = None
) -> MemoryView:
    """A view of these records; what it can't read it leaves out."""
    db = sqlite3.connect(":memory:", isolation_level=None)
    view.create(db)
    for record in records:
        if record.topic in view.topics:
            try:
                view.apply(db, record)
            except BadRecord:
                continue  # as a worker would
    return MemoryView(db, positions or {})


def preview(
    record: Record,
    knowledge: KnowledgeOfViews,
    setup: Setup,
    tokenizer: ChatTokenizer,
    context_length: int,
) -> Preview:
    """What the model would see of the question on ``record``. Raises ``Trouble`` where there is
    none."""
    asked = asked_of(record)
    question = asked.data if asked and isinstance(asked.data, Question) else None
    if asked is None or question is None:
        raise Trouble("no mention and no message to the bot.", where=str(Position.of(record)))
    now = datetime.fromtimestamp(record.timestamp_ms / 1000, UTC)
    rules = policy.Settings.of(setup.bot, setup.limits)
    known = facts.gather(asked, setup.bot.id, knowledge, None, now)
    verdict, _ = policy.judge(asked, rules, known, policy.BEFORE_QUOTA)
    post = post_of(question)
    context = gather(question, setup.bot, setup.limits, knowledge)
    made = prompt_for(context, question, tongue_of(post), setup, tokenizer, context_length)
    return Preview(
        at=str(Position.of(record)),
        uri=post.uri,
        conversation_id=conversation_of(question),
        private=is_private(question),
        template=made.template.name,
        template_hash=made.template.hash,
        context=tuple(item.item() for item in made.context),
        prompt=made.prompt,
        recorded=False,
        hint=made.hint,
        skipped=verdict.reason.value if isinstance(verdict, policy.Skip) else None,
    )


def recorded(decision: DecisionRecorded, at: Position) -> Preview:
    """What the model saw. Raises ``Trouble`` where it was not asked."""
    prompt = decision.prompt
    if prompt is None:
        why = f", {decision.reason}" if decision.reason else ""
        what = f"the model was not asked: {decision.outcome.value}{why}."
        raise Trouble(what, where=decision.decision_id)
    segments = tuple(Segment(s.start, s.end, s.trust) for s in prompt.segments)
    return Preview(
        at=str(at),
        uri=decision.source_ref.uri if decision.source_ref else None,
        conversation_id=decision.conversation_id,
        private=TOPICS[at.topic].private,
        template=prompt.template,
        template_hash=prompt.template_hash,
        context=decision.context,
        prompt=Prompt(prompt.token_ids, segments),
        recorded=True,
    )


def records_of(entries: Iterable[Entry], now_ms: int) -> list[Record]:
    """The lines of a feed file as if Kafka had taken them in now, one after the other."""
    return [
        Record(
            topic=entry.output.topic,
            partition=0,
            offset=number,
            timestamp_ms=now_ms,
            key=entry.output.key,
            value=entry.output.value,
            headers=entry.output.headers,
        )
        for number, entry in enumerate(entries)
    ]


def question_in(records: Sequence[Record], uri: str | None, bot_id: str) -> int:
    """The place of the last question of these records that the bot did not write itself, or of
    the last about ``uri``. Raises ``Trouble``."""
    for place in range(len(records) - 1, -1, -1):
        asked = asked_of(records[place])
        if asked is None or not isinstance(asked.data, Question):
            continue
        post = post_of(asked.data)
        if post.uri == uri or (uri is None and post.author.id != bot_id):
            return place
    raise no_question(uri)


def no_question(uri: str | None, where: str = "", todo: str = "") -> Trouble:
    """There is nothing to show."""
    about = f" about {uri!r}" if uri else ""
    what = f"no mention and no message{about} for the bot is here."
    return Trouble(what, where=where, todo=todo)


def asked_of(record: Record) -> Asked | None:
    """The input on a record; none where there is none."""
    try:
        event = decode(record)
    except Undecodable:
        return None
    if not isinstance(event.data, Question):
        return None
    return Asked(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        timestamp_ms=record.timestamp_ms,
        envelope=event.envelope,
        data=event.data,
    )


def with_prompt(setup: Setup, template: Template) -> Setup:
    """The setup with one prompt for every surface."""
    prompts = replace(
        setup.prompts,
        mention=template,
        direct=template,
        canary_mention=None,
        canary_direct=None,
    )
    return replace(setup, prompts=prompts)
