"""A case taken into evidence: the original bytes of everything that belongs to it, signed.

In: a ``Case`` and a private key. Out: the bytes of one file (``bot/evidence/archive.py``): the
input, the decision, its replies, what came later, each with headers, key and value as they stood
on Kafka; the messages that the model saw; the JSON Schemas of all of it; and a signed manifest.
Guaranteed: the same case and key give the same bytes. Next: ``bot/evidence/verify.py``.
"""

import base64
import hashlib
from collections.abc import Iterator
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from bot.errors import Trouble
from bot.evidence.archive import pack
from bot.evidence.keys import key_id
from bot.evidence.manifest import MANIFEST, SIGNATURE, manifest_of, pretty
from bot.explain.case import Case, Said
from consumers.batches import raw_header_name
from schemas import headers
from schemas.faults import Fault
from schemas.publish import event_schemas
from schemas.record import Header, Record

Members = list[tuple[str, bytes]]

README: Final = f"""\
Evidence of one decision of Twite, a bot. Nothing in this file may be changed.

  twite evidence verify THIS_FILE --key PUBLIC_KEY.pem

says whether anything was. By hand, without Twite:

  unzip THIS_FILE
  openssl pkeyutl -verify -pubin -inkey PUBLIC_KEY.pem -rawin -in {MANIFEST} -sigfile {SIGNATURE}
  sha256sum (each file: {MANIFEST} names what it must be)

input/        the record that was decided on
decision/     the decision: what the bot saw, its rules, its model
replies/      what it said
later/        later decisions on the same post or reply, what they were made for, what they said
messages.json what the model was shown, with who wrote what
schemas/      what the values mean (JSON Schema)

Of each record: record.json (place, Kafka's time, headers in base64), key and value, byte for byte.
What was not on the log any more is named in {MANIFEST} under "gone".
"""


def bundle(case: Case, key: Ed25519PrivateKey) -> bytes:
    """The file. Raises ``Trouble`` where the case is too large for one."""
    members = list(_members(case))
    decision = case.decided.data.decision_id
    manifest = manifest_of(members, decision, key_id(key.public_key()), case.gone)
    signed = [(MANIFEST, manifest), (SIGNATURE, key.sign(manifest))]
    try:
        return pack([*signed, *members])
    except ValueError as error:
        raise Trouble(f"the case does not fit: {error}.", where=decision) from None


def _members(case: Case) -> Iterator[tuple[str, bytes]]:
    yield "README.txt", README.encode()
    records = dict(_records(case))
    for folder, record in records.items():
        yield from _of_record(folder, record)
    prompt = case.decided.data.prompt
    messages = prompt.messages if prompt else ()
    yield "messages.json", pretty([message.model_dump(mode="json") for message in messages])
    schemas = event_schemas()
    for kind in sorted({kind for record in records.values() if (kind := _type(record))}):
        if kind in schemas:
            yield f"schemas/{kind}.json", pretty(schemas[kind])


def _records(case: Case) -> Iterator[tuple[str, Record]]:
    """Each record of the case, by its folder."""
    if case.input is not None:
        yield "input", case.input
    yield "decision", case.decided.record
    yield from _replies("", case.said)
    for number, later in enumerate(case.later, 1):
        if later.input is not None:
            yield f"later/{number}/input", later.input
        yield f"later/{number}/decision", later.decided.record
        yield from _replies(f"later/{number}/", later.said)


def _replies(above: str, said: tuple[Said, ...]) -> Iterator[tuple[str, Record]]:
    for number, one in enumerate(said, 1):
        yield f"{above}replies/{number}", one.record


def _of_record(folder: str, record: Record) -> Iterator[tuple[str, bytes]]:
    yield f"{folder}/record.json", pretty(_about(record))
    for name, data in (("key", record.key), ("value", record.value)):
        if data is not None:
            yield f"{folder}/{name}", data


def _about(record: Record) -> dict[str, Any]:
    """Everything of a record but the bytes of its key and value."""
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp_ms": record.timestamp_ms,
        "key_sha256": _digest(record.key),
        "value_sha256": _digest(record.value),
        "headers": [_header(header) for header in record.headers],
    }


def _header(header: Header) -> dict[str, str | None]:
    """Both as they were on the wire; ``text`` is for people, where there is one."""
    name, value = raw_header_name(header[0]), header[1]
    shown = None if value is None else value.decode("utf-8", "backslashreplace")
    return {
        "name_base64": base64.b64encode(name).decode(),
        "value_base64": None if value is None else base64.b64encode(value).decode(),
        "text": f"{name.decode('utf-8', 'backslashreplace')}: {shown}",
    }


def _digest(data: bytes | None) -> str | None:
    return None if data is None else hashlib.sha256(data).hexdigest()


def _type(record: Record) -> str | None:
    try:
        return headers.read(record.headers).type
    except Fault:
        return None
