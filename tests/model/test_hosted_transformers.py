"""The transformers engine in a process of its own keeps the contract; here no torch is loaded."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import model
from model.engine import EngineUnavailable
from model.hosted.engine import HostedEngine
from model.hosted.keeper import Care
from tests.model.contract import QUESTIONS, EngineContract, ask, assert_same, until
from tests.model.test_hosted import SOON, pid_of
from tests.model.test_transformers_engine import tiny_engine

pytestmark = [
    pytest.mark.slow,  # loads torch, which takes some seconds
    pytest.mark.asyncio(loop_scope="module"),
]
TINY = {"dtype": "fp32", "device": "cpu", "slots": 4, "read_tokens": 20}


def hosted_tiny(folder: Path, **settings: Any) -> HostedEngine:
    return HostedEngine(
        "transformers",
        {"name": str(folder), "context_length": 512, **TINY, **settings},
        care=Care(restarts=SOON),
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(tiny_folder: Path) -> AsyncIterator[HostedEngine]:
    engine = hosted_tiny(tiny_folder)
    await engine.start()
    yield engine
    await engine.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def slow_engine(tiny_folder: Path) -> AsyncIterator[HostedEngine]:
    engine = hosted_tiny(tiny_folder, context_length=8192)
    await engine.start()
    yield engine
    await engine.stop()


class TestHostedTinyModel(EngineContract):
    """A real Llama with random weights, one process away."""


async def test_it_says_what_the_same_engine_says_in_our_process(
    engine: HostedEngine, tiny_folder: Path
) -> None:
    here = tiny_engine(tiny_folder)
    await here.start()
    assert engine.describe() == here.describe()
    assert engine.capacity() == here.capacity()
    requests = [ask(here, f"r{n}", QUESTIONS[n], temperature=0.9, seed=n) for n in range(5)]
    assert [ask(engine, f"r{n}", QUESTIONS[n]).prompt for n in range(5)] == [
        request.prompt for request in requests
    ]
    made = [await asyncio.gather(*map(one.generate, requests)) for one in (here, engine)]
    assert_same(made[1], made[0])
    await here.stop()


async def test_killed_in_the_middle_of_a_crowd(slow_engine: HostedEngine) -> None:
    engine, first, restarts = slow_engine, pid_of(slow_engine), slow_engine.stats().restarts
    ended = [await engine.generate(ask(engine, "before", max_tokens=4))]
    tasks = [
        asyncio.create_task(engine.generate(ask(engine, f"r{n}", f"{n}", max_tokens=4000)))
        for n in range(200)
    ]
    await until(lambda: engine.stats().waiting == 200 - 4)
    steps = engine.stats().steps or 0
    await until(lambda: (engine.stats().steps or 0) > steps)  # it is at work
    os.kill(first, signal.SIGKILL)
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(end) for end in ends} == {EngineUnavailable}
    await until(lambda: engine.stats().state == "up")
    assert engine.stats().restarts == restarts + 1
    again = await engine.generate(ask(engine, "after", max_tokens=4))
    assert_same([again], ended)


async def test_a_step_that_fails_each_time_ends_the_process_and_a_new_one_answers(
    tiny_folder: Path, tmp_path: Path
) -> None:
    """An engine that gives up (a GPU in a state that only a new process leaves) is started anew."""
    flag = tmp_path / "broken"
    code = f"""
    import os
    from model import host, slots
    read = slots.Slots.read

    def spoiled(self, *args):
        if os.path.exists({str(flag)!r}):
            raise RuntimeError("a sticky error")
        return read(self, *args)

    slots.Slots.read = spoiled
    host.main()
    """
    command = (sys.executable, "-c", textwrap.dedent(code))
    care = Care(restarts=SOON, command=command)
    engine = HostedEngine("transformers", {"name": str(tiny_folder), **TINY}, care=care)
    await engine.start()
    flag.touch()
    while engine.stats().restarts == 0:
        with pytest.raises(EngineUnavailable):
            await engine.generate(ask(engine, "a"))
    flag.unlink()
    await until(lambda: engine.stats().state == "up")
    assert (await engine.generate(ask(engine, "a"))).token_ids
    await engine.stop()


async def test_our_side_loads_no_torch(tiny_folder: Path) -> None:
    code = f"""
    import asyncio, sys
    from model.engine import ChatMessage, GenerationRequest, Part, Sampling
    from model.hosted.engine import HostedEngine

    async def main():
        engine = HostedEngine("transformers", {json.dumps({"name": str(tiny_folder), "slots": 2})})
        await engine.start()
        prompt = engine.tokenizer.encode_chat([ChatMessage("user", (Part("hi"),))])
        await engine.generate(GenerationRequest("a", prompt, Sampling(max_tokens=3)))
        await engine.stop()

    asyncio.run(main())
    assert not {{"torch", "transformers", "numpy"}} & set(sys.modules)
    """
    root = Path(next(iter(model.__path__))).parent
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = await asyncio.to_thread(subprocess.run, command, cwd=root, check=False)
    assert done.returncode == 0
