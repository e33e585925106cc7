"""How dead letters look to a person, and to a program.

In: letters and, for one of them, its record. Out: Rich tables and texts, or JSON values. What
people wrote in private is shown as lengths and digests, unless the caller reveals it; what is
shown is free of characters that steer a terminal.
"""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from bot.dead_letters import Letter
from bot.rows import Rows
from bot.show import plain
from consumers.batches import raw_header_name
from schemas import headers as contract
from schemas.dead_letters import HEADER_NAMES
from schemas.envelope import CONTENT_TYPE, SPECVERSION
from schemas.record import Record
from schemas.types import EVENT_TYPES

HEX_BYTES = 4096  # of a value that is no text
TEXT_CHARACTERS = 64 * 1024
HEX_WIDTH = 16

_NAMES = frozenset({*contract.REQUIRED, *contract.OPTIONAL, *HEADER_NAMES})
# What these headers say when they say nothing of their own.
_OPEN_VALUES = {
    "ce_specversion": {SPECVERSION.encode()},
    "content-type": {CONTENT_TYPE.encode()},
    "ce_type": {name.encode() for name in EVENT_TYPES},
}


def table(letters: Sequence[Letter]) -> RenderableType:
    """One row per letter; to be printed with ``crop=False``."""
    names = ("origin", "code", "detail", "tries", "when", "bytes", "dead letter", "re-driven")
    return Rows(names, [_row(letter) for letter in letters], prose=frozenset({2}))


def _row(letter: Letter) -> list[Text]:
    return [
        Text(str(letter.origin)),
        Text(plain(letter.code), "red"),
        Text(" ".join(plain(letter.detail).split())),
        Text(str(letter.attempts)),
        Text(_time(letter.timestamp_ms)),
        Text(str(letter.size)),
        Text(str(letter.at)),
        Text(" ".join(letter.redriven) or "no"),
    ]


def counts(letters: Iterable[Letter]) -> dict[str, int]:
    """How many there are of each code, most first."""
    return dict(Counter(letter.code for letter in letters).most_common())


def counts_text(letters: Sequence[Letter]) -> str:
    """The same as one line."""
    told = ", ".join(f"{plain(code)}: {count}" for code, count in counts(letters).items())
    done = sum(bool(letter.redriven) for letter in letters)
    return f"{len(letters)} dead letters ({told or 'none'}), {done} of them re-driven"


def letter_value(letter: Letter) -> dict[str, Any]:
    """A letter for a program."""
    return {
        "origin": str(letter.origin),
        "dead_letter": str(letter.at),
        "code": letter.code,
        "detail": letter.detail,
        "attempts": letter.attempts,
        "time": _time(letter.timestamp_ms),
        "bytes": letter.size,
        "private": letter.private,
        "redriven": list(letter.redriven),
    }


def record_text(letter: Letter, record: Record, *, reveal: bool) -> RenderableType:
    """A dead letter with headers, key and value; to be printed with ``crop=False``."""
    masked = letter.private and not reveal
    cells = [
        (Text(_name(name, masked)), Text(_header(value, hidden)))
        for name, value, hidden in _headers(record, masked)
    ]
    headers = Rows(("header", "value"), cells, lines=_header_lines)
    parts: list[RenderableType] = [
        table([letter]),
        headers,
        Text("key", "bold"),
        _indented(_body(record.key, masked)),
        Text("value", "bold"),
        _indented(_body(record.value, masked)),
    ]
    if masked:
        parts.append(Text("Private: shown as lengths and digests; --reveal shows it.", "yellow"))
    return Group(*parts)


def _header_lines(row: Sequence[Text]) -> Iterator[Text]:
    yield Text.assemble(row[0], ": ", row[1])


def record_value(letter: Letter, record: Record, *, reveal: bool) -> dict[str, Any]:
    """The same for a program; bytes that are no text are base64."""
    masked = letter.private and not reveal
    return {
        **letter_value(letter),
        "masked": masked,
        "headers": [
            {
                "name": _bytes_value(raw_header_name(name), masked and not _known(name)),
                "value": _bytes_value(value, hidden),
            }
            for name, value, hidden in _headers(record, masked)
        ],
        "key": _bytes_value(record.key, masked),
        "value": _bytes_value(record.value, masked),
    }


def hex_dump(data: bytes) -> str:
    """Offset, bytes and what of them is ASCII; at most ``HEX_BYTES``."""
    shown = data[:HEX_BYTES]
    rows = [
        f"{at:08x}  {row.hex(' '):<{3 * HEX_WIDTH}} {_ascii(row)}"
        for at in range(0, len(shown), HEX_WIDTH)
        for row in [shown[at : at + HEX_WIDTH]]
    ]
    return "\n".join([*rows, *_more(len(data) - len(shown), "bytes")])


def digest(data: bytes) -> str:
    """What a log line says instead of the bytes."""
    return f"{len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()[:12]}"


def _body(data: bytes | None, masked: bool) -> str:
    if not data:
        return "null" if data is None else "empty"
    if masked:
        return digest(data)
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return hex_dump(data)
    text = _pretty(text)
    shown = text[:TEXT_CHARACTERS]
    return "\n".join([plain(shown), *_more(len(text) - len(shown), "characters")])


def _pretty(text: str) -> str:
    """Indented JSON where the text is JSON that loses nothing by it."""
    try:
        return json.dumps(json.loads(text, object_pairs_hook=_once), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a doubled member")
    return members


def _more(count: int, what: str) -> list[str]:
    return [f"… and {count} {what} more (--json shows all)"] if count > 0 else []


def _name(name: str, masked: bool) -> str:
    raw = raw_header_name(name)
    return digest(raw) if masked and not _known(name) else plain(raw.decode("utf-8", "replace"))


def _headers(record: Record, masked: bool) -> Iterator[tuple[str, bytes | None, bool]]:
    """Each header with whether its value is hidden. The last four are ours, whatever names
    those of the original have."""
    ours = len(record.headers) - 4
    for number, (name, value) in enumerate(record.headers):
        open_words = _OPEN_VALUES.get(name, ())
        yield name, value, masked and number < ours and value not in open_words


def _header(value: bytes | None, hidden: bool) -> str:
    if value is None:
        return "null"
    return digest(value) if hidden else plain(value.decode("utf-8", "backslashreplace"))


def _known(name: str) -> bool:
    return name in _NAMES


def _bytes_value(data: bytes | None, masked: bool) -> Any:
    if data is None:
        return None
    if masked:
        return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()[:12]}
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _ascii(row: bytes) -> str:
    return "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)


def _indented(text: str) -> RenderableType:
    return Padding(Text(text), (0, 0, 0, 4), expand=False)


def _time(timestamp_ms: int) -> str:
    moment = datetime.fromtimestamp(timestamp_ms / 1000, UTC)
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
