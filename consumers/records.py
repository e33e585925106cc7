"""What the client library hands out, as the plain values that travel through our rooms."""

from aiokafka import ConsumerRecord

from schemas.record import Record


def to_record(message: ConsumerRecord) -> Record:
    """A record as plain bytes."""
    return Record(
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        timestamp_ms=message.timestamp,
        key=message.key,
        value=message.value,
        headers=tuple(message.headers),
    )


def where(record: Record) -> dict[str, object]:
    """A record's place for a log line; never what it holds."""
    return {"topic": record.topic, "partition": record.partition, "offset": record.offset}
