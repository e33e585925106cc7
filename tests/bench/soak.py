"""soak: does anything grow over steady load? Memory, tasks, open files.

A worker answers at a steady rate while its numbers are noted every few seconds. Memory is told
as the slope of a line through all samples after the first fifth, in MB an hour; tasks and files
as the difference between the medians of the last and of the first fifth of what is left.

The runtime's own bounds are part of it: lanes come and go (a million different ones),
offsets are committed and forgotten. 10 MB an hour is the bound that is called flat: the
noise of an allocator over a quarter of an hour, 240 MB a day.
"""

import asyncio
import time
from typing import Any

import psutil

from tests.bench import kafka
from tests.bench.result import Check, Result
from tests.bench.setting import Child, Setting, child
from tests.bench.stats import median, slope

RATE = 200.0
HANDLER_S = 0.05
EVERY_S = 3.0
WARM = 0.2
FLAT_MB_PER_H = 10.0


async def run(setting: Setting) -> Result:
    """One worker, one run."""
    seconds = 120 if setting.quick else 900
    source = setting.name("soak-in")
    outputs = [setting.name("soak-replies"), setting.name("soak-audit")]
    await kafka.make_topics(setting.bootstrap_servers, source, *outputs)
    spec: dict[str, Any] = {
        "group": setting.name("soak"),
        "source": source,
        "outputs": outputs,
        "partitions": kafka.PARTITIONS,
        "report_s": EVERY_S,
        "config": {"max_in_flight": 64},
    }
    inputs = (kafka.Input(lane=i, seconds=HANDLER_S) for i in range(round(RATE * seconds)))
    async with child(setting, "worker", spec) as worker:
        await worker.news("ready", timeout_s=60)
        feed = asyncio.create_task(
            kafka.append_steadily(setting.bootstrap_servers, source, inputs, RATE)
        )
        samples = await _watch(worker, feed)
    return _result(samples, seconds)


async def _watch(worker: Child, feed: "asyncio.Task[None]") -> list[dict[str, float]]:
    process = psutil.Process(worker.pid)
    started = time.monotonic()
    samples = []
    while not feed.done():
        news = await worker.news("state", timeout_s=10 * EVERY_S)
        samples.append(
            {
                "s": time.monotonic() - started,
                "resident_mb": process.memory_info().rss / 1e6,
                "tasks": news["tasks"],
                "files": process.num_fds(),
                "inputs": news["inputs"],
            }
        )
    await feed
    return samples


def _result(samples: list[dict[str, float]], seconds: int) -> Result:
    warm = [sample for sample in samples if sample["s"] > WARM * seconds]
    mb_per_h = 3600 * slope([(sample["s"], sample["resident_mb"]) for sample in warm])
    grown = {name: _growth([sample[name] for sample in warm]) for name in ("tasks", "files")}
    return Result(
        id="soak",
        what=f"{seconds // 60} minutes at steady load: slope of resident memory, open tasks,"
        " open files",
        goal=f"value <= {FLAT_MB_PER_H:g}",
        ratio=None,
        value=mb_per_h,
        unit="MB/h",
        baseline=None,
        parameters={
            "seconds": seconds,
            "rate_per_s": RATE,
            "handler_s": HANDLER_S,
            "sampled_every_s": EVERY_S,
            "warm_up_share": WARM,
        },
        samples=samples,
        checks=[
            Check(
                what="more tasks at the end (of those that are there)",
                goal="value <= 5",
                found=grown["tasks"],
            ),
            Check(what="more open files at the end", goal="value <= 0", found=grown["files"]),
        ],
        notes=[
            f"{samples[-1]['inputs']:,.0f} inputs.",
            f"Memory after the warm-up {warm[0]['resident_mb']:.0f} MB.",
            f"Memory at the end {warm[-1]['resident_mb']:.0f} MB.",
        ],
    )


def _growth(values: list[float]) -> float:
    fifth = max(1, len(values) // 5)
    return median(values[-fifth:]) - median(values[:fifth])
