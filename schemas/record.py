"""Kafka records as plain values: what comes in, and what is to go out.

They hold bytes, so they can carry anything a topic can hold, garbage included.
"""

from schemas.value import value

# A name that was not UTF-8 on the wire holds its bytes as surrogates (PEP 383).
Header = tuple[str, bytes | None]


@value
class Record:
    """One record as it was read. ``timestamp_ms`` is Kafka's own, in ms since 1970."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...] = ()


@value
class Output:
    """One record to publish, by default to the partition of the input that it came from."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...] = ()
    partition: int | None = None
