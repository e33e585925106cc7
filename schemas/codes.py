"""The words for what became of a record, and why. Stable: programs match on them.

Each member carries its ``meaning``, from which ``publish`` makes the tables of the docs.
"""

from enum import StrEnum


class _Documented(StrEnum):
    """A StrEnum whose members say what they mean."""

    meaning: str

    def __new__(cls, value: str, meaning: str = "") -> "_Documented":
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member


class Outcome(_Documented):
    """How an input ended: each has exactly one."""

    REPLIED = "replied", "One reply, of one or more parts, was published."
    SKIPPED = "skipped", "Nothing was said; the reason is one of the skip reasons."
    DEAD_LETTERED = "dead_lettered", "It could not be handled; the reason is an error code."
    CORRECTED = "corrected", "An earlier reply was replaced by a new text."
    RETRACTED = "retracted", "An earlier reply was taken back."


class SkipReason(_Documented):
    """Why the bot said nothing, though nothing was wrong."""

    OWN_POST = "own-post", "The bot wrote it itself."
    DUPLICATE = "duplicate", "The same event, or the same revision, was handled before."
    EDITED = "edited", "A new revision of something already handled."
    NOT_ADDRESSED = "not-addressed", "No facet, parent, quote or participant means the bot."
    TOO_OLD = "too-old", "Kafka took it in longer ago than the bot answers."
    QUOTA = (
        "quota",
        (
            "Too many answers to the author, in the thread, under one person's posts or in all,"
            " or too many corrections."
        ),
    )
    OPTED_OUT = "opted-out", "The asker wants no answers of this bot."
    BLOCKED = (
        "blocked",
        "The asker blocked the bot, or a moderator blocked the asker or the conversation.",
    )
    VISIBILITY = "visibility", "It is for eyes that the bot does not know how to honour."
    LOOP = "loop", "Bots are answering each other, or the bot's own words come back."
    DELETED = (
        "deleted",
        "It, or the asker's account, was gone before it was answered, or it tells of a deletion.",
    )
    STOPPED = "stopped", "A moderator switched the bot off."
    CANCELLED = "cancelled", "A moderator cancelled what waited there."
    REJECTED = "rejected", "A moderator rejected the reply before it was published."
    NOT_APPROVED = "not-approved", "No moderator approved the reply in time."
    NO_ANSWER = "no-answer", "The model gave nothing that may be said."
    KEPT = "kept", "A post that a reply was built on changed; the reply stays as it is."
    OVERTAKEN = "overtaken", "A later change of the same post is looked at instead."
    MODERATED = "moderated", "A moderator took the reply back, or corrected it."
    TAKEN_BACK = "taken-back", "The reply to be looked at again had been taken back before."
    UNKNOWN_REPLY = "unknown-reply", "The bot no longer knows the reply to be looked at again."


class ErrorCode(_Documented):
    """Why a record became a dead letter. The first that applies, in the order below.

    The order of the checks: value there and not too large, headers, type, topic, the
    value's bytes, its JSON, its schema, its key. The last four come from the runtime.
    """

    NO_VALUE = "no-value", "The value is null on a topic that is not compacted."
    TOMBSTONE = "tombstone", "The value is null on a compacted topic: a deletion, no event."
    TOO_LARGE = "too-large", "The value is over 1 MiB."
    HEADER_MISSING = "header-missing", "A required header is not there."
    HEADER_DOUBLED = "header-doubled", "A header of the contract is there more than once."
    HEADER_TOO_LARGE = "header-too-large", "A header of the contract is over 8 KiB."
    HEADER_ENCODING = (
        "header-encoding",
        "A header of the contract, or the name of any header, is not UTF-8.",
    )
    UNSUPPORTED_SPECVERSION = "unsupported-specversion", "ce_specversion is not 1.0."
    UNSUPPORTED_CONTENT_TYPE = (
        "unsupported-content-type",
        "content-type is not application/json in UTF-8.",
    )
    HEADER_VALUE = "header-value", "A header of the contract is no valid id or time."
    UNSUPPORTED_VERSION = "unsupported-version", "A known type in a version nobody knows."
    UNKNOWN_TYPE = "unknown-type", "A type that nobody knows."
    WRONG_TOPIC = "wrong-topic", "A known type on a topic that is not its own."
    VALUE_ENCODING = "value-encoding", "The value is not UTF-8."
    BYTE_ORDER_MARK = "byte-order-mark", "The value starts with a byte order mark."
    TOO_DEEP = "too-deep", "Arrays and objects are nested more than 64 levels deep."
    NOT_JSON = "not-json", "The value is not JSON as RFC 8259 has it."
    NOT_A_NUMBER = "not-a-number", "NaN or Infinity, which JSON does not know."
    NUMBER_TOO_LARGE = "number-too-large", "A number is beyond the range of a double."
    LONE_SURROGATE = "lone-surrogate", "Half of a surrogate pair is escaped in a string."
    SCHEMA = "schema", "Something is missing, of the wrong type, or out of its bounds."
    KEY_MISMATCH = "key-mismatch", "The key is null, not UTF-8, or not what the event says."
    RETRIES_EXHAUSTED = "retries-exhausted", "It failed in every one of its attempts."
    DEADLINE = "deadline", "It was not done within its time."
    OUTPUT_TOO_LARGE = "output-too-large", "What was to be published is more than Kafka takes."
    HANDLER_ERROR = "handler-error", "The handler failed in a way that no retry mends."
