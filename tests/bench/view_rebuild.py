"""view-rebuild: how fast the view of conversations is built from Kafka, and how soon it is there.

A million posts stand on ``feed.posts``. A process without files opens the view of every
partition: events per second until all are caught up, and the size of the files. Its baseline is
the same process with a view that keeps nothing. Then the worker of ``twite worker`` starts on
the files that are there, again and again, once after a kill -9: seconds from the start of its
process to ``worker ready``.
"""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from infra.topics import create_topics
from schemas import names
from schemas.record import Output
from tests.bench import kafka, posts
from tests.bench.result import Check, Result
from tests.bench.setting import Child, Setting, child, start
from tests.bench.stats import median

_CHUNK = 20_000
_READY = b"worker ready"
_BUILD_S = 1_800.0
_START_S = 120.0


async def run(setting: Setting) -> Result:
    """Fill the log, read it bare, build, and start workers on what was built."""
    count, rounds = (50_000, 1) if setting.quick else (1_000_000, 3)
    await create_topics(setting.bootstrap_servers, partitions=kafka.PARTITIONS)
    await _fill(setting, count)
    bare = await _open(setting, setting.folder / "bare", bare=True)
    setting.say(f"reading alone: {count / bare['seconds']:,.0f} posts/s")
    samples: list[dict[str, Any]] = []
    for number in range(rounds):
        built = await _open(setting, setting.folder / f"views-{number}")
        built |= {"round": number + 1, "posts_per_s": count / built["seconds"]}
        setting.say(f"built: {built['posts_per_s']:,.0f} posts/s")
        samples.append(built)
    starts = await _start_workers(setting, setting.folder / f"views-{rounds - 1}")
    return _result(count, bare, samples, starts)


def _result(
    count: int, bare: dict[str, Any], samples: list[dict[str, Any]], starts: list[dict[str, Any]]
) -> Result:
    value = median([sample["posts_per_s"] for sample in samples])
    baseline = count / bare["seconds"]
    kept = [found["ready_s"] for found in starts if not found["first"]]
    return Result(
        id="view-rebuild",
        what=f"posts per second while the view of {count:,} posts is built from Kafka",
        goal="value >= 5000",
        ratio=value / baseline,
        value=value,
        unit="posts/s",
        baseline=baseline,
        parameters={
            "posts": count,
            "partitions": kafka.PARTITIONS,
            "file_mib": samples[-1]["file_bytes"] / 2**20,
            "bytes_per_post": samples[-1]["file_bytes"] / count,
            "starts": starts,
        },
        samples=[{"reading_alone": bare}, *samples],
        checks=[
            Check(
                what="s from the start of a worker's process, its views on disk, until it is"
                " ready (worst)",
                goal="value <= 3",
                found=max(kept),
            )
        ],
        notes=[
            "The ratio is to reading the same log into a view that keeps nothing.",
            "The first start of a worker is not counted: it makes the files of the other views.",
        ],
    )


async def _fill(setting: Setting, count: int) -> None:
    """Append the posts to ``feed.posts``."""
    async with AIOKafkaProducer(
        bootstrap_servers=setting.bootstrap_servers, linger_ms=20, max_batch_size=1 << 19
    ) as producer:
        chunk: list[tuple[int, Output]] = []
        for partition, one in posts.posts(count, kafka.PARTITIONS):
            chunk.append((partition, posts.created(one)))
            if len(chunk) == _CHUNK:
                await _append(producer, chunk)
                chunk = []
        await _append(producer, chunk)
    setting.say(f"{count:,} posts on {names.FEED_POSTS}")


async def _append(producer: AIOKafkaProducer, chunk: Iterable[tuple[int, Output]]) -> None:
    sent = [
        await producer.send(
            one.topic, one.value, one.key, partition=partition, headers=list(one.headers)
        )
        for partition, one in chunk
    ]
    await asyncio.gather(*sent)


async def _open(setting: Setting, directory: Path, *, bare: bool = False) -> dict[str, Any]:
    spec = {"directory": str(directory), "partitions": kafka.PARTITIONS, "bare": bare}
    async with child(setting, "views", spec) as program:
        return await program.news("ready", _BUILD_S)


async def _start_workers(setting: Setting, directory: Path) -> list[dict[str, Any]]:
    """The first makes the other views, the second is killed, the others find all as it was."""
    ends = [signal.SIGTERM, signal.SIGKILL, signal.SIGTERM, signal.SIGTERM]
    found: list[dict[str, Any]] = []
    for number, end in enumerate(ends):
        started = time.perf_counter()
        worker = await _worker(setting, directory, f"worker-{number}")
        try:
            await _said(worker, _READY)
            ready_s = time.perf_counter() - started
        finally:
            worker.signal(end)
            await worker.wait()
        after = ends[number - 1].name if number else None
        found.append({"first": not number, "after": after, "ready_s": ready_s})
        setting.say(f"worker ready after {ready_s:.2f} s")
    return found


async def _worker(setting: Setting, directory: Path, name: str) -> Child:
    """``twite worker`` with a group of its own, so that no dead member is waited for."""
    environment = {
        **os.environ,
        "TWITE_KAFKA__BOOTSTRAP_SERVERS": setting.bootstrap_servers,
        "TWITE_KAFKA__GROUP_ID": setting.name("view-rebuild"),
        "TWITE_MODEL__ENGINE": "echo",
        "TWITE_LOGGING__FORMAT": "json",
        "TWITE_HTTP__PORT": "0",
        "TWITE_VIEWS__DIRECTORY": str(directory),
    }
    command = [sys.executable, "-m", "bot.cli", "worker"]
    return await start(setting, command, name=name, environment=environment)


async def _said(worker: Child, line: bytes) -> None:
    """Returns once the worker has logged that. Raises ``RuntimeError`` where it ended before."""
    async with asyncio.timeout(_START_S):
        while line not in worker.log.read_bytes():
            if not worker.alive:
                tail = worker.log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"the worker ended:\n{tail}")
            await asyncio.sleep(0.01)
