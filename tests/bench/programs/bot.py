"""The whole worker of ``bot/app.py``, as a process that can be measured. The echo engine is in it;
any other is as the settings say.

Tells ``done`` when ``total`` decisions are published, with the seconds since the first input was
opened and with what was written, and stops. ``settings`` in its spec are those of
``bot/settings.py``. With ``profile`` it writes what cProfile saw of the thread of the worker's
loop to that file.
"""

import asyncio
import cProfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bot.app import run_worker
from bot.handler import BotHandler
from bot.settings import Settings
from bot.wiring import engine_of
from consumers.handler import Job
from consumers.transactions import TransactionalPublisher
from model.echo import EchoEngine
from model.engine import Engine
from schemas import names
from schemas.record import Header, Output, Record
from tests.bench.programs.toy import spec, tell

AUDITS = frozenset({names.BOT_AUDIT, names.BOT_AUDIT_PRIVATE})


@dataclass
class Written:
    """What went to one topic; of the headers those of the last record."""

    records: int = 0
    value_bytes: int = 0
    headers: tuple[Header, ...] = ()

    def add(self, output: Output) -> None:
        self.records += 1
        self.value_bytes += len(output.value or b"")
        self.headers = output.headers

    def told(self, topic: str, inputs: int) -> dict[str, Any]:
        """As a bare loop needs it to write as much."""
        return {
            "topic": topic,
            "each": self.records / inputs,
            "bytes": round(self.value_bytes / self.records),
            "headers": [[name, len(value or b"")] for name, value in self.headers],
        }


class Counter:
    """What was opened and published, and when."""

    def __init__(self, total: int, full: asyncio.Event) -> None:
        self._total = total
        self._full = full
        self.first_open = 0.0
        self.processor_then = 0.0
        self.processor_s = 0.0
        self.published = 0
        self.transactions = 0
        self.last_commit = 0.0
        self.written: dict[str, Written] = {}

    def opened(self) -> None:
        if not self.first_open:
            self.first_open, self.processor_then = time.perf_counter(), time.process_time()

    def committed(self, outputs: Sequence[Output]) -> None:
        decisions = sum(output.topic in AUDITS for output in outputs)
        if not decisions:
            return
        for output in outputs:
            self.written.setdefault(output.topic, Written()).add(output)
        self.published += decisions
        self.transactions += 1
        self.last_commit = time.perf_counter()
        if self.published >= self._total and not self._full.is_set():
            self.processor_s = time.process_time() - self.processor_then
            self._full.set()


def watch(counter: Counter) -> None:
    """Note when the first input was opened, and look at every transaction that came through."""
    publish, opened = TransactionalPublisher.publish, BotHandler.open

    async def counted(
        self: TransactionalPublisher, outputs: Sequence[Output], offset: int, metadata: str
    ) -> None:
        await publish(self, outputs, offset, metadata)
        counter.committed(outputs)

    def open_(self: BotHandler, record: Record) -> Job:
        counter.opened()
        return opened(self, record)

    TransactionalPublisher.publish = counted  # type: ignore[method-assign]
    BotHandler.open = open_  # type: ignore[method-assign]


async def main(asked: dict[str, Any]) -> None:
    """Run until all decisions are published, or until SIGTERM."""
    full, stop = asyncio.Event(), asyncio.Event()
    counter = Counter(asked["total"], full)
    watch(counter)
    settings = Settings(**asked["settings"])
    model = settings.model
    echo = EchoEngine(model.echo.latency_ms, model.slots)
    engine: Engine = echo if model.engine == "echo" else engine_of(model)
    working = asyncio.create_task(run_worker(settings, engine=engine, stop=stop), name="worker")
    telling = asyncio.create_task(_tell(counter, full, stop), name="tell")
    await working
    telling.cancel()


async def _tell(counter: Counter, full: asyncio.Event, stop: asyncio.Event) -> None:
    await full.wait()
    tell(
        "done",
        seconds=counter.last_commit - counter.first_open,
        processor_s=counter.processor_s,
        inputs=counter.published,
        transactions=counter.transactions,
        writes=[w.told(topic, counter.published) for topic, w in sorted(counter.written.items())],
    )
    stop.set()


def profiled(asked: dict[str, Any], path: Path) -> None:
    """The same, far slower."""
    profile = cProfile.Profile()
    try:
        profile.runcall(asyncio.run, main(asked))
    finally:
        profile.dump_stats(path)


if __name__ == "__main__":
    wanted = spec()
    if "profile" in wanted:
        profiled(wanted, Path(wanted["profile"]))
    else:
        asyncio.run(main(wanted))
