"""The signed part of evidence: what the file holds, byte for byte.

In: members, or the bytes of a manifest. Out: the bytes to sign, or a checked ``Manifest``. It
names each member with its length and SHA-256, in the order in which they stand in the file, so
that the whole file follows from it. No date is in it: a signer's own clock proves nothing, and
without it the same case gives the same file.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from bot.evidence.archive import MAX_FILE, MAX_MEMBERS, is_name

MANIFEST: Final = "manifest.json"
SIGNATURE: Final = "manifest.sig"
FORMAT: Final = "twite-evidence/1"
MAX_MANIFEST: Final = 4 * 2**20  # bytes
SIGNATURE_BYTES: Final = 64

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class Member(_Strict):
    """One file in the evidence; ``bytes`` is its length."""

    name: str
    bytes: int = Field(ge=0, le=MAX_FILE)
    sha256: Sha256


class Manifest(_Strict):
    """``gone``: what belongs to the case and was not on the log any more, with why. ``key_id``:
    of the key that signs."""

    format: Literal["twite-evidence/1"]
    decision_id: str
    key_id: Sha256
    gone: dict[str, str]
    members: list[Member] = Field(max_length=MAX_MEMBERS)

    @model_validator(mode="after")
    def _names(self) -> "Manifest":
        names = [MANIFEST, SIGNATURE, *(member.name for member in self.members)]
        if len(set(names)) != len(names):
            raise ValueError("a member is named twice")
        if not all(map(is_name, names)):
            raise ValueError("a member's name is not safe to unpack")
        return self


def manifest_of(
    members: Sequence[tuple[str, bytes]], decision_id: str, key_id: str, gone: Mapping[str, str]
) -> bytes:
    """The bytes that are signed: JSON for people and programs."""
    manifest = Manifest(
        format=FORMAT,
        decision_id=decision_id,
        key_id=key_id,
        gone=dict(gone),
        members=[
            Member(name=name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
            for name, data in members
        ],
    )
    return pretty(manifest.model_dump(mode="json"))


def parse(data: bytes) -> Manifest:
    """Raises ``ValueError``, whose text says what is wrong."""
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{place or 'it'}: {first['msg']}") from None


def pretty(value: object) -> bytes:
    """JSON in which the same value always has the same bytes."""
    return (json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True) + "\n").encode()
