"""Planted flaws: a worker with one of them must be caught by the checker.

Each is what somebody could write who has not been bitten yet, put in by patching the runtime.
``controls`` knows which faults bring each of them to light.
"""

import asyncio
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

import bot.handler
from bot.known import KnowledgeOfViews
from bot.memory import Memory
from bot.references import ReferencesHandler
from bot.values import Seen
from consumers import group, partition
from consumers.config import WorkerConfig
from consumers.offsets import Committed, OffsetTracker
from consumers.transactions import TransactionalPublisher
from schemas.feed import MentionCreated
from schemas.record import Output
from tests.chaos import faults

PAUSE_S = 4.0  # how long a busy machine may well stand between two lines


def install(name: str) -> None:
    """Patch this process; "" plants nothing."""
    if name:
        FLAWS[name]()
    if name in OFFSETS:
        _no_nets()


def _no_nets() -> None:
    """Two nets below the offsets would catch most of what goes wrong with them: what has its
    outcome on the log is not done again, and who has lost its place starts no producer."""

    async def nothing(self: partition.AssignedPartition, *_: Any) -> Mapping[int, int]:
        return {}

    async def member(self: group.Group) -> bool:
        return True

    group.Group.is_member = member  # type: ignore[method-assign]
    partition.AssignedPartition._look_up = nothing  # type: ignore[assignment,method-assign]


def auto_commit() -> None:
    """The client library commits what was polled, whether or not it was handled."""
    original = group.new_consumer

    def new_consumer(config: WorkerConfig) -> AIOKafkaConsumer:
        consumer = original(config)
        consumer._enable_auto_commit = True
        consumer._auto_commit_interval_ms = 200
        return consumer

    async def no_offsets(self: Any, offsets: Any, group_id: str) -> None:
        return None

    group.new_consumer = new_consumer
    AIOKafkaProducer.send_offsets_to_transaction = no_offsets


def no_transactions() -> None:
    """Outputs first, then the offset."""
    consumers: list[AIOKafkaConsumer] = []
    original = group.new_consumer

    def new_consumer(config: WorkerConfig) -> AIOKafkaConsumer:
        consumers.append(original(config))
        return consumers[-1]

    async def start(self: Any) -> None:
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self._config.bootstrap_servers, enable_idempotence=True
        )
        await self._producer.start()

    async def transact(
        self: Any, producer: Any, outputs: Sequence[Output], offset: int, metadata: str
    ) -> None:
        await _send_all(self, producer, outputs)
        faults.passing("after-all-sends")
        await consumers[-1].commit({self._source: OffsetAndMetadata(offset, metadata)})

    group.new_consumer = new_consumer
    TransactionalPublisher.start = start  # type: ignore[method-assign]
    TransactionalPublisher._transact = transact  # type: ignore[method-assign]


async def _send_all(publisher: Any, producer: Any, outputs: Sequence[Output]) -> None:
    sent = [
        await producer.send(
            one.topic,
            one.value,
            one.key,
            partition=publisher._source.partition,
            headers=list(one.headers),
        )
        for one in outputs
    ]
    await asyncio.gather(*sent)


def one_id_per_process() -> None:
    """The transactional id goes with the process, so a new owner does not fence the old one."""

    def name(self: TransactionalPublisher) -> str:
        source = self._source
        return f"{self._config.group_id}.{os.getpid()}.{source.topic}.{source.partition}"

    TransactionalPublisher.transactional_id = property(name)  # type: ignore[assignment]


def offset_before_start() -> None:
    """The committed offset is read first, then the producer is started."""
    read: dict[int, Committed | None] = {}
    start, init = TransactionalPublisher.start, partition.AssignedPartition.__init__

    def patched(self: Any, source: TopicPartition, *args: Any, **kwargs: Any) -> None:
        read_back = kwargs["read_back"]

        async def early(source: TopicPartition) -> Committed | None:
            return read.pop(id(self)) or Committed(0)  # not out of the audit: that is a net too

        async def first() -> None:
            read[id(self)] = await read_back(source)
            os.write(1, b"paused\n")
            await asyncio.sleep(PAUSE_S)

        def new_publisher(config: WorkerConfig, source: TopicPartition) -> Any:
            publisher = TransactionalPublisher(config, source)
            publisher.chaos_first = first  # type: ignore[attr-defined]
            return publisher

        init(self, source, *args, **kwargs | {"read_back": early, "new_publisher": new_publisher})

    async def started(self: Any) -> None:
        await self.chaos_first()
        await start(self)

    partition.AssignedPartition.__init__ = patched  # type: ignore[method-assign]
    TransactionalPublisher.start = started  # type: ignore[method-assign]


def two_transactions() -> None:
    """Replies in one, decisions and offset in another."""
    original = TransactionalPublisher._transact

    async def transact(
        self: Any, producer: Any, outputs: Sequence[Output], offset: int, metadata: str
    ) -> None:
        replies = [one for one in outputs if "replies" in one.topic]
        if replies:
            await producer.begin_transaction()
            await _send_all(self, producer, replies)
            await producer.commit_transaction()
        others = [one for one in outputs if "replies" not in one.topic]
        await original(self, producer, others, offset, metadata)

    TransactionalPublisher._transact = transact  # type: ignore[method-assign]


def no_lanes() -> None:
    """Every record for itself."""

    def lane_of(data: Any) -> tuple[str, ...]:
        post = data.post if isinstance(data, MentionCreated) else getattr(data, "message", data)
        return ("alone", str(id(post)))

    bot.handler.lane_of = lane_of


def no_map() -> None:
    """Only the offset is committed; what is finished beyond it is not told."""
    original = OffsetTracker.commit_with

    def commit_with(self: OffsetTracker, offsets: Collection[int]) -> tuple[int, str]:
        return original(self, offsets)[0], ""

    OffsetTracker.commit_with = commit_with  # type: ignore[method-assign]


def no_dedupe() -> None:
    """Nothing is remembered."""

    def meet(self: Memory, *_: Any, **__: Any) -> Seen:
        return Seen()

    Memory.meet = meet  # type: ignore[method-assign]
    KnowledgeOfViews.seen = meet  # type: ignore[assignment,method-assign]


def no_view_of_decisions() -> None:
    """What is remembered is only what this assignment has seen."""

    def seen(self: KnowledgeOfViews, *args: Any, **kwargs: Any) -> Seen:
        return self._memory.meet(*args, **kwargs)

    KnowledgeOfViews.seen = seen  # type: ignore[method-assign]


def no_taking_back() -> None:
    """Nobody looks at a reply again."""

    async def handle(self: ReferencesHandler, job: Any, *, attempt: int) -> Sequence[Output]:
        return ()

    ReferencesHandler.handle = handle  # type: ignore[method-assign]


FLAWS: dict[str, Callable[[], None]] = {
    "auto-commit": auto_commit,
    "no-transactions": no_transactions,
    "one-id-per-process": one_id_per_process,
    "offset-before-start": offset_before_start,
    "two-transactions": two_transactions,
    "no-lanes": no_lanes,
    "no-map": no_map,
    "no-dedupe": no_dedupe,
    "no-view-of-decisions": no_view_of_decisions,
    "no-taking-back": no_taking_back,
}
OFFSETS = frozenset(
    {
        "auto-commit",
        "no-transactions",
        "one-id-per-process",
        "offset-before-start",
        "two-transactions",
        "no-map",
    }
)
"""Flaws about transactions and offsets, which only show where nothing below holds them."""
