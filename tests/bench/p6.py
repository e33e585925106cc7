"""P6: do a few slow answers hold up the many short ones?

19 of 20 inputs take 0.2 s, one takes 10 s, every input in a lane of its own. Beside it, by
turns, the short ones alone at the same rate of short ones. Delay: appended until the reply is
in the log (both stamped by the broker).

Load: the slow ones alone keep rate × 5 % × 10 s slots busy, the short ones rate × 95 % × 0.2 s.
With 64 slots and 40 inputs a second that is 20 + 7.6 = 28 slots: less than half, so that a
slot is free for every short one and only the runtime can be to blame.
"""

import asyncio
import random
from typing import Any

from tests.bench import kafka
from tests.bench.result import Result
from tests.bench.setting import Setting, child
from tests.bench.stats import median, percentile

SLOTS = 64
RATE = 40.0
SHORT_S, LONG_S = 0.2, 10.0
LONG_SHARE = 0.05


async def run(setting: Setting) -> Result:
    """Short alone and mixed, by turns; a fresh group and topics each time."""
    rounds, seconds = (1, 14) if setting.quick else (3, 40)
    samples: list[dict[str, Any]] = []
    for number in range(rounds):
        alone = await _measure(setting, seconds, long=False)
        mixed = await _measure(setting, seconds, long=True)
        ratio = mixed["p99_ms"] / alone["p99_ms"]
        samples.append({"round": number + 1, "ratio": ratio, "alone": alone, "mixed": mixed})
        setting.say(f"short p99 alone {alone['p99_ms']:.0f}, mixed {mixed['p99_ms']:.0f} ms")
    busy = RATE * (LONG_SHARE * LONG_S + (1 - LONG_SHARE) * SHORT_S)
    return Result(
        id="P6",
        what="95 % of answers take 0.2 s and 5 % take 10 s: p99 of the short ones, against the"
        " short ones alone at the same rate",
        goal="ratio <= 1.2",
        ratio=median([sample["ratio"] for sample in samples]),
        value=median([sample["mixed"]["p99_ms"] for sample in samples]),
        unit="ms (p99)",
        baseline=median([sample["alone"]["p99_ms"] for sample in samples]),
        parameters={
            "rate_per_s": RATE,
            "slots": SLOTS,
            "slots_busy_on_average": busy,
            "seconds": seconds,
            "rounds": rounds,
            "partitions": kafka.PARTITIONS,
        },
        samples=samples,
    )


async def _measure(setting: Setting, seconds: int, *, long: bool) -> dict[str, float]:
    source, out = setting.name("p6-in"), setting.name("p6-replies")
    await kafka.make_topics(setting.bootstrap_servers, source, out)
    spec = {
        "group": setting.name("p6"),
        "source": source,
        "outputs": [out],
        "partitions": kafka.PARTITIONS,
        "config": {"max_in_flight": SLOTS},
    }
    inputs = list(_inputs(round(RATE * seconds), long=long))
    async with child(setting, "worker", {**spec, "total": len(inputs)}) as worker:
        await worker.news("ready", timeout_s=60)
        await kafka.append_steadily(setting.bootstrap_servers, source, inputs, RATE)
        await worker.news("done", timeout_s=LONG_S + 60)
        await worker.wait()
    delays = await asyncio.to_thread(kafka.delays_ms, setting.bootstrap_servers, source, out)
    short = [delay for value, delay in delays if value.startswith(b"%g " % SHORT_S)]
    if len(delays) != len(inputs):
        raise RuntimeError(f"{len(delays)} replies to {len(inputs)} inputs")
    warm = short[len(short) // 20 :]
    return {"short": len(warm), "p50_ms": percentile(warm, 50), "p99_ms": percentile(warm, 99)}


def _inputs(count: int, *, long: bool) -> "list[kafka.Input]":
    """The same short ones at the same moments; ``long`` puts slow ones between them."""
    chance = random.Random(6)
    made = []
    for lane in range(count):
        slow = chance.random() < LONG_SHARE
        if long or not slow:
            made.append(kafka.Input(lane=lane, seconds=LONG_S if slow else SHORT_S))
    return made
