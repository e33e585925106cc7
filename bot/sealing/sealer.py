"""The sealer: follows the audit on Kafka and writes its seals, each exactly once.

In: ``bot.audit`` and ``bot.audit-private``, partition by partition, what is committed only. Out:
a seal of at most a second, or 500 records, on ``bot.audit-seals``, in one transaction with the
offset up to which the chain goes and with its end as metadata. There is one transactional id for
each partition of the audit: whoever starts fences whoever is at it, and only then reads where the
chain ends. So a kill -9 or a second sealer leaves neither a gap nor a double.

A sealer that was fenced stands by: it goes on only where a record stays unsealed for a while.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from bot.clients import admin, consumer, options, require_topics
from bot.errors import Trouble
from bot.sealing.log import last_seal
from bot.sealing.seals import MAX_RECORDS, SEALED, Head, output_of, seal
from bot.settings import KafkaSettings
from consumers.backoff import full_jitter
from consumers.config import WorkerConfig
from consumers.errors import Fenced, told
from consumers.records import to_record
from consumers.transactions import TransactionalPublisher, asked_to_stop
from schemas import names
from schemas.record import Record

log = structlog.get_logger(__name__)

GROUP = "twite.audit-seals"  # one for a cluster: the chain is one, whichever bots write there
BATCH_S = 1.0  # from the first record of a seal to its end
TAKEOVER_S = 10.0
_POLL_MS = 200
_QUIET_TRIES = 3  # a new broker has no coordinator of groups for a moment
_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 15.0


async def seal_all(
    kafka: KafkaSettings,
    stop: asyncio.Event,
    ready: Callable[[int], None] = lambda count: None,
    sealed: Callable[[str, Head], None] = lambda place, head: None,
) -> None:
    """Seals every partition of the audit until ``stop``. ``ready`` gets how many there are,
    ``sealed`` the place and the new end of its chain after each seal.

    Raises ``TopicMissing`` and ``BrokerUnreachable`` at the start; later a broker is waited for.
    """
    counts = await require_topics(kafka, [*SEALED, names.BOT_AUDIT_SEALS])
    sealers = [
        Sealer(kafka, topic, partition, sealed=partial(sealed, f"{topic}/{partition}"))
        for topic in SEALED
        for partition in range(min(counts[topic], counts[names.BOT_AUDIT_SEALS]))
    ]
    ready(len(sealers))
    async with asyncio.TaskGroup() as group:
        for sealer in sealers:
            group.create_task(sealer.run(stop), name=f"seal {sealer.place}")


class Sealer:
    """Of one partition of the audit. ``sealed`` is called with the head after each seal."""

    def __init__(
        self,
        kafka: KafkaSettings,
        topic: str,
        partition: int,
        *,
        batch_s: float = BATCH_S,
        takeover_s: float = TAKEOVER_S,
        most: int = MAX_RECORDS,
        sealed: Callable[[Head], None] = lambda head: None,
    ) -> None:
        self._kafka = kafka
        self._source = TopicPartition(topic, partition)
        self._batch_s = batch_s
        self._takeover_s = takeover_s
        self._most = most
        self._sealed = sealed

    @property
    def place(self) -> str:
        return f"{self._source.topic}/{self._source.partition}"

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop``. Errors are logged, and it is tried again."""
        attempt, other = 0, False
        while not stop.is_set():
            try:
                await self._follow(stop, stands_by=other)
                return
            except Fenced:
                attempt, other = 0, True
                log.info("another sealer goes on", place=self.place)
            except BaseException as error:
                if asked_to_stop(error):
                    raise
                attempt += 1
                why = str(error) if isinstance(error, Trouble) else told(error)
                tell = log.info if attempt <= _QUIET_TRIES else log.warning
                tell("sealing is tried again", place=self.place, error=why, attempt=attempt)
                await _pause(stop, full_jitter(attempt, _PAUSE_S, _LONGEST_PAUSE_S))

    async def _follow(self, stop: asyncio.Event, *, stands_by: bool) -> None:
        """Raises ``Fenced``, and whatever Kafka raises: all of it is done anew then."""
        publisher = TransactionalPublisher(_config(self._kafka), self._source)
        async with admin(self._kafka) as asked, consumer(self._kafka) as reader:
            reader.assign([self._source])
            try:
                if stands_by:
                    await self._stand_by(asked, reader, stop)
                await publisher.start()
                head = await self._sought(asked, reader)
                while not stop.is_set():
                    if records := await self._batch(reader, stop):
                        head = await self._publish(publisher, head, records)
            finally:
                await publisher.discard()

    async def _publish(
        self, publisher: TransactionalPublisher, head: Head, records: Sequence[Record]
    ) -> Head:
        made = seal(head, records)
        after = Head.of(made)
        await publisher.publish([output_of(made, datetime.now(UTC))], after.end, after.metadata)
        self._sealed(after)
        return after

    async def _batch(self, reader: AIOKafkaConsumer, stop: asyncio.Event) -> list[Record]:
        """What comes within the time of a seal from its first record on."""
        now = asyncio.get_running_loop().time
        found: list[Record] = []
        until = 0.0
        while not stop.is_set() and len(found) < self._most and (not found or now() < until):
            room = self._most - len(found)
            got = await reader.getmany(self._source, timeout_ms=_POLL_MS, max_records=room)
            until = until or (now() + self._batch_s if got else 0.0)
            found += [to_record(message) for message in got.get(self._source, ())]
        return found

    async def _stand_by(
        self, asked: AIOKafkaAdminClient, reader: AIOKafkaConsumer, stop: asyncio.Event
    ) -> None:
        """Returns when a record has stood there unsealed for ``takeover_s``."""
        while not stop.is_set():
            await self._sought(asked, reader)
            waiting = await self._batch(reader, stop)
            await _pause(stop, self._takeover_s)
            if waiting and (await self._head(asked, reader)).end <= waiting[0].offset:
                log.info("nobody seals, so this one does", place=self.place)
                return

    async def _sought(self, asked: AIOKafkaAdminClient, reader: AIOKafkaConsumer) -> Head:
        """The end of the chain, which ``reader`` goes on from. Raises ``Trouble`` where the log
        ends before it."""
        head = await self._head(asked, reader)
        first = (await reader.beginning_offsets([self._source]))[self._source]
        end = (await reader.end_offsets([self._source]))[self._source]
        if head.end > end:
            what = f"ends at {end}, but is sealed up to {head.end}: sealed records are gone."
            raise Trouble(what, where=self.place, todo="Look at it with `twite audit verify`.")
        reader.seek(self._source, max(head.end, first))
        return head

    async def _head(self, asked: AIOKafkaAdminClient, reader: AIOKafkaConsumer) -> Head:
        """The group forgets it after some idle days; the seals themselves are kept."""
        found = await asked.list_consumer_group_offsets(GROUP, partitions=[self._source])
        entry = found.get(self._source)
        if entry is not None and entry.offset >= 0:
            head = Head.read(entry.offset, entry.metadata or "")
            if head is not None:
                return head
        last = await last_seal(self._kafka, self._source.topic, self._source.partition)
        if last is not None:
            return Head.of(last)
        first = await reader.beginning_offsets([self._source])
        return Head(-1, first[self._source])


def _config(kafka: KafkaSettings) -> WorkerConfig:
    return WorkerConfig(
        bootstrap_servers=kafka.bootstrap_servers,
        group_id=GROUP,
        topics=SEALED,
        client=options(kafka),
    )


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
