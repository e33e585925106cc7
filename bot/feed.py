"""Feed files: JSON lines of events to records that can be produced.

Each line is one JSON object, either a CloudEvents event in structured JSON
(``{"specversion": "1.0", "id": …, "source": …, "type": …, "time": …, "data": {…}}``) or a raw
record (``{"topic": …, "key": …, "headers": {…}, "value": …}``, with ``key_base64`` and
``value_base64`` for bytes that are no text). The topic of an event follows from its type, its
key is the conversation (of an account change, the account); extension members ``topic`` and
``key`` say otherwise. Empty lines and lines that start with ``#`` are left out. For people:
``docs/feeds.md``.

Only ``feed.*`` topics are written: the others hold what the bot itself says.
Data is not checked against the contract: what becomes of a wrong event is for the worker to
show. Out come entries with their line numbers, in order; ``bot/play.py`` produces them.
"""

import base64
import binascii
import json
import os
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bot.errors import Trouble
from bot.files import open_regular
from bot.stdin import stdin_lines
from schemas.record import Header, Output
from schemas.types import EVENT_TYPES

ATTRIBUTES = ("specversion", "id", "source", "type", "time", "subject", "dataschema")
EXTENSIONS = ("causationid", "correlationid", "traceparent")
STDIN = "-"
TOPIC = re.compile(r"feed\.[A-Za-z0-9._-]{1,244}")  # a legal name has at most 249 characters
SHOWN_TOPIC = 60  # characters of a wrong topic that are told
SHOWN = 10  # wrong lines of a file that are told
NOTHING = 2  # exit status: a feed without anything to play


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a feed file, as the record to produce."""

    line: int
    output: Output


class FeedError(Trouble):
    """A line that is no event and no record, with all that is wrong with it; ``where`` is
    ``file:line``."""

    def __init__(self, name: str, line: int, problems: Sequence[str]) -> None:
        super().__init__(f"{'; '.join(problems)}.", where=f"{name}:{line}", todo="Mend that line.")


class FeedErrors(Trouble):
    """A file with wrong lines: the first of them, and how many there are."""

    def __init__(self, name: str, first: Sequence[FeedError], count: int) -> None:
        more = f", the first {len(first)} are told here" if count > len(first) else ""
        self.first = first
        lines = "1 line is" if count == 1 else f"{count} lines are"
        super().__init__(
            f"{lines} no event and no record{more}.",
            where=name,
            todo="Nothing was played; docs/feeds.md has the format.",
        )

    @property
    def lines(self) -> tuple[str, ...]:
        return (*map(str, self.first), str(self))


class NotThis(ValueError):
    """What is wrong with one line, a problem each."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


def check_file(path: Path) -> int:
    """How many entries a file has, all of which can be played.

    Raises ``FeedErrors`` with what is wrong, and ``Trouble`` for a file that cannot be read or
    has nothing to play.
    """
    good, bad, first = 0, 0, list[FeedError]()
    for number, line in _lines(path):
        try:
            good += read_line(line, number, str(path)) is not None
        except FeedError as error:
            bad += 1
            first += [error] if bad <= SHOWN else []
    if bad:
        raise FeedErrors(str(path), first, bad)
    if not good:
        raise nothing_to_play(str(path))
    return good


def nothing_to_play(name: str) -> Trouble:
    """A feed without a single event or record."""
    what = "there is nothing to play, no line with an event or a record."
    return Trouble(what, where=name, todo="docs/feeds.md has the format.", status=NOTHING)


def require_file(path: Path, most: int) -> None:
    """For whoever keeps all of a feed in memory: raises ``Trouble`` for what is no regular file
    (it may never end), or has more than ``most`` bytes."""
    try:
        with open_regular(path) as feed:
            size = os.fstat(feed.fileno()).st_size
    except OSError as error:
        raise _unreadable(path, error) from None
    if size > most:
        what = f"more than {most} bytes, and all of them would be kept in memory."
        raise Trouble(what, where=str(path), todo="Name a file with one conversation alone.")


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
    for number, line in _lines(path):
        if entry := read_line(line, number, str(path)):
            yield entry


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with open_regular(path) as lines:
            yield from enumerate(lines, start=1)
    except OSError as error:
        raise _unreadable(path, error, " (What comes from a pipe: `--feed -`.)") from None


def _unreadable(path: Path, error: OSError, more: str = "") -> Trouble:
    what = f"cannot be read: {error.strerror}."
    return Trouble(what, where=str(path), todo=f"Name a file of JSON lines.{more}")


def read_line(line: bytes, number: int, name: str) -> Entry | None:
    """One line; None where it is empty or a comment. Raises ``FeedError``."""
    text = line.strip()
    if not text or text.startswith(b"#"):
        return None
    try:
        return Entry(number, _output(text))
    except NotThis as error:
        raise FeedError(name, number, error.problems) from None


def event_output(event: Mapping[str, Any]) -> Output:
    """A structured CloudEvents event as a record in binary mode. Raises ``ValueError``."""
    if problems := list(_event_problems(event)):
        raise NotThis(problems)
    known = {"specversion": "1.0"} | dict(event)
    headers = [
        (f"ce_{name}", str(known[name]).encode("utf-8", "surrogatepass"))
        for name in (*ATTRIBUTES, *EXTENSIONS)
        if known.get(name) is not None
    ]
    headers.append(("content-type", b"application/json"))
    return Output(
        topic=_topic(event) or "",
        key=_event_key(event),
        value=json.dumps(event["data"], ensure_ascii=False).encode("utf-8", "surrogatepass"),
        headers=tuple(headers),
    )


def _event_problems(event: Mapping[str, Any]) -> Iterator[str]:
    for attribute in ("id", "source", "type", "time"):
        if not isinstance(event.get(attribute), str):
            yield f"an event needs '{attribute}', a string"
    if event.get("topic") is not None:
        yield from _topic_problems(event["topic"])
    elif isinstance(event.get("type"), str):
        yield from _type_problems(event)
    if not isinstance(event.get("data"), dict):
        yield "an event needs 'data', an object"
    elif "key" in event:
        yield from _text_problems(event, "key")
    elif _event_key(event) is None:
        yield "no conversation_id in the data; name a 'key' beside it"


def _output(text: bytes) -> Output:
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotThis([f"not JSON ({error})"]) from None
    if not isinstance(entry, dict):
        raise NotThis(["not a JSON object"])
    if "specversion" in entry or "data" in entry:
        return event_output(entry)
    return _raw_output(entry)


def _type_problems(event: Mapping[str, Any]) -> Iterator[str]:
    topic = _topic(event)
    if topic is None:
        yield f"unknown type {event['type']!r}; name a 'topic' beside it"
    else:
        yield from _topic_problems(topic)


def _topic_problems(topic: Any) -> Iterator[str]:
    if not isinstance(topic, str):
        yield "'topic' must be a string"
    elif not TOPIC.fullmatch(topic):
        yield f"feeds may only write feed.* topics, not {topic[:SHOWN_TOPIC]!r}"


def _topic(event: Mapping[str, Any]) -> str | None:
    """The topic named beside the event, else the one of its type; None for an unknown type."""
    if event.get("topic") is not None:
        return str(event["topic"])
    kind = EVENT_TYPES.get(event["type"])
    return kind.topics[0] if kind else None


def _event_key(event: Mapping[str, Any]) -> bytes | None:
    if "key" in event:
        return _text(event, "key")
    data = event["data"]
    inner = data.get("post") or data.get("message") or data
    for place in (inner, data):
        for name in ("conversation_id", "account_id", "subject"):
            if isinstance(place, dict) and isinstance(place.get(name), str):
                return str(place[name]).encode("utf-8", "surrogatepass")
    return None


def _raw_output(entry: Mapping[str, Any]) -> Output:
    if problems := list(_raw_problems(entry)):
        raise NotThis(problems)
    return Output(
        topic=entry["topic"],
        key=_bytes(entry, "key"),
        value=_bytes(entry, "value"),
        headers=tuple(_header(name, value) for name, value in _pairs(entry)),
    )


def _raw_problems(entry: Mapping[str, Any]) -> Iterator[str]:
    if entry.get("topic") is None:
        yield "neither an event (no 'data') nor a raw record (no 'topic')"
    else:
        yield from _topic_problems(entry["topic"])
    for name in ("key", "value"):
        yield from _bytes_problems(entry, name)
    if not isinstance(entry.get("headers") or {}, dict | list):
        yield "'headers' must be an object, or a list of pairs"
        return
    for pair in _pairs(entry):
        yield from _header_problems(pair)


def _pairs(entry: Mapping[str, Any]) -> list[Any]:
    headers = entry.get("headers") or {}
    return list(headers.items() if isinstance(headers, dict) else headers)


def _header_problems(pair: Any) -> Iterator[str]:
    if not isinstance(pair, list | tuple) or len(pair) != 2 or not isinstance(pair[0], str):
        yield "a header must be a pair of name and value"
        return
    value = pair[1]
    if isinstance(value, dict) and set(value) == {"base64"}:
        yield from _base64_problems(f"the header {pair[0]!r}", value["base64"])
    elif not isinstance(value, str | None):
        yield 'the value of a header must be a string, null, or {"base64": …}'


def _header(name: str, value: Any) -> Header:
    """A name with a lone surrogate becomes bytes that are no text, as ``consumers.batches``
    writes them; so do keys and values."""
    name = name.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
    if isinstance(value, dict):
        return name, base64.b64decode(value["base64"], validate=True)
    return name, None if value is None else str(value).encode("utf-8", "surrogatepass")


def _bytes(entry: Mapping[str, Any], name: str) -> bytes | None:
    coded = entry.get(f"{name}_base64")
    return _text(entry, name) if coded is None else base64.b64decode(coded, validate=True)


def _bytes_problems(entry: Mapping[str, Any], name: str) -> Iterator[str]:
    coded = entry.get(f"{name}_base64")
    if coded is None:
        yield from _text_problems(entry, name)
    elif entry.get(name) is not None:
        yield f"'{name}' and '{name}_base64' exclude each other"
    else:
        yield from _base64_problems(f"'{name}_base64'", coded)


def _base64_problems(what: str, coded: Any) -> Iterator[str]:
    try:
        base64.b64decode(coded, validate=True)
    except (binascii.Error, TypeError, ValueError):
        yield f"{what} is not base64"


def _text(entry: Mapping[str, Any], name: str) -> bytes | None:
    value = entry.get(name)
    return None if value is None else str(value).encode("utf-8", "surrogatepass")


def _text_problems(entry: Mapping[str, Any], name: str) -> Iterator[str]:
    if not isinstance(entry.get(name), str | None):
        yield f"'{name}' must be a string or null"
