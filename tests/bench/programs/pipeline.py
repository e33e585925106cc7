"""The whole worker with its real model, then the same requests to the same engine alone.

Tells ``pipeline`` when ``total`` decisions are published, and ``alone`` when the engine has made
the same replies again without any pipeline, as many in flight: seconds, tokens, requests.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from bot.app import run_worker
from bot.settings import Settings
from bot.wiring import engine_of
from model.engine import Chunk, Generation, GenerationRequest
from tests.bench.programs.bot import Counter, watch
from tests.bench.programs.toy import spec, tell


class Recorder:
    """The engine, which remembers what it was asked for; everything else goes through."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.requests: list[GenerationRequest] = []
        self.tokens = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def generate(self, request: GenerationRequest) -> Generation:
        self.requests.append(request)
        made: Generation = await self._engine.generate(request)
        self.tokens += len(made.token_ids)
        return made

    async def stream(self, request: GenerationRequest) -> AsyncIterator[Chunk]:
        self.requests.append(request)
        async for chunk in self._engine.stream(request):
            if chunk.generation:
                self.tokens += len(chunk.generation.token_ids)
            yield chunk


async def main(asked: dict[str, Any]) -> None:
    settings = Settings(**asked["settings"])
    full, stop = asyncio.Event(), asyncio.Event()
    counter = Counter(asked["total"], full)
    watch(counter)
    engine = Recorder(engine_of(settings.model))
    working = asyncio.create_task(run_worker(settings, engine=engine, stop=stop), name="worker")
    filled = asyncio.create_task(full.wait(), name="full")
    await asyncio.wait({working, filled}, return_when=asyncio.FIRST_COMPLETED)
    if working.done():
        await working
    seconds = counter.last_commit - counter.first_open
    tell("pipeline", seconds=seconds, tokens=engine.tokens, requests=len(engine.requests))
    stop.set()
    await working
    tell("alone", **await _alone(engine, settings.worker.max_in_flight))


async def _alone(engine: Recorder, in_flight: int) -> dict[str, float]:
    again, engine.tokens = list(engine.requests), 0
    await engine.start()
    slots = asyncio.Semaphore(in_flight)

    async def one(number: int, request: GenerationRequest) -> None:
        async with slots:
            await engine.generate(replace(request, id=f"again-{number}"))

    before = time.perf_counter()
    await asyncio.gather(*(one(*numbered) for numbered in enumerate(again)))
    seconds = time.perf_counter() - before
    await engine.stop()
    return {"seconds": seconds, "tokens": engine.tokens, "requests": len(again)}


if __name__ == "__main__":
    asyncio.run(main(spec()))
