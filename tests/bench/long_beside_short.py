"""long-beside-short: do long answers hold up the short ones, as long as the engine has slots?

Four short ones at a time (a prompt like the demo's, 16 tokens), by turns alone and beside two
long ones (a prompt of 1,200 tokens, 400 tokens), with 16 slots. The 99th percentile of a short
one's whole time, beside the long ones over alone.
"""

from itertools import chain
from typing import Any

from model.loader import build_tokenizer
from model.weights import DEFAULT_MODEL
from tests.bench.chats import chats
from tests.bench.p7 import ANSWER_S, SLOTS, ours, threads
from tests.bench.result import Check, Result
from tests.bench.setting import Child, Setting
from tests.bench.stats import median, percentile

SHORT, SHORT_TOKENS = 4, 16
LONG, LONG_PROMPT, LONG_TOKENS = 2, 1_200, 400


async def run(setting: Setting) -> Result:
    """The two by turns, new prompts each time."""
    rounds, count = (1, 16) if setting.quick else (3, 60)
    tokenizer, _ = build_tokenizer("transformers", DEFAULT_MODEL, None, setting.say)
    long = [[*chain(*chats(tokenizer, 9, n))][:LONG_PROMPT] for n in range(LONG)]
    samples: list[dict[str, Any]] = []
    async with ours(setting, threads()) as (program, _):
        await _turn(program, chats(tokenizer, SHORT, 1), [])
        for number in range(rounds):
            alone = await _turn(program, chats(tokenizer, count, 10 + number), [])
            beside = await _turn(program, chats(tokenizer, count, 90 + number), long)
            ratios = {name: beside[name] / alone[name] for name in ("p50_ms", "p99_ms")}
            samples.append({"round": number + 1, "alone": alone, "beside": beside, **{
                f"ratio_{name}": ratio for name, ratio in ratios.items()}})  # fmt: skip
            setting.say(f"short p99 alone {alone['p99_ms']:.0f}, beside {beside['p99_ms']:.0f} ms")
    return _result(samples, rounds, count)


async def _turn(program: Child, short: list[list[int]], long: list[list[int]]) -> dict[str, Any]:
    beside = {"prompts": long, "tokens": LONG_TOKENS}
    await program.tell(in_flight=SHORT, prompts=short, tokens=SHORT_TOKENS, beside=beside)
    done = await program.news("done", ANSWER_S)
    times = [1000 * seconds for seconds in done["total_s"]]
    return {"p50_ms": percentile(times, 50), "p99_ms": percentile(times, 99)}


def _result(samples: list[dict[str, Any]], rounds: int, count: int) -> Result:
    return Result(
        id="long-beside-short",
        what="p99 of short answers beside long ones, over the short ones alone",
        goal="ratio <= 1.2",
        ratio=median([sample["ratio_p99_ms"] for sample in samples]),
        value=median([sample["beside"]["p99_ms"] for sample in samples]),
        unit="ms (p99)",
        baseline=median([sample["alone"]["p99_ms"] for sample in samples]),
        parameters={
            "model": DEFAULT_MODEL,
            "slots": SLOTS,
            "threads": threads(),
            "short": count,
            "rounds": rounds,
        },
        samples=samples,
        checks=[
            Check(
                what="times the median alone",
                goal="value <= 1.2",
                found=median([sample["ratio_p50_ms"] for sample in samples]),
            )
        ],
        notes=[
            "On a processor long ones are work that short ones wait for: slots are free, cores not."
        ],
    )
