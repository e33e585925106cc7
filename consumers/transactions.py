"""One transactional producer for one input partition: outputs and offset, all or nothing.

Outputs go to the partition of the input, or to the one that they name.

``transactional.id`` is group + input topic + partition, so that a new owner's start fences
the old one, and its start also settles the transaction that the old one left open. Only
after that start is the committed offset worth reading.

A producer is used until the first exception, then discarded: aiokafka can't tell after a
fault whether it still owns its id, and ``begin_transaction`` and an empty commit both
succeed while fenced.
"""

import asyncio
import itertools
from collections.abc import Iterator, Sequence

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import (
    InvalidTimestampError,
    MessageSizeTooLargeError,
    ProducerFenced,
    RecordListTooLargeError,
)
from aiokafka.producer import sender
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.structs import OffsetAndMetadata

from consumers.batches import RawBatch, needs_raw_batch
from consumers.config import WorkerConfig
from consumers.errors import Fenced, NoSuchPartition, told
from consumers.offsets import METADATA_LIMIT, Committed, decode_map
from schemas.record import Output

log = structlog.get_logger(__name__)

# What no retry changes: the record itself is refused.
REFUSALS = (
    MessageSizeTooLargeError,
    RecordListTooLargeError,
    InvalidTimestampError,
    NoSuchPartition,
)

DISCARD_TIMEOUT_S = 2.0
# Of one partition aiokafka sends one batch after another, each waiting for its answer, so few
# large ones are better; but a topic's max.message.bytes limits a batch, 1 MiB by default.
BATCH_BYTES = 512 * 1024
# The broker answers a commit before its markers are written, and refuses the next transaction
# until they are (CONCURRENT_TRANSACTIONS). aiokafka then waits 20 ms; they take about 3.
TRANSACTION_PAUSE_S = 0.002
# Of the passing errors that Kafka 4 gives to old clients' transactions; 100 by default.
RETRY_BACKOFF_MS = 20


Place = tuple[str, int]  # topic and partition


class TransactionalPublisher:
    """Publishes for one input partition. After any exception: ``discard``, make a new one."""

    def __init__(self, config: WorkerConfig, source: TopicPartition) -> None:
        self._config = config
        self._source = source
        self._producer: AIOKafkaProducer | None = None

    @property
    def transactional_id(self) -> str:
        """Unique per group and input partition, the same for every worker that owns it."""
        return f"{self._config.group_id}.{self._source.topic}.{self._source.partition}"

    async def start(self) -> None:
        """Connect and take ownership of the id. Raises KafkaError while the broker is away."""
        sender.BACKOFF_OVERRIDE = TRANSACTION_PAUSE_S
        producer = AIOKafkaProducer(
            bootstrap_servers=self._config.bootstrap_servers,
            client_id=self._config.client_id,
            transactional_id=self.transactional_id,
            transaction_timeout_ms=self._config.transaction_timeout_ms,
            max_request_size=self._config.max_request_bytes,
            max_batch_size=BATCH_BYTES,
            retry_backoff_ms=RETRY_BACKOFF_MS,
            **self._config.client,
        )
        self._producer = producer
        async with asyncio.timeout(self._config.commit_timeout_s):
            await producer.start()

    async def publish(self, outputs: Sequence[Output], offset: int, metadata: str) -> None:
        """One transaction: all outputs to their partitions, then the offset.

        Raises ``Fenced`` when another owner has started; anything else may have committed
        or not, and only reading the offset back after a new start tells.
        """
        if self._producer is None:
            raise RuntimeError("publish before start")
        try:
            async with asyncio.timeout(self._config.commit_timeout_s):
                await self._transact(self._producer, outputs, offset, metadata)
        except BaseException as error:
            if not asked_to_stop(error) and _is_fenced(self._producer, error):
                raise Fenced(self.transactional_id) from error
            raise

    async def _transact(
        self, producer: AIOKafkaProducer, outputs: Sequence[Output], offset: int, metadata: str
    ) -> None:
        await producer.begin_transaction()
        sent: list[asyncio.Future[object]] = []
        for (topic, partition), batch in self._batches(producer, outputs):
            if partition not in await producer.partitions_for(topic):
                raise NoSuchPartition(topic, partition)
            future = await producer.send_batch(batch, topic, partition=partition)
            future.add_done_callback(_look_at)
            sent.append(future)
        offsets = {self._source: OffsetAndMetadata(offset, metadata)}
        # A refused send that nobody awaited would still commit the rest. Only then the
        # offsets: Kafka refuses a send for a moment while it takes the group in (KIP-890).
        await asyncio.gather(*sent)
        await producer.send_offsets_to_transaction(offsets, self._config.group_id)
        await producer.commit_transaction()

    def _batches(
        self, producer: AIOKafkaProducer, outputs: Sequence[Output]
    ) -> Iterator[tuple[Place, BatchBuilder]]:
        """The outputs in record batches, in order within each partition.

        Whole batches cost a third of single sends, since each of those makes a future.
        """
        open_batches: dict[Place, BatchBuilder] = {}
        own = self._source.partition
        for output in outputs:
            place = (output.topic, own if output.partition is None else output.partition)
            if needs_raw_batch(output):
                if place in open_batches:
                    yield place, open_batches.pop(place)
                yield place, RawBatch(output)
                continue
            batch = open_batches.get(place) or producer.create_batch()
            if not _append(batch, output):
                yield place, batch
                batch = producer.create_batch()
                _append(batch, output)  # an empty batch takes a record of any size
            open_batches[place] = batch
        yield from open_batches.items()

    async def discard(self) -> None:
        """Give the sockets back, within a bound: a stop with a commit in flight can hang."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        look_at_leftovers(producer)
        try:
            async with asyncio.timeout(DISCARD_TIMEOUT_S):
                await producer.stop()
        except BaseException as error:
            await _tear_down(producer)
            if asked_to_stop(error):
                raise
            log.info("producer torn down", partition=str(self._source), error=told(error))


def _is_fenced(producer: AIOKafkaProducer | None, error: BaseException) -> bool:
    """Only the request that met it raises ``ProducerFenced``. The sender dies of it, and whatever
    is asked after that raises something else: IllegalOperation, or an AssertionError."""
    if isinstance(error, ProducerFenced):
        return True
    task = producer._sender.sender_task if producer is not None and producer._sender else None
    if task is None or not task.done() or task.cancelled():
        return False
    return isinstance(task.exception(), ProducerFenced)


def _look_at(future: "asyncio.Future[object] | None") -> None:
    """A failed transaction leaves futures that nobody awaits; asyncio would log each later."""
    if future is not None and future.done() and not future.cancelled():
        future.exception()


def look_at_leftovers(producer: AIOKafkaProducer) -> None:
    """The futures that aiokafka keeps to itself and fails when the sender dies."""
    _look_at(producer._txn_manager._transaction_waiter)
    accumulator = producer._message_accumulator
    batches = [*accumulator._pending_batches, *itertools.chain(*accumulator._batches.values())]
    for batch in batches:
        _look_at(batch._drain_waiter)


def _append(batch: BatchBuilder, output: Output) -> bool:
    """False where the batch is full."""
    metadata = batch.append(
        timestamp=None, key=output.key, value=output.value, headers=list(output.headers)
    )
    return metadata is not None


async def _tear_down(producer: AIOKafkaProducer) -> None:
    """What ``stop`` does, without waiting for anything to be delivered."""
    task = producer._sender.sender_task if producer._sender is not None else None
    if task is not None and not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=DISCARD_TIMEOUT_S)
    close = asyncio.ensure_future(producer.client.close())
    await asyncio.wait([close], timeout=DISCARD_TIMEOUT_S)


def asked_to_stop(error: BaseException) -> bool:
    """Was our own task cancelled? aiokafka also lets CancelledErrors out that nobody asked for."""
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError):
        return task is not None and task.cancelling() > 0
    return not isinstance(error, Exception)


async def read_committed_offset(
    admin: AIOKafkaAdminClient, group_id: str, source: TopicPartition
) -> Committed | None:
    """The group's offset with its map, or None where nothing was committed yet.

    Through the admin client, since ``consumer.committed()`` drops the metadata.
    """
    found = await admin.list_consumer_group_offsets(group_id, partitions=[source])
    entry = found.get(source)
    if entry is None or entry.offset < 0:
        return None
    return decode_map(entry.offset, (entry.metadata or "")[:METADATA_LIMIT])
