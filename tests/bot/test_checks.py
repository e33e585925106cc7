"""``bot.checks``: what is looked at beside the cluster, whose guards are tested on their own."""

import socket
from pathlib import Path

from bot.checks import check_limits
from bot.guards import Level
from bot.settings import LimitsSettings
from tests.bot.redis_server import RedisServer


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
