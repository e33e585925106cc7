"""The CloudEvents envelope, and an event: an envelope with its payload.

``codec.decode`` makes events from records; ``codec.encode`` takes an envelope and a payload.
"""

from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import BaseModel

from schemas.fields import Id, Payload, Str, Time

SPECVERSION = "1.0"
CONTENT_TYPE = "application/json"

D = TypeVar("D", bound=BaseModel, covariant=True)


class Envelope(Payload):
    """CloudEvents 1.0 attributes; ``time`` is the sender's, never used for "too old".

    (``source``, ``id``) names the event: the same pair again is the same event.
    """

    id: Id
    source: Id
    type: Id
    time: Time
    subject: Str | None = None
    dataschema: Str | None = None
    causationid: Id | None = None
    correlationid: Id | None = None
    traceparent: Str | None = None


@dataclass(frozen=True, slots=True)
class Event(Generic[D]):
    """A decoded record: what the headers said, and the payload as its model."""

    envelope: Envelope
    data: D
