"""Prompts at the edges: no token, one, as many as fit, one more; ids at the vocabulary's end.

The same for the tiny model, at the full length it was made for, and for the default one, whose
full length takes minutes to read on a CPU: its context is set shorter here.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from model.engine import GenerationRequest, RequestRefused
from model.transformers_engine import TransformersEngine
from tests.model.contract import ask, prompt_of

pytestmark = pytest.mark.slow  # loads torch, and the real model


@pytest.fixture(scope="module", params=["tiny", "default"])
def engine(request: pytest.FixtureRequest, tiny_folder: Path) -> Iterator[TransformersEngine]:
    """One for all tests: it outlives their event loops."""
    tiny = request.param == "tiny"
    made = TransformersEngine(
        str(tiny_folder) if tiny else None,
        dtype="fp32",
        device="cpu",
        slots=2,
        context_length=8192 if tiny else 700,
    )
    yield made
    asyncio.run(made.stop())


@pytest.fixture(autouse=True)
async def _started(engine: TransformersEngine) -> None:
    await engine.start()


def of_length(engine: TransformersEngine, length: int, max_tokens: int = 3) -> GenerationRequest:
    """A prompt of so many tokens, all of them text."""
    some = ask(engine, "r", "Hello there, how are you?").prompt.token_ids[3:8]
    ids = [some[n % len(some)] for n in range(length)]
    return replace(ask(engine, "r", max_tokens=max_tokens), prompt=prompt_of(ids))


async def test_one_token_is_a_prompt(engine: TransformersEngine) -> None:
    made = await engine.generate(of_length(engine, 1))
    assert 1 <= len(made.token_ids) <= 3
    scored = await engine.score(
        of_length(engine, 1).prompt, made.token_ids, of_length(engine, 1).sampling
    )
    assert scored.verdict == "identical"


@pytest.mark.parametrize("short", [1, 2])
async def test_a_prompt_that_nearly_fills_the_context_gets_what_is_left(
    engine: TransformersEngine, short: int
) -> None:
    length = engine.describe().context_length
    request = of_length(engine, length - short, max_tokens=50)
    made = await engine.generate(request)
    assert len(made.token_ids) <= short
    assert made.finish_reason == "length" or len(made.token_ids) < short
    scored = await engine.score(request.prompt, made.token_ids, request.sampling)
    assert scored.verdict == "identical"


@pytest.mark.parametrize("more", [0, 1])
async def test_a_prompt_that_leaves_no_room_is_refused(
    engine: TransformersEngine, more: int
) -> None:
    length = engine.describe().context_length + more
    with pytest.raises(RequestRefused, match=f"has {length} tokens"):
        await engine.generate(of_length(engine, length))


async def test_no_token_is_no_prompt(engine: TransformersEngine) -> None:
    with pytest.raises(RequestRefused, match="empty"):
        await engine.generate(of_length(engine, 0))


async def test_ids_end_with_the_vocabulary(engine: TransformersEngine) -> None:
    last = engine.vocabulary - 1
    first = replace(ask(engine, "r", max_tokens=1), prompt=prompt_of([0, last]))
    assert len((await engine.generate(first)).token_ids) == 1
    for odd in (last + 1, -1, 2**31, 2**63, -(2**70)):
        with pytest.raises(RequestRefused, match="outside the vocabulary"):
            await engine.generate(replace(first, prompt=prompt_of([0, odd])))
    assert len((await engine.generate(first)).token_ids) == 1
