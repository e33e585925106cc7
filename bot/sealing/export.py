"""A stretch of the audit as a file of JSON lines, with its seals, to be verified elsewhere.

The first line says what the file holds: ``twite_audit_export`` (its version) and ``partitions``.
Then comes, partition by partition, a line ``{"seal": …}`` for each seal that says something of it,
and a line ``{"record": …}`` for each record, bytes as they stand on Kafka (as text where they are
UTF-8, else as base64). With its texts erased a record is as ``digests.erase`` makes it: what is
left still fits its seals. Next: ``bot/sealing/verify.py`` reads it.
"""

import base64
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import IO, Any, Final

from bot.errors import Trouble
from bot.sealing.digests import erase
from schemas.fields import Count, Id, Payload
from schemas.record import Record
from schemas.seals import AuditSealed

VERSION: Final = 1
_NO_EXPORT: Final = "is no export of the audit."


class Held(Payload):
    """What of a partition stands in a file: offsets ``begin`` (included) to ``end`` (excluded)."""

    topic: Id
    partition: Count
    begin: Count
    end: Count


class Writer:
    """Writes an export, in the order of the module. ``erases``: without texts."""

    def __init__(self, to: IO[str], parts: list[Held], *, erases: bool) -> None:
        self._to = to
        self._erases = erases
        self.records = 0
        listed = [part.model_dump(mode="json") for part in parts]
        self._line({"twite_audit_export": VERSION, "erased": erases, "partitions": listed})

    def seal(self, seal: AuditSealed) -> None:
        self._line({"seal": seal.model_dump(mode="json")})

    def record(self, record: Record) -> None:
        kept = erase(record) if self._erases else record
        value = {
            "topic": kept.topic,
            "partition": kept.partition,
            "offset": kept.offset,
            "timestamp_ms": kept.timestamp_ms,
            "key": _shown(kept.key),
            "headers": [[name, _shown(what)] for name, what in kept.headers],
            "value": _shown(kept.value),
        }
        self._line({"record": value})
        self.records += 1

    def _line(self, value: dict[str, Any]) -> None:
        self._to.write(json.dumps(value, separators=(",", ":")) + "\n")


def held(path: Path) -> list[Held]:
    """What a file says it holds. Raises ``Trouble``."""
    first = next(_lines(path), (0, {}))[1]
    if first.get("twite_audit_export") != VERSION:
        raise Trouble(_NO_EXPORT, where=str(path), todo="Make one with `twite audit export`.")
    try:
        parts = [Held.model_validate(part) for part in first["partitions"]]
    except (ValueError, KeyError, TypeError):
        raise Trouble(_NO_EXPORT, where=f"{path}:1") from None
    names = {(part.topic, part.partition) for part in parts}
    if not parts or len(names) < len(parts) or any(part.begin > part.end for part in parts):
        what = "lists no partition, one of them twice, or one that ends before it begins."
        raise Trouble(what, where=f"{path}:1")
    return parts


def seals_in(path: Path, topic: str, partition: int) -> Iterator[AuditSealed]:
    """The seals of one partition. Raises ``Trouble``."""
    for number, line in _lines(path):
        if "seal" in line:
            try:
                seal = AuditSealed.model_validate(line["seal"])
            except ValueError:
                raise Trouble("is no seal.", where=f"{path}:{number}") from None
            if (seal.topic, seal.partition) == (topic, partition):
                yield seal


def records_in(path: Path, part: Held, listed: Collection[tuple[str, int]]) -> Iterator[Record]:
    """The records of one partition. Raises ``Trouble``, also for one that is not ``listed``."""
    for number, line in _lines(path):
        if "record" in line:
            try:
                record = _record(line["record"])
            except (ValueError, KeyError, TypeError):
                raise Trouble("is no record.", where=f"{path}:{number}") from None
            own = (record.topic, record.partition)
            if own not in listed:
                what = "is a record of a partition that the first line does not list."
                raise Trouble(what, where=f"{path}:{number}")
            if own == (part.topic, part.partition):
                yield record


def _record(line: dict[str, Any]) -> Record:
    return Record(
        topic=str(line["topic"]),
        partition=_whole(line["partition"]),
        offset=_whole(line["offset"]),
        timestamp_ms=_whole(line["timestamp_ms"]),
        key=_bytes(line["key"]),
        value=_bytes(line["value"]),
        headers=tuple((_name(name), _bytes(what)) for name, what in line["headers"]),
    )


def _whole(number: Any) -> int:
    if type(number) is not int:  # 5.9, true and 1e999 are none
        raise TypeError("no whole number")
    return number


def _name(name: Any) -> str:
    """Raises ``ValueError`` for a surrogate that stands for no byte (PEP 383)."""
    str(name).encode(errors="surrogateescape")
    return str(name)


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each line with its number, from 1. Raises ``Trouble``."""
    number = 0
    try:
        with path.open(encoding="utf-8") as opened:
            for number, line in enumerate(opened, 1):
                value = json.loads(line)
                if not isinstance(value, dict):
                    raise Trouble(_NO_EXPORT, where=f"{path}:{number}")
                yield number, value
    except OSError as error:
        what = f"cannot be read: {error.strerror or error}."
        raise Trouble(what, where=str(path)) from None
    except UnicodeDecodeError:  # met in a block of lines, before any of them
        raise Trouble(_NO_EXPORT, where=str(path)) from None
    except (ValueError, RecursionError):
        raise Trouble(_NO_EXPORT, where=f"{path}:{number}") from None


def _shown(value: bytes | None) -> Any:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def _bytes(shown: Any) -> bytes | None:
    if shown is None or isinstance(shown, str):
        return None if shown is None else shown.encode()
    return base64.b64decode(shown["base64"], validate=True)
