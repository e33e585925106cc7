"""Several servers: who gets what, who is asked again, and what a death costs."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model.echo import ByteChatTokenizer
from model.engine import ChatMessage, EngineError, GenerationRequest, NotSupported, Part, Sampling
from model.openai import errors
from model.openai.breaker import Breaker, State
from model.openai.engine import OpenAIEngine
from model.openai.examine import examine
from model.openai.options import Options
from tests.model.contract import ask, until
from tests.model.openai import bad_server as bad
from tests.model.openai.bad_server import BadServer
from tests.model.openai.conftest import Start
from tests.model.openai.test_bad_servers import answer, engine_over
from tests.model.openai.test_engine import started
from tests.model.openai.wire import Reply, Request


@pytest.fixture
async def two() -> AsyncIterator[tuple[BadServer, BadServer]]:
    async with BadServer() as one, BadServer() as other:
        yield one, other


def talk(engine: OpenAIEngine, name: str, *turns: str) -> GenerationRequest:
    """A talk of one person: all begin with the same long system prompt."""
    chat = [ChatMessage("system", (Part("Be kind. " * 20, "trusted"),))]
    chat += [ChatMessage("user", (Part(turn),)) for turn in turns]
    return GenerationRequest(name, engine.tokenizer.encode_chat(chat), Sampling(max_tokens=8))


async def test_requests_are_shared_out(two: tuple[BadServer, BadServer]) -> None:
    async with engine_over(*two, slots=8) as engine:
        for server in two:
            server.fault = bad.silence
        tasks = [asyncio.create_task(answer(engine, f"r{n}")) for n in range(10)]
        await until(lambda: [server.open for server in two] == [4, 4])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await until(lambda: [server.open for server in two] == [0, 0])


async def test_a_talk_stays_where_its_earlier_turns_are(two: tuple[BadServer, BadServer]) -> None:
    async with engine_over(*two) as engine:
        first = {n: f"I am number {n}, and this is how I begin a talk." for n in range(6)}
        opening = [talk(engine, f"a{n}", text) for n, text in first.items()]
        await asyncio.gather(*(engine.generate(request) for request in opening))
        homes = [where(two, text) for text in first.values()]
        assert {*homes} == {0, 1}
        for server in two:
            server.asked.clear()
        for n, text in first.items():
            await engine.generate(talk(engine, f"b{n}", text, "And then?"))
        assert [where(two, text) for text in first.values()] == homes


def text_of(request: Request) -> str:
    """The prompt that a server was asked with."""
    return ByteChatTokenizer().decode(request.json["prompt"])


def where(servers: tuple[BadServer, BadServer], text: str) -> int:
    """Which server was asked with this text in the prompt."""
    found = [
        n
        for n, server in enumerate(servers)
        if any(text in text_of(request) for request in server.asked)
    ]
    assert len(found) == 1
    return found[0]


async def test_a_talk_moves_where_its_home_is_clearly_busier(
    two: tuple[BadServer, BadServer],
) -> None:
    async with engine_over(*two, slots=16) as engine:
        await engine.generate(talk(engine, "a", "Hello, it is me again, as I said."))
        home = two[0] if two[0].asked else two[1]
        for server in two:
            server.fault = bad.silence
            server.asked.clear()
        turns = [talk(engine, f"t{n}", "Hello, it is me again, as I said.") for n in range(12)]
        tasks = [asyncio.create_task(engine.generate(request)) for request in turns]
        await until(lambda: sum(server.open for server in two) == 12)
        assert 6 <= home.open < 12
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_server_that_dies_costs_nobody_an_answer(start_echo: Start) -> None:
    servers = [start_echo("--latency-ms", "30", "--slots", "4") for _ in range(2)]
    engine = await started(*servers, slots=8, retry_share=1.0)
    try:
        tasks = [asyncio.create_task(engine.generate(ask(engine, f"r{n}"))) for n in range(40)]
        await until(lambda: sum(task.done() for task in tasks) >= 8)
        servers[0].kill()
        made = await asyncio.gather(*tasks)
        assert {generation.finish_reason for generation in made} == {"length"}
        assert engine.retries >= 1
        await engine.generate(ask(engine, "after"))
    finally:
        await engine.stop()


async def test_one_that_is_away_at_the_start_joins_later(two: tuple[BadServer, BadServer]) -> None:
    one, late = two
    await late.close()
    async with engine_over(one, late, slots=2) as engine:
        assert (await answer(engine)).text
        await late.listen()
        await until(lambda: len(engine._fleet.servers) == 2)
        one.fault = bad.status(500)
        assert (await answer(engine)).text
        assert late.asked


async def test_nobody_answers_in_time() -> None:
    async with BadServer() as gone:
        pass
    options = Options(endpoints=(gone.address,), start=0.1)
    with pytest.raises(errors.ServerAway, match="No model server answers"):
        await OpenAIEngine(options).start()


async def test_servers_of_different_models_are_refused(two: tuple[BadServer, BadServer]) -> None:
    two[1].echo.model = "other"
    with pytest.raises(errors.WrongModel, match="Serve the same model"):
        async with engine_over(*two):
            pass


async def test_a_key_that_is_refused_is_told_at_the_start(two: tuple[BadServer, BadServer]) -> None:
    two[1].fault_of_pages = bad.status(403)
    with pytest.raises(errors.ServerMisconfigured, match="api_key"):
        async with engine_over(*two):
            pass


async def test_sampling_that_a_server_does_not_know_is_told_at_the_start() -> None:
    async with BadServer() as server:
        server.echo.owner = "somebody"
        options = Options(endpoints=(server.address,), start=5.0)
        engine = OpenAIEngine(options, sampling=Sampling(min_p=0.1, repetition_penalty=1.1))
        with pytest.raises(EngineError, match=r"model\.min_p and model\.repetition_penalty off"):
            await engine.start()


async def test_the_key_is_sent_and_never_shown() -> None:
    async with BadServer() as server, engine_over(server, api_key="sk-secret") as engine:
        await answer(engine)
        assert server.asked[0].headers["authorization"] == "Bearer sk-secret"
        assert "sk-secret" not in repr(engine._options)


async def test_who_has_priority_is_first_and_others_as_they_came() -> None:
    async with BadServer() as server, engine_over(server, slots=1, total=3600.0) as engine:
        server.fault = bad.silence
        blocking = asyncio.create_task(answer(engine, "blocking"))
        await until(lambda: server.open == 1)
        server.fault = None
        names = ["mention 1", "mention 2", "message 1", "message 2"]
        requests = [
            replace(ask(engine, name, name), priority=int(name.startswith("message")))
            for name in names
        ]
        tasks = [asyncio.create_task(engine.generate(request)) for request in requests]
        await until(lambda: engine.stats().waiting == 4)
        server.asked.clear()
        blocking.cancel()
        await asyncio.gather(*tasks)
        prompts = [text_of(request) for request in server.asked]
        order = [next(name for name in names if name in prompt) for prompt in prompts]
        assert order == ["message 1", "message 2", "mention 1", "mention 2"]


async def test_an_adapter_is_asked_for_by_its_name() -> None:
    async with BadServer() as server, engine_over(server) as engine:
        with pytest.raises(NotSupported, match="poems"):
            await engine.generate(replace(ask(engine, "a"), adapter="poems"))
    async with BadServer() as server:
        server.echo.adapters = ["poems"]
        async with engine_over(server, model="echo-model") as engine:
            await engine.generate(replace(ask(engine, "a"), adapter="poems"))
            assert server.asked[0].json["model"] == "poems"


async def test_connections_are_used_again() -> None:
    async with BadServer() as server, engine_over(server, poll=3600.0) as engine:
        for n in range(5):
            await answer(engine, f"r{n}")
        assert server.connections == 1


async def test_a_reply_that_is_cancelled_keeps_what_it_has() -> None:
    async with BadServer() as server, engine_over(server) as engine:
        server.fault = bad.silence_in_the_middle
        stream = engine.stream(ask(engine, "a"))
        assert (await anext(stream)).text == "a "
        await engine.cancel("a")
        last = (await anext(stream)).generation
        assert last is not None
        assert (last.text, last.token_ids, last.finish_reason) == ("a ", (97, 32), "cancelled")


async def test_a_server_that_comes_back_with_another_model_stays_out(
    two: tuple[BadServer, BadServer],
) -> None:
    one, other = two
    async with engine_over(one, other, retry_share=1.0) as engine:
        other.fault = bad.reset
        strangers = [ask(engine, f"r{n}", f"{n} of many") for n in range(8)]
        await asyncio.gather(*(engine.generate(request) for request in strangers))
        assert is_out(engine, other)
        other.fault, other.echo.root = None, "/models/another"
        await until(lambda: "another model" in breaker_of(engine, other).why)
        other.asked.clear()
        made = await asyncio.gather(*(answer(engine, f"r{n}") for n in range(20)))
        assert {generation.finish_reason for generation in made} == {"length"}
        assert not other.asked


@pytest.mark.parametrize("number", [401, 403, 404, 405, 400])
async def test_a_server_whose_health_is_hidden_comes_back(
    two: tuple[BadServer, BadServer], number: int
) -> None:
    """Behind a path that lets through only what begins with ``/v1``."""
    one, other = two

    async def pages(request: Request, reply: Reply) -> None:
        hidden = not request.path.startswith("/v1/")
        await (bad.status(number) if hidden else other.echo)(request, reply)

    other.fault_of_pages = pages
    async with engine_over(one, other, retry_share=1.0, kind="vllm") as engine:
        other.fault = bad.reset
        strangers = [ask(engine, f"r{n}", f"{n} of many") for n in range(8)]
        await asyncio.gather(*(engine.generate(request) for request in strangers))
        assert is_out(engine, other)
        other.fault = None
        await until(lambda: breaker_of(engine, other).state is State.HALF_OPEN)


async def test_a_server_that_says_that_it_is_ill_stays_out(
    two: tuple[BadServer, BadServer],
) -> None:
    one, other = two

    async def pages(request: Request, reply: Reply) -> None:
        await (bad.status(503) if request.path == "/health" else other.echo)(request, reply)

    async with engine_over(one, other, retry_share=1.0) as engine:
        other.fault, other.fault_of_pages = bad.reset, pages
        strangers = [ask(engine, f"r{n}", f"{n} of many") for n in range(8)]
        await asyncio.gather(*(engine.generate(request) for request in strangers))
        await until(lambda: "503" in breaker_of(engine, other).why)
        assert is_out(engine, other)


async def test_a_cancel_is_no_failure_of_the_server() -> None:
    """However long it had worked on the request, and whatever it had said."""
    async with BadServer() as server, engine_over(server, total=3600.0) as engine:
        for fault in (bad.silence, bad.silence_in_the_middle):
            server.fault = fault
            for n in range(4):
                asking = asyncio.create_task(answer(engine, f"r{n}"))
                await until(lambda: server.open == 1)
                engine._options = replace(engine._options, first_token=0.0)  # that long is over
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
                engine._options = replace(engine._options, first_token=5.0)
                await until(lambda: server.open == 0)
        assert breaker_of(engine, server).state is State.CLOSED
        assert breaker_of(engine, server).why == ""


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"endpoints": ("http://[::1",)}, "is none"),
        ({"endpoints": ("https://a.example",), "ca_file": Path("/no/such.pem")}, "ca_file"),
    ],
)
async def test_what_no_client_can_be_made_of_is_told(options: dict[str, Any], told: str) -> None:
    wanted = Options(**options)
    with pytest.raises(errors.ServerMisconfigured, match=told):
        await OpenAIEngine(wanted, tokenizer=ByteChatTokenizer()).start()
    (finding,) = await examine(wanted, ByteChatTokenizer(), Sampling())
    assert told in finding.error


async def test_who_went_away_takes_no_place_in_the_queue() -> None:
    async with BadServer() as server, engine_over(server, slots=1, total=3600.0) as engine:
        server.fault = bad.silence
        blocking = asyncio.create_task(answer(engine, "blocking"))
        await until(lambda: server.open == 1)
        staying = asyncio.create_task(answer(engine, "staying"))
        going = [asyncio.create_task(answer(engine, f"r{n}")) for n in range(100)]
        await until(lambda: len(engine._fleet._turns) == 101)
        for task in going:
            task.cancel()
        await asyncio.gather(*going, return_exceptions=True)
        assert len(engine._fleet._turns) <= 3
        server.fault = None
        blocking.cancel()
        assert (await staying).text


async def test_who_comes_late_and_does_not_fit_stays_out(two: tuple[BadServer, BadServer]) -> None:
    one, late = two
    await late.close()
    late.echo.length = 100
    async with engine_over(one, late) as engine:
        await late.listen()
        await until(lambda: "as long a context" in breaker_of(engine, late).why)
        assert len(engine._fleet.servers) == 1
        assert (await answer(engine)).text


def breaker_of(engine: OpenAIEngine, server: BadServer) -> Breaker:
    return next(e.breaker for e in engine._fleet.endpoints if str(server.port) in e.where)


def is_out(engine: OpenAIEngine, server: BadServer) -> bool:
    return breaker_of(engine, server).state is State.OPEN
