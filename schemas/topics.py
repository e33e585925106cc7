"""The topic table: what each topic carries, how it is keyed, kept and partitioned.

``infra`` creates topics from it, ``codec`` asks it which type may stand where, ``publish``
documents it. Topics that meet in one conversation (``partitioned`` = ``conversation``) have
the same number of partitions, so that partition p of all of them goes to one worker. Of these
``bot.references`` alone is dealt out by another key, the URI of a post, and an own hash.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from schemas import names
from schemas.names import (
    BOT_AUDIT,
    BOT_AUDIT_PRIVATE,
    BOT_AUDIT_SEALS,
    BOT_DEAD_LETTERS,
    BOT_DEAD_LETTERS_PRIVATE,
    BOT_DIRECT_ACTIVITY,
    BOT_DIRECT_REPLIES,
    BOT_HELD,
    BOT_MODERATION,
    BOT_MODERATION_LOG,
    BOT_REFERENCES,
    BOT_REPLAYS,
    BOT_REPLIES,
    BOT_REVIEWS,
    FEED_ACCOUNTS,
    FEED_DIRECT_MESSAGES,
    FEED_FEEDBACK,
    FEED_MENTIONS,
    FEED_POSTS,
)

__all__ = [
    "BOT_AUDIT",
    "BOT_AUDIT_PRIVATE",
    "BOT_AUDIT_SEALS",
    "BOT_DEAD_LETTERS",
    "BOT_DEAD_LETTERS_PRIVATE",
    "BOT_DIRECT_ACTIVITY",
    "BOT_DIRECT_REPLIES",
    "BOT_HELD",
    "BOT_MODERATION",
    "BOT_MODERATION_LOG",
    "BOT_REFERENCES",
    "BOT_REPLAYS",
    "BOT_REPLIES",
    "BOT_REVIEWS",
    "FEED_ACCOUNTS",
    "FEED_DIRECT_MESSAGES",
    "FEED_FEEDBACK",
    "FEED_MENTIONS",
    "FEED_POSTS",
    "MAX_REQUEST_BYTES",
    "MAX_VALUE_BYTES",
    "MEETING",
    "TOPICS",
    "Topic",
]

MAX_VALUE_BYTES: Final = 1024 * 1024  # of a value: DESIGN's 1 MiB
RECORD_BYTES: Final = 2 * MAX_VALUE_BYTES  # value, key, headers, and what is just too large
DEAD_LETTER_BYTES: Final = 2 * RECORD_BYTES  # any record that came in, and our headers
MAX_REQUEST_BYTES: Final = DEAD_LETTER_BYTES + 64 * 1024  # for a producer's max_request_size

_HOUR: Final = 3_600_000  # ms
_DAY: Final = 24 * _HOUR
_AS_LONG_AS_VIEWS: Final = 30 * _DAY  # a worker without its files can still take replies back

Key = Literal["conversation", "account", "subject", "replay", "source", "uri", "sealed partition"]
Cleanup = Literal["delete", "compact"]
Partitioned = Literal["conversation", "own"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One topic. ``retention_ms`` -1 keeps for ever; ``private``: may hold private text.

    ``key`` says what the key is; ``source`` means that of the record it tells of.
    """

    name: str
    carries: str
    key: Key = "conversation"
    types: tuple[str, ...] = ()
    cleanup: Cleanup = "delete"
    retention_ms: int = 7 * _DAY
    partitioned: Partitioned = "conversation"
    max_message_bytes: int = RECORD_BYTES
    private: bool = False

    def config(self) -> dict[str, str]:
        """Kafka's settings of this topic. The broker stamps the time: no user can set it."""
        return {
            "cleanup.policy": self.cleanup,
            "retention.ms": str(self.retention_ms),
            "max.message.bytes": str(self.max_message_bytes),
            "message.timestamp.type": "LogAppendTime",
        }


_FEED = (
    Topic(
        name=FEED_POSTS,
        carries="posts created, edited, deleted: the firehose, or the threads sent on purpose",
        types=(names.POST_CREATED, names.POST_EDITED, names.POST_DELETED),
        private=True,  # posts for followers stand here too
    ),
    Topic(
        name=FEED_MENTIONS,
        carries="somebody mentioned, answered or quoted the bot",
        types=(names.MENTION_CREATED,),
        private=True,
    ),
    Topic(
        name=FEED_DIRECT_MESSAGES,
        carries="private messages created, edited, deleted, of both sides",
        types=(names.MESSAGE_CREATED, names.MESSAGE_EDITED, names.MESSAGE_DELETED),
        private=True,
    ),
    Topic(
        name=FEED_ACCOUNTS,
        carries="opt-out, block, account deleted",
        key="account",
        types=(names.ACCOUNT_CHANGED,),
        cleanup="compact",
        retention_ms=-1,
        partitioned="own",
        private=True,
    ),
    Topic(
        name=FEED_FEEDBACK,
        carries="like, dislike, report on a reply of the bot",
        types=(names.FEEDBACK_GIVEN,),
        private=True,
    ),
)

_SPOKEN = (
    Topic(
        name=BOT_REPLIES,
        carries="public and unlisted replies created, corrected, retracted",
        types=(names.REPLY_CREATED, names.REPLY_CORRECTED, names.REPLY_RETRACTED),
        retention_ms=_AS_LONG_AS_VIEWS,
    ),
    Topic(
        name=BOT_DIRECT_REPLIES,
        carries="replies narrower than unlisted created, corrected, retracted",
        types=(
            names.DIRECT_REPLY_CREATED,
            names.DIRECT_REPLY_CORRECTED,
            names.DIRECT_REPLY_RETRACTED,
        ),
        retention_ms=_AS_LONG_AS_VIEWS,
        private=True,
    ),
    Topic(
        name=BOT_DIRECT_ACTIVITY,
        carries="typing and partial text of private talks; may be lost",
        types=(names.DIRECT_ACTIVITY,),
        retention_ms=_HOUR,
        private=True,
    ),
    Topic(
        name=BOT_HELD,
        carries="replies that wait for a moderator's approval, and that they wait no more",
        types=(names.REPLY_HELD,),
        private=True,
    ),
)

_TOLD = (
    Topic(
        name=BOT_AUDIT,
        carries="one decision record per public or unlisted input",
        types=(names.DECISION_RECORDED,),
        retention_ms=365 * _DAY,
    ),
    Topic(
        name=BOT_AUDIT_PRIVATE,
        carries="one decision record per input that is not public or unlisted",
        types=(names.DECISION_RECORDED,),
        retention_ms=365 * _DAY,
        private=True,
    ),
    Topic(
        name=BOT_AUDIT_SEALS,
        carries="digests of the decision records, chained for each partition of the audit",
        key="sealed partition",
        types=(names.AUDIT_SEALED,),
        retention_ms=2 * 365 * _DAY,  # longer than what they prove
    ),
    Topic(
        name=BOT_DEAD_LETTERS,
        carries="public and unlisted records that could not be handled, as they were",
        key="source",
        retention_ms=365 * _DAY,
        max_message_bytes=DEAD_LETTER_BYTES,
    ),
    Topic(
        name=BOT_DEAD_LETTERS_PRIVATE,
        carries="other records that could not be handled, as they were",
        key="source",
        retention_ms=365 * _DAY,
        max_message_bytes=DEAD_LETTER_BYTES,
        private=True,
    ),
)

_INTERNAL = (
    Topic(
        name=BOT_REFERENCES,
        carries="which reply was built on which post, and posts that changed; for the bot itself",
        key="uri",
        types=(names.REFERENCE_MADE, names.REFERENCED_CHANGED),
        retention_ms=_AS_LONG_AS_VIEWS,
        private=True,
    ),
    Topic(
        name=BOT_REVIEWS,
        carries="replies to be looked at again, as a post changed; for the bot itself",
        types=(names.REVIEW_ASKED,),
        private=True,
    ),
)

_CONTROL = (
    Topic(
        name=BOT_MODERATION,
        carries="commands of moderators: takedown, correction, block, kill switch",
        key="subject",
        types=(names.MODERATION_COMMANDED,),
        cleanup="compact",
        retention_ms=-1,
        partitioned="own",
        private=True,
    ),
    Topic(
        name=BOT_MODERATION_LOG,
        carries="every command of a moderator, also those that a later one undid",
        key="subject",
        types=(names.MODERATION_COMMANDED,),
        retention_ms=365 * _DAY,
        partitioned="own",
        private=True,
    ),
    Topic(
        name=BOT_REPLAYS,
        carries="results of replays",
        key="replay",
        types=(names.REPLAY_COMPARED,),
        retention_ms=30 * _DAY,
        partitioned="own",
        private=True,
    ),
)

TOPICS: Final[Mapping[str, Topic]] = MappingProxyType(
    {topic.name: topic for topic in (*_FEED, *_SPOKEN, *_TOLD, *_INTERNAL, *_CONTROL)}
)

MEETING: Final = tuple(t.name for t in TOPICS.values() if t.partitioned == "conversation")
"""The topics that must have the same number of partitions."""
