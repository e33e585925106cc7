"""``bot.checks``: what is looked at beside the cluster, whose guards are tested on their own."""

import socket
from pathlib import Path

from bot.checks import check_limits, check_models
from bot.guards import Check, Level
from bot.settings import LimitsSettings, ModelSettings, OpenAISettings
from tests.bot.redis_server import RedisServer
from tests.model.openai.bad_server import BadServer, status


async def test_limits_in_memory_are_in_order() -> None:
    found = await check_limits(LimitsSettings())
    assert (found.level, found.found) == (Level.GREEN, "in memory")


async def test_no_limits_are_advice(tmp_path: Path) -> None:
    assert (await check_limits(LimitsSettings(enabled=False))).level is Level.YELLOW
    file = tmp_path / "limits.toml"
    file.write_text("enabled = false")
    assert (await check_limits(LimitsSettings(file=file))).level is Level.YELLOW


async def test_a_broken_limits_file_is_red_and_says_where(tmp_path: Path) -> None:
    file = tmp_path / "limits.toml"
    file.write_text("per_author = [")
    found = await check_limits(LimitsSettings(file=file))
    assert found.level is Level.RED
    assert str(file) in found.found
    assert found.todo


async def test_a_storage_that_is_there_and_one_that_is_not() -> None:
    server = RedisServer()
    server.start()
    try:
        found = await check_limits(
            LimitsSettings(storage_uri=server.uri, storage_timeout_ms=10_000)
        )
        assert (found.level, found.found) == (Level.GREEN, "counted in a shared storage")
    finally:
        server.close()
    found = await check_limits(LimitsSettings(storage_uri=server.uri))
    assert found.level is Level.YELLOW
    assert "counts in its memory" in found.todo


async def test_a_storage_that_does_not_answer_is_not_waited_for() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        uri = f"redis://127.0.0.1:{silent.getsockname()[1]}/0"
        settings = LimitsSettings(storage_uri=uri, storage_timeout_ms=50, storage_away="retry")
        found = await check_limits(settings)
    assert found.level is Level.YELLOW
    assert "answers nothing" in found.todo


async def served(*servers: BadServer, model: str | None = None, **others: object) -> list[Check]:
    """What is found of model servers. ``model``: its name there; ``others``: settings of it."""
    endpoints = ",".join(server.address for server in servers)
    openai = OpenAISettings(endpoints=endpoints, model=model)
    settings = ModelSettings.model_validate(
        {"engine": "openai", "repetition_penalty": 1.0, "openai": openai, **others}
    )
    return [check async for check in check_models(settings)]


async def test_a_model_server_that_is_in_order_says_what_it_serves() -> None:
    async with BadServer() as one, BadServer() as two:
        found = await served(one, two)
    assert [check.level for check in found] == [Level.GREEN, Level.GREEN]
    assert one.address in found[0].name
    assert found[0].found == (
        "vllm 0.echo serves echo-model, takes chat messages, 32768 tokens of context"
    )


async def test_model_servers_that_are_not_in_order_say_what_to_do() -> None:
    async with BadServer() as gone:
        pass
    async with BadServer() as good, BadServer() as other, BadServer() as locked:
        other.echo.model = "other-model"
        locked.fault_of_pages = status(401)
        found = await served(good, other, locked, gone)
        levels = [check.level for check in found]
        todo = [check.todo for check in found]
    assert levels == [Level.GREEN, Level.RED, Level.RED, Level.RED]
    assert "another model" in todo[1]
    assert "api_key" in todo[2]
    assert "cannot be reached" in todo[3]


async def test_an_adapter_that_a_model_server_lacks_is_told() -> None:
    async with BadServer() as server:
        (lacks,) = await served(server, adapter="poems")
        server.echo.adapters = ["poems"]
        (found,) = await served(server, adapter="poems", model="echo-model")
    assert (lacks.level, found.level) == (Level.RED, Level.GREEN)
    assert "poems" in lacks.todo


async def test_sampling_that_a_model_server_does_not_know_is_told() -> None:
    async with BadServer() as server:
        server.echo.owner = "somebody"
        (found,) = await served(server, repetition_penalty=1.05)
    assert found.level is Level.RED
    assert "model.repetition_penalty" in found.todo
