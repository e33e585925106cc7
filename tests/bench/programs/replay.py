"""A replay of everything decided since a moment, as a process that can be measured.

Tells ``done`` with the seconds from the opening of the log to the last result kept, how many came
out as they were, and the resident memory at half of them and at the end, in MiB.
"""

import asyncio
import time
from pathlib import Path
from typing import Any

import psutil

from bot.clients import cluster_id
from bot.replay.report import Summary
from bot.replay.run import Progress
from bot.replay.wanted import Wanted
from bot.replay.wiring import Order, Told, replay
from bot.settings import Settings
from bot.wiring import engine_of, setup_of
from schemas.replays import Change
from tests.bench.programs.toy import spec, tell

MIB = 2**20


async def main(asked: dict[str, Any]) -> None:
    """Replays, and tells."""
    settings = Settings(**asked["settings"])
    order = Order(
        wanted=Wanted(since_ms=asked["since_ms"], until_ms=asked.get("until_ms")),
        mode=asked["mode"],
        setup=setup_of(settings, await cluster_id(settings.kafka)),
        engine=lambda: engine_of(settings.model),
        spec={},
        root=Path(asked["folder"]),
        bootstrap_servers=settings.kafka.bootstrap_servers,
        limits=settings.limits,
        in_flight=asked["in_flight"],
    )
    process, half = psutil.Process(), list[float]()

    def progress(now: Progress) -> None:
        if not half and now.done >= now.total / 2:
            half.append(process.memory_info().rss / MIB)

    began, processor = time.perf_counter(), time.process_time()
    folder = await replay(order, Told(progress=progress))
    seconds, used = time.perf_counter() - began, time.process_time() - processor
    end = process.memory_info().rss / MIB
    summary = Summary.of(folder.results())
    folder.close()
    tell(
        "done",
        inputs=summary.replayed,
        identical=summary.changes[Change.IDENTICAL],
        scores=dict(summary.scores),
        seconds=seconds,
        processor_s=used,
        rss_half_mib=half[0],
        rss_end_mib=end,
    )


if __name__ == "__main__":
    asyncio.run(main(spec()))
