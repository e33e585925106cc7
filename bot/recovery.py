"""What is finished in a partition for which the group has no offset any more.

Kafka forgets the offsets of a group that was away for a week, and would then hand out the
whole log again. Every input has its decision on the audit topics, written in the transaction
of its offset, so the audit says exactly what was finished. In: an input partition. Out: what
to resume from, or None where the audit knows nothing of it, so this is a new group. The audit is
long, so it is read only where it can say something: not for a topic whose records are never
decided, nor for a partition that holds nothing. Next: ``consumers/partition.py``, which seeks
there.
"""

from collections.abc import AsyncIterator

import structlog
from aiokafka import TopicPartition

from bot.clients import options
from bot.handlers import SILENT_TOPICS
from bot.settings import KafkaSettings
from bot.views.records import own_event
from consumers.offsets import Committed
from consumers.reader import Bound, Range, RangeReader, range_reader
from consumers.views.view import BadRecord
from schemas import names
from schemas.record import Record

log = structlog.get_logger(__name__)

AUDIT_TOPICS = (names.BOT_AUDIT, names.BOT_AUDIT_PRIVATE)


async def finished_on_audit(kafka: KafkaSettings, source: TopicPartition) -> Committed | None:
    """Reads the audit partitions beside ``source``. Raises ``ConsumersError``."""
    if source.topic in SILENT_TOPICS:
        return None
    async with range_reader(kafka.bootstrap_servers, options(kafka)) as reader:
        if await _is_empty(reader, source):
            return None
        finished = {offset async for offset in _decided(reader, source)}
        if not finished:
            return None
        committed = await _resume(reader, source, finished)
    log.warning(
        "the group has no offset here but the audit has decisions: resuming from the audit",
        partition=str(source),
        decisions=len(finished),
        offset=committed.offset,
    )
    return committed


async def _decided(reader: RangeReader, source: TopicPartition) -> AsyncIterator[int]:
    """Offsets of ``source`` that have a decision."""
    for topic in AUDIT_TOPICS:
        async for record in reader.read(Range(topic, (source.partition,))):
            offset = _offset_of(record, source)
            if offset is not None:
                yield offset


def _offset_of(record: Record, source: TopicPartition) -> int | None:
    """What a decision says is finished of ``source``; read, not checked: the bot wrote it."""
    try:
        kind, data = own_event(record)
        if kind != names.DECISION_RECORDED:
            return None
        ref = data["input"]
        here = (ref["topic"], ref["partition"]) == (source.topic, source.partition)
        return int(ref["offset"]) if here else None
    except (BadRecord, KeyError, TypeError, ValueError):
        return None


async def _is_empty(reader: RangeReader, source: TopicPartition) -> bool:
    async for _ in reader.read(Range(source.topic, (source.partition,))):
        return False
    return True


async def _resume(reader: RangeReader, source: TopicPartition, finished: set[int]) -> Committed:
    """The first record on the log without a decision, and what is decided beyond it.

    The log itself is read up to the last decision, since offsets without a record (markers
    of transactions) must not count as unfinished.
    """
    end = max(finished) + 1
    span = Range(source.topic, (source.partition,), end=Bound({source.partition: end}))
    first = end
    async for record in reader.read(span):
        if record.offset not in finished:
            first = record.offset
            break
    return Committed(first, frozenset(offset for offset in finished if offset > first))
