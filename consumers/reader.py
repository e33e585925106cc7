"""Reading a bounded stretch of a topic, for replays, views and inspections.

In: a topic and where to begin and end, by offset or by Kafka's timestamp. Out: its committed
records, partition by partition in offset order, and then an end. No group is joined and no
offset is committed, so a reader can never disturb a worker. Progress is reported in records.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from consumers import batches
from consumers.closing import bounded
from consumers.errors import BrokerUnreachable, RangeGone, TopicMissing
from consumers.records import to_record
from schemas.record import Record

_POLL_MS = 200


@dataclass(frozen=True, slots=True)
class Bound:
    """Where a range begins or ends: at offsets by partition, or at a time.

    As a beginning, ``offsets`` and ``timestamp_ms`` are included; as an end, excluded.
    Partitions that ``offsets`` does not name count as unbounded. Nothing given: unbounded.
    """

    offsets: Mapping[int, int] = field(default_factory=dict)
    timestamp_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """Offsets done and to do, over all partitions (markers of transactions count too)."""

    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Range:
    """A stretch of a topic. ``partitions`` None: all of them."""

    topic: str
    partitions: tuple[int, ...] | None = None
    start: Bound = Bound()
    end: Bound = Bound()


class RangeReader:
    """A started consumer without a group that reads ranges, one after another."""

    def __init__(
        self, consumer: AIOKafkaConsumer, admin: AIOKafkaAdminClient, bootstrap_servers: str
    ) -> None:
        self._consumer = consumer
        self._admin = admin
        self._bootstrap_servers = bootstrap_servers

    async def read(
        self, span: Range, progress: Callable[[Progress], None] = lambda progress: None
    ) -> AsyncIterator[Record]:
        """The records of the range that are committed when it is asked for.

        Raises ``TopicMissing``, and ``RangeGone`` where the log does not hold the beginning
        any more.
        """
        limits = await self._limits(span)
        total = sum(end - start for start, end in limits.values())
        done = 0
        for source, (start, end) in sorted(limits.items()):
            async for record, position in self._read_partition(source, start, end):
                progress(Progress(done + position - start, total))
                if record is not None:
                    yield record
            done += end - start
        progress(Progress(total, total))

    async def bounds(self, span: Range) -> dict[int, tuple[int, int]]:
        """First and next offset of the range by partition, empty ones left out: to read it in
        stretches, newest first. Raises as ``read`` does."""
        limits = await self._limits(span)
        return {source.partition: limits[source] for source in sorted(limits)}

    async def _read_partition(
        self, source: TopicPartition, start: int, end: int
    ) -> AsyncIterator[tuple[Record | None, int]]:
        """Records up to ``end``, each with the position behind it."""
        self._consumer.assign([source])
        self._consumer.seek(source, start)
        position = start
        while position < end:
            found = await self._consumer.getmany(source, timeout_ms=_POLL_MS)
            for message in found.get(source, ()):
                if message.offset >= end:
                    return
                yield to_record(message), message.offset + 1
            # Markers and aborted records move the position without giving anything.
            position = await self._consumer.position(source)
            yield None, min(position, end)

    async def _limits(self, span: Range) -> dict[TopicPartition, tuple[int, int]]:
        known = await self._partitions(span.topic)
        wanted = known if span.partitions is None else set(span.partitions) & known
        sources = [TopicPartition(span.topic, partition) for partition in sorted(wanted)]
        self._consumer.assign(sources)
        first = await self._consumer.beginning_offsets(sources)
        last = await self._consumer.end_offsets(sources)  # the last stable offset
        starts = await self._resolve(span.start, first, last)
        ends = await self._resolve(span.end, last, last)
        for source in sources:
            if source.partition in span.start.offsets and starts[source] < first[source]:
                raise RangeGone(str(source.topic), source.partition, starts[source], first[source])
        return {
            source: (max(starts[source], first[source]), min(ends[source], last[source]))
            for source in sources
            if max(starts[source], first[source]) < min(ends[source], last[source])
        }

    async def _resolve(
        self, bound: Bound, default: Mapping[Any, int], last: Mapping[Any, int]
    ) -> dict[Any, int]:
        """Offsets of a bound; a time that nothing reaches yet means the end of the log."""
        if bound.timestamp_ms is None:
            return {tp: bound.offsets.get(tp.partition, offset) for tp, offset in default.items()}
        found = await self._consumer.offsets_for_times(dict.fromkeys(default, bound.timestamp_ms))
        return {tp: last[tp] if found.get(tp) is None else found[tp].offset for tp in default}

    async def _partitions(self, topic: str) -> set[int]:
        # Asked for all: to ask for one by name could create it on a broker that allows that.
        for described in await self._admin.describe_topics(None):
            if described["topic"] == topic and not described["error_code"]:
                return {partition["partition"] for partition in described["partitions"]}
        raise TopicMissing([topic], self._bootstrap_servers)


@asynccontextmanager
async def range_reader(
    bootstrap_servers: str, client: Mapping[str, Any] | None = None
) -> AsyncIterator[RangeReader]:
    """A reader, closed at the end. ``client``: security options. Raises ``BrokerUnreachable``."""
    batches.install()
    options = client or {}
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, **options)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers,
        group_id=None,
        enable_auto_commit=False,
        isolation_level="read_committed",
        max_partition_fetch_bytes=8 * 1024 * 1024,
        # A partition is left for the next while a fetch still waits for more of it.
        fetch_max_wait_ms=10,
        **options,
    )
    try:
        await admin.start()
        await consumer.start()
    except (KafkaError, OSError) as error:
        await bounded(consumer.stop())
        await bounded(admin.close())
        raise BrokerUnreachable(bootstrap_servers, error) from error
    try:
        yield RangeReader(consumer, admin, bootstrap_servers)
    finally:
        await bounded(consumer.stop())
        await bounded(admin.close())
