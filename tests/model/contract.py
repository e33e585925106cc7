"""What every engine promises, as tests: a class per engine inherits them and brings the engine.

Nothing here knows what an engine answers, only that it answers each request as it would alone.
"""

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from model.engine import (
    ChatMessage,
    Chunk,
    DeadlineExceeded,
    Engine,
    EngineUnavailable,
    Generation,
    GenerationRequest,
    NotSupported,
    Part,
    Prompt,
    RequestRefused,
    Sampling,
    Segment,
)

QUESTIONS = [
    "What is the capital of France?",
    "Tell me about cats, in one sentence.",
    "Grüße! Wie geht es dir? 😀",
    "def f(x):\n    return x",
    "Why?",
]


def ask(engine: Engine, name: str, text: str = "Hello", **sampling: Any) -> GenerationRequest:
    """A short request; ``name`` is its id."""
    chat = [ChatMessage("user", (Part(text),))]
    options = {"max_tokens": 16, **sampling}
    return GenerationRequest(name, engine.tokenizer.encode_chat(chat), Sampling(**options))


def prompt_of(token_ids: list[int]) -> Prompt:
    return Prompt(tuple(token_ids), (Segment(0, len(token_ids), "trusted"),))


async def until(condition: Callable[[], bool]) -> None:
    """Let the others run until the condition holds; the test's own timeout ends a wait."""
    while not condition():  # noqa: ASYNC110 - what other threads do has no event here
        await asyncio.sleep(0.001)


class EngineContract:
    """Inherit it and define the fixtures ``engine``, started, and ``slow_engine``, also started.

    On ``slow_engine`` a request made by ``long_request`` lasts far longer than a test.
    """

    many = 32  # requests at once
    crowd = 200  # far more than there are slots

    def long_request(self, engine: Engine, name: str) -> GenerationRequest:
        return ask(engine, name, max_tokens=100_000)

    async def test_many_at_once_are_answered_as_each_alone(self, engine: Engine) -> None:
        requests = [ask(engine, f"r{n}", f"{n} {QUESTIONS[n % 5]}") for n in range(self.many)]
        alone = [await engine.generate(request) for request in requests]
        together = await asyncio.gather(*(engine.generate(request) for request in requests))
        assert_same(together, alone)
        assert len({g.token_ids for g in alone}) > 1

    async def test_a_crowd_is_answered_each_with_its_own(self, engine: Engine) -> None:
        before = engine.stats()
        requests = [ask(engine, f"r{n}", f"{n}", max_tokens=8) for n in range(self.crowd)]
        made = await asyncio.gather(*(engine.generate(request) for request in requests))
        for n in (0, self.crowd // 2, self.crowd - 1):
            assert_same([made[n]], [await engine.generate(requests[n])])
        assert len({generation.text for generation in made}) > 1
        after = engine.stats()
        assert after.output_tokens - before.output_tokens >= sum(len(g.token_ids) for g in made)
        assert sum(after.requests.values()) == sum(before.requests.values()) + self.crowd + 3
        assert (after.running, after.waiting, after.state) == (0, 0, "up")

    async def test_drawn_tokens_depend_on_the_seed_alone(self, engine: Engine) -> None:
        how = {"temperature": 1.0, "top_p": 0.95, "repetition_penalty": 1.1}
        requests = [
            ask(engine, f"r{n}", QUESTIONS[n % 5], seed=n, **how) for n in range(self.many // 3)
        ]
        alone = [await engine.generate(request) for request in requests]
        together = await asyncio.gather(*(engine.generate(request) for request in requests))
        assert_same(together, alone)

    async def test_a_generation_is_whole(self, engine: Engine) -> None:
        made = await engine.generate(ask(engine, "a"))
        assert made.token_ids
        assert len(made.logprobs) == len(made.token_ids)
        assert all(logprob <= 0 for logprob in made.logprobs)
        assert made.finish_reason in {"stop", "length"}
        assert made.text == engine.tokenizer.decode(made.token_ids)

    async def test_max_tokens_ends_with_length(self, engine: Engine) -> None:
        made = await engine.generate(ask(engine, "a", max_tokens=2))
        assert len(made.token_ids) == 2
        assert made.finish_reason == "length"

    async def test_the_pieces_of_a_stream_join_to_the_text(self, engine: Engine) -> None:
        whole = await engine.generate(ask(engine, "a", QUESTIONS[2]))
        chunks = [chunk async for chunk in engine.stream(ask(engine, "a", QUESTIONS[2]))]
        assert "".join(chunk.text for chunk in chunks) == whole.text
        last = chunks[-1].generation
        assert last is not None
        assert_same([last], [whole])
        assert all(chunk.generation is None for chunk in chunks[:-1])

    async def test_a_stop_string_ends_the_reply_before_it(self, engine: Engine) -> None:
        whole = await engine.generate(ask(engine, "a"))
        middle = whole.text[len(whole.text) // 2 :][:2]
        made = await engine.generate(ask(engine, "a", stop=("never in it", middle)))
        assert middle
        assert made.text == whole.text[: whole.text.index(middle)]
        assert made.finish_reason == "stop"
        chunks = [c async for c in engine.stream(ask(engine, "a", stop=(middle,)))]
        assert "".join(chunk.text for chunk in chunks) == made.text

    async def test_cancel_before_and_after_does_nothing(self, engine: Engine) -> None:
        await engine.cancel("a")
        first = await engine.generate(ask(engine, "a"))
        await engine.cancel("a")
        again = await engine.generate(ask(engine, "a"))
        assert first.finish_reason == again.finish_reason != "cancelled"

    async def test_cancel_ends_a_request_as_cancelled(self, slow_engine: Engine) -> None:
        engine = slow_engine
        slots = engine.capacity().slots
        tasks = [
            asyncio.create_task(engine.generate(self.long_request(engine, f"r{n}")))
            for n in range(slots + 2)  # two of them wait for a slot
        ]
        await until(lambda: engine.capacity().free_slots == 0)
        for n in range(slots + 2):
            await engine.cancel(f"r{n}")
        made = await asyncio.gather(*tasks)
        assert {generation.finish_reason for generation in made} == {"cancelled"}
        assert engine.capacity().free_slots == slots

    async def test_cancel_right_after_the_submission_is_not_lost(self, slow_engine: Engine) -> None:
        engine = slow_engine
        task = asyncio.create_task(engine.generate(self.long_request(engine, "a")))
        await asyncio.sleep(0)  # the task has its first turn, and submits
        await engine.cancel("a")
        assert (await task).finish_reason == "cancelled"
        await engine.cancel("a")

    async def test_cancel_ends_a_stream_with_a_whole_generation(self, slow_engine: Engine) -> None:
        engine = slow_engine
        free = engine.capacity().free_slots

        async def follow() -> list[Chunk]:
            return [chunk async for chunk in engine.stream(self.long_request(engine, "a"))]

        task = asyncio.create_task(follow())
        await until(lambda: engine.capacity().free_slots == free - 1)
        await engine.cancel("a")
        chunks = await task
        last = chunks[-1].generation
        assert last is not None
        assert last.finish_reason == "cancelled"
        assert "".join(chunk.text for chunk in chunks) == last.text

    async def test_a_deadline_ends_its_request_and_no_other(self, slow_engine: Engine) -> None:
        engine = slow_engine
        free = engine.capacity().free_slots
        other = asyncio.create_task(engine.generate(self.long_request(engine, "other")))
        for streamed in (False, True):
            late = replace(self.long_request(engine, "a"), deadline=0.05)
            with pytest.raises(DeadlineExceeded):
                await finish(engine, late, streamed)
        assert not other.done()
        await engine.cancel("other")
        assert (await other).finish_reason == "cancelled"
        await until(lambda: engine.capacity().free_slots == free)

    async def test_a_deadline_that_has_passed_or_is_none(self, engine: Engine) -> None:
        for passed in (0.0, -1.0, float("-inf")):
            with pytest.raises(DeadlineExceeded):
                await engine.generate(replace(ask(engine, "a"), deadline=passed))
        with pytest.raises(RequestRefused, match="deadline"):
            await engine.generate(replace(ask(engine, "a"), deadline=float("nan")))
        made = await engine.generate(replace(ask(engine, "a"), deadline=3600.0))
        assert made.finish_reason != "cancelled"

    async def test_a_reply_says_what_it_cost(self, engine: Engine) -> None:
        request = ask(engine, "a")
        spent = (await engine.generate(request)).timings
        assert spent.prompt_tokens == len(request.prompt.token_ids)
        assert 0 <= spent.cached_tokens <= spent.prompt_tokens
        assert 0 <= spent.queued_s <= spent.first_token_s <= spent.total_s

    async def test_its_own_reply_scores_as_identical(self, engine: Engine) -> None:
        request = ask(engine, "a", temperature=1.0, seed=2**53 - 1)
        made = await engine.generate(request)
        try:
            score = await engine.score(request.prompt, made.token_ids, request.sampling)
        except NotSupported:
            return
        assert (score.verdict, score.diverged_at, score.margin) == ("identical", None, None)
        assert score.logprobs == pytest.approx(made.logprobs, abs=1e-3)
        with pytest.raises(RequestRefused):
            await engine.score(prompt_of([]), made.token_ids, request.sampling)

    async def test_what_no_machine_can_spell_hurts_nobody(self, engine: Engine) -> None:
        good = [asyncio.create_task(engine.generate(ask(engine, f"g{n}"))) for n in range(3)]
        for odd in ({"seed": 2**200}, {"stop": ("\ud800",)}, {"max_tokens": 10**30}):
            try:
                await engine.generate(ask(engine, "odd", **odd))
            except RequestRefused:
                continue
        assert all(g.finish_reason != "cancelled" for g in await asyncio.gather(*good))

    async def test_a_cancelled_task_frees_its_slot_and_its_id(self, slow_engine: Engine) -> None:
        engine = slow_engine
        free = engine.capacity().free_slots
        task = asyncio.create_task(engine.generate(self.long_request(engine, "a")))
        await until(lambda: engine.capacity().free_slots == free - 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: engine.capacity().free_slots == free)
        again = asyncio.create_task(engine.generate(self.long_request(engine, "a")))
        await until(lambda: engine.capacity().free_slots == free - 1)
        await engine.cancel("a")
        assert (await again).finish_reason == "cancelled"

    async def test_leaving_a_stream_early_frees_its_slot(self, engine: Engine) -> None:
        free = engine.capacity().free_slots
        stream = engine.stream(ask(engine, "a"))
        async for _ in stream:
            break
        await stream.aclose()  # type: ignore[attr-defined]
        await until(lambda: engine.capacity().free_slots == free)
        assert (await engine.generate(ask(engine, "a"))).finish_reason != "cancelled"

    @pytest.mark.parametrize("streamed", [False, True])
    async def test_bad_requests_are_refused_and_hurt_nobody(
        self, engine: Engine, streamed: bool
    ) -> None:
        good = [asyncio.create_task(engine.generate(ask(engine, f"g{n}"))) for n in range(3)]
        length = engine.describe().context_length
        some = ask(engine, "bad").prompt.token_ids[0]
        for ids in ([], [some] * length, [some, -1], [some, 10**6], [some, 2**40]):
            with pytest.raises(RequestRefused):
                await finish(engine, replace(ask(engine, "bad"), prompt=prompt_of(ids)), streamed)
        for odd in ({"max_tokens": 0}, {"temperature": -1.0}, {"temperature": float("nan")},
                    {"top_p": 0.0}, {"top_k": -1}, {"min_p": 2.0}, {"repetition_penalty": 0.0},
                    {"stop": ("",)}):  # fmt: skip
            with pytest.raises(RequestRefused, match=next(iter(odd))):
                await finish(engine, ask(engine, "bad", **odd), streamed)
        assert all(g.finish_reason != "cancelled" for g in await asyncio.gather(*good))

    async def test_the_longest_prompt_leaves_room_for_one_token(self, engine: Engine) -> None:
        some = ask(engine, "a").prompt.token_ids[-1]
        prompt = prompt_of([some] * (engine.describe().context_length - 1))
        made = await engine.generate(replace(ask(engine, "a"), prompt=prompt))
        assert len(made.token_ids) == 1

    async def test_an_id_in_flight_is_refused_and_the_first_unhurt(
        self, slow_engine: Engine
    ) -> None:
        engine = slow_engine
        first = asyncio.create_task(engine.generate(self.long_request(engine, "a")))
        await until(lambda: engine.capacity().free_slots < engine.capacity().slots)
        with pytest.raises(RequestRefused, match="in flight"):
            await engine.generate(ask(engine, "a"))
        assert not first.done()
        await engine.cancel("a")
        assert (await first).finish_reason == "cancelled"

    async def test_capacity_goes_down_and_up(self, slow_engine: Engine) -> None:
        engine = slow_engine
        before = engine.capacity()
        assert before.free_slots == before.slots
        assert before.queued_tokens == 0
        tasks = [
            asyncio.create_task(engine.generate(self.long_request(engine, f"r{n}")))
            for n in range(before.slots + 1)
        ]
        await until(lambda: engine.capacity().free_slots == 0)
        assert engine.capacity().queued_tokens > 0
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await until(lambda: engine.capacity() == before)

    async def test_stopping_ends_everybody_and_starting_again_works(
        self, slow_engine: Engine
    ) -> None:
        engine = slow_engine
        tasks = [
            asyncio.create_task(engine.generate(self.long_request(engine, f"r{n}")))
            for n in range(engine.capacity().slots + 2)
        ]
        await until(lambda: engine.capacity().free_slots == 0)
        await engine.stop()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(end) for end in ends] == [EngineUnavailable] * len(tasks)
        assert engine.capacity().free_slots == 0
        with pytest.raises(EngineUnavailable):
            await engine.generate(ask(engine, "a"))
        await engine.stop()
        await engine.start()
        await engine.start()
        assert engine.capacity().free_slots == engine.capacity().slots

    async def test_the_description_is_complete(self, engine: Engine) -> None:
        told = engine.describe()
        assert re.fullmatch(r"sha256:[0-9a-f]{64}", told.weights_digest)
        assert all([told.name, told.model, told.revision, told.precision, told.attention])
        assert told.context_length > 0
        assert all(told.versions.values())
        assert told.versions


async def finish(engine: Engine, request: GenerationRequest, streamed: bool) -> None:
    """Run a request to its end, by ``generate`` or by ``stream``."""
    if streamed:
        async for _ in engine.stream(request):
            pass
    else:
        await engine.generate(request)


def assert_same(got: list[Generation], wanted: list[Generation]) -> None:
    """The same replies; log-probabilities up to the noise of another batch shape."""
    for one, other in zip(got, wanted, strict=True):
        assert one.token_ids == other.token_ids
        assert one.text == other.text
        assert one.finish_reason == other.finish_reason
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-3)
