"""Servers that misbehave: each fault is a named error with what to do, and hurts nobody else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import structlog

from model.echo import ByteChatTokenizer
from model.engine import DeadlineExceeded, EngineError, Generation, RequestRefused
from model.openai import errors
from model.openai.engine import OpenAIEngine
from model.openai.options import Options
from tests.model.contract import ask, until
from tests.model.openai import bad_server as bad
from tests.model.openai.bad_server import BadServer, Fault, said

SECRET = "xyzzy-what-somebody-wrote"


@asynccontextmanager
async def engine_over(*servers: BadServer, **changes: Any) -> AsyncIterator[OpenAIEngine]:
    options: dict[str, Any] = {
        "start": 5.0,
        "poll": 0.02,
        "first_token": 5.0,
        "between_tokens": 5.0,
        "total": 20.0,
        **changes,
    }
    endpoints = tuple(server.address for server in servers)
    engine = OpenAIEngine(Options(endpoints=endpoints, **options), tokenizer=ByteChatTokenizer())
    await engine.start()
    try:
        yield engine
    finally:
        await engine.stop()


async def answer(engine: OpenAIEngine, name: str = "a", *, streamed: bool = False) -> Generation:
    request = ask(engine, name, SECRET)
    if not streamed:
        return await engine.generate(request)
    last = [chunk async for chunk in engine.stream(request)][-1].generation
    assert last is not None
    return last


FAULTS: list[tuple[str, Fault, type[EngineError]]] = [
    ("answers 500", bad.status(500), errors.ServerFaulty),
    ("answers 502 with a page", bad.status(502, "<html>" * 10_000), errors.ServerFaulty),
    ("answers 418", bad.status(418), errors.ServerFaulty),
    ("answers 204", bad.status(204), errors.ServerFaulty),
    ("refuses the key", bad.status(401), errors.ServerMisconfigured),
    ("forbids", bad.status(403), errors.ServerMisconfigured),
    ("has no such path", bad.status(404), errors.NothingThere),
    ("has another method", bad.status(405), errors.NothingThere),
    ("has too much", bad.status(429), errors.ServerBusy),
    ("is loading", bad.status(503, Retry_After="2"), errors.ServerBusy),
    ("moves away", bad.status(307, Location="http://127.0.0.1:9/"), errors.ServerMisconfigured),
    ("refuses the request", bad.status(400), RequestRefused),
    ("finds it too large", bad.status(413), RequestRefused),
    ("finds it wrong", bad.status(422), RequestRefused),
    ("half a stream", bad.events(said("a", [97])), errors.ServerFaulty),
    ("half a stream, torn", bad.events(said("a", [97]), end=False), errors.ServerAway),
    ("an empty stream", bad.events(), errors.ServerFaulty),
    ("done before it began", bad.events("[DONE]"), errors.ServerFaulty),
    ("no JSON", bad.events('{"choices": [{"text": "a'), errors.ServerFaulty),
    ("no JSON object", bad.events("[1, 2]"), errors.ServerFaulty),
    ("no choices", bad.events({"model": "echo-model"}), errors.ServerFaulty),
    ("a text that is none", bad.events(said(["a"])), errors.ServerFaulty),
    ("a choice that is none", bad.events({"choices": ["a"]}), errors.ServerFaulty),
    ("deep JSON", bad.nested(100_000), errors.ServerFaulty),
    ("an error in its stream", bad.events({"error": {"message": SECRET}}), errors.ServerFaulty),
    ("an error as text", bad.events('{"error": "it says "' + SECRET + '""}'), errors.ServerFaulty),
    ("busy in its stream", bad.events({"error": {"code": 429}}), errors.ServerBusy),
    ("aborts", bad.events(said("a", [97], finish_reason="abort")), errors.ServerFaulty),
    ("another model", bad.events({**said("a"), "model": "other"}), errors.WrongModel),
    ("a page of HTML", bad.page(b"<html>Welcome</html>", "text/html"), errors.ServerFaulty),
    ("JSON, no stream", bad.page(b"{}", "application/json"), errors.ServerFaulty),
    (
        "garbage for gzip",
        bad.page(b"\x1f\x8bgarbage", "text/event-stream", Content_Encoding="gzip"),
        errors.ServerFaulty,
    ),
    ("an endless line", bad.for_ever(b"data: ", b"x" * 65_536, 0), errors.ServerFaulty),
    (
        "an endless event",
        bad.for_ever(b": hi\n\n", b"data: xxxxxxxxx\n" * 4096, 0),
        errors.ServerFaulty,
    ),
    ("a reset", bad.reset, errors.ServerAway),
    ("no HTTP", bad.no_http, errors.ServerAway),
    ("an answer cut short", bad.too_short, errors.ServerAway),
]
SLOW_FAULTS: list[tuple[str, Fault, type[EngineError]]] = [
    ("nothing", bad.silence, errors.ServerSlow),
    ("nothing after a token", bad.silence_in_the_middle, errors.ServerSlow),
    (
        "signs of life and no token",
        bad.for_ever(b": hi\n\n", b": ping\n\n", 0.01),
        errors.ServerSlow,
    ),
]
BY_NAME = pytest.mark.parametrize(
    ("fault", "wanted"), [fault[1:] for fault in FAULTS], ids=[fault[0] for fault in FAULTS]
)
BY_NAME_SLOW = pytest.mark.parametrize(
    ("fault", "wanted"), [f[1:] for f in SLOW_FAULTS], ids=[f[0] for f in SLOW_FAULTS]
)


def assert_told(error: EngineError, wanted: type[EngineError], server: BadServer) -> None:
    """Named, with where it was and what to do, and without anybody's words."""
    assert type(error) is wanted
    assert error.code != EngineError.code
    assert f"127.0.0.1:{server.port}" in str(error)
    assert str(error).count(". ") >= 1 or "; " in str(error)
    assert SECRET not in str(error)


@BY_NAME
async def test_a_fault_is_a_named_error(fault: Fault, wanted: type[EngineError]) -> None:
    for streamed in (False, True):
        async with BadServer() as server, engine_over(server, retry_share=0.0) as engine:
            server.fault = fault
            with structlog.testing.capture_logs() as logs, pytest.raises(EngineError) as raised:
                await answer(engine, streamed=streamed)
            assert_told(raised.value, wanted, server)
            assert SECRET not in str(logs)
            assert len(server.asked) == 1


@BY_NAME_SLOW
async def test_what_takes_too_long_is_a_named_error(
    fault: Fault, wanted: type[EngineError]
) -> None:
    times = {"first_token": 0.2, "between_tokens": 0.2}
    async with BadServer() as server, engine_over(server, retry_share=0.0, **times) as engine:
        server.fault = fault
        with pytest.raises(EngineError) as raised:
            await answer(engine)
        assert_told(raised.value, wanted, server)
        await until(lambda: server.open == 0)  # it was told that nobody waits any more


@BY_NAME
async def test_another_server_answers_instead(fault: Fault, wanted: type[EngineError]) -> None:
    async with BadServer() as server, BadServer() as good, engine_over(server, good) as engine:
        server.fault = fault
        if wanted is RequestRefused:
            with pytest.raises(RequestRefused):
                await answer(engine)
            assert not good.asked  # what can never work is not tried again
            return
        made = await asyncio.gather(*(answer(engine, f"r{n}") for n in range(4)))
        assert {generation.finish_reason for generation in made} == {"length"}
        assert server.asked
        assert len({generation.text for generation in made}) == 1


async def test_a_server_that_recovers_is_used_again() -> None:
    async with BadServer() as server, engine_over(server, retry_share=0.0) as engine:
        server.fault = bad.reset
        for n in range(3):
            with pytest.raises(errors.ServerAway):
                await answer(engine, f"r{n}")
        assert engine.capacity().slots == 0  # nothing is taken in meanwhile
        assert engine.stats().state == "failing"
        server.fault = None
        await until(lambda: engine.capacity().slots == 1)  # the trial
        assert (await answer(engine)).finish_reason == "length"
        assert engine.capacity().slots == 16
        assert engine.stats().state == "up"


async def test_who_waits_while_all_servers_are_away_is_answered_when_one_is_back() -> None:
    async with BadServer() as server, engine_over(server, retry_share=1.0) as engine:
        await server.close()
        await until(lambda: True)
        waiting = [asyncio.create_task(answer(engine, f"r{n}")) for n in range(8)]
        await until(lambda: engine.capacity().slots == 0)
        await server.listen()
        made = await asyncio.gather(*waiting)
        assert {generation.finish_reason for generation in made} == {"length"}


async def test_half_a_streamed_reply_is_not_begun_again() -> None:
    async with BadServer() as server, BadServer() as good, engine_over(server, good) as engine:
        server.fault = good.fault = bad.events(said("a ", [97, 32]))
        stream = engine.stream(ask(engine, "a"))
        assert (await anext(stream)).text == "a "
        with pytest.raises(errors.ServerFaulty):
            await anext(stream)
        assert len(server.asked) + len(good.asked) == 1


@pytest.mark.parametrize("with_ids", [True, False])
async def test_more_tokens_than_asked_for_are_cut(with_ids: bool) -> None:
    async with BadServer() as server, engine_over(server) as engine:
        server.fault = bad.many_tokens(500, with_ids=with_ids)
        made = await answer(engine)  # asks for 16
        assert made.text == "x" * 16
        assert len(made.token_ids) == 16
        assert made.finish_reason == "length"
        await until(lambda: server.open == 0)


async def test_retries_are_bounded_in_an_outage() -> None:
    async with BadServer() as server, BadServer() as other, engine_over(server, other) as engine:
        server.fault = other.fault = bad.status(429)
        ends = await asyncio.gather(
            *(answer(engine, f"r{n}") for n in range(60)), return_exceptions=True
        )
        assert {type(end) for end in ends} == {errors.ServerBusy}
        assert len(server.asked) + len(other.asked) <= 60 * 1.1 + 10


async def test_too_much_slows_the_pace_and_a_pause_is_kept() -> None:
    async with BadServer() as server, engine_over(server, retry_share=0.0) as engine:
        server.fault = bad.status(429)
        with pytest.raises(errors.ServerBusy):
            await answer(engine)
        assert engine.capacity().slots < 16
        server.fault = bad.status(503, Retry_After="3600")
        with pytest.raises(errors.ServerBusy):
            await answer(engine)
        assert engine.capacity().slots == 0


async def test_the_servers_own_queue_sets_the_pace() -> None:
    async with BadServer() as server, engine_over(server, slots=8) as engine:
        server.fault = bad.silence
        tasks = [asyncio.create_task(answer(engine, f"r{n}")) for n in range(8)]
        await until(lambda: server.open == 8)
        server.waiting = 6
        await until(lambda: engine.capacity().slots == 2)
        server.waiting, server.fault = 0, None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for n in range(100):
            await answer(engine, f"again {n}")
        assert engine.capacity().slots == 8


async def test_a_deadline_is_kept_and_the_server_stops_working() -> None:
    async with BadServer() as server, engine_over(server, total=0.3) as engine:
        server.fault = bad.silence
        with pytest.raises(DeadlineExceeded):
            await answer(engine)
        await until(lambda: server.open == 0)


async def test_odd_log_probabilities_and_bytes_do_no_harm() -> None:
    async with BadServer() as server, engine_over(server) as engine:
        odd = said("ok", [111, 107], logprobs={"tokens": [1, None], "token_logprobs": ["x", 1e999]})
        end = said("", finish_reason="stop")
        server.fault = bad.events(odd, {**end, "usage": {"prompt_tokens": -4, "x": []}}, "[DONE]")
        made = await answer(engine)
        assert (made.text, made.token_ids, made.logprobs) == ("ok", (111, 107), ())
        assert made.timings.prompt_tokens > 0
