"""Seals of the audit: digests of its records, chained, so that a change of the log is seen.

Made by ``bot/sealing`` behind the log, since only there the order, the offsets and the times of
the records are known; goes to ``bot.audit-seals``, on the partition whose records it seals. No
text of anybody stands in it: ``twite audit verify`` compares it with what the log holds.
"""

from typing import Annotated

from pydantic import Field, Strict

from schemas.fields import Count, Id, Many, Payload

Digest = Annotated[str, Strict(), Field(pattern="^[0-9a-f]{64}$")]
FIRST = "0" * 64  # what stands for the seal before the first


class AuditSealed(Payload):
    """``twite.bot.audit.sealed.v1``: the records of one audit partition from ``begin`` (included)
    to ``end`` (excluded).

    ``number`` counts the seals of this partition from 0; ``begin`` is the ``end`` of the seal
    before. ``offsets`` and ``digests`` name every record between them, in order; offsets that are
    not there hold none (markers of transactions). ``previous``: ``digest`` of the seal before, 64
    zeros for the first. ``digest``: SHA-256, as hex, of the seal's other fields (``bot.sealing``).
    """

    topic: Id
    partition: Count
    number: Count
    begin: Count
    end: Count
    offsets: Many[Count]
    digests: Many[Digest]
    previous: Digest
    digest: Digest
