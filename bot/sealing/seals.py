"""Seals: records of one partition of the audit become a link of its chain.

In: where the chain ends (``Head``), and the records behind it. Out: ``AuditSealed``, and the new
end. Each seal holds the digest of the one before, so none can be changed, left out or put between
without all later ones being made anew. Next: ``bot/sealing/sealer.py`` publishes them,
``bot/sealing/check.py`` looks whether they hold.
"""

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Self

from bot.sealing.digests import digest_of
from schemas import names
from schemas.codec import encode
from schemas.envelope import Envelope
from schemas.record import Output, Record
from schemas.seals import FIRST, AuditSealed
from schemas.value import value

SEALED: Final = (names.BOT_AUDIT, names.BOT_AUDIT_PRIVATE)
SOURCE: Final = "twite://audit-seals"
MAX_RECORDS: Final = 500  # some 40 KB of seal


@value
class Head:
    """Where a chain ends: number and digest of its last seal, and the offset up to which it
    seals. ``number`` -1: there is none yet."""

    number: int
    end: int
    digest: str = FIRST

    @classmethod
    def of(cls, seal: AuditSealed) -> Self:
        return cls(seal.number, seal.end, seal.digest)

    @property
    def metadata(self) -> str:
        """What is committed beside the offset ``end``."""
        return f"{self.number} {self.digest}"

    @classmethod
    def read(cls, end: int, metadata: str) -> Self | None:
        """None where this was not written by ``metadata``."""
        number, _, digest = metadata.partition(" ")
        sound = number.isascii() and number.isdigit() and len(digest) == len(FIRST)
        return cls(int(number), end, digest) if sound else None


def seal(head: Head, records: Sequence[Record]) -> AuditSealed:
    """The next link: all ``records`` (at least one, of one partition, in order) behind ``head``."""
    first, last = records[0], records[-1]
    made = AuditSealed(
        topic=first.topic,
        partition=first.partition,
        number=head.number + 1,
        begin=head.end,
        end=last.offset + 1,
        offsets=tuple(record.offset for record in records),
        digests=tuple(digest_of(record) for record in records),
        previous=head.digest,
        digest=FIRST,
    )
    return made.model_copy(update={"digest": seal_digest(made)})


def seal_digest(made: AuditSealed) -> str:
    """SHA-256 of the JSON array of the other fields in their order, without spaces."""
    fields = [getattr(made, name) for name in AuditSealed.model_fields if name != "digest"]
    text = json.dumps(fields, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def output_of(made: AuditSealed, now: datetime) -> Output:
    """The record of a seal, on the partition that it seals."""
    place = f"{made.topic}/{made.partition}"
    envelope = Envelope(
        id=f"{place}/{made.number}", source=SOURCE, type=names.AUDIT_SEALED, time=now
    )
    return encode(names.BOT_AUDIT_SEALS, place, envelope, made)
