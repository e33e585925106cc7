"""P7: replies a second of the transformers engine on this processor, against llama.cpp.

The same default model (llama.cpp reads the GGUF itself, we its weights as safetensors), the same
prompts like the demo's, greedy replies, as many threads as there are cores, 16 slots; by turns,
with 1, 4 and 16 in flight. Both programs live through the whole run, and the one whose turn it is
not sleeps. llama.cpp first tries a few settings, and the best at 16 in flight is what it goes on
with. On a busy machine its threads wait for each other in vain, more than torch's do;
``P7_THREADS=1`` takes that out of the comparison.
"""

import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from model.loader import build_tokenizer
from model.weights import DEFAULT_MODEL, find_gguf
from tests.bench.chats import chats
from tests.bench.peers.install import HERE, peer_python
from tests.bench.result import Check, Result
from tests.bench.setting import Child, Setting, start
from tests.bench.stats import median

SLOTS, CONTEXT, TOKENS = 16, 512, 64
IN_FLIGHT = (1, 4, 16)
ANSWER_S = 900.0
WARM_SEED = 99  # of no turn: prompts that are known already would cost nothing
OURS, THEIRS = "transformers engine", "llama.cpp"
# What llama.cpp is given to choose from; everything else is its default, continuous batching and
# the reuse of prompts among them.
TRIALS = (
    {"flash": True, "kv_unified": False, "wait": "active"},
    {"flash": True, "kv_unified": False, "wait": "passive"},
    {"flash": False, "kv_unified": False, "wait": "active"},
    {"flash": True, "kv_unified": True, "wait": "active"},
)


async def run(setting: Setting) -> Result:
    """The two by turns; the prompts of a turn are new to both."""
    rounds, waves = (1, 1) if setting.quick else (3, 2)
    tokenizer, _ = build_tokenizer("transformers", DEFAULT_MODEL, None, setting.say)
    best = await _best(setting, chats(tokenizer, SLOTS, 0))
    samples: list[dict[str, Any]] = []
    async with AsyncExitStack() as stack:
        programs = {
            OURS: (await stack.enter_async_context(ours(setting, threads())))[0],
            THEIRS: await stack.enter_async_context(_theirs(setting, best)),
        }
        for program in programs.values():
            await _turn(program, 2, chats(tokenizer, 4, WARM_SEED))
        for number in range(rounds):
            for in_flight in IN_FLIGHT:
                prompts = chats(tokenizer, in_flight * (1 + waves), 100 * number + in_flight)
                for name, program in programs.items():
                    found = await _turn(program, in_flight, prompts)
                    samples.append({"round": number + 1, "system": name, **found})
                    setting.say(_said(samples[-1]))
    return _result(samples, best, rounds)


def threads() -> int:
    return int(os.environ.get("P7_THREADS") or os.cpu_count() or 1)


@asynccontextmanager
async def ours(
    setting: Setting, count: int, environment: Mapping[str, str] | None = None, **engine: Any
) -> AsyncIterator[tuple[Child, dict[str, Any]]]:
    """Our engine in a program of its own, and what it told when it was ready; ``count``: of its
    threads, ``engine``: further settings of it."""
    asked = {"slots": SLOTS, "threads": count, **engine}
    command = [sys.executable, "-m", "tests.bench.programs.motor", json.dumps({"engine": asked})]
    name = setting.name("motor")
    program = await start(setting, command, name=name, environment=environment, orders=True)
    async with _ready(program) as told:
        yield program, told


@asynccontextmanager
async def _theirs(setting: Setting, trial: Mapping[str, Any]) -> AsyncIterator[Child]:
    spec = {"gguf": str(find_gguf()), "slots": SLOTS, "context": CONTEXT, "threads": threads()}
    command = [str(peer_python("llamacpp")), "llamacpp_app.py", json.dumps({**spec, **trial})]
    program = await start(
        setting,
        command,
        name=setting.name("llamacpp"),
        environment={**os.environ, "OMP_WAIT_POLICY": str(trial["wait"])},
        cwd=HERE,
        orders=True,
    )
    async with _ready(program):
        yield program


@asynccontextmanager
async def _ready(program: Child) -> AsyncIterator[dict[str, Any]]:
    try:
        yield await program.news("ready", ANSWER_S)
    finally:
        await program.stop()


async def _best(setting: Setting, prompts: list[list[int]]) -> Mapping[str, Any]:
    """The settings of llama.cpp that are fastest here with all slots full."""
    found = []
    for trial in TRIALS[:2] if setting.quick else TRIALS:
        async with _theirs(setting, trial) as program:
            await _turn(program, 2, prompts[:2])
            rate = (await _turn(program, SLOTS, prompts))["tokens_per_s"]
        setting.say(f"{THEIRS} with {trial}: {rate:.0f} tokens/s")
        found.append((rate, trial))
    return max(found, key=lambda pair: pair[0])[1]


async def _turn(program: Child, in_flight: int, prompts: list[list[int]]) -> dict[str, Any]:
    await program.tell(in_flight=in_flight, prompts=prompts, tokens=TOKENS)
    done = await program.news("done", ANSWER_S)
    tokens = sum(done["lengths"])
    return {
        "in_flight": in_flight,
        "replies": len(prompts),
        "prompt_tokens": sum(map(len, prompts)),
        "cached_tokens": done["cached_tokens"],
        "tokens": tokens,
        "seconds": done["seconds"],
        "replies_per_s": len(prompts) / done["seconds"],
        "tokens_per_s": tokens / done["seconds"],
        "tokens_per_processor_s": tokens / done["processor_s"],
    }


def _said(sample: Mapping[str, Any]) -> str:
    return (
        f"{sample['system']}, {sample['in_flight']} in flight: {sample['replies_per_s']:.2f}"
        f" replies/s, {sample['tokens_per_s']:.0f} tokens/s"
        f" ({sample['tokens_per_processor_s']:.0f} per processor second)"
    )


def ratio(samples: Sequence[Mapping[str, Any]], in_flight: int, figure: str) -> float:
    """Median over the rounds of ours over theirs."""

    def of(system: str) -> list[float]:
        return [
            float(sample[figure])
            for sample in samples
            if sample["system"] == system and sample["in_flight"] == in_flight
        ]

    return median([mine / other for mine, other in zip(of(OURS), of(THEIRS), strict=True)])


def _result(samples: Sequence[Mapping[str, Any]], best: Mapping[str, Any], rounds: int) -> Result:
    rates = {n: ratio(samples, n, "replies_per_s") for n in IN_FLIGHT}
    work = {n: ratio(samples, n, "tokens_per_processor_s") for n in IN_FLIGHT}
    full = [sample for sample in samples if sample["in_flight"] == SLOTS]
    return Result(
        id="P7",
        what=f"replies/s of the transformers engine with {SLOTS} in flight, against llama.cpp",
        goal="ratio >= 1.3",
        ratio=rates[16],
        value=median([s["replies_per_s"] for s in full if s["system"] == OURS]),
        unit="replies/s",
        baseline=median([s["replies_per_s"] for s in full if s["system"] == THEIRS]),
        parameters={
            "model": DEFAULT_MODEL,
            "tokens": TOKENS,
            "threads": threads(),
            "slots": SLOTS,
            "rounds": rounds,
            "llamacpp": ", ".join(f"{name} {value}" for name, value in best.items()),
        },
        samples=list(samples),
        checks=[
            Check(what="times llama.cpp's replies/s with 4 in flight", goal="value >= 1.0",
                  found=rates[4]),
        ],
        notes=[
            f"With one in flight it is {rates[1]:.2f} times llama.cpp's.",
            "Tokens per second of processor time, over llama.cpp's: "
            + ", ".join(f"{work[n]:.2f} with {n} in flight" for n in IN_FLIGHT)
            + ". Other programs on the machine disturb that figure less.",
            "llama.cpp is the build that PyPI has (AVX2). Its weights have 4 bits, ours 16.",
        ],
    )  # fmt: skip
