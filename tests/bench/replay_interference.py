"""replay-interference: what live answers lose while a replay runs beside them on the same machine.

The worker is that of ``bot/app.py`` with the echo engine, 16 slots of 200 ms, at half of the load
that these can take, as in ``retraction``. Before, it answers a stock of mentions; then live load
alone and live load beside a frozen replay of that stock take turns. The replay is a process of its
own that runs as ``twite replay`` does by default: few decisions at once, and at a niceness that
leaves the processor to others. It is started anew until the live load of its turn is over.
"""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from bot.cli.replay import IN_FLIGHT, NICENESS
from infra.topics import create_topics
from tests.bench import kafka, mentions
from tests.bench.result import Check, Result
from tests.bench.retraction import LATENCY_MS, RATE, SLOTS, settings_of
from tests.bench.setting import Others, Setting, child, outcome
from tests.bench.stats import median, percentile

WARM_S = 8.0
_PATIENCE_S = 600.0


async def run(setting: Setting) -> Result:
    """One worker stays up; live load alone and beside replays take turns."""
    rounds, seconds, stock = (2, 10, 1_500) if setting.quick else (5, 30, 5_000)
    await create_topics(setting.bootstrap_servers, partitions=kafka.PARTITIONS)
    since_ms = round(time.time() * 1000) - 1
    await _make_stock(setting, stock)
    decided = since_ms, round(time.time() * 1000)
    samples = []
    async with child(setting, "bot", {"settings": settings_of(setting), "total": 10**9}):
        await _live(setting, WARM_S)
        for number in range(rounds):
            others = Others()
            sample: dict[str, Any] = {"round": number + 1, "alone": await _live(setting, seconds)}
            async with _replaying(setting, decided) as replayed:
                sample["beside"] = await _live(setting, seconds)
            sample["replayed_per_s"] = sum(done["inputs"] for done in replayed) / max(
                sum(done["seconds"] for done in replayed), 1e-9
            )
            sample["replays"] = len(replayed)
            sample["cores_used_by_others"] = others.cores()
            samples.append(sample)
            setting.say(
                f"alone {_told(sample['alone'])}, beside a replay {_told(sample['beside'])},"
                f" replay {sample['replayed_per_s']:.0f}/s"
            )
    return _result(samples, rounds, seconds, stock)


async def _make_stock(setting: Setting, count: int) -> None:
    """Decisions that can be replayed: answered at once, by the same worker without latency."""
    await mentions.preload(setting.bootstrap_servers, "stock", count)
    settings = settings_of(setting)
    settings["model"] = {"engine": "echo", "slots": 64}
    settings["worker"] = {"max_in_flight": 128}
    await outcome(setting, "bot", {"settings": settings, "total": count}, _PATIENCE_S)


async def _live(setting: Setting, seconds: float) -> dict[str, float]:
    asked = {"rate": RATE, "seconds": seconds, "name": setting.name("run")}
    done = await outcome(setting, "answers", asked, seconds + 120)
    delays = done["from_send_ms"]
    return {
        "replies_per_s": done["replies_per_s"],
        "p50_ms": percentile(delays, 50),
        "p99_ms": percentile(delays, 99),
    }


@asynccontextmanager
async def _replaying(
    setting: Setting, decided: tuple[int, int]
) -> AsyncIterator[list[dict[str, Any]]]:
    """Replays one after another meanwhile; what each of them told."""
    told: list[dict[str, Any]] = []
    task = asyncio.create_task(_replay_on(setting, decided, told), name="replays")
    try:
        yield told
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    if not told:
        raise RuntimeError("no replay was through while the live load ran: make the stock smaller")


async def _replay_on(
    setting: Setting, decided: tuple[int, int], told: list[dict[str, Any]]
) -> None:
    asked = {
        "settings": settings_of(setting) | {"model": {"engine": "echo"}},
        "mode": "frozen",
        "since_ms": decided[0],
        "until_ms": decided[1],
        "in_flight": IN_FLIGHT,
        "folder": str(setting.folder / "replays"),
    }
    while True:
        async with child(setting, "replay", asked) as started:
            os.setpriority(os.PRIO_PROCESS, started.pid, NICENESS)
            told.append(await started.news("done", timeout_s=_PATIENCE_S))
            await started.wait()


def _told(found: dict[str, float]) -> str:
    return f"{found['replies_per_s']:.1f} replies/s p99 {found['p99_ms']:.0f} ms"


def _result(samples: list[dict[str, Any]], rounds: int, seconds: float, stock: int) -> Result:
    def middle(run: str, figure: str) -> float:
        return median([sample[run][figure] for sample in samples])

    def beside(figure: str) -> float:
        return median([sample["beside"][figure] / sample["alone"][figure] for sample in samples])

    return Result(
        id="replay-interference",
        what="live replies per second while a replay runs on the same machine, to those without",
        goal="ratio >= 0.95",
        ratio=beside("replies_per_s"),
        value=middle("beside", "replies_per_s"),
        unit="replies/s",
        baseline=middle("alone", "replies_per_s"),
        parameters={
            "mentions_per_s": RATE,
            "slots": SLOTS,
            "latency_ms": LATENCY_MS,
            "rounds": rounds,
            "seconds": seconds,
            "stock": stock,
            "replay_in_flight": IN_FLIGHT,
            "replay_niceness": NICENESS,
        },
        samples=samples,
        checks=[
            Check(
                what="p99 of live answers beside a replay, to that without",
                goal="value <= 1.2",
                found=beside("p99_ms"),
            )
        ],
        notes=[_p99s(middle("beside", "p99_ms"), middle("alone", "p99_ms")), _went_on(samples)],
    )


def _p99s(beside: float, alone: float) -> str:
    return f"p99 {beside:.0f} ms beside a replay, {alone:.0f} ms without."


def _went_on(samples: list[dict[str, Any]]) -> str:
    rate = median([sample["replayed_per_s"] for sample in samples])
    return f"The replay went on at {rate:.0f} decisions a second meanwhile."
