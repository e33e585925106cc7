"""The digest of a decision record, which stays the same when what people wrote is erased.

In: a record with any bytes. Out: SHA-256 over its place, Kafka's time, key, headers and value, in
which each text (``schemas.audit.TEXTS``) is replaced by a salted digest of itself. An erased record
has these digests in place of its texts already, so both give the same. Nothing is parsed and
written anew: every byte outside of texts counts as it stands, also spaces and doubled members.
Next: ``bot/sealing/seals.py`` chains the digests.
"""

import functools
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from schemas.audit import TEXTS
from schemas.record import Record

SALT: Final = "salt"
_GONE: Final = "null"  # in place of the salt
_ERASED: Final = re.compile(r'\{"erased":"[0-9a-f]{64}"\}')
_EMPTY: Final = frozenset({"null", "[]"})  # holds no text
_SPACE: Final = re.compile(r"[ \t\n\r]*")
_SCAN: Final = json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # types lack it

Plan = dict[str, "Plan"]  # members on the way to a text; one that leads no further is a text
Span = tuple[int, int, str]  # where a text begins and ends, and its path


def digest_of(record: Record) -> str:
    """As hex. Any record has one; never raises."""
    return digest_and_state(record)[0]


def digest_and_state(record: Record) -> tuple[str, bool]:
    """The digest, and whether its texts are erased."""
    value, erased = _skeleton(record.value)
    hashed = hashlib.sha256(b"twite.audit.record.v1")
    place = f"{record.topic}/{record.partition}/{record.offset}/{record.timestamp_ms}"
    for part in (place.encode(), record.key, *_flat(record), value):
        # The length before each part, so that none can be mistaken for its neighbour.
        hashed.update(b"-" if part is None else b"%d:" % len(part))
        hashed.update(part or b"")
    return hashed.hexdigest(), erased


def erase(record: Record) -> Record:
    """The record with digests in place of its texts, and without its salt; its digest stays."""
    return replace(record, value=_skeleton(record.value)[0])


def _flat(record: Record) -> Iterator[bytes | None]:
    yield b"%d" % len(record.headers)
    for name, value in record.headers:
        yield name.encode(errors="surrogateescape")
        yield value


def _skeleton(value: bytes | None) -> tuple[bytes | None, bool]:
    """The value with its texts replaced, and whether they already were. What is no JSON object
    has no texts that could be told from the rest: it stays as it is."""
    if value is None:
        return None, False
    try:
        text = value.decode()
        spans = [] if text[:1] != "{" else list(_texts(text, 0, _plan(), ""))
    except (ValueError, RecursionError):
        return value, False
    return _replaced(text, spans)


def _replaced(text: str, spans: list[Span]) -> tuple[bytes, bool]:
    salt = "".join(text[start:end] for start, end, path in spans if path == SALT)
    parts, at, erased, kept = [], 0, 0, 0
    for start, end, path in sorted(spans):
        raw = text[start:end]
        parts.append(text[at:start])
        at = end
        if path == SALT:
            parts.append(_GONE)
        elif _ERASED.fullmatch(raw):
            erased += 1
            parts.append(raw)
        elif raw in _EMPTY:
            parts.append(raw)
        else:
            kept += 1
            parts.append(_told(salt, path, raw))
    whole = "".join((*parts, text[at:]))
    return whole.encode(), erased > 0 and not kept


def _told(salt: str, path: str, raw: str) -> str:
    """What stands for a text. The path keeps equal texts of a record from looking equal."""
    digest = hashlib.sha256(f"{salt}\n{path}\n{raw}".encode()).hexdigest()
    return f'{{"erased":"{digest}"}}'


def _texts(text: str, at: int, plan: Plan, path: str) -> Iterator[Span]:
    """Texts of the object or list that begins at ``at``. Raises ``ValueError`` for no JSON."""
    wanted = plan.get("[]")
    for name, start, end in _members(text, at):
        below = plan.get(name) if wanted is None else wanted
        if below is None:
            continue
        here = f"{path}.{name}" if path else name
        if below and text[start] in "{[" and (text[start] == "[") == ("[]" in below):
            yield from _texts(text, start, below, here)
        else:  # a text, or something else in the place of what leads to texts
            yield start, end, here


def _members(text: str, at: int) -> Iterator[tuple[str, int, int]]:
    """Name (in a list: number), start and end of each member of the object or list at ``at``."""
    close = "}" if text[at] == "{" else "]"
    at = _past_space(text, at + 1)
    count = 0
    while text[at : at + 1] != close:
        name: object = str(count)
        if close == "}":
            name, at = _scan(text, at)
            at = _past(text, at, ":")
        _, end = _scan(text, at)
        yield str(name), at, end
        count += 1
        at = _past_space(text, end)
        if text[at : at + 1] != close:
            at = _past(text, at, ",")


def _scan(text: str, at: int) -> tuple[object, int]:
    """The value at ``at``, and where it ends. Raises ``ValueError``."""
    try:
        found: tuple[object, int] = _SCAN(text, at)
    except StopIteration:
        raise ValueError(f"no JSON at {at}") from None
    return found


def _past(text: str, at: int, sign: str) -> int:
    if text[at : at + 1] == sign and text[at + 1 : at + 2] > " ":
        return at + 1  # the usual one: without spaces
    at = _past_space(text, at)
    if text[at : at + 1] != sign:
        raise ValueError(f"no {sign} at {at}")
    return _past_space(text, at + 1)


def _past_space(text: str, at: int) -> int:
    if text[at : at + 1] > " ":
        return at
    found = _SPACE.match(text, at)
    return found.end() if found else at


@functools.cache
def _plan() -> Plan:
    plan: Plan = {SALT: {}}
    for path in TEXTS:
        below = plan
        for step in path.replace("[]", ".[]").split("."):
            below = below.setdefault(step, {})
    return plan
