"""Recorded replies scored by a server that tells the log-probabilities of a prompt."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from model.engine import (
    DeadlineExceeded,
    EngineUnavailable,
    NotSupported,
    RequestRefused,
    Sampling,
    Score,
)
from model.openai import errors
from tests.model.contract import ask, until
from tests.model.openai import bad_server as bad
from tests.model.openai.bad_server import BadServer, Fault
from tests.model.openai.test_bad_servers import engine_over
from tests.model.openai.wire import Reply, Request

OUTPUT = (97, 98, 99)
# For each recorded token: its own log-probability, and that of the likeliest there.
SURE = [(-0.5, -0.5), (-1.0, -1.0), (-0.25, -0.25)]
NOISY = [(-0.5, -0.5), (-1.3, -1.0), (-0.25, -0.25)]
OTHER = [(-0.5, -0.5), (-1.0, -1.0), (-4.0, -0.25)]


def as_vllm(rows: list[tuple[float, float]]) -> Fault:
    """``prompt_logprobs``: by id, nothing for the first token of all."""

    async def scores(request: Request, reply: Reply) -> None:
        ids = request.json["prompt"]
        assert request.json["prompt_logprobs"] == 1
        assert tuple(ids[-len(OUTPUT) :]) == OUTPUT
        told: list[Any] = [None] + [{str(i): {"logprob": -9.0}} for i in ids[1 : -len(OUTPUT)]]
        for token, (own, best) in zip(OUTPUT, rows, strict=True):
            row = {str(token): {"logprob": own, "rank": 1 if own == best else 2}}
            told.append(row if own == best else {"5": {"logprob": best, "rank": 1}, **row})
        choice = {"text": "x", "finish_reason": "length", "prompt_logprobs": told}
        await reply.json({"model": "echo-model", "choices": [choice]})

    return scores


def as_echo(rows: list[tuple[float, float]]) -> Fault:
    """OpenAI's first completions: the prompt comes back with its log-probabilities."""

    async def scores(request: Request, reply: Reply) -> None:
        body = request.json
        if not body.get("echo"):
            await reply.json({"error": {"type": "BadRequestError", "code": 400}}, 400)
            return
        before = len(body["prompt"]) - len(OUTPUT)
        own = [None] + [-9.0] * (before - 1) + [own for own, _ in rows] + [-1.0]
        tops = [None] + [{"?": -9.0}] * (before - 1) + [{"best": best} for _, best in rows] + [{}]
        probs = {"token_logprobs": own, "top_logprobs": tops, "tokens": ["?"] * len(own)}
        choice = {"text": "x", "finish_reason": "length", "logprobs": probs}
        await reply.json({"model": "echo-model", "choices": [choice]})

    return scores


async def scored(scores: Fault | None, sampling: Sampling | None = None) -> Score:
    async with BadServer() as server, engine_over(server) as engine:
        server.fault_of_scores = scores
        prompt = ask(engine, "a").prompt
        return await engine.score(prompt, OUTPUT, sampling or Sampling())


@pytest.mark.parametrize("way", [as_vllm, as_echo])
async def test_the_verdict_and_its_margin(way: Any) -> None:
    assert await scored(way(SURE)) == Score((-0.5, -1.0, -0.25), "identical")
    assert (await scored(way(NOISY))).verdict == "identical"  # as much as bf16 makes
    assert await scored(way(OTHER)) == Score((-0.5, -1.0, -4.0), "diverged", 2, 3.75)


@pytest.mark.parametrize("sampling", [Sampling(temperature=0.7), Sampling(repetition_penalty=1.1)])
async def test_what_no_server_can_judge_is_said(sampling: Sampling) -> None:
    with pytest.raises(NotSupported, match="greedy replies without a penalty"):
        await scored(as_vllm(SURE), sampling)


async def test_a_server_that_tells_nothing_of_its_prompt() -> None:
    with pytest.raises(NotSupported, match="no log-probabilities of a prompt"):
        await scored(None)
    with pytest.raises(NotSupported, match="no log-probabilities of a prompt"):
        await scored(bad.status(400))


async def test_a_server_that_leaves_some_out_or_fails() -> None:
    with pytest.raises(errors.ServerFaulty, match="leaves out"):
        await scored(as_vllm([(-0.5, -0.5), (float("nan"), -1.0), (-0.25, -0.25)]))
    with pytest.raises(errors.ServerFaulty):
        await scored(bad.status(500))


def cut(whole: Fault, places: int) -> Fault:
    """The same answer with the log-probabilities of the first places alone."""

    async def scores(request: Request, reply: Reply) -> None:
        taken: list[Any] = []

        class Taken:
            async def json(self, value: Any, *more: Any) -> None:
                taken.append(value)

        await whole(request, Taken())  # type: ignore[arg-type]
        for choice in taken[0].get("choices", ()):
            for holder in (choice, choice.get("logprobs", {})):
                for name in ("prompt_logprobs", "token_logprobs", "top_logprobs"):
                    if name in holder:
                        holder[name] = holder[name][:places]
        await reply.json(taken[0], 200 if "choices" in taken[0] else 400)

    return scores


@pytest.mark.parametrize("way", [as_vllm, as_echo])
@pytest.mark.parametrize("places", [0, 5])
async def test_rows_that_are_cut_off_are_no_verdict(way: Any, places: int) -> None:
    with pytest.raises(errors.ServerFaulty, match="leaves out"):
        await scored(cut(way(SURE), places))


async def test_an_answer_without_a_choice_is_no_verdict() -> None:
    async def scores(request: Request, reply: Reply) -> None:
        await reply.json({"model": "echo-model", "choices": []})

    with pytest.raises(errors.ServerFaulty, match="without a choice"):
        await scored(scores)


async def test_scoring_ends_in_time_and_with_the_engine() -> None:
    async with BadServer() as server, engine_over(server, slots=1, total=0.3) as engine:
        server.fault = bad.silence
        request = replace(ask(engine, "a"), deadline=3600.0)
        engine._options = replace(engine._options, total=3600.0)
        blocking = asyncio.create_task(engine.generate(request))
        await until(lambda: server.open == 1)
        engine._options = replace(engine._options, total=0.05)
        with pytest.raises(DeadlineExceeded, match="to score the reply"):
            await engine.score(request.prompt, OUTPUT, Sampling())
        engine._options = replace(engine._options, total=3600.0)
        waiting = asyncio.create_task(engine.score(request.prompt, OUTPUT, Sampling()))
        await until(lambda: bool(engine._fleet._turns))
        await engine.stop()
        for task in (blocking, waiting):
            with pytest.raises(EngineUnavailable, match="stopped"):
                await task


async def test_a_reply_that_cannot_be_one_is_refused() -> None:
    async with BadServer() as server, engine_over(server) as engine:
        prompt = ask(engine, "a").prompt
        for ids in ((), (10**6,), (97,) * 40_000):
            with pytest.raises(RequestRefused):
                await engine.score(prompt, ids, Sampling())
