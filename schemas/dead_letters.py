"""Dead letters: a record as it was, with why it could not be handled.

In: the record and the error. Out: the original key, value and headers, untouched and in their
order, followed by the four ``twite_*`` headers. The last four headers of a dead letter are
always ours, so a record that already has headers of these names keeps them and is still
read back exactly. A program that asks for a header by name takes the last of that name.
"""

from dataclasses import dataclass
from typing import Final

from schemas.record import Header, Output, Record
from schemas.topics import BOT_DEAD_LETTERS, BOT_DEAD_LETTERS_PRIVATE

ERROR_CODE: Final = "twite_error_code"
ERROR_DETAIL: Final = "twite_error_detail"
ATTEMPTS: Final = "twite_attempts"
ORIGIN: Final = "twite_origin"
_OURS: Final = (ERROR_CODE, ERROR_DETAIL, ATTEMPTS, ORIGIN)

MAX_DETAIL_BYTES: Final = 1024


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
        f"{record.topic}/{record.partition}/{record.offset}".encode(),
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


def _cut(detail: str) -> bytes:
    """At most ``MAX_DETAIL_BYTES`` of UTF-8, whole characters, on one line."""
    line = " ".join(detail.split()).encode(errors="replace")
    return line[:MAX_DETAIL_BYTES].decode(errors="ignore").encode()
