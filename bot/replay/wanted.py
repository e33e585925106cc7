"""Which decisions a replay is about.

In: what a person asked for, as words. Out: ``Wanted``, which tells of a decision record whether
it is meant. Conditions of one kind widen (this author or that one), those of several kinds
narrow. Who asked is not always in the record: ``by_author`` then says so, and ``plan`` looks at
the input. Next: ``bot/replay/plan.py``.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from bot.context import Why
from bot.errors import Trouble
from bot.observe import AUDIT_TOPICS
from schemas.audit import DecisionRecorded
from schemas.names import BOT_REVIEWS, FEED_DIRECT_MESSAGES, FEED_MENTIONS
from schemas.record import Record

INPUTS = (FEED_MENTIONS, FEED_DIRECT_MESSAGES, BOT_REVIEWS)
"""The topics whose records end in a decision."""

USAGE = 2  # exit status: the command was typed wrong
_STRETCH = re.compile(r"([a-zA-Z0-9._-]+)/(\d{1,9})(?:/(\d{1,18})(?:(-)(\d{1,18})?)?)?")


@dataclass(frozen=True, slots=True)
class Stretch:
    """Offsets ``first`` to ``last`` of one partition, both included; none: as far as it goes."""

    topic: str
    partition: int
    first: int | None = None
    last: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """``topic/partition``, ``…/offset``, ``…/first-last`` or ``…/first-``. Raises
        ``Trouble``."""
        match = _STRETCH.fullmatch(text)
        if match is None or match[1] not in (*INPUTS, *AUDIT_TOPICS):
            known = ", ".join((*INPUTS, *AUDIT_TOPICS))
            raise Trouble(
                f"{text!r} is no range of an input or audit topic ({known}).",
                where="--range",
                todo="Write topic/partition/first-last, such as feed.mentions/2/4711-4800.",
                status=USAGE,
            )
        topic, partition, first, dash, last = match.groups()
        start = int(first) if first else None
        end = int(last) if last else None if dash else start
        if start is not None and end is not None and end < start:
            raise Trouble(f"{text!r} ends before it begins.", where="--range", status=USAGE)
        return cls(topic, int(partition), start, end)

    def holds(self, topic: str, partition: int, offset: int) -> bool:
        """Whether a record stands in it."""
        inside = offset >= (self.first or 0) and (self.last is None or offset <= self.last)
        return inside and (topic, partition) == (self.topic, self.partition)

    def __str__(self) -> str:
        if self.first is None:
            return f"{self.topic}/{self.partition}"
        end = "" if self.last is None else self.last
        return f"{self.topic}/{self.partition}/{self.first}-{end}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is meant; nothing given: every decision. ``since_ms`` (included) and ``until_ms``
    (excluded) are Kafka's time of the decision record. ``ids`` are decision ids or URIs of what
    was answered; ``prompts`` are beginnings of template hashes."""

    stretches: tuple[Stretch, ...] = ()
    since_ms: int | None = None
    until_ms: int | None = None
    authors: frozenset[str] = field(default_factory=frozenset)
    conversations: frozenset[str] = field(default_factory=frozenset)
    ids: frozenset[str] = field(default_factory=frozenset)
    prompts: tuple[str, ...] = ()
    models: frozenset[str] = field(default_factory=frozenset)
    outcomes: frozenset[str] = field(default_factory=frozenset)
    reasons: frozenset[str] = field(default_factory=frozenset)

    @property
    def is_everything(self) -> bool:
        return self == Wanted()

    @property
    def by_place(self) -> bool:
        """Whether only places and times count, so that it can be told of a record that nobody
        can read whether it is meant."""
        return self == Wanted(
            stretches=self.stretches, since_ms=self.since_ms, until_ms=self.until_ms
        )

    def may_hold(self, record: Record) -> bool:
        """Whether a record of an audit topic can be meant, from what stands outside its value."""
        if self.conversations and (record.key or b"").decode("utf-8", "replace") not in (
            self.conversations
        ):
            return False
        audits = [s for s in self.stretches if s.topic in AUDIT_TOPICS]
        if len(audits) < len(self.stretches) or not audits:
            return True
        return any(s.holds(record.topic, record.partition, record.offset) for s in audits)

    def holds(self, decision: DecisionRecorded, record: Record) -> bool:
        """Whether a decision is meant, but for its author."""
        return (
            self._is_at(decision, record)
            and _one_of(self.conversations, decision.conversation_id)
            and self._is_named(decision)
            and self._has_prompt(decision)
            and _one_of(self.models, decision.engine.model if decision.engine else None)
            and _one_of(self.outcomes, decision.outcome.value)
            and _one_of(self.reasons, decision.reason)
        )

    def by_author(self, decision: DecisionRecorded) -> bool | None:
        """Whether it is of a wanted author; none where the record does not tell."""
        if not self.authors:
            return True
        author = asker_of(decision)
        return None if author is None else author in self.authors

    def named_by(self, decision: DecisionRecorded) -> Iterable[str]:
        """Those of ``ids`` that name this decision."""
        uri = decision.source_ref.uri if decision.source_ref else None
        return self.ids & {decision.decision_id, uri or decision.decision_id}

    def _is_at(self, decision: DecisionRecorded, record: Record) -> bool:
        if not self.stretches:
            return True
        at = decision.input
        return any(
            stretch.holds(at.topic, at.partition, at.offset)
            or stretch.holds(record.topic, record.partition, record.offset)
            for stretch in self.stretches
        )

    def _is_named(self, decision: DecisionRecorded) -> bool:
        return not self.ids or bool(self.named_by(decision))

    def _has_prompt(self, decision: DecisionRecorded) -> bool:
        if not self.prompts:
            return True
        return decision.prompt is not None and decision.prompt.template_hash.startswith(
            self.prompts
        )


def asker_of(decision: DecisionRecorded) -> str | None:
    """Who asked, where the record tells: not where the model was not asked."""
    asking = (item for item in decision.context if item.why == Why.ASKING.value)
    return next((item.author_id for item in asking), None)


def _one_of(wanted: frozenset[str], value: str | None) -> bool:
    return not wanted or value in wanted
