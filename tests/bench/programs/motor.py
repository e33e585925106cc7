"""The transformers engine alone in a program: each order is a batch of prompts to answer.

An order: ``in_flight``, ``prompts`` (token ids), ``tokens`` (of a reply at most). What is told of
it: seconds, processor seconds, tokens, and of each reply its length and its first token's delay.
"""

import asyncio
import json
import sys
import time
from typing import Any

import psutil

from model.engine import Generation, GenerationRequest, Prompt, Sampling, Segment
from model.threads import configure_environment
from tests.bench.programs.toy import spec, tell

configure_environment()


async def main() -> None:
    from model.transformers_engine import TransformersEngine

    started = time.monotonic()
    engine = TransformersEngine(**spec()["engine"])
    await engine.start()
    mib = psutil.Process().memory_info().rss / 2**20
    tell("ready", seconds=time.monotonic() - started, mib=mib)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        tell("done", **await _answer(engine, json.loads(line)))
    await engine.stop()


async def _answer(engine: Any, order: dict[str, Any]) -> dict[str, Any]:
    slots = asyncio.Semaphore(order["in_flight"])

    async def one(name: int, ids: list[int]) -> Generation:
        prompt = Prompt(tuple(ids), (Segment(0, len(ids), "trusted"),))
        sampling = Sampling(max_tokens=order["tokens"])
        async with slots:
            made: Generation = await engine.generate(GenerationRequest(f"{name}", prompt, sampling))
            return made

    before, processor = time.perf_counter(), time.process_time()
    made = await asyncio.gather(*(one(n, ids) for n, ids in enumerate(order["prompts"])))
    return {
        "seconds": time.perf_counter() - before,
        "processor_s": time.process_time() - processor,
        "lengths": [len(each.token_ids) for each in made],
        "first_token_s": [each.timings.first_token_s for each in made],
        "cached_tokens": sum(each.timings.cached_tokens for each in made),
        "mib": psutil.Process().memory_info().rss / 2**20,
    }


if __name__ == "__main__":
    asyncio.run(main())
