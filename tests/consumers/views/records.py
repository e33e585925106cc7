"""Records for tests of views."""

from aiokafka import TopicPartition

from schemas.record import Record

SOURCE = TopicPartition("notes", 0)


def note(
    offset: int,
    text: bytes | None = b"text",
    *,
    key: bytes = b"k",
    topic: str = "notes",
    partition: int = 0,
    at_ms: int | None = None,
) -> Record:
    """One record; its time is its offset in seconds unless told otherwise."""
    time_ms = offset * 1000 if at_ms is None else at_ms
    return Record(
        topic=topic, partition=partition, offset=offset, timestamp_ms=time_ms, key=key, value=text
    )


def notes(first: int, end: int) -> list[Record]:
    """Records of offsets ``first`` to ``end`` - 1."""
    return [note(offset, b"text %d" % offset) for offset in range(first, end)]
