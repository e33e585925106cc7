"""A log in memory, and a worker's handlers on it: decisions made as in a worker, without Kafka.

``World.take`` appends an input and has it decided by ``BotHandler`` over views of what the log
held then; everything that comes of it is appended as well. ``World.log`` can be read as
``bot.replay.log.Log``.
"""

import sqlite3
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bot.handler import BotHandler
from bot.known import KnowledgeOfViews, OpenView
from bot.observe import AUDIT_TOPICS
from bot.preview import MemoryView
from bot.replay.compare import Naming
from bot.replay.door import NoDoor
from bot.replay.folder import Folder
from bot.replay.log import Held
from bot.replay.plan import Plan, make_plan
from bot.replay.run import Replay, Way
from bot.replay.wanted import Wanted
from bot.values import Setup
from bot.views import bot_views
from consumers.errors import RangeGone, TopicMissing
from consumers.handler import GiveUp
from consumers.reader import Bound, Range
from consumers.views.view import BadRecord
from model.echo import EchoEngine
from model.engine import Engine
from schemas.audit import DecisionRecorded
from schemas.codec import decode
from schemas.names import BOT_REFERENCES
from schemas.record import Output, Record
from schemas.replays import ReplayCompared, ReplayMode
from tests.bot.make import NOW, NOW_MS, setup

PARTITION = 2  # that of ``tests.bot.make.record``


@dataclass
class MemoryLog:
    """``firsts``: offsets below these are gone."""

    records: dict[tuple[str, int], list[Record]] = field(default_factory=lambda: defaultdict(list))
    firsts: dict[tuple[str, int], int] = field(default_factory=dict)
    missing: frozenset[str] = frozenset()
    reads: list[Range] = field(default_factory=list)

    async def bounds(self, span: Range) -> dict[int, tuple[int, int]]:
        if span.topic in self.missing:
            raise TopicMissing([span.topic], "memory")
        return {
            partition: (self.firsts.get((topic, partition), 0), len(records))
            for (topic, partition), records in sorted(self.records.items())
            if topic == span.topic and len(records) > self.firsts.get((topic, partition), 0)
        }

    async def read(self, span: Range) -> AsyncIterator[Record]:
        self.reads.append(span)
        for partition, (first, end) in (await self.bounds(span)).items():
            if span.partitions is not None and partition not in span.partitions:
                continue
            start = span.start.offsets.get(partition, first)
            if start < first:
                raise RangeGone(span.topic, partition, start, first)
            for record in list(self.records[span.topic, partition][start:end]):
                if _is_within(record, span.start, span.end):
                    yield record

    def append(self, record: Record) -> Record:
        """At the end of its partition."""
        place = self.records[record.topic, record.partition]
        placed = replace(record, offset=len(place))
        place.append(placed)
        return placed


def _is_within(record: Record, start: Bound, end: Bound) -> bool:
    since, until = start.timestamp_ms, end.timestamp_ms
    last = end.offsets.get(record.partition)
    return (
        (since is None or record.timestamp_ms >= since)
        and (until is None or record.timestamp_ms < until)
        and (last is None or record.offset < last)
    )


class World:
    """See the module."""

    def __init__(self, setup_: Setup | None = None, engine: Engine | None = None) -> None:
        self.log = MemoryLog()
        self.setup = setup_ or setup()
        self.engine = engine or EchoEngine()
        self.decisions: list[DecisionRecorded] = []
        self._clock = NOW_MS
        self._views = [v for v in bot_views(self.setup.bot.id) if BOT_REFERENCES not in v.topics]
        self._open: dict[str, MemoryView] = {}
        for view in self._views:
            db = sqlite3.connect(":memory:", isolation_level=None)
            view.create(db)
            self._open[view.name] = MemoryView(db, {})

    async def start(self) -> "World":
        await self.engine.start()
        self._handler = BotHandler(
            self.setup, self.engine, KnowledgeOfViews(self._views_now, self.setup.bot.id, wait_s=0),
            now=lambda: NOW,
        )  # fmt: skip
        return self

    async def take(self, record: Record, *, read_back: bool = True) -> DecisionRecorded:
        """An input, decided. ``read_back``: the views have read everything before."""
        placed = self.put(record)
        if read_back:
            self.catch_up()
        try:
            outputs: Sequence[Output] = await self._handler.handle(
                self._handler.open(placed), attempt=1
            )
        except GiveUp as error:
            outputs = self._handler.give_up(placed, error, attempts=1)
        for output in outputs:
            decided = self.put(_record(output, placed.partition))
            if decided.topic in AUDIT_TOPICS:
                data = decode(decided).data
                assert isinstance(data, DecisionRecorded)
                self.decisions.append(data)
        return self.decisions[-1]

    def put(self, record: Record) -> Record:
        """On the log, a second after what came before."""
        self._clock += 1000
        return self.log.append(replace(record, timestamp_ms=self._clock))

    def catch_up(self) -> None:
        """The views read everything that there is."""
        for view in self._views:
            opened = self._open[view.name]
            positions = dict(opened.positions)
            for (topic, partition), records in self.log.records.items():
                if topic not in view.topics:
                    continue
                place = f"{topic}/{partition}"
                for record in records[positions.get(place, 0) :]:
                    try:
                        view.apply(opened.db, record)
                    except BadRecord:
                        continue
                positions[place] = len(records)
            opened.positions = positions

    def audit(self, topic: str = "bot.audit") -> list[Record]:
        return self.log.records[topic, PARTITION]

    def _views_now(self) -> Mapping[str, OpenView]:
        return dict(self._open)


def _record(output: Output, partition: int) -> Record:
    return Record(
        topic=output.topic,
        partition=partition if output.partition is None else output.partition,
        offset=0,
        timestamp_ms=0,
        key=output.key,
        value=output.value,
        headers=output.headers,
    )


async def planned(world: World, wanted: Wanted | None = None) -> Plan:
    return await make_plan(world.log, Held(world.log), wanted or Wanted())


async def results_of(
    world: World,
    way: Way,
    root: Path,
    *,
    mode: ReplayMode = "frozen",
    wanted: Wanted | None = None,
    **options: Any,
) -> list[ReplayCompared]:
    """Every result of a replay of what is wanted (default: everything)."""
    naming = Naming(replay_id="replay-1", mode=mode, reveal=options.pop("reveal", False))
    folder = Folder.begin(root, {}, NOW)
    bot = world.setup.bot
    try:
        given: dict[str, Any] = {
            "bot_id": bot.id,
            "cluster_id": bot.cluster_id,
            "in_flight": 4,
        } | options
        replay = Replay(world.log, way, given.pop("door", NoDoor()), folder, naming, **given)
        await replay.run(await planned(world, wanted))
        return list(folder.results())
    finally:
        folder.close()
