"""Compares the audit on Kafka, or in a file, with its seals.

In: settings of Kafka, or the path of an export. Out: a ``Verdict`` for each partition of the
audit. Read only; whatever is written meanwhile is not looked at. Next: ``bot/cli/audit.py``.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from aiokafka import TopicPartition

from bot.clients import consumer, options, require_topics
from bot.sealing.check import Fault, Verdict, Wrong, check
from bot.sealing.export import held, records_in, seals_in
from bot.sealing.log import seals_of
from bot.sealing.seals import SEALED
from bot.settings import KafkaSettings
from consumers.reader import Range, RangeReader, range_reader
from schemas import names
from schemas.record import Record
from schemas.seals import AuditSealed

T = TypeVar("T")
Tell = Callable[[Verdict], None]


async def verify(
    kafka: KafkaSettings, tell: Tell = lambda verdict: None, topics: Sequence[str] = SEALED
) -> list[Verdict]:
    """Every partition of ``topics``. Raises ``TopicMissing`` and ``BrokerUnreachable``."""
    await require_topics(kafka, [names.BOT_AUDIT_SEALS])
    firsts = await log_starts(kafka, topics)
    secured = options(kafka)
    async with (
        range_reader(kafka.bootstrap_servers, secured) as sealed,
        range_reader(kafka.bootstrap_servers, secured) as logged,
    ):
        return [
            await _one(sealed, logged, Verdict(topic, partition, first), tell)
            for (topic, partition), first in firsts.items()
        ]


async def verify_file(
    path: Path, kafka: KafkaSettings | None, tell: Tell = lambda verdict: None
) -> list[Verdict]:
    """What a file holds, against the seals on Kafka; ``kafka`` None: against its own.

    Raises ``Trouble`` for what is no export.
    """
    parts = held(path)
    verdicts = [Verdict(part.topic, part.partition, part.begin, part.end) for part in parts]
    listed = {(part.topic, part.partition) for part in parts}
    logs = [_each(records_in(path, part, listed)) for part in parts]
    if kafka is None:
        for told, log in zip(verdicts, logs, strict=True):
            own = _each(seals_in(path, told.topic, told.partition))
            await check(told, _within(own, told, strictly=True), log, tell)
        return verdicts
    await require_topics(kafka, [names.BOT_AUDIT_SEALS])
    async with range_reader(kafka.bootstrap_servers, options(kafka)) as reader:
        for told, log in zip(verdicts, logs, strict=True):
            seals = seals_of(reader, told.topic, told.partition, partial(_foreign, told))
            await check(told, _within(seals, told), log, tell)
    return verdicts


async def log_starts(kafka: KafkaSettings, topics: Sequence[str]) -> dict[tuple[str, int], int]:
    """The first offset that the log still has, by topic and partition."""
    counts = await require_topics(kafka, topics)
    wanted = [TopicPartition(topic, number) for topic in topics for number in range(counts[topic])]
    async with consumer(kafka) as reader:
        starts = await reader.beginning_offsets(wanted)
    return {(tp.topic, tp.partition): starts[tp] for tp in wanted}


async def _one(sealed: RangeReader, logged: RangeReader, told: Verdict, tell: Tell) -> Verdict:
    seals = seals_of(sealed, told.topic, told.partition, partial(_foreign, told))
    # The end of the seals is fixed first: what they name is on the log by then.
    first = await anext(seals, None)
    span = Range(told.topic, partitions=(told.partition,))
    return await check(told, _with(first, seals), logged.read(span), tell)


async def _with(
    first: AuditSealed | None, others: AsyncIterator[AuditSealed]
) -> AsyncIterator[AuditSealed]:
    if first is not None:
        yield first
    async for seal in others:
        yield seal


async def _within(
    seals: AsyncIterator[AuditSealed], told: Verdict, *, strictly: bool = False
) -> AsyncIterator[AuditSealed]:
    """Those that seal something of what a file holds; ``strictly``: any other is a fault."""
    async for seal in seals:
        if seal.end > told.first and (told.end is None or seal.begin < told.end):
            yield seal
        elif strictly:
            told.wrong(Wrong.OUTSIDE, number=seal.number)


async def _each(values: Iterable[T]) -> AsyncIterator[T]:
    for one in values:
        yield one


def _foreign(told: Verdict, record: Record) -> None:
    told.add(Fault(Wrong.NO_SEAL, f"{record.topic}/{record.partition}/{record.offset}"))
