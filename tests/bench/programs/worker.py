"""``consumers.worker.Worker`` with the toy handler, as a process that can be measured and killed.

Tells ``ready`` when its partitions are open, ``share`` whenever they change, and with ``report_s``
in its spec ``state`` every so often. With ``total`` it tells ``done`` when that many inputs are
published, with the seconds since the first one was opened, and stops.
"""

import asyncio
import signal
import time
from collections.abc import Sequence
from typing import Any

import structlog

from consumers.config import WorkerConfig
from consumers.handler import Job
from consumers.transactions import TransactionalPublisher
from consumers.worker import Worker
from schemas.record import Output, Record
from tests.bench.programs.toy import BenchHandler, spec, tell


class Counter:
    """What was opened and published, and when."""

    def __init__(self) -> None:
        self.first_open = 0.0
        self.processor_then = 0.0
        self.published = 0
        self.transactions = 0
        self.last_commit = 0.0


class CountingHandler(BenchHandler):
    """Notes when the first record was opened."""

    def __init__(self, topics: Sequence[str], counter: Counter) -> None:
        super().__init__(topics)
        self._counter = counter

    def open(self, record: Record) -> Job:
        if not self._counter.first_open:
            self._counter.first_open = time.perf_counter()
            self._counter.processor_then = time.process_time()
        return super().open(record)


def count_commits(counter: Counter, per_input: int, total: int, full: asyncio.Event) -> None:
    """Look at every transaction that came through; costs one call each."""
    publish = TransactionalPublisher.publish

    async def counted(
        self: TransactionalPublisher, outputs: Sequence[Output], offset: int, metadata: str
    ) -> None:
        await publish(self, outputs, offset, metadata)
        counter.published += len(outputs) // per_input
        counter.transactions += 1
        counter.last_commit = time.perf_counter()
        if total and counter.published >= total:
            full.set()

    TransactionalPublisher.publish = counted  # type: ignore[method-assign]


def config_of(asked: dict[str, Any]) -> WorkerConfig:
    """The runtime's settings; what the spec does not name is the default."""
    return WorkerConfig(
        bootstrap_servers=asked["bootstrap"],
        group_id=asked["group"],
        topics=(asked["source"],),
        output_topics=tuple(asked["outputs"]),
        **asked.get("config", {}),
    )


async def main() -> None:
    """Run until SIGTERM, or until all inputs are published."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(30),
        logger_factory=structlog.WriteLoggerFactory(open("/dev/stderr", "w")),  # noqa
    )
    asked = spec()
    counter, full = Counter(), asyncio.Event()
    total = asked.get("total", 0)
    count_commits(counter, len(asked["outputs"]), total, full)
    worker = Worker(
        config_of(asked), lambda topic, partition: CountingHandler(asked["outputs"], counter)
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.stop)
    watching = asyncio.create_task(_tell(worker, counter, full, asked), name="tell")
    await worker.run()
    watching.cancel()


async def _tell(
    worker: Worker, counter: Counter, full: asyncio.Event, asked: dict[str, Any]
) -> None:
    reporting = asyncio.create_task(_report(worker, counter, asked), name="report")
    while len(worker.open_partitions) < asked.get("partitions", 1):  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    tell("ready")
    await full.wait()
    reporting.cancel()
    tell(
        "done",
        seconds=counter.last_commit - counter.first_open,
        processor_s=time.process_time() - counter.processor_then,
        inputs=counter.published,
        transactions=counter.transactions,
    )
    worker.stop()


async def _report(worker: Worker, counter: Counter, asked: dict[str, Any]) -> None:
    """News of its partitions when they change, and of its state every ``report_s``."""
    before: list[int] = []
    every = asked.get("report_s", 0.0)
    next_state = time.monotonic() + every
    while True:
        now = sorted(tp.partition for tp in worker.open_partitions)
        if now != before:
            tell("share", partitions=now, count=len(now))
            before = now
        if every and time.monotonic() >= next_state:
            next_state += every
            tell("state", tasks=len(asyncio.all_tasks()), inputs=counter.published)
        await asyncio.sleep(0.1)


if __name__ == "__main__":
    asyncio.run(main())
