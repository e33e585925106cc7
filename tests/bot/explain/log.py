"""A log in memory for tests of explanations: topics of records, read like ``RangeReader`` does."""

from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from bot.handler import BotHandler
from bot.memory import NoKnowledge
from bot.observe import Position
from consumers.errors import RangeGone, TopicMissing
from consumers.handler import GiveUp
from consumers.reader import Bound, Progress, Range
from model.echo import EchoEngine
from schemas import codec, names
from schemas.envelope import Envelope
from schemas.record import Output, Record
from schemas.topics import TOPICS
from tests.bot.make import NOW, NOW_MS, setup

PARTITION = 2  # of ``tests.bot.make.record``
Topics = dict[tuple[str, int], list[Record]]


@dataclass
class Log:
    """Records by topic and partition; ``first``: offsets below it were taken by retention."""

    records: Topics = field(default_factory=dict)
    first: dict[tuple[str, int], int] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    reads: list[Range] = field(default_factory=list)
    now_ms: int = NOW_MS

    def put(self, record: Record | Output, partition: int = PARTITION) -> Record:
        """At the end of its partition, a second after the record before."""
        self.now_ms += 1000
        place = (record.topic, partition)
        kept = self.records.setdefault(place, [])
        placed = Record(
            topic=record.topic,
            partition=partition,
            offset=len(kept),
            timestamp_ms=self.now_ms,
            key=record.key,
            value=record.value,
            headers=record.headers,
        )
        kept.append(placed)
        return placed

    def change(self, at: Position, **fields: Any) -> None:
        """As somebody would who edits the log."""
        kept = self.records[at.topic, at.partition]
        kept[at.offset] = replace(kept[at.offset], **fields)

    async def answer(self, record: Record, handler: BotHandler | None = None) -> list[Record]:
        """What a worker makes of a record; all of it stands on the log."""
        source = self.put(record)
        if handler is None:
            engine = EchoEngine()
            await engine.start()
            handler = handler_of(engine)
        try:
            outputs = await handler.handle(handler.open(source), attempt=1)
        except GiveUp as error:
            outputs = handler.give_up(source, error, attempts=1)
        return [self.put(output) for output in outputs]

    async def bounds(self, span: Range) -> dict[int, tuple[int, int]]:
        self._require(span.topic)
        found = {}
        for (topic, partition), kept in sorted(self.records.items()):
            if topic == span.topic and (span.partitions is None or partition in span.partitions):
                first = self.first.get((topic, partition), 0)
                wanted = self._resolve(span.start, partition, kept, first)
                if wanted < first:
                    raise RangeGone(topic, partition, wanted, first)
                end = min(self._resolve(span.end, partition, kept, len(kept)), len(kept))
                if wanted < end:
                    found[partition] = (wanted, end)
        return found

    async def read(
        self, span: Range, progress: Callable[[Progress], None] = lambda progress: None
    ) -> AsyncIterator[Record]:
        self.reads.append(span)
        bounds = await self.bounds(span)
        total, done = sum(end - start for start, end in bounds.values()), 0
        for partition, (start, end) in bounds.items():
            for record in self.records[span.topic, partition][start:end]:
                done += 1
                progress(Progress(done, total))
                yield record

    def _require(self, topic: str) -> None:
        if topic in self.missing:
            raise TopicMissing([topic], "memory")

    @staticmethod
    def _resolve(bound: Bound, partition: int, kept: Iterable[Record], default: int) -> int:
        if bound.timestamp_ms is None:
            return bound.offsets.get(partition, default)
        late = [one.offset for one in kept if one.timestamp_ms >= bound.timestamp_ms]
        return min(late, default=len(list(kept)))


def handler_of(engine: EchoEngine) -> BotHandler:
    return BotHandler(setup(), engine, NoKnowledge(), now=lambda: NOW, counter=lambda: 0.0)


def told(topic: str, kind: str, data: Any, key: str = "conv-1", event_id: str = "e-1") -> Output:
    """An event that is neither an input nor an outcome."""
    envelope = Envelope(id=event_id, source="/platform", type=kind, time=NOW)
    return codec.encode(topic, key, envelope, data)


def decision_in(records: Iterable[Record]) -> Any:
    """The decision among what a worker published."""
    (one,) = [r for r in records if r.topic in (names.BOT_AUDIT, names.BOT_AUDIT_PRIVATE)]
    return codec.decode(one).data


def topics_read(log: Log) -> set[str]:
    assert {span.topic for span in log.reads} <= set(TOPICS)
    return {span.topic for span in log.reads}
