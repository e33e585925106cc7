"""P8: kill -9 of one of three workers; how long do its partitions stay unanswered?

Inputs come steadily to 12 partitions. Counted from the kill to the first reply that the broker
takes in on any partition of the victim's (a reply that its last transaction had already
written does not count: it stands before the kill), and to the last of them to come back.
"""

import asyncio
import signal
import time
from contextlib import AsyncExitStack
from typing import Any

from tests.bench import kafka
from tests.bench.result import Check, Result
from tests.bench.setting import Child, Setting, child
from tests.bench.stats import median

WORKERS = 3
PARTITIONS = 12
SESSION_S = 6.0
RATE = 60.0
HANDLER_S = 0.1
SETTLE_S = 5.0  # what the broker has not seen of the victim yet is settled meanwhile


async def run(setting: Setting) -> Result:
    """Each round: three fresh workers, one kill."""
    rounds = 1 if setting.quick else 3
    samples: list[dict[str, Any]] = []
    for number in range(rounds):
        sample = {"round": number + 1, **await _kill_one(setting)}
        samples.append(sample)
        setting.say(
            f"first reply after {sample['first_s']:.2f} s, all after {sample['all_s']:.2f} s"
        )
    value = median([sample["first_s"] for sample in samples])
    worst = max(sample["all_s"] for sample in samples)
    return Result(
        id="P8",
        what="kill -9 of one of three workers: seconds to the first reply from its partitions",
        goal=f"value <= {SESSION_S + 2:g}",
        ratio=value / SESSION_S,
        value=value,
        unit="s",
        baseline=SESSION_S,
        parameters={
            "session_timeout_s": SESSION_S,
            "workers": WORKERS,
            "partitions": PARTITIONS,
            "rate_per_s": RATE,
            "handler_s": HANDLER_S,
            "rounds": rounds,
        },
        samples=samples,
        checks=[
            Check(
                what="s until the last of its partitions is answered again (worst round)",
                goal=f"value <= {SESSION_S + 2:g}",
                found=worst,
            )
        ],
        notes=["The ratio is to the session timeout, before which nobody can know of the death."],
    )


async def _kill_one(setting: Setting) -> dict[str, float]:
    source, out = setting.name("p8-in"), setting.name("p8-replies")
    bootstrap = setting.bootstrap_servers
    await kafka.make_topics(bootstrap, source, out, partitions=PARTITIONS)
    spec: dict[str, Any] = {"group": setting.name("p8"), "source": source, "outputs": [out]}
    spec |= {"config": {"session_timeout_ms": round(SESSION_S * 1000), "max_in_flight": 64}}
    inputs = [kafka.Input(lane=i, seconds=HANDLER_S) for i in range(round(RATE * 25))]
    async with AsyncExitStack() as stack:
        workers = [
            await stack.enter_async_context(child(setting, "worker", spec, name=f"worker-{i}"))
            for i in range(WORKERS)
        ]
        owned = await _wait_for_shares(workers)
        feed = asyncio.create_task(
            kafka.append_steadily(bootstrap, source, inputs, RATE, partitions=PARTITIONS)
        )
        await asyncio.sleep(SETTLE_S)
        victim = owned[workers[0].pid]
        killed_at = time.time()
        workers[0].signal(signal.SIGKILL)
        await feed
        await asyncio.sleep(SETTLE_S)
    return await asyncio.to_thread(_told, bootstrap, out, victim, killed_at)


async def _wait_for_shares(workers: list[Child]) -> dict[int, list[int]]:
    """Each worker's partitions, once they have shared them out."""
    fair = PARTITIONS // WORKERS
    shares = [worker.news("share", timeout_s=90, having={"count": fair}) for worker in workers]
    found = await asyncio.gather(*shares)
    return {worker.pid: news["partitions"] for worker, news in zip(workers, found, strict=True)}


def _told(bootstrap: str, out: str, victim: list[int], killed_at: float) -> dict[str, float]:
    """Replies of the victim's partitions after the kill. The broker's clock is ours."""
    first: dict[int, float] = {}
    for seen in kafka.read_back(bootstrap, out, PARTITIONS):
        if seen.partition in victim and seen.at_ms / 1000 > killed_at + 0.5:
            first.setdefault(seen.partition, seen.at_ms / 1000 - killed_at)
    if len(first) < len(victim):
        raise RuntimeError(f"only {len(first)} of {len(victim)} partitions were answered again")
    return {"partitions": len(victim), "first_s": min(first.values()), "all_s": max(first.values())}
