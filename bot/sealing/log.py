"""Seals as they stand on ``bot.audit-seals``, where both topics of the audit have theirs.

In: an audit partition. Out: its seals, in order, or the last of them. Nothing is written, and no
group is joined.
"""

from collections.abc import AsyncIterator, Callable

from bot.clients import options
from bot.settings import KafkaSettings
from consumers.reader import Bound, Range, RangeReader, range_reader
from schemas import names
from schemas.codec import Undecodable, decode
from schemas.record import Record
from schemas.seals import AuditSealed

_STRETCH = 1_000  # offsets that are read at once from the end backwards


def read_seal(record: Record, topic: str, partition: int) -> AuditSealed | None:
    """The seal, None for one of another partition. Raises ``Undecodable`` for what is none."""
    data = decode(record).data
    if not isinstance(data, AuditSealed) or (data.topic, data.partition) != (topic, partition):
        return None
    return data


async def seals_of(
    reader: RangeReader, topic: str, partition: int, foreign: Callable[[Record], None]
) -> AsyncIterator[AuditSealed]:
    """All seals of a partition, in order; ``foreign`` gets what stands there and is no seal."""
    async for record in reader.read(Range(names.BOT_AUDIT_SEALS, partitions=(partition,))):
        try:
            found = read_seal(record, topic, partition)
        except Undecodable:
            foreign(record)
            continue
        if found is not None:
            yield found


async def last_seal(kafka: KafkaSettings, topic: str, partition: int) -> AuditSealed | None:
    """The newest seal of a partition; None where there is none yet."""
    async with range_reader(kafka.bootstrap_servers, options(kafka)) as reader:
        whole = Range(names.BOT_AUDIT_SEALS, partitions=(partition,))
        first, end = (await reader.bounds(whole)).get(partition, (0, 0))
        while end > first:
            start = max(first, end - _STRETCH)
            found = await _last_between(reader, topic, partition, start, end)
            if found is not None:
                return found
            end = start
    return None


async def _last_between(
    reader: RangeReader, topic: str, partition: int, start: int, end: int
) -> AuditSealed | None:
    span = Range(
        names.BOT_AUDIT_SEALS,
        partitions=(partition,),
        start=Bound({partition: start}),
        end=Bound({partition: end}),
    )
    last = None
    async for record in reader.read(span):
        try:
            last = read_seal(record, topic, partition) or last
        except Undecodable:
            continue
    return last
