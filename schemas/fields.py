"""The small types every payload is made of: ids, times, numbers, texts, lists.

In: values as ``json.loads`` gives them, or the same values built in Python. Out: checked
values. A wrong JSON type is always an error ("1" is no integer, 1.0 and true are none).
The payload models in ``feed``, ``replies``, ``audit`` and ``control`` are made of these.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    AllowInfNan,
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    PlainSerializer,
    PlainValidator,
    Strict,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

MAX_ID_BYTES = 512
MAX_INT64 = 2**63 - 1
MAX_HOPS = 255

_NOT_IN_IDS = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_RFC3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?Z"
)


class Payload(BaseModel):
    """Base of everything in ``data``: frozen, and unknown members are dropped."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


def check_id(value: str) -> str:
    """The id itself: 1 to 512 bytes of UTF-8 without control characters (Unicode Cc)."""
    if value.isascii() and value.isprintable() and 1 <= len(value) <= MAX_ID_BYTES:
        return value  # the usual one, in a fifth of the time
    if not 1 <= len(value.encode(errors="surrogatepass")) <= MAX_ID_BYTES:
        raise PydanticCustomError("id_length", "an id has 1 to 512 bytes")
    if _NOT_IN_IDS.search(value):
        raise PydanticCustomError("id_control", "an id has no control characters")
    return value


def parse_time(text: str) -> datetime:
    """RFC 3339 in capitals with ``Z``, years 1990 to 2100, as an aware datetime in UTC.

    Digits beyond the microsecond are cut. A leap second (``23:59:60``) is the first moment
    of the next minute, as POSIX counts. Raises ``ValueError``, which holds no input.
    """
    match = _RFC3339.fullmatch(text)
    if match is None or match[4] == "24":  # which ISO 8601 and later Pythons know
        raise ValueError("not RFC 3339 with Z")
    leap = match[4] == "23" and match[5] == "59" and match[6] == "60"
    try:
        time = datetime.fromisoformat(text if not leap else text.replace(":60", ":59", 1))
        time += timedelta(seconds=leap)
    except (ValueError, OverflowError):
        raise ValueError("no such moment") from None
    return check_time(time)


def check_time(time: datetime) -> datetime:
    """The same moment in UTC. Raises ``ValueError`` without a zone or outside 1990 to 2100."""
    if time.tzinfo is None:
        raise ValueError("a time needs a zone")
    try:
        time = time if time.tzinfo is UTC else time.astimezone(UTC)
    except OverflowError:
        raise ValueError("outside 1990 to 2100") from None
    if not 1990 <= time.year <= 2100:
        raise ValueError("outside 1990 to 2100")
    return time


def format_time(time: datetime) -> str:
    """RFC 3339 with ``Z``; a fraction only where there is one."""
    return time.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def _time(value: Any) -> datetime:
    if not isinstance(value, str | datetime):
        raise PydanticCustomError("time_type", "a time is a string")
    try:
        return parse_time(value) if isinstance(value, str) else check_time(value)
    except ValueError:
        raise PydanticCustomError(
            "time", "a time is RFC 3339 with Z, between 1990 and 2100"
        ) from None


Str = Annotated[str, Strict()]
Bool = Annotated[bool, Strict()]
Int = Annotated[int, Strict()]
Float = Annotated[float, Strict(), AllowInfNan(False)]
Count = Annotated[int, Strict(), Field(ge=0, le=MAX_INT64)]
Number = Annotated[int, Strict(), Field(ge=1, le=MAX_INT64)]
Hops = Annotated[int, Strict(), Field(ge=0, le=MAX_HOPS)]

Id = Annotated[
    str,
    Strict(),
    AfterValidator(check_id),
    WithJsonSchema(
        {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_ID_BYTES,
            "not": {"pattern": "[\\u0000-\\u001f\\u007f-\\u009f]"},
            "description": "1 to 512 bytes of UTF-8 without control characters.",
        }
    ),
]

Time = Annotated[
    datetime,
    PlainValidator(_time),
    PlainSerializer(format_time, return_type=str, when_used="json"),
    WithJsonSchema(
        {
            "type": "string",
            "format": "date-time",
            "pattern": "^(19[9][0-9]|20[0-9]{2}|2100)-[0-9]{2}-[0-9]{2}"
            "T[0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]+)?Z$",
            "description": "RFC 3339 with Z, 1990 to 2100.",
        }
    ),
]

T = TypeVar("T")
Many = Annotated[tuple[T, ...], FailFast()]
"""A list. The first faulty item ends the check, so a megabyte of faults costs no more."""
