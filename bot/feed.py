"""Feed files: JSON lines of events to records that can be produced.

Each line is one JSON object, either a CloudEvents event in structured JSON
(``{"specversion": "1.0", "id": …, "source": …, "type": …, "time": …, "data": {…}}``) or a raw
record (``{"topic": …, "key": …, "headers": {…}, "value": …}``, with ``key_base64`` and
``value_base64`` for bytes that are no text). The topic of an event follows from its type, its
key is the conversation (of an account change, the account); extension members ``topic`` and
``key`` say otherwise. Empty lines and lines that start with ``#`` are left out.

Data is not checked against the contract: what becomes of a wrong event is for the worker to
show. Out come entries with their line numbers, in order; ``bot/play.py`` produces them.
"""

import base64
import binascii
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bot.errors import Trouble
from bot.stdin import stdin_lines
from schemas.record import Header, Output
from schemas.types import EVENT_TYPES

ATTRIBUTES = ("specversion", "id", "source", "type", "time", "subject", "dataschema")
EXTENSIONS = ("causationid", "correlationid", "traceparent")
STDIN = "-"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a feed file, as the record to produce."""

    line: int
    output: Output


class FeedError(Trouble):
    """A line that is no event and no record; ``where`` is ``file:line``."""

    def __init__(self, name: str, line: int, what: str) -> None:
        super().__init__(what, where=f"{name}:{line}", todo="Mend that line.")


async def open_feed(name: str) -> AsyncIterator[Entry]:
    """The entries of a file, or of standard input for ``-``, as they come.

    Raises ``FeedError`` at the first line that is wrong, ``Trouble`` for a missing file.
    """
    if name == STDIN:
        number = 0
        async for line in stdin_lines():
            number += 1
            if entry := read_line(line, number, "standard input"):
                yield entry
        return
    for entry in read_file(Path(name)):
        yield entry


def read_file(path: Path) -> Iterator[Entry]:
    """The entries of a file. Raises ``FeedError``, or ``Trouble`` where it cannot be read."""
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if entry := read_line(line, number, str(path)):
                    yield entry
    except OSError as error:
        what = f"cannot be read: {error.strerror}."
        raise Trouble(what, where=str(path), todo="Name a file of JSON lines.") from None


def read_line(line: bytes, number: int, name: str) -> Entry | None:
    """One line; None where it is empty or a comment. Raises ``FeedError``."""
    text = line.strip()
    if not text or text.startswith(b"#"):
        return None
    try:
        return Entry(number, _output(text))
    except ValueError as error:
        raise FeedError(name, number, f"{error}.") from None


def event_output(event: Mapping[str, Any]) -> Output:
    """A structured CloudEvents event as a record in binary mode. Raises ``ValueError``."""
    for attribute in ("id", "source", "type", "time"):
        if not isinstance(event.get(attribute), str):
            raise ValueError(f"an event needs {attribute!r}, a string")
    if not isinstance(event.get("data"), dict):
        raise ValueError("an event needs 'data', an object")
    known = {"specversion": "1.0"} | dict(event)
    headers = [
        (f"ce_{name}", str(known[name]).encode())
        for name in (*ATTRIBUTES, *EXTENSIONS)
        if known.get(name) is not None
    ]
    headers.append(("content-type", b"application/json"))
    return Output(
        topic=_topic(event),
        key=_event_key(event),
        value=json.dumps(event["data"], ensure_ascii=False).encode("utf-8", "surrogatepass"),
        headers=tuple(headers),
    )


def _output(text: bytes) -> Output:
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from None
    if not isinstance(entry, dict):
        raise ValueError("not a JSON object")
    if "specversion" in entry or "data" in entry:
        return event_output(entry)
    return _raw_output(entry)


def _topic(event: Mapping[str, Any]) -> str:
    if isinstance(topic := event.get("topic"), str):
        return topic
    kind = EVENT_TYPES.get(event["type"])
    if kind is None:
        raise ValueError(f"unknown type {event['type']!r}; name a 'topic' beside it")
    return kind.topics[0]


def _event_key(event: Mapping[str, Any]) -> bytes | None:
    if "key" in event:
        return _text(event, "key")
    data = event["data"]
    inner = data.get("post") or data.get("message") or data
    for place in (inner, data):
        for name in ("conversation_id", "account_id", "subject"):
            if isinstance(place, dict) and isinstance(place.get(name), str):
                return str(place[name]).encode("utf-8", "surrogatepass")
    raise ValueError("no conversation_id in the data; name a 'key' beside it")


def _raw_output(entry: Mapping[str, Any]) -> Output:
    topic = entry.get("topic")
    if not isinstance(topic, str) or not topic:
        raise ValueError("neither an event (no 'data') nor a raw record (no 'topic')")
    headers = entry.get("headers") or {}
    if not isinstance(headers, dict | list):
        raise ValueError("'headers' must be an object, or a list of pairs")
    pairs = headers.items() if isinstance(headers, dict) else headers
    return Output(
        topic=topic,
        key=_bytes(entry, "key"),
        value=_bytes(entry, "value"),
        headers=tuple(_header(pair) for pair in pairs),
    )


def _header(pair: Any) -> Header:
    try:
        name, value = pair
    except (TypeError, ValueError):
        raise ValueError("a header must be a pair of name and value") from None
    if isinstance(name, str) and isinstance(value, str):
        return name, value.encode("utf-8", "surrogatepass")
    if isinstance(name, str) and isinstance(value, dict):
        return name, _bytes({"value_base64": value.get("base64")}, "value") or b""
    raise ValueError('the value of a header must be a string, or {"base64": …}')


def _bytes(entry: Mapping[str, Any], name: str) -> bytes | None:
    coded = entry.get(f"{name}_base64")
    if coded is None:
        return _text(entry, name)
    try:
        return base64.b64decode(coded, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise ValueError(f"'{name}_base64' is not base64") from None


def _text(entry: Mapping[str, Any], name: str) -> bytes | None:
    value = entry.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError(f"'{name}' must be a string or null")
    return value.encode("utf-8", "surrogatepass")
