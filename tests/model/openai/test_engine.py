"""The ``openai`` engine keeps the contract of engines, over a real server process."""

from collections.abc import AsyncIterator

import pytest

from model.echo import ByteChatTokenizer
from model.openai.engine import OpenAIEngine
from model.openai.options import Options
from tests.model.contract import EngineContract
from tests.model.openai.conftest import EchoProcess


def options_for(*servers: EchoProcess, **changes: object) -> Options:
    chosen = {"start": 10.0, "poll": 0.02, **changes}
    return Options(endpoints=tuple(one.address for one in servers), **chosen)  # type: ignore[arg-type]


async def started(*servers: EchoProcess, **changes: object) -> OpenAIEngine:
    engine = OpenAIEngine(options_for(*servers, **changes), tokenizer=ByteChatTokenizer())
    await engine.start()
    return engine


class TestByTokenIds(EngineContract):
    @pytest.fixture
    async def engine(self, echo: EchoProcess) -> AsyncIterator[OpenAIEngine]:
        engine = await started(echo)
        yield engine
        await engine.stop()

    @pytest.fixture
    async def slow_engine(self, slow_echo: EchoProcess) -> AsyncIterator[OpenAIEngine]:
        engine = await started(slow_echo, slots=3, total=3600.0)
        yield engine
        await engine.stop()


@pytest.mark.slow  # the same once more, and no faster
class TestOverTwoServers(EngineContract):
    @pytest.fixture
    async def engine(
        self, echo: EchoProcess, second_echo: EchoProcess
    ) -> AsyncIterator[OpenAIEngine]:
        engine = await started(echo, second_echo)
        yield engine
        await engine.stop()

    @pytest.fixture
    async def slow_engine(
        self, slow_echo: EchoProcess, second_slow_echo: EchoProcess
    ) -> AsyncIterator[OpenAIEngine]:
        engine = await started(slow_echo, second_slow_echo, slots=3, total=3600.0)
        yield engine
        await engine.stop()
