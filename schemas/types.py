"""Event types: the model of each, the topics it may stand on, and the key it must have."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Final

from pydantic import BaseModel

from schemas import audit, control, feed, held, names, replays, replies, reviews, seals
from schemas.topics import TOPICS

KeyOf = Callable[[Any], str | None]


@dataclass(frozen=True, slots=True)
class EventType:
    """One type. ``key_of`` gives the key its payload asks for, null where it does not say.

    ``any_key``: where the payload does not say, even no key at all is fine.
    """

    name: str
    model: type[BaseModel]
    key_of: KeyOf
    any_key: bool = False

    @property
    def topics(self) -> tuple[str, ...]:
        """Names of the topics it may stand on."""
        return _topics_of(self.name)


@functools.cache  # asked for with every record
def _topics_of(name: str) -> tuple[str, ...]:
    return tuple(topic.name for topic in TOPICS.values() if name in topic.types)


def _unsaid(_: Any) -> None:
    return None


def _sealed(data: seals.AuditSealed) -> str:
    return f"{data.topic}/{data.partition}"


_POST = attrgetter("post.conversation_id")
_MESSAGE = attrgetter("message.conversation_id")
_OWN = attrgetter("conversation_id")
_ACCOUNT = attrgetter("account_id")
_SUBJECT = attrgetter("subject")

EVENT_TYPES: Final[Mapping[str, EventType]] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            EventType(names.POST_CREATED, feed.PostCreated, _POST),
            EventType(names.POST_EDITED, feed.PostEdited, _POST),
            EventType(names.POST_DELETED, feed.PostDeleted, _OWN),
            EventType(names.MENTION_CREATED, feed.MentionCreated, _POST),
            EventType(names.MESSAGE_CREATED, feed.MessageCreated, _MESSAGE),
            EventType(names.MESSAGE_EDITED, feed.MessageEdited, _MESSAGE),
            EventType(names.MESSAGE_DELETED, feed.MessageDeleted, _OWN),
            EventType(names.ACCOUNT_CHANGED, feed.AccountChanged, _ACCOUNT),
            EventType(names.FEEDBACK_GIVEN, feed.FeedbackGiven, _unsaid),
            EventType(names.REPLY_CREATED, replies.ReplyCreated, _OWN),
            EventType(names.REPLY_CORRECTED, replies.ReplyCorrected, _OWN),
            EventType(names.REPLY_RETRACTED, replies.ReplyRetracted, _OWN),
            EventType(names.DIRECT_REPLY_CREATED, replies.ReplyCreated, _OWN),
            EventType(names.DIRECT_REPLY_CORRECTED, replies.ReplyCorrected, _OWN),
            EventType(names.DIRECT_REPLY_RETRACTED, replies.ReplyRetracted, _OWN),
            EventType(names.DIRECT_ACTIVITY, replies.DirectActivity, _OWN),
            EventType(names.REPLY_HELD, held.ReplyHeld, _OWN),
            EventType(names.DECISION_RECORDED, audit.DecisionRecorded, _OWN, any_key=True),
            EventType(
                names.MODERATION_COMMANDED, control.ModerationCommanded, attrgetter("subject")
            ),
            EventType(names.REFERENCE_MADE, reviews.ReferenceMade, attrgetter("uri")),
            EventType(names.REFERENCED_CHANGED, reviews.PostChanged, attrgetter("uri")),
            EventType(names.REVIEW_ASKED, reviews.ReviewAsked, _OWN),
            EventType(names.AUDIT_SEALED, seals.AuditSealed, _sealed),
            EventType(names.REPLAY_COMPARED, replays.ReplayCompared, attrgetter("replay_id")),
        )
    }
)

_FAMILIES: Final = frozenset(name.rpartition(".v")[0] for name in EVENT_TYPES)


def is_other_version(name: str) -> bool:
    """Whether an unknown type is a known one in a version that nobody knows."""
    family, dot, version = name.rpartition(".v")
    return bool(dot) and family in _FAMILIES and version.isascii() and version.isdigit()
