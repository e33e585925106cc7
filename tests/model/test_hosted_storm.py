"""Thousands of requests that are cancelled, left, late or fine, while the process is killed,
crashed and frozen at any moment: each has one end, and nothing is left over."""

import asyncio
import os
import random
import signal
from collections import Counter

import pytest

from model.engine import DeadlineExceeded, EngineUnavailable, GenerationRequest
from model.hosted.engine import HostedEngine
from model.hosted.keeper import Care
from tests.model.contract import QUESTIONS, ask, until
from tests.model.test_hosted import SOON, children

pytestmark = pytest.mark.slow  # a minute

REQUESTS, AT_ONCE, KILLS = 3000, 100, 12
HOW = (signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP)


class Storm:
    """One engine and whoever asks it."""

    def __init__(self, engine: HostedEngine, seed: int) -> None:
        self.engine, self.dice = engine, random.Random(seed)
        self.ends: Counter[str] = Counter()
        self.left = REQUESTS

    async def asker(self, name: str) -> None:
        """One request after the other, each with a fate of its own."""
        while self.left > 0:
            self.left -= 1
            number, fate = self.left, self.dice.random()
            deadline = 0.004 if fate < 0.1 else None
            request = ask(self.engine, f"{name}/{number}", QUESTIONS[number % 5])
            request = GenerationRequest(
                request.id, request.prompt, request.sampling, deadline=deadline
            )
            try:
                self.ends[await self.one(request, fate)] += 1
            except DeadlineExceeded:
                self.ends["late"] += 1
            except EngineUnavailable:
                self.ends["away"] += 1
                await until(lambda: self.engine.stats().state == "up")

    async def one(self, request: GenerationRequest, fate: float) -> str:
        if fate < 0.3:
            task = asyncio.create_task(self.engine.generate(request))
            await asyncio.sleep(self.dice.random() * 0.02)
            if fate < 0.2:
                await self.engine.cancel(request.id)
                return (await task).finish_reason
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            return "left"
        if fate < 0.5:
            stream = self.engine.stream(request)
            async for chunk in stream:
                if chunk.generation:
                    return chunk.generation.finish_reason
                if fate < 0.4:
                    break
            await stream.aclose()  # type: ignore[attr-defined]
            return "left"
        return (await self.engine.generate(request)).finish_reason

    async def killer(self) -> None:
        for _ in range(KILLS):
            await asyncio.sleep(self.dice.random() * 0.5)
            await until(lambda: self.engine.stats().state == "up")
            before, pid = self.engine.stats().restarts, self.engine.pid
            if pid is None:
                continue
            os.kill(pid, self.dice.choice(HOW))
            await until(lambda before=before: self.engine.stats().restarts > before)  # type: ignore[misc]


@pytest.mark.parametrize("seed", [1, 2])
async def test_each_request_has_one_end_whatever_happens(seed: int) -> None:
    others = children()
    care = Care(hang_s=1.2, restarts=SOON)
    engine = HostedEngine("echo", {"latency_ms": 5, "slots": 8}, care=care)
    await engine.start()
    storm = Storm(engine, seed)
    async with asyncio.TaskGroup() as group:
        group.create_task(storm.killer())
        for n in range(AT_ONCE):
            group.create_task(storm.asker(f"asker{n}"))
    assert sum(storm.ends.values()) == REQUESTS
    assert {"length", "cancelled", "left", "late", "away"} <= set(storm.ends)
    await until(lambda: engine.stats().state == "up")
    assert engine.stats().restarts >= KILLS - 1
    assert engine.capacity().free_slots == 8
    assert (engine.stats().running, engine.stats().waiting) == (0, 0)
    assert (await engine.generate(ask(engine, "after"))).token_ids
    counted = engine.stats().requests
    assert sum(counted.values()) == REQUESTS + 1
    await engine.stop()
    assert children() == others
