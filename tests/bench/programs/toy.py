"""The handler of the benches, and what it writes: the same bytes for whoever is measured."""

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Any

from consumers.handler import GiveUp, Job
from schemas.record import Output, Record

REPLY = b"r" * 200  # about what a short answer with its envelope takes
AUDIT = b"a" * 800


def outputs_of(
    topics: Sequence[str], partition: int, offset: int, key: bytes | None
) -> list[tuple[str, bytes | None, bytes]]:
    """(topic, key, value): a reply, and where a second topic is named an audit record."""
    place = b"%d/%d " % (partition, offset)
    return [(topic, key, place + body) for topic, body in zip(topics, (REPLY, AUDIT), strict=False)]


class BenchHandler:
    """Sleeps as long as the input says, then gives its outputs. The lane is the key."""

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = topics

    def open(self, record: Record) -> Job:
        value = record.value or b"0 "
        return Job(record, record.key, float(value[: value.index(b" ")]))

    async def handle(self, job: Job, *, attempt: int) -> Sequence[Output]:
        if job.payload:
            await asyncio.sleep(job.payload)
        record = job.record
        return [
            Output(topic=topic, key=key, value=value)
            for topic, key, value in outputs_of(
                self._topics, record.partition, record.offset, record.key
            )
        ]

    def give_up(self, record: Record, error: GiveUp, *, attempts: int) -> Sequence[Output]:
        raise AssertionError(f"no input of a bench is given up: {error}")


def spec() -> dict[str, Any]:
    """What the bench asks of this program."""
    found: dict[str, Any] = json.loads(sys.argv[1])
    return found


def tell(event: str, **news: object) -> None:
    """One line for the bench."""
    print(json.dumps({"event": event, **news}), flush=True)
