"""The worker's connection to Kafka: a consumer in a group, and an admin client beside it.

``connect`` waits for the broker with back-off, checks that the topics are there and fit
together, and hands back a ``Group``, which also answers the two questions of a newly
assigned partition: what is committed, and where is its beginning.
"""

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaConnectionError, KafkaError

from consumers import batches, quiet
from consumers.backoff import full_jitter
from consumers.closing import bounded
from consumers.config import WorkerConfig
from consumers.errors import (
    BrokerUnreachable,
    OffsetBeyondEnd,
    PartitionsDiffer,
    TopicMissing,
)
from consumers.offsets import Committed
from consumers.transactions import read_committed_offset

log = structlog.get_logger(__name__)

# A topic that was just created is not known to every broker at once.
_METADATA_TRIES = 8
_METADATA_PAUSE_S = 0.25
# A static member that lost its place so often in this time has a twin.
_LOSSES = 3
_LOSSES_WITHIN_S = 300.0
_WEEK_MS = 7 * 24 * 3600 * 1000


class Membership:
    """Tells a static member from two that were given the same ``group_instance_id``.

    aiokafka knows no FENCED_INSTANCE_ID: it sees that its member id is not known any more and
    joins again, by which it takes the place of the other, and so on for ever.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._member_id = ""
        self._lost: deque[float] = deque(maxlen=_LOSSES)

    def has_twin(self, member_id: str) -> bool:
        """Asked at each assignment; True once for every so many lost places in a short time."""
        before, self._member_id = self._member_id, member_id
        if before in ("", member_id):
            return False
        self._lost.append(self._clock())
        found = len(self._lost) == _LOSSES and self._lost[-1] - self._lost[0] <= _LOSSES_WITHIN_S
        if found:
            self._lost.clear()
        return found


@dataclass
class Group:
    """A started consumer and an admin client that is replaced when it fails.

    ``partitions``: how many each topic of the configuration has.
    """

    config: WorkerConfig
    consumer: AIOKafkaConsumer
    admin: AIOKafkaAdminClient
    partitions: Mapping[str, int]
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _membership: Membership = field(default_factory=Membership)

    def assigned(self) -> None:
        """Called at each assignment: has a worker with our ``group_instance_id`` come between?"""
        static = self.config.group_instance_id
        if static and self._membership.has_twin(self.consumer._coordinator.member_id):
            log.error(
                "another worker seems to run with the same group_instance_id; they take the"
                " partitions from each other for ever: stop one, or give each its own",
                group_instance_id=static,
                group=self.config.group_id,
            )

    def is_looking(self) -> bool:
        """Is the client looking for the group's coordinator? A new subscription meanwhile would
        end its task: it goes on with the assignment of the old one, which is over (aiokafka
        0.14, an assertion)."""
        return self.consumer._coordinator.coordinator_id is None

    def is_dead(self) -> bool:
        """Has the client's task for the group ended? Then it neither joins nor leaves any more,
        and only a new client will; aiokafka says so to whoever polls, and only there."""
        return bool(self.consumer._coordinator._coordination_task.done())

    async def is_member(self) -> bool:
        """Does the group still count us in? A heartbeat of our own, since a process that stood
        still may not know yet. Raises KafkaError or TimeoutError where nobody can say."""
        coordinator = self.consumer._coordinator
        member_id = coordinator.member_id
        if not member_id:
            return False  # it has lost its place, and is about to join anew
        async with asyncio.timeout(self.config.commit_timeout_s):
            counted = await coordinator._do_heartbeat()
        if coordinator.member_id != member_id:
            return False
        if not counted:
            raise KafkaError("the group can't be asked whether we still belong to it")
        return True

    async def committed(self, source: TopicPartition) -> Committed | None:
        """What the group has committed, read only after the producer of ``source`` started."""
        try:
            async with asyncio.timeout(self.config.commit_timeout_s):
                return await read_committed_offset(self.admin, self.config.group_id, source)
        except (KafkaError, OSError, TimeoutError):
            await self._renew_admin()
            raise

    async def _renew_admin(self) -> None:
        async with self._lock:
            await bounded(self.admin.close())
            self.admin = new_admin(self.config)
            await self.admin.start()

    async def seek(self, source: TopicPartition, offset: int | None) -> int:
        """Move the consumer there (None: to the beginning); returns the offset.

        Not ``seek_to_beginning``, which can lose to the default reset. Raises
        ``IllegalStateError`` when the partition is not ours any more, ``OffsetBeyondEnd`` when
        there is nothing to seek to.
        """
        beginnings = await self.consumer.beginning_offsets([source])
        start = beginnings[source] if offset is None else max(offset, beginnings[source])
        end = (await self.consumer.end_offsets([source]))[source]
        if start > end:
            place = f"{source.topic}/{source.partition}"
            raise OffsetBeyondEnd(place, start, end, self.config.group_id)
        self.consumer.seek(source, start)
        return int(start)

    async def close(self) -> None:
        """Leave the group and close the sockets, within a bound."""
        await bounded(self.consumer.stop())
        await bounded(self.admin.close())


async def connect(config: WorkerConfig, stopping: asyncio.Event) -> Group | None:
    """Wait until a broker answers; None when ``stopping`` was set meanwhile.

    Raises ``TopicMissing`` or ``PartitionsDiffer``.
    """
    for attempt in itertools.count(1):
        consumer, admin = new_consumer(config), new_admin(config)
        try:
            await admin.start()
            await consumer.start()
            partitions = await check_topics(config, admin)
        except (KafkaConnectionError, OSError, TimeoutError) as error:
            await bounded(consumer.stop())
            await bounded(admin.close())
            log.warning(str(BrokerUnreachable(config.bootstrap_servers, error)), attempt=attempt)
        except BaseException:
            await bounded(consumer.stop())
            await bounded(admin.close())
            raise
        else:
            return Group(config, consumer, admin, partitions)
        delay = full_jitter(attempt, config.retry_base_s, config.retry_cap_s)
        if await _set_within(stopping, delay):
            return None
    raise AssertionError("unreachable")


def new_consumer(config: WorkerConfig) -> AIOKafkaConsumer:
    """A group consumer that never commits by itself and sees only committed records."""
    batches.install(config.max_batch_bytes)
    quiet.install()
    return AIOKafkaConsumer(
        bootstrap_servers=config.bootstrap_servers,
        client_id=config.client_id,
        group_id=config.group_id,
        group_instance_id=config.group_instance_id,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        partition_assignment_strategy=(RangePartitionAssignor,),
        session_timeout_ms=config.session_timeout_ms,
        heartbeat_interval_ms=config.heartbeat_interval_ms,
        rebalance_timeout_ms=config.rebalance_timeout_ms,
        # A worker without room does not poll, which must not count as dead.
        max_poll_interval_ms=_WEEK_MS,
        max_partition_fetch_bytes=config.max_request_bytes,
        **config.client,
    )


def new_admin(config: WorkerConfig) -> AIOKafkaAdminClient:
    """An admin client that is not started yet."""
    return AIOKafkaAdminClient(
        bootstrap_servers=config.bootstrap_servers, client_id=config.client_id, **config.client
    )


async def check_topics(config: WorkerConfig, admin: AIOKafkaAdminClient) -> dict[str, int]:
    """All topics exist, and every output topic has the partitions of the inputs: how many.

    Raises ``TopicMissing`` or ``PartitionsDiffer``.
    """
    names = [*config.topics, *config.output_topics]
    counts: dict[str, int] = {}
    for _ in range(_METADATA_TRIES):
        described = await admin.describe_topics(names)
        counts = {topic["topic"]: len(topic["partitions"]) for topic in described}
        if all(counts.get(name) for name in names):
            break
        await asyncio.sleep(_METADATA_PAUSE_S)
    else:
        missing = [name for name in names if not counts.get(name)]
        raise TopicMissing(missing, config.bootstrap_servers)
    if len({counts[name] for name in names}) > 1:
        raise PartitionsDiffer({name: counts[name] for name in names})
    return {name: counts[name] for name in names}


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    waiter = asyncio.ensure_future(event.wait())
    await asyncio.wait([waiter], timeout=seconds)
    waiter.cancel()
    return event.is_set()
