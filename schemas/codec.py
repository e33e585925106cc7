"""Records ↔ events.

In: a record with any bytes at all. Out: an ``Event`` with its envelope and its payload
checked, or ``Undecodable``, and never another error. Back: an event of ours as an ``Output``
whose bytes depend on nothing but the event.

The checks in their order, so that a record with several faults always gets the same code:
value there, value not too large, headers, type, topic, the value's bytes, its JSON, its
schema, its key (see ``codes.ErrorCode``).
"""

import functools
from collections.abc import Callable
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from schemas import headers, json_text
from schemas.codes import ErrorCode
from schemas.envelope import Envelope, Event
from schemas.faults import Fault, Undecodable
from schemas.fields import Payload, check_id
from schemas.privacy import is_private
from schemas.record import Header, Output, Record
from schemas.topics import MAX_VALUE_BYTES, TOPICS
from schemas.types import EVENT_TYPES, EventType, is_other_version

__all__ = ["Undecodable", "decode", "encode", "is_private", "is_tombstone"]

# Most records are decoded twice within a second: to be answered, and for the views.
RECENT: Final = 2_000  # events that are kept
SHORT: Final = 8 * 1024  # bytes of one with its headers at most, so that all take some megabytes


def decode(record: Record) -> Event[Any]:
    """The event on a record. Raises ``Undecodable``; ``is_tombstone`` is asked beforehand."""
    try:
        value = record.value or b""
        size = len(value) + sum(len(what or b"") for _, what in record.headers)
        read: Callable[..., Event[Any]] = _lately if size <= SHORT else _decode
        return read(record.topic, record.key, record.value, record.headers)
    except Fault as fault:
        raise Undecodable(fault.code, fault.detail, is_private(record)) from None


def is_tombstone(record: Record) -> bool:
    """Whether a record on a compacted topic deletes its key: no event, and no error."""
    return _is_tombstone(record.topic, record.value)


def _is_tombstone(name: str, value: bytes | None) -> bool:
    topic = TOPICS.get(name)
    return value is None and topic is not None and topic.cleanup == "compact"


def encode(topic: str, key: str | bytes | None, envelope: Envelope, data: BaseModel) -> Output:
    """An event as a record to publish: headers and members in a fixed order, that of the model's
    fields, nulls written.

    ``key`` is the conversation (on ``feed.accounts`` the account, on ``bot.moderation`` the
    subject); on the audit topics, where no conversation is known, whatever key the source has.
    Raises ``ValueError`` where type, topic, payload and key do not belong together.
    """
    kind = EVENT_TYPES.get(envelope.type)
    if kind is None or topic not in kind.topics or not isinstance(data, kind.model):
        raise ValueError(f"{envelope.type} with {type(data).__name__} may not stand on {topic}")
    raw_key = key.encode() if isinstance(key, str) else key
    try:
        _check_key(raw_key, kind, data)
    except Fault as fault:
        raise ValueError(f"{envelope.type} on {topic}: {fault.detail}") from None
    value = data.__pydantic_serializer__.to_json(data)
    return Output(topic=topic, key=raw_key, value=value, headers=headers.write(envelope))


def _decode(
    topic: str, key: bytes | None, value: bytes | None, given: tuple[Header, ...]
) -> Event[Any]:
    value = _checked(topic, value)
    envelope = headers.read(given)
    kind = _kind(envelope.type, topic)
    data = _validate(kind.model, json_text.parse(value))
    _check_key(key, kind, data)
    return Event(envelope, data)


_lately = functools.lru_cache(maxsize=RECENT)(_decode)


def _checked(topic: str, value: bytes | None) -> bytes:
    if value is None:
        code = ErrorCode.TOMBSTONE if _is_tombstone(topic, value) else ErrorCode.NO_VALUE
        raise Fault(code, "the value is null")
    if len(value) > MAX_VALUE_BYTES:
        detail = f"{len(value)} bytes, at most {MAX_VALUE_BYTES}"
        raise Fault(ErrorCode.TOO_LARGE, detail)
    return value


def _kind(name: str, topic: str) -> EventType:
    kind = EVENT_TYPES.get(name)
    if kind is None and is_other_version(name):
        raise Fault(ErrorCode.UNSUPPORTED_VERSION, "ce_type is known in another version")
    if kind is None:
        raise Fault(ErrorCode.UNKNOWN_TYPE, "ce_type is not known")
    if topic not in kind.topics:
        raise Fault(ErrorCode.WRONG_TOPIC, f"{name} may not stand on this topic")
    return kind


def _validate(model: type[BaseModel], data: Any) -> BaseModel:
    if not isinstance(data, dict):
        raise Fault(ErrorCode.SCHEMA, "the value is not an object")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise Fault(ErrorCode.SCHEMA, _describe(error)) from None


def _describe(error: ValidationError) -> str:
    """Place and kind of the first fault; names of members that are not ours are text."""
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    place = ".".join(
        str(part) if isinstance(part, int) or part in _FIELD_NAMES else "?"
        for part in errors[0]["loc"]
    )
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return f"{place or 'data'}: {errors[0]['type']}{more}"


def _check_key(key: bytes | None, kind: EventType, data: BaseModel) -> None:
    expected = kind.key_of(data)
    if expected is not None:
        if key != expected.encode():
            raise Fault(ErrorCode.KEY_MISMATCH, "the key is not the one that the event names")
    elif not kind.any_key and not _is_id(key):
        raise Fault(ErrorCode.KEY_MISMATCH, "the key is null or no id")


def _is_id(key: bytes | None) -> bool:
    try:
        return key is not None and bool(check_id(key.decode()))
    except ValueError:
        return False


def _field_names(model: type[BaseModel]) -> set[str]:
    names = set(model.model_fields)
    return names.union(*(_field_names(child) for child in model.__subclasses__()))


_FIELD_NAMES: Final = frozenset(_field_names(Payload))
