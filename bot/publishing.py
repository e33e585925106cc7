"""Events of the bot as records to publish: the envelope that all of them share.

In: what is to be told, where, and the event that caused it. Out: ``Output``. Of every output
``ce_source`` is ``twite://<bot id>``; ``ce_causationid`` is the cause's ``ce_id``;
``ce_correlationid`` and ``ce_traceparent`` are the cause's, the first of them its ``ce_id``
where it has none. Next: the handlers hand it to the runtime.
"""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from urllib.parse import quote

from pydantic import BaseModel

from schemas import codec, names
from schemas.audit import DecisionRecorded
from schemas.envelope import Envelope
from schemas.record import Output

MAX_SOURCE_BYTES = 512

Send = Callable[[Output], Awaitable[object]]
"""Publishes one record beside all transactions; returns when the broker has it."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an event goes. ``partition`` None: that of the input."""

    topic: str
    key: str | bytes | None
    partition: int | None = None


class Publishing:
    """Makes outputs for one bot. ``now`` is the clock."""

    def __init__(self, bot_id: str, now: Callable[[], datetime]) -> None:
        self.now = now
        self._source = source_of(bot_id)

    def output(
        self, place: Place, kind: str, event_id: str, data: BaseModel, cause: Envelope | None
    ) -> Output:
        """Raises ``ValueError`` where type, topic, payload and key do not belong together."""
        envelope = Envelope(
            id=event_id,
            source=self._source,
            type=kind,
            time=self.now(),
            causationid=cause.id if cause else None,
            correlationid=(cause.correlationid or cause.id) if cause else None,
            traceparent=cause.traceparent if cause else None,
        )
        made = codec.encode(place.topic, place.key, envelope, data)
        return made if place.partition is None else replace(made, partition=place.partition)

    def decision(
        self,
        record: DecisionRecorded,
        key: str | bytes | None,
        cause: Envelope | None,
        *,
        private: bool,
    ) -> Output:
        """A decision, on the audit topic that fits."""
        place = Place(names.BOT_AUDIT_PRIVATE if private else names.BOT_AUDIT, key)
        return self.output(place, names.DECISION_RECORDED, record.decision_id, record, cause)


def source_of(bot_id: str) -> str:
    """``ce_source`` of everything that this bot publishes; at most 512 bytes."""
    whole = f"twite://{quote(bot_id, safe='')}"
    if len(whole) <= MAX_SOURCE_BYTES:
        return whole
    return f"twite://{hashlib.sha256(bot_id.encode()).hexdigest()}"
