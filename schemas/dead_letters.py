"""Dead letters: a record as it was, with why it could not be handled.

In: the record and the error. Out: the original key, value and headers, untouched and in their
order, followed by the four ``twite_*`` headers. The last four headers of a dead letter are
always ours, so a record that already has headers of these names keeps them and is still
read back exactly. A program that asks for a header by name takes the last of that name.

Back again: ``redriven`` is that original for its own topic, its headers followed by
``twite_redrive_of``, which names the place where it failed; and ``redrive_mark`` goes to the
dead letter's own partition in the same transaction, where it says for as long as the dead
letter is kept that this was done. So a dead-letter topic holds dead letters, whose last four
headers are those above, and marks, which are no dead letters and have three headers of their
own and no value.
"""

import re
from dataclasses import dataclass
from typing import Final

from schemas.record import Header, Output, Record
from schemas.topics import BOT_DEAD_LETTERS, BOT_DEAD_LETTERS_PRIVATE

ERROR_CODE: Final = "twite_error_code"
ERROR_DETAIL: Final = "twite_error_detail"
ATTEMPTS: Final = "twite_attempts"
ORIGIN: Final = "twite_origin"
_OURS: Final = (ERROR_CODE, ERROR_DETAIL, ATTEMPTS, ORIGIN)

REDRIVE_OF: Final = "twite_redrive_of"
REDRIVEN_LETTER: Final = "twite_redriven_letter"
REDRIVEN_AS: Final = "twite_redriven_as"
_MARK: Final = (REDRIVE_OF, REDRIVEN_LETTER, REDRIVEN_AS)
HEADER_NAMES: Final = frozenset({*_OURS, *_MARK})

MAX_DETAIL_BYTES: Final = 1024
_MAX_PLACE_BYTES: Final = 512
# Kafka's own letters for topics; the numbers are Int32 and Int64.
_PLACE: Final = re.compile(rb"[A-Za-z0-9._-]{1,249}/[0-9]{1,10}/[0-9]{1,19}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A dead letter as read back; ``headers`` are those of the original alone."""

    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]
    error_code: str
    error_detail: str
    attempts: int
    topic: str
    partition: int
    offset: int

    @property
    def origin(self) -> str:
        """Where the original stands: ``topic/partition/offset``."""
        return place_text(self.topic, self.partition, self.offset)


@dataclass(frozen=True, slots=True)
class RedriveMark:
    """What a mark says; all three are places, ``topic/partition/offset``.

    ``origin``: of the record that failed; ``letter``: of its dead letter; ``redriven_as``: of
    the same record as it was published again.
    """

    origin: str
    letter: str
    redriven_as: str


def dead_letter_topic(private: bool) -> str:
    """Where a dead letter goes."""
    return BOT_DEAD_LETTERS_PRIVATE if private else BOT_DEAD_LETTERS


def dead_letter(record: Record, topic: str, code: str, detail: str, attempts: int) -> Output:
    """The dead letter of ``record`` for ``topic``.

    ``code`` is an ``ErrorCode`` or the code of a handler; ``detail`` is one line for people,
    cut at 1,024 bytes; ``attempts`` is how often the record was handled, 0 if never.
    """
    values = (
        code.encode(errors="replace"),
        _cut(detail),
        str(attempts).encode(),
        place_text(record.topic, record.partition, record.offset).encode(),
    )
    return Output(
        topic=topic,
        key=record.key,
        value=record.value,
        headers=(*record.headers, *zip(_OURS, values, strict=True)),
    )


def parse_dead_letter(record: Record | Output) -> DeadLetter:
    """What ``dead_letter`` wrote. Raises ``ValueError`` where it is none of ours."""
    original, ours = record.headers[:-4], record.headers[-4:]
    if tuple(name for name, _ in ours) != _OURS:
        raise ValueError("not a dead letter: its last headers are not the four of Twite")
    code, detail, attempts, origin = ((value or b"").decode() for _, value in ours)
    topic, partition, offset = origin.rsplit("/", 2)
    return DeadLetter(
        key=record.key,
        value=record.value,
        headers=original,
        error_code=code,
        error_detail=detail,
        attempts=int(attempts),
        topic=topic,
        partition=int(partition),
        offset=int(offset),
    )


def redriven(letter: DeadLetter) -> Output:
    """The original again, byte for byte, for its own topic; one header more says so."""
    return Output(
        topic=letter.topic,
        key=letter.key,
        value=letter.value,
        headers=(*letter.headers, (REDRIVE_OF, letter.origin.encode())),
    )


def redrive_of(record: Record | Output) -> str | None:
    """The place that a re-driven record failed at, the last one if more than once.

    None where there is no such header, or it holds no place: anybody can write headers.
    """
    for name, value in reversed(record.headers):
        if name == REDRIVE_OF:
            return _place(value or b"")
    return None


def redrive_mark(topic: str, key: bytes | None, mark: RedriveMark) -> Output:
    """The record for the dead letter's partition of ``topic`` that says it was re-driven."""
    places = (mark.origin, mark.letter, mark.redriven_as)
    headers = tuple(zip(_MARK, (place.encode() for place in places), strict=True))
    return Output(topic=topic, key=key, value=None, headers=headers)


def parse_redrive_mark(record: Record | Output) -> RedriveMark | None:
    """What ``redrive_mark`` wrote; None where it is none."""
    if record.value is not None or tuple(name for name, _ in record.headers) != _MARK:
        return None
    origin, letter, redriven_as = (_place(value or b"") for _, value in record.headers)
    if origin is None or letter is None or redriven_as is None:
        return None
    return RedriveMark(origin, letter, redriven_as)


def place_text(topic: str, partition: int, offset: int) -> str:
    """``topic/partition/offset``."""
    return f"{topic}/{partition}/{offset}"


def _place(value: bytes) -> str | None:
    """The text of a place; None where it is none."""
    known = len(value) <= _MAX_PLACE_BYTES and _PLACE.fullmatch(value)
    return value.decode() if known else None


def _cut(detail: str) -> bytes:
    """At most ``MAX_DETAIL_BYTES`` of UTF-8, whole characters, on one line."""
    line = " ".join(detail.split()).encode(errors="replace")
    return line[:MAX_DETAIL_BYTES].decode(errors="ignore").encode()
