"""Writes a stretch of the audit on Kafka into a file (``bot/sealing/export.py``).

In: settings, a path, from when to when. Out: the file, whole or not at all, and how many records
it holds. Nothing is written to Kafka, and no group is joined.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from bot.clients import options
from bot.errors import Trouble
from bot.sealing.export import Held, Writer
from bot.sealing.log import seals_of
from bot.settings import KafkaSettings
from consumers.reader import Bound, Range, RangeReader, range_reader
from schemas import names


async def export(
    kafka: KafkaSettings,
    path: Path,
    span: tuple[Bound, Bound],
    *,
    erases: bool,
    private: bool,
) -> int:
    """Everything between the two bounds; only its owner may read the file. Raises ``Trouble``."""
    topics = [names.BOT_AUDIT, *([names.BOT_AUDIT_PRIVATE] if private else [])]
    with _made_whole(path) as to:
        async with range_reader(kafka.bootstrap_servers, options(kafka)) as reader:
            parts = await _parts(reader, topics, span)
            writer = Writer(to, parts, erases=erases)
            for part in parts:
                await _write(reader, part, writer)
    return writer.records


@contextmanager
def _made_whole(path: Path) -> Iterator[IO[str]]:
    """A file that stands at ``path`` once all is written, and not before. Raises ``Trouble``."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".twite-")
    except OSError as error:
        todo = "Name a file in a folder of yours."
        raise Trouble(f"cannot be written: {error.strerror}.", where=str(path), todo=todo) from None
    made = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as to:
            yield to
        made.replace(path)
    finally:
        made.unlink(missing_ok=True)


async def _parts(reader: RangeReader, topics: list[str], span: tuple[Bound, Bound]) -> list[Held]:
    return [
        Held(topic=topic, partition=partition, begin=begin, end=end)
        for topic in topics
        for partition, (begin, end) in (
            await reader.bounds(Range(topic, start=span[0], end=span[1]))
        ).items()
    ]


async def _write(reader: RangeReader, part: Held, writer: Writer) -> None:
    async for seal in seals_of(reader, part.topic, part.partition, lambda record: None):
        if seal.end > part.begin and seal.begin < part.end:
            writer.seal(seal)
    own = part.partition
    span = Range(
        part.topic, partitions=(own,), start=Bound({own: part.begin}), end=Bound({own: part.end})
    )
    async for record in reader.read(span):
        writer.record(record)
