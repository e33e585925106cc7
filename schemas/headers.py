"""Kafka headers ↔ envelope: CloudEvents 1.0, Kafka binary mode.

In: headers as they stand on a record, in any order, with any names and bytes. Out: the
checked ``Envelope``, or a ``Fault``. Names are compared exactly, as Kafka does; the values of
headers that the contract does not know are never looked at.
"""

from collections.abc import Iterable
from typing import Final

from pydantic import ValidationError

from schemas.codes import ErrorCode
from schemas.envelope import CONTENT_TYPE, SPECVERSION, Envelope
from schemas.faults import Fault
from schemas.fields import format_time
from schemas.record import Header

MAX_HEADER_BYTES: Final = 8 * 1024
REQUIRED: Final = ("ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "content-type")
OPTIONAL: Final = (
    "ce_subject",
    "ce_dataschema",
    "ce_causationid",
    "ce_correlationid",
    "ce_traceparent",
)
_SPECVERSION: Final = ("ce_specversion", SPECVERSION.encode())
_CONTENT_TYPE: Final = ("content-type", CONTENT_TYPE.encode())
_OPTIONAL: Final = tuple((name, name.removeprefix("ce_")) for name in OPTIONAL)
_ATTRIBUTES: Final = ("id", "source", "type", "time", *(name[3:] for name in OPTIONAL))


def read(headers: Iterable[Header]) -> Envelope:
    """The envelope that the headers say. Raises ``Fault``, which names the header."""
    text = _texts(_once(headers))
    if text["ce_specversion"] != SPECVERSION:
        raise Fault(ErrorCode.UNSUPPORTED_SPECVERSION, "ce_specversion is not 1.0")
    if not _is_json(text["content-type"]):
        raise Fault(ErrorCode.UNSUPPORTED_CONTENT_TYPE, "content-type is not application/json")
    try:
        return Envelope.model_validate({name: text.get(f"ce_{name}") for name in _ATTRIBUTES})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise Fault(ErrorCode.HEADER_VALUE, f"ce_{first['loc'][0]}: {first['type']}") from None


def write(envelope: Envelope) -> tuple[Header, ...]:
    """The headers of an envelope, always in the same order. Raises ``ValueError`` over 8 KiB."""
    optional = [(name, getattr(envelope, attribute)) for name, attribute in _OPTIONAL]
    headers = (
        _SPECVERSION,
        ("ce_id", envelope.id.encode()),
        ("ce_source", envelope.source.encode()),
        ("ce_type", envelope.type.encode()),
        ("ce_time", format_time(envelope.time).encode()),
        _CONTENT_TYPE,
        *[(name, text.encode()) for name, text in optional if text is not None],
    )
    for name, value in headers:
        if len(value) > MAX_HEADER_BYTES:
            raise ValueError(f"{name} is over {MAX_HEADER_BYTES} bytes")
    return headers


def _once(headers: Iterable[Header]) -> dict[str, bytes]:
    """The contract's headers; raises ``Fault`` where one is missing, doubled or too large."""
    found: dict[str, list[bytes]] = {name: [] for name in (*REQUIRED, *OPTIONAL)}
    for name, value in headers:
        if not _is_text(name):
            raise Fault(ErrorCode.HEADER_ENCODING, "the name of a header is not UTF-8")
        if name in found:
            found[name].append(value or b"")  # aiokafka gives None for a null value
    for name in REQUIRED:
        if not found[name]:
            raise Fault(ErrorCode.HEADER_MISSING, f"{name} is missing")
    for name, values in found.items():
        if len(values) > 1:
            raise Fault(ErrorCode.HEADER_DOUBLED, f"{name} is there {len(values)} times")
    once = {name: values[0] for name, values in found.items() if values}
    for name, value in once.items():
        if len(value) > MAX_HEADER_BYTES:
            raise Fault(ErrorCode.HEADER_TOO_LARGE, f"{name} has {len(value)} bytes")
    return once


def _is_text(name: str) -> bool:
    """False for a name that was not UTF-8 on the wire and holds its bytes as surrogates."""
    return name.isascii() or not any("\ud800" <= char <= "\udfff" for char in name)


def _texts(values: dict[str, bytes]) -> dict[str, str]:
    texts = {}
    for name, value in values.items():
        try:
            texts[name] = value.decode()
        except UnicodeDecodeError as error:
            detail = f"{name} is not UTF-8 at byte {error.start}"
            raise Fault(ErrorCode.HEADER_ENCODING, detail) from None
    return texts


def _is_json(content_type: str) -> bool:
    """``application/json``, alone or with ``charset=utf-8``; case and spaces do not matter."""
    kind, *parameters = (part.strip(" \t").lower() for part in content_type.split(";"))
    plain = [part.replace(" ", "").replace('"', "") for part in parameters]
    return kind == CONTENT_TYPE and plain in ([], ["charset=utf-8"])
