"""first-token: how long the first token of a reply takes with 1, 4 and 16 arriving at once.

Also how long a start takes, the first one ever (the default model's weights are converted then)
and a later one, and how much memory the engine holds. Prompts like the demo's, all threads.
"""

import os
from typing import Any

from model.loader import build_tokenizer
from model.weights import DEFAULT_MODEL
from tests.bench.chats import chats
from tests.bench.p7 import ANSWER_S, SLOTS, ours, threads
from tests.bench.result import Check, Result
from tests.bench.setting import Child, Setting
from tests.bench.stats import median, percentile

AT_ONCE = (1, 4, 16)
TOKENS = 16


async def run(setting: Setting) -> Result:
    """A cold start, a warm one, then waves of new prompts."""
    waves = {1: 6, 4: 2, 16: 1} if setting.quick else {1: 30, 4: 10, 16: 5}
    tokenizer, _ = build_tokenizer("transformers", DEFAULT_MODEL, None, setting.say)
    fresh = {**os.environ, "TWITE_CACHE": str(setting.folder / "cache")}
    starts = []
    for _ in ("cold", "warm"):
        async with ours(setting, threads(), environment=fresh) as (_, ready):
            starts.append(ready["seconds"])
    samples: list[dict[str, Any]] = []
    async with ours(setting, threads(), environment=fresh) as (program, ready):
        await _wave(program, chats(tokenizer, 4, 1))
        for at_once, count in waves.items():
            firsts, mib = [], 0.0
            for wave in range(count):
                done = await _wave(program, chats(tokenizer, at_once, 1000 * at_once + wave))
                firsts += [1000 * seconds for seconds in done["first_token_s"]]
                mib = done["mib"]
            samples.append({"at_once": at_once, "p50_ms": percentile(firsts, 50),
                            "p99_ms": percentile(firsts, 99), "mib": mib})  # fmt: skip
            setting.say(
                f"{at_once} at once: first token p50 {samples[-1]['p50_ms']:.0f} ms,"
                f" p99 {samples[-1]['p99_ms']:.0f} ms"
            )
    return _result(samples, starts, ready["mib"])


async def _wave(program: Child, prompts: list[list[int]]) -> dict[str, Any]:
    await program.tell(in_flight=len(prompts), prompts=prompts, tokens=TOKENS)
    return await program.news("done", ANSWER_S)


def _result(samples: list[dict[str, Any]], starts: list[float], mib: float) -> Result:
    by = {sample["at_once"]: sample for sample in samples}
    return Result(
        id="first-token",
        what="ms to the first token (p99) with 16 prompts arriving at once",
        goal="value <= 5000",
        ratio=by[16]["p99_ms"] / by[1]["p50_ms"],
        value=by[16]["p99_ms"],
        unit="ms (p99)",
        baseline=by[1]["p50_ms"],
        parameters={"model": DEFAULT_MODEL, "slots": SLOTS, "threads": threads()},
        samples=samples,
        checks=[
            Check(what="s for a start", goal="value <= 15", found=median(starts[1:])),
            Check(what="s for the first start ever", goal="value <= 60", found=starts[0]),
            Check(what="MiB after the start", goal="value <= 1500", found=mib),
            Check(what="MiB after all", goal="value <= 2000", found=samples[-1]["mib"]),
        ],
        notes=[
            "First token p50 / p99 in ms: "
            + "; ".join(f"{s['at_once']} at once {s['p50_ms']:.0f} / {s['p99_ms']:.0f}"
                        for s in samples) + ".",
            "The ratio is to the median of one alone: 16 prompts are read one after the other.",
        ],
    )  # fmt: skip
