"""A worker whose model servers die answers everything all the same, each once."""

import asyncio
from collections.abc import Callable

import pytest

from bot.app import run_worker
from bot.ask import open_asker
from bot.settings import LimitsSettings, ModelSettings, OpenAISettings
from infra.ports import free_port
from infra.topics import create_topics
from schemas.codes import Outcome as Kind
from tests.conftest import Kafka
from tests.kafka.playing import echo_settings
from tests.kafka.test_engine_process import ask
from tests.model.openai.conftest import EchoProcess
from tests.wait import wait_until

pytestmark = pytest.mark.kafka

COUNT = 60


def server(port: int) -> EchoProcess:
    return EchoProcess("--port", str(port), "--latency-ms", "100", "--slots", "4")


async def test_model_servers_that_die_one_by_one_cost_nobody_an_answer(
    kafka: Kafka, unique: Callable[[str], str]
) -> None:
    ports = [free_port(), free_port()]
    servers = [server(port) for port in ports]
    openai = OpenAISettings(
        endpoints=",".join(one.address for one in servers), poll_s=0.1, retry_share=1.0
    )
    model = ModelSettings(engine="openai", openai=openai, slots=8)
    settings = echo_settings(kafka).model_copy(
        update={"limits": LimitsSettings(enabled=False), "model": model}
    )
    await create_topics(settings.kafka.bootstrap_servers, partitions=settings.kafka.partitions)
    stop = asyncio.Event()
    worker = asyncio.create_task(run_worker(settings, stop=stop))
    try:
        async with open_asker(settings.kafka) as asker:
            names = [unique(f"asker{n}") for n in range(COUNT)]
            asked = asyncio.create_task(ask(asker, settings, names))
            await wait_until(lambda: len(asker.outcomes.replies) >= COUNT // 4)
            servers[0].kill()
            await wait_until(lambda: len(asker.outcomes.replies) >= COUNT // 2)
            servers[1].kill()  # now there is none
            servers += [server(port) for port in ports]
            outcomes = await asked
    finally:
        stop.set()
        await worker
        for one in servers:
            one.close()
    assert [outcome.decision.outcome for outcome in outcomes] == [Kind.REPLIED] * COUNT
    replies = [reply for outcome in outcomes for reply in outcome.decision.reply_ids]
    assert len(set(replies)) == len(replies) == COUNT
    engine = outcomes[0].decision.engine
    assert engine is not None
    assert (engine.name, engine.model) == ("openai", "echo-model")
