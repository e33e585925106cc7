"""The transformers engine alone in a program: each order is a batch of prompts to answer.

An order: ``in_flight``, ``prompts`` (token ids), ``tokens`` (of a reply at most); ``beside``:
prompts and tokens of others that are in flight all the while, again and again. What is told of
it: seconds, processor seconds, tokens, and of each reply its length and its first token's delay.
"""

import asyncio
import itertools
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
    others = [
        asyncio.create_task(_again(engine, f"other {n}", ids, order["beside"]["tokens"]))
        for n, ids in enumerate(order.get("beside", {}).get("prompts", ()))
    ]

    async def one(name: int, ids: list[int]) -> Generation:
        async with slots:
            return await _reply(engine, f"{name}", ids, order["tokens"])

    before, processor = time.perf_counter(), time.process_time()
    made = await asyncio.gather(*(one(n, ids) for n, ids in enumerate(order["prompts"])))
    seconds, processor_s = time.perf_counter() - before, time.process_time() - processor
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    return {
        "seconds": seconds,
        "processor_s": processor_s,
        "lengths": [len(each.token_ids) for each in made],
        "first_token_s": [each.timings.first_token_s for each in made],
        "total_s": [each.timings.total_s for each in made],
        "cached_tokens": sum(each.timings.cached_tokens for each in made),
        "mib": psutil.Process().memory_info().rss / 2**20,
    }


async def _again(engine: Any, name: str, ids: list[int], tokens: int) -> None:
    """One prompt after the other with nothing to share: the first id is another each time."""
    for turn in itertools.count(1000):
        await _reply(engine, name, [turn, *ids[1:]], tokens)


async def _reply(engine: Any, name: str, ids: list[int], tokens: int) -> Generation:
    prompt = Prompt(tuple(ids), (Segment(0, len(ids), "trusted"),))
    request = GenerationRequest(name, prompt, Sampling(max_tokens=tokens))
    made: Generation = await engine.generate(request)
    return made


if __name__ == "__main__":
    asyncio.run(main())
