"""Whether a record may hold private text: asked of records that could not be handled.

In: any record. Out: False only where everything says that it is public or unlisted; whatever
can't be told is private.
"""

import json
from typing import Any, Final

from schemas import json_text
from schemas.faults import Fault
from schemas.feed import Visibility
from schemas.names import FEED_MENTIONS, FEED_POSTS
from schemas.record import Record
from schemas.topics import MAX_VALUE_BYTES
from schemas.types import EVENT_TYPES

OPEN: Final = frozenset({Visibility.PUBLIC.value, Visibility.UNLISTED.value})
_TOPICS: Final = frozenset({FEED_POSTS, FEED_MENTIONS})


class _Doubled(Exception):
    """A member is there twice: what the first one held would travel along unread."""


def is_private(record: Record) -> bool:
    """False only for a post, or a mention with its ancestors and quote, all of them open.

    It must stand on ``feed.posts`` or ``feed.mentions``, claim no type of another topic, be
    readable JSON without doubled members, and hold no ``visibility`` beyond public and
    unlisted, at any depth.
    """
    if record.topic not in _TOPICS or not record.value or _claims_private(record):
        return True
    try:
        return not _is_open(_read(record.value))
    except (Fault, _Doubled, ValueError):
        return True


def _claims_private(record: Record) -> bool:
    types = [value or b"" for name, value in record.headers if name == "ce_type"]
    return any(_is_private_type(value) for value in types)


def _is_private_type(value: bytes) -> bool:
    """Known types by their topics; unknown ones are private where they name private talk."""
    try:
        name = value.decode()
    except UnicodeDecodeError:
        return True
    kind = EVENT_TYPES.get(name)
    if kind is not None:
        return not _TOPICS.intersection(kind.topics)
    return any(word in name.lower() for word in ("direct", "message", "private"))


def _read(value: bytes) -> Any:
    """The JSON, strictly; numbers may be of any size as nobody looks at them."""
    if len(value) > MAX_VALUE_BYTES:
        raise ValueError("too large to be looked at")
    json_text.check_depth(value)
    return _DECODER.decode(value.decode())


def _is_open(data: Any) -> bool:
    if not isinstance(data, dict) or "message" in data:
        return False
    ancestors = data.get("ancestors", [])
    quoted = [data["quoted"]] if data.get("quoted") is not None else []
    if not isinstance(ancestors, list):
        return False
    posts = [data.get("post"), *ancestors, *quoted]
    return all(isinstance(p, dict) and "visibility" in p for p in posts) and _all_open(data)


def _all_open(data: Any) -> bool:
    """Whether every member called ``visibility`` anywhere is public or unlisted."""
    if isinstance(data, list):
        return all(map(_all_open, data))
    if not isinstance(data, dict):
        return True
    visibility = data.get("visibility", Visibility.PUBLIC.value)
    return isinstance(visibility, str) and visibility in OPEN and all(map(_all_open, data.values()))


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _Doubled
    return members


def _no_constant(_: str) -> None:
    raise ValueError("NaN or Infinity")


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_int=len, parse_float=len, parse_constant=_no_constant
)
