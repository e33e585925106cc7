"""Everything that the log holds about one decision, as plain values.

``bot/explain/find.py`` and ``bot/explain/gather.py`` make a ``Case``. Nothing in it is changed
or left out: records stand beside what they say, byte for byte, and what is not there any more is
named with its reason. Next: ``bot/explain/explanation.py`` tells it to people,
``bot/evidence/collect.py`` takes it into evidence.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from bot.observe import AUDIT_TOPICS, Position
from schemas.audit import DecisionRecorded
from schemas.codec import decode
from schemas.control import ModerationCommanded
from schemas.envelope import Envelope
from schemas.record import Record
from schemas.replies import ReplyCorrected, ReplyCreated, ReplyRetracted
from schemas.topics import TOPICS

PUBLIC_AUDIT, PRIVATE_AUDIT = AUDIT_TOPICS
Spoken = ReplyCreated | ReplyCorrected | ReplyRetracted


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision with its record."""

    record: Record
    envelope: Envelope
    data: DecisionRecorded

    @property
    def at(self) -> Position:
        """Where it stands on the audit topic."""
        return Position.of(self.record)

    @property
    def input(self) -> Position:
        """Where its input stands, or stood."""
        where = self.data.input
        return Position(where.topic, where.partition, where.offset)

    @property
    def private(self) -> bool:
        """Whether it may hold what is not public or unlisted."""
        return TOPICS[self.record.topic].private


@dataclass(frozen=True, slots=True)
class Said:
    """A reply, correction or retraction with its record."""

    record: Record
    data: Spoken

    @property
    def at(self) -> Position:
        return Position.of(self.record)


@dataclass(frozen=True, slots=True)
class Later:
    """A decision after the one that is explained, on the same post or reply. ``input``: what it
    was made for, such as the review that an edit asked for; none where it is gone."""

    decided: Decided
    said: tuple[Said, ...] = ()
    input: Record | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """What a moderator commanded about it; ``at`` is when Kafka took it in."""

    data: ModerationCommanded
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One decision and what belongs to it. ``input``: the record it is about, none where it is
    gone; ``gone`` says of whatever is not there any more why (``input``, ``replies``)."""

    decided: Decided
    input: Record | None = None
    said: tuple[Said, ...] = ()
    later: tuple[Later, ...] = ()
    commands: tuple[Command, ...] = ()
    feedback: Mapping[str, int] = field(default_factory=Counter)
    gone: Mapping[str, str] = field(default_factory=dict)


def decided_of(record: Record) -> Decided | None:
    """The decision on a record of an audit topic; none where it is of another type. Raises
    ``Undecodable``."""
    event = decode(record)
    if not isinstance(event.data, DecisionRecorded):
        return None
    return Decided(record, event.envelope, event.data)


def said_of(record: Record) -> Said | None:
    """The same for the topics of replies. Raises ``Undecodable``."""
    data = decode(record).data
    return Said(record, data) if isinstance(data, Spoken) else None
