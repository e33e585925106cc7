"""Recorded replies through the engine: what it made scores as identical, what it did not, not."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model.engine import EngineUnavailable, Generation, GenerationRequest, RequestRefused, Score
from model.transformers_engine import TransformersEngine
from tests.model.contract import QUESTIONS, ask, prompt_of, until
from tests.model.test_transformers_engine import tiny_engine

pytestmark = pytest.mark.slow  # loads torch, which takes some seconds

DRAWN = {"temperature": 0.9, "top_p": 0.95, "seed": 11, "repetition_penalty": 1.1}


@pytest.fixture
async def tiny(tiny_folder: Path) -> AsyncIterator[TransformersEngine]:
    engine = tiny_engine(tiny_folder)
    await engine.start()
    yield engine
    await engine.stop()


async def score(engine: Any, request: GenerationRequest, ids: tuple[int, ...]) -> Score:
    made: Score = await engine.score(request.prompt, ids, request.sampling)
    return made


@pytest.mark.parametrize("sampling", [{}, DRAWN])
async def test_what_the_engine_made_scores_as_identical(
    tiny: TransformersEngine, sampling: dict[str, Any]
) -> None:
    requests = [
        ask(tiny, f"r{n}", QUESTIONS[n % 5] * (1 + n), max_tokens=1 + 20 * n, **sampling)
        for n in range(6)
    ]
    made = await asyncio.gather(*(tiny.generate(request) for request in requests))
    scores = [await score(tiny, r, g.token_ids) for r, g in zip(requests, made, strict=True)]
    assert {one.verdict for one in scores} == {"identical"}
    for one, reply in zip(scores, made, strict=True):
        assert one.logprobs == pytest.approx(reply.logprobs, abs=1e-3)


@pytest.mark.parametrize("sampling", [{}, DRAWN])
async def test_another_token_diverges_there_and_not_before(
    tiny: TransformersEngine, sampling: dict[str, Any]
) -> None:
    request = ask(tiny, "r", max_tokens=80, **sampling)
    ids = list((await tiny.generate(request)).token_ids)
    for place in (0, 40):
        wrong = [*ids[:place], (ids[place] + 7) % 300, *ids[place + 1 :]]
        got = await score(tiny, request, tuple(wrong))
        assert (got.verdict, got.diverged_at) == ("diverged", place)
        assert got.margin is not None
        assert got.margin > 0


async def test_scores_and_replies_do_not_disturb_each_other(tiny: TransformersEngine) -> None:
    requests = [ask(tiny, f"r{n}", QUESTIONS[n % 5] * 5, max_tokens=40) for n in range(8)]
    alone = [await tiny.generate(request) for request in requests]

    async def both(request: GenerationRequest, known: Generation) -> tuple[Generation, Score]:
        async with asyncio.TaskGroup() as group:
            made = group.create_task(tiny.generate(request))
            judged = group.create_task(score(tiny, request, known.token_ids))
        return made.result(), judged.result()

    ends = await asyncio.gather(*(both(r, g) for r, g in zip(requests, alone, strict=True)))
    assert [made.token_ids for made, _ in ends] == [made.token_ids for made in alone]
    assert {judged.verdict for _, judged in ends} == {"identical"}


async def test_the_longest_that_can_be_made_can_be_scored(tiny: TransformersEngine) -> None:
    length = tiny.describe().context_length
    for size in (1, length - 1):
        request = replace(ask(tiny, "r", max_tokens=length), prompt=prompt_of([9] * size))
        made = await tiny.generate(request)
        assert (await score(tiny, request, made.token_ids)).verdict == "identical"


async def test_what_no_engine_can_have_made_is_refused(tiny: TransformersEngine) -> None:
    request, length = ask(tiny, "r"), tiny.describe().context_length
    empty = replace(request, prompt=prompt_of([]))
    full = replace(request, prompt=prompt_of([9] * (length - 1)))
    for odd, ids in ((empty, (9,)), (request, ()), (request, (10**6,)), (request, (-1,)),
                     (full, (9, 9)), (ask(tiny, "r", temperature=-1.0), (9,))):  # fmt: skip
        with pytest.raises(RequestRefused):
            await score(tiny, odd, ids)
    assert (await score(tiny, full, (9,))).logprobs


async def test_whoever_scores_hears_of_a_stop_and_may_leave(tiny: TransformersEngine) -> None:
    request = ask(tiny, "r", QUESTIONS[0] * 15, max_tokens=60)
    ids = (await tiny.generate(request)).token_ids
    tasks = [asyncio.create_task(score(tiny, request, ids)) for _ in range(50)]
    await until(lambda: any(task.done() for task in tasks))
    tasks[-1].cancel()
    await tiny.stop()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(end) for end in ends} == {Score, EngineUnavailable, asyncio.CancelledError}
    with pytest.raises(EngineUnavailable):
        await score(tiny, request, ids)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
async def test_the_real_model_scores_what_it_made_among_others(precision: str) -> None:
    """The tolerance at work: other batch shapes and pieces than those that made the replies."""
    engine = TransformersEngine(dtype=precision, slots=8, context_length=512)
    await engine.start()
    try:
        requests = [
            ask(engine, f"r{n}", f"{n} {QUESTIONS[n % 5]}", max_tokens=12, seed=n,
                temperature=0.7 * (n % 2), repetition_penalty=1.05)
            for n in range(8)
        ]  # fmt: skip
        made = await asyncio.gather(*(engine.generate(request) for request in requests))
        pairs = list(zip(requests, made, strict=True))
        assert {(await score(engine, r, m.token_ids)).verdict for r, m in pairs} == {"identical"}
        for one, other in zip(pairs[::2], pairs[2::2], strict=False):  # greedy, another's reply
            assert (await score(engine, one[0], other[1].token_ids)).verdict == "diverged"
        for request, reply in pairs[1::2]:  # drawn, with another seed
            wrong = replace(request, sampling=replace(request.sampling, seed=1000))
            assert (await score(engine, wrong, reply.token_ids)).verdict == "diverged"
    finally:
        await engine.stop()
