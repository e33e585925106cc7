"""Following topics for views: one consumer without a group, whatever views it serves.

In: views with their stores, which come and go with the worker's partitions. Out: rows in the
stores, batch by batch, and ``News`` of how far each one is. Nothing is committed to Kafka: the
offsets stand beside the rows. Everything here runs on one event loop, that of a thread of its
own in a worker (``consumers/views/views.py``), since writing to SQLite blocks it.

    add → place (where does the file end, is the log still the same?) → read → caught up

The ends of logs are asked through consumers of their own: a broker answers one request of a
connection after another, so behind a waiting fetch the answer would come late.
"""

import asyncio
import itertools
import sqlite3
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from consumers import batches
from consumers.backoff import full_jitter
from consumers.batches import BatchTooLarge
from consumers.closing import bounded
from consumers.errors import BrokerUnreachable, PartitionsDiffer, TopicMissing, told
from consumers.metrics import Metrics
from consumers.records import to_record
from consumers.views.followed import Followed, News, OtherLog
from consumers.views.store import Damaged, Files, Store, Why, error_name
from consumers.views.view import View
from schemas.record import Record

log = structlog.get_logger(__name__)

WAIT_MS = 100  # of a fetch for something new
_POLL_MS = 25  # of a turn of the loop, and so of a change of what is followed
_CAUTIOUS_MS = 20
BATCH_RECORDS = 2_000
TRIM_ROWS = 300
OPEN_TRANSACTIONS_S = 25.0  # no transaction of ours is open for longer than 20 s
_MAX_FETCH_BYTES = 16 * 1024 * 1024
_TOPIC_TRIES = 8
_TOPIC_PAUSE_S = 0.25


@dataclass(frozen=True, slots=True)
class _Ends:
    """Where logs end: what is committed, and what was written to those of our own."""

    committed: Mapping[TopicPartition, int]
    uncommitted: Mapping[TopicPartition, int]

    @property
    def written(self) -> Mapping[TopicPartition, int]:
        return {**self.committed, **self.uncommitted}


Found = Mapping[TopicPartition, Sequence[Record]]


@dataclass(frozen=True, kw_only=True)
class FollowConfig:
    """How to follow. ``own_topics``: what this group's workers write in transactions; a view is
    caught up only when it has also what stands behind an open one. ``client``: security options.
    ``max_age_ms``, ``max_bytes``: of one file; None: without a bound."""

    bootstrap_servers: str
    client: Mapping[str, Any] = field(default_factory=dict)
    client_id: str = "twite-views"
    own_topics: frozenset[str] = frozenset()
    max_age_ms: int | None = None
    max_bytes: int | None = None
    retry_base_s: float = 0.2
    retry_cap_s: float = 5.0


class Follower:
    """Brings records to stores. ``tell`` hears of what moved, once per turn.

    ``run`` until ``stop``; everything else may be called meanwhile, on the same loop.
    """

    def __init__(
        self,
        config: FollowConfig,
        metrics: Metrics,
        tell: Callable[[Sequence[tuple[Followed, News]]], None] = lambda news: None,
    ) -> None:
        self._config = config
        self._metrics = metrics
        self._tell = tell
        self._followed: dict[Followed, asyncio.Task[None]] = {}
        self._moved: set[Followed] = set()
        self._changed = asyncio.Event()
        self._turned = asyncio.Event()
        self._stopping = False
        self._consumer: AIOKafkaConsumer | None = None
        self._askers: list[AIOKafkaConsumer] = []  # for what is committed, and for all
        self._known: set[str] = set()  # topics that the askers have metadata of
        self._asking: asyncio.Task[_Ends] | None = None
        self._asking_next: asyncio.Task[_Ends] | None = None
        self._backoff = (config.retry_base_s, config.retry_cap_s)
        self._heard: dict[TopicPartition, tuple[int, int]] = {}  # answers: the last, the one before
        self._cautious = False  # a batch could not be unpacked: find out whose
        self._probing: asyncio.Task[None] | None = None

    # What callers do.

    def add(self, view: View, files: Files, sources: Iterable[TopicPartition]) -> Followed:
        """Open the view's file and follow; caught up when ``caught_up`` returns.

        Raises ``DirectoryUnusable``.
        """
        return self.add_store(Store.open(view, files), sources)

    def add_store(
        self,
        store: Store,
        sources: Iterable[TopicPartition],
        *,
        begin: Mapping[TopicPartition, int] | None = None,
        limits: Mapping[TopicPartition, int] | None = None,
    ) -> Followed:
        """The same with a store that is open. ``begin``, ``limits``: read only this stretch."""
        followed = Followed(store, tuple(sources), limits=limits or {}, begin=begin or {})
        if store.why is not None:
            self._metrics.view_rebuilds.add(store.view.name, store.why)
        self._start(followed)
        return followed

    async def caught_up(
        self, followed: Followed, turned: Callable[[], None] = lambda: None
    ) -> None:
        """Returns once it has what the log held when it was added, or was begun anew.

        ``turned`` is called after each turn of the loop."""
        while not followed.ready:
            if followed not in self._followed:
                raise RuntimeError("the view was closed meanwhile")
            await self._turn_over()
            turned()

    async def catch_up(self, followed: Followed) -> None:
        """Returns once it has everything that the log holds now."""
        asked_ms = _now_ms()
        await self.caught_up(followed)
        if followed.asked_ms < asked_ms:
            await self._reach_end(followed)
            await self.caught_up(followed)

    async def drop(self, followed: Followed, *, close: bool = True) -> None:
        """Follow no longer, and close the store."""
        task = self._followed.pop(followed, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        self._moved.discard(followed)
        if close:
            followed.store.close()
        self._change()

    def probe(self, followed: Followed) -> None:
        """Find out soon what is in the rows now: ask for the ends of its logs."""
        followed.probe_wanted = True
        if self._probing is None or self._probing.done():
            self._probing = asyncio.create_task(self._probe(), name="ends of logs")

    def rebuild(self, followed: Followed, why: Why) -> None:
        """Throw the file away and read the log again; it is not ready until then."""
        if followed not in self._followed:
            return
        self._followed[followed].cancel()
        followed.displace(why)
        self._moved.add(followed)
        self._start(followed)

    def stop(self) -> None:
        self._stopping = True
        self._change()

    # Clients.

    async def connect(self) -> None:
        """Wait until a broker answers."""
        for isolation in ("read_committed", "read_uncommitted"):
            self._askers.append(await self._started(isolation))
        self._consumer = await self._started()

    async def close(self) -> None:
        """Close every store and the sockets, within a bound."""
        for followed in list(self._followed):
            await self.drop(followed)
        for task in (self._probing, self._asking, self._asking_next):
            if task is not None:
                task.cancel()
        for consumer in (self._consumer, *self._askers):
            if consumer is not None:
                await bounded(consumer.stop())

    async def _started(self, isolation: str = "read_committed") -> AIOKafkaConsumer:
        config = self._config
        for attempt in itertools.count(1):
            consumer = new_consumer(config, isolation)
            try:
                await consumer.start()
                return consumer
            except (KafkaError, OSError, TimeoutError) as error:
                await bounded(consumer.stop())
                unreachable = BrokerUnreachable(config.bootstrap_servers, error)
                log.warning(str(unreachable), attempt=attempt)
            await asyncio.sleep(full_jitter(attempt, *self._backoff))
        raise AssertionError("unreachable")

    async def partitions(self, topics: Iterable[str]) -> dict[str, frozenset[int]]:
        """The partitions of topics. Raises ``TopicMissing``."""
        wanted = sorted(set(topics))
        found: dict[str, frozenset[int]] = {}
        for _ in range(_TOPIC_TRIES):
            found = await self.partitions_there()
            if all(found.get(name) for name in wanted):
                await self._learn(wanted)
                return {name: found[name] for name in wanted}
            await asyncio.sleep(_TOPIC_PAUSE_S)  # just created: not known to every broker yet
        missing = [name for name in wanted if not found.get(name)]
        raise TopicMissing(missing, self._config.bootstrap_servers)

    async def partitions_there(self) -> dict[str, frozenset[int]]:
        """The partitions of every topic that is there now."""
        # Asked for all: to ask for one by name could create it on a broker that allows that.
        cluster = await self._of_asker()._client.fetch_all_metadata()
        return {n: frozenset(cluster.partitions_for_topic(n) or ()) for n in cluster.topics()}

    async def bounds(
        self, sources: Sequence[TopicPartition]
    ) -> tuple[Mapping[TopicPartition, int], Mapping[TopicPartition, int]]:
        """Where logs begin, and where what is committed of them ends."""
        await self._learn({source.topic for source in sources})
        asker = self._of_asker()
        return await asker.beginning_offsets(sources), await asker.end_offsets(sources)

    async def _learn(self, topics: Collection[str]) -> None:
        """Else each topic would be found out for itself, with a pause after each."""
        if not self._known.issuperset(topics):
            self._known.update(topics)
            for asker in self._askers:
                await asker._client.set_topics(self._known)

    def _of_asker(self, *, uncommitted: bool = False) -> AIOKafkaConsumer:
        if len(self._askers) < 2:
            raise RuntimeError("not connected")
        return self._askers[uncommitted]

    # The life of one view: find its place, read, be ready.

    def _start(self, followed: Followed) -> None:
        task = asyncio.create_task(self._live(followed), name=f"view {followed.store.path.name}")
        self._followed[followed] = task

    async def _live(self, followed: Followed) -> None:
        started, why = time.monotonic(), followed.store.why
        await self._find_place(followed)
        self._change()
        await self._reach_end(followed)
        followed.ready = True
        followed.look_at = 0.0  # its size and age are known now
        followed.store.why = None
        self._moved.add(followed)
        self._turn()
        log.info(
            "view caught up",
            view=followed.store.view.name,
            key=followed.store.key,
            built=why or "kept",
            seconds=round(time.monotonic() - started, 2),
        )

    async def _find_place(self, followed: Followed) -> None:
        for attempt in itertools.count(1):
            try:
                await self._place(followed)
                return
            except Damaged:
                followed.anew = "damaged"
            except Exception as error:
                log.warning("no place for a view yet", error=_told(error), attempt=attempt)
            await asyncio.sleep(full_jitter(attempt, *self._backoff))

    async def _place(self, followed: Followed) -> None:
        store, sources = followed.store, list(followed.sources)
        firsts, ends = await self.bounds(sources)
        if _is_other_log(store, firsts, ends):
            followed.anew = "log"
        if followed.anew is not None:
            store.begin_anew(followed.anew)
            self._metrics.view_rebuilds.add(store.view.name, followed.anew)
            followed.anew = None
        if missing := [source for source in sources if source not in store.positions]:
            starts, trimmed_ms = await self._starts(followed, missing, firsts, ends)
            store.begin_at(starts, trimmed_ms)
        followed.place(firsts)

    async def _starts(
        self,
        followed: Followed,
        sources: Sequence[TopicPartition],
        firsts: Mapping[TopicPartition, int],
        ends: Mapping[TopicPartition, int],
    ) -> tuple[dict[TopicPartition, int], int | None]:
        """Where a new file begins: what is older than the bound need not be read."""
        max_age_ms = self._config.max_age_ms
        if followed.begin:
            return {source: followed.begin[source] for source in sources}, None
        if followed.store.partition is None or max_age_ms is None:
            return {source: firsts[source] for source in sources}, None
        before_ms = _now_ms() - max_age_ms
        found = await self._of_asker().offsets_for_times(dict.fromkeys(sources, before_ms))
        starts = {
            source: ends[source] if found.get(source) is None else found[source].offset
            for source in sources
        }
        return starts, before_ms

    async def _reach_end(self, followed: Followed) -> None:
        """Until it has what was committed when this was called, and of our own topics also what
        stands behind a transaction that was open then."""
        followed.asked_ms = asked_ms = _now_ms()
        if followed.limits:
            await self._until(followed.is_at_limits)
            return
        ends = await self._ends()
        await self._until(lambda: followed.has(ends.committed))
        try:
            async with asyncio.timeout(OPEN_TRANSACTIONS_S):
                await self._until(lambda: followed.has(ends.written))
        except TimeoutError:
            log.error(
                "a transaction is open for too long; a view goes on without what is behind it"
                " (kafka-transactions.sh find-hanging)",
                view=followed.store.view.name,
                key=followed.store.key,
            )
        followed.has_all(asked_ms)
        self._moved.add(followed)

    async def _ends(self) -> "_Ends":
        """Where the logs of all that is followed end, asked after this was called; one answer
        for all who ask while another one is on its way."""
        if self._asking_next is None:
            self._asking_next = asyncio.create_task(self._ask(self._asking), name="ends of logs")
        return await asyncio.shield(self._asking_next)

    async def _ask(self, before: "asyncio.Task[_Ends] | None") -> "_Ends":
        if before is not None:
            await asyncio.wait([before])
        self._asking, self._asking_next = self._asking_next, None
        for attempt in itertools.count(1):
            sources = list({source for followed in self._followed for source in followed.sources})
            own = [source for source in sources if source.topic in self._config.own_topics]
            try:
                committed = await self._of_asker().end_offsets(sources)
                return _Ends(committed, await self._of_asker(uncommitted=True).end_offsets(own))
            except (KafkaError, OSError, TimeoutError) as error:
                log.warning("the ends of logs are not known", error=told(error), attempt=attempt)
            await asyncio.sleep(full_jitter(attempt, *self._backoff))
        raise AssertionError("unreachable")

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await self._turn_over()

    async def _turn_over(self) -> None:
        await self._turned.wait()

    def _turn(self) -> None:
        """Wake everybody who waits for something to move; who comes now waits for the next."""
        self._turned.set()
        self._turned = asyncio.Event()

    def _change(self) -> None:
        self._changed.set()

    # The loop, one turn of it told from top to bottom.

    async def run(self) -> None:
        """Follow until ``stop``; trouble with the broker is waited out."""
        failures = 0
        while not self._stopping:
            try:
                await self._take_a_turn()
                failures = 0
            except Exception as error:
                failures += 1
                log.error("following views failed", error=_told(error), attempt=failures)
                await asyncio.sleep(full_jitter(failures, *self._backoff))
                await self._renew()
        self._turn()

    async def _renew(self) -> None:
        if self._consumer is not None:
            await bounded(self._consumer.stop())
        self._consumer = await self._started()
        self._change()

    async def _take_a_turn(self) -> None:
        consumer = self._arranged()
        if consumer is None:
            self._publish()
            await self._changed.wait()
            return
        more_to_trim = self._trim()
        found = await self._poll(consumer, 0 if more_to_trim else _POLL_MS)
        positions = {source: await consumer.position(source) for source in consumer.assignment()}
        for followed in list(self._followed):
            if followed.arranged:
                self._feed(followed, found, positions)
        self._listen(consumer)
        self._publish()
        await asyncio.sleep(0)  # a poll that finds something does not let others run

    def _arranged(self) -> AIOKafkaConsumer | None:
        """Read for those that are followed now. None: nothing to read."""
        if self._consumer is None:
            raise RuntimeError("not connected")
        if self._changed.is_set():
            self._changed.clear()
            self._assign(self._consumer)
        return self._consumer if self._consumer.assignment() else None

    def _assign(self, consumer: AIOKafkaConsumer) -> None:
        starts: dict[TopicPartition, int] = {}
        for followed in self._followed:
            followed.arranged = bool(followed.next)
            for source in followed.next:
                start = followed.start(source)
                starts[source] = min(start, starts.get(source, start))
        if not starts:
            consumer.unsubscribe()
        else:
            consumer.assign(list(starts))
            for source, start in starts.items():
                consumer.seek(source, start)
        now_ms = _now_ms()
        self._heard = dict.fromkeys(starts, (now_ms, 0))

    async def _poll(self, consumer: AIOKafkaConsumer, wait_ms: int) -> Found:
        try:
            if self._cautious:
                return await self._poll_one_by_one(consumer)
            found = await consumer.getmany(timeout_ms=wait_ms, max_records=BATCH_RECORDS)
        except OffsetOutOfRangeError as error:
            self._out_of_range(error)
            return {}
        except BatchTooLarge:
            self._cautious = True
            self._change()  # what was fetched went down with it: read again
            return {}
        return {source: _records(messages) for source, messages in found.items()}

    async def _poll_one_by_one(self, consumer: AIOKafkaConsumer) -> Found:
        """Find the batch that may not be unpacked, and pass it."""
        found: dict[TopicPartition, list[Record]] = {}
        for source in sorted(consumer.assignment()):
            try:
                one = await consumer.getmany(source, timeout_ms=_CAUTIOUS_MS, max_records=1)
            except BatchTooLarge as error:
                self._cautious = False
                self._pass(consumer, source, error)
                break
            found[source] = _records(one.get(source, ()))
        return found

    def _pass(
        self, consumer: AIOKafkaConsumer, source: TopicPartition, error: BatchTooLarge
    ) -> None:
        log.error("a view passes a batch", partition=str(source), error=str(error))
        consumer.seek(source, error.last + 1)
        for followed in self._followed:
            if followed.arranged and source in followed.next:
                self._metrics.view_bad.add(followed.store.view.name, source.topic, "oversize")

    def _out_of_range(self, error: OffsetOutOfRangeError) -> None:
        """The log was recreated, or trimmed past what was read."""
        lost = set(error.args[0]) if error.args and isinstance(error.args[0], dict) else set()
        for followed in list(self._followed):
            if not lost or not lost.isdisjoint(followed.next):
                self.rebuild(followed, "log")

    def _feed(
        self, followed: Followed, found: Found, positions: Mapping[TopicPartition, int]
    ) -> None:
        try:
            batch = [
                (source, wanted)
                for source in followed.next
                if (wanted := followed.wants(source, found.get(source, ()), positions[source]))
            ]
            if batch:
                self._write(followed, batch)
        except OtherLog as error:
            log.warning("the log is another one", view=followed.store.view.name, where=str(error))
            self.rebuild(followed, "log")
            return
        except Damaged as error:
            log.error("a view broke", view=followed.store.view.name, error=str(error))
            self.rebuild(followed, "damaged")
            return
        if any([followed.moved(source, positions[source]) for source in followed.next]):  # noqa: C419
            self._moved.add(followed)

    def _write(
        self, followed: Followed, batch: Sequence[tuple[TopicPartition, Sequence[Record]]]
    ) -> None:
        written = followed.store.write(batch)
        name = followed.store.view.name
        self._metrics.view_records.add(name, by=written.applied)
        for (topic, code), count in written.bad.items():
            self._metrics.view_bad.add(name, topic, code, by=count)

    def _listen(self, consumer: AIOKafkaConsumer) -> None:
        """Learn from the answers of the broker how far the logs go.

        A fetch is sent after the answer to the one before was taken in, so what an answer says
        holds at the time of the one before it, whatever took how long.
        """
        for source, (last, before) in self._heard.items():
            at_ms = consumer.last_poll_timestamp(source)
            if at_ms is not None and at_ms != last:
                self._heard[source] = (at_ms, last)
            elif before == 0:
                continue
            asked_ms, end = self._heard[source][1], consumer.last_stable_offset(source)
            for followed in self._followed:
                if (
                    end is not None
                    and followed.arranged
                    and source in followed.next
                    and followed.heard(source, end, asked_ms)
                ):
                    self._moved.add(followed)

    def _trim(self) -> bool:
        """A few old rows go; whether there are more of them."""
        more = False
        for followed in list(self._followed):
            if followed.arranged and not followed.limits:
                try:
                    more |= followed.trim_a_step(
                        self._config.max_age_ms, self._config.max_bytes, TRIM_ROWS
                    )
                except Damaged as error:
                    log.error("a view broke", view=followed.store.view.name, error=str(error))
                    self.rebuild(followed, "damaged")
        return more

    def _publish(self) -> None:
        for followed in self._moved:
            if followed.probes:
                followed.probed()
        if self._moved:
            self._tell([(followed, followed.news()) for followed in self._moved])
            self._moved = set()
        self._turn()

    # Asking how far the logs go, for those who can't wait for the next answer.

    async def _probe(self) -> None:
        while wanted := [f for f in self._followed if f.probe_wanted and f.arranged]:
            for followed in wanted:
                followed.probe_wanted = False
            asked_ms = _now_ms()
            sources = {source for followed in wanted for source in followed.sources}
            try:
                ends = await self._of_asker().end_offsets(list(sources))
            except (KafkaError, OSError, TimeoutError) as error:
                log.warning("the ends of logs are not known", error=told(error))
                return
            for followed in wanted:
                if followed in self._followed and followed.arranged:
                    followed.probes.append((asked_ms, {s: ends[s] for s in followed.sources}))
                    if followed.probed():
                        self._tell([(followed, followed.news())])


def new_consumer(config: FollowConfig, isolation: str = "read_committed") -> AIOKafkaConsumer:
    """A consumer without a group that never moves by itself."""
    batches.install(batches.TolerantRecords.limit_bytes)  # as the worker has set it
    return AIOKafkaConsumer(
        bootstrap_servers=config.bootstrap_servers,
        client_id=config.client_id,
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="none",  # a place that is gone means another log
        isolation_level=isolation,
        fetch_max_wait_ms=WAIT_MS,
        fetch_max_bytes=_MAX_FETCH_BYTES,
        **config.client,
    )


def sources_of(
    view: View, partition: int | None, partitions: Mapping[str, frozenset[int]]
) -> list[TopicPartition]:
    """What a view's file reads. ``partitions``: of each topic. Raises ``PartitionsDiffer``."""
    if partition is None:
        return [TopicPartition(t, p) for t in view.topics for p in sorted(partitions[t])]
    if any(partition not in partitions[topic] for topic in view.topics):
        raise PartitionsDiffer({topic: len(partitions[topic]) for topic in view.topics})
    return [TopicPartition(topic, partition) for topic in view.topics]


def _records(messages: Sequence[ConsumerRecord]) -> list[Record]:
    return [to_record(message) for message in messages]


def _is_other_log(
    store: Store, firsts: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int]
) -> bool:
    """Ends before the file does (recreated), or begins behind it (trimmed past it)."""
    return any(
        source in firsts and not firsts[source] <= position.next <= ends[source]
        for source, position in store.positions.items()
    )


def _now_ms() -> int:
    return round(time.time() * 1000)


def _told(error: BaseException) -> str:
    return error_name(error) if isinstance(error, sqlite3.Error) else told(error)
