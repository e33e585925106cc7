"""A worker whose engine's process is killed answers everything all the same, each once."""

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from bot.app import run_worker
from bot.ask import Asker, open_asker, publish, to_output
from bot.events import Person, mention_of
from bot.observe import Outcome
from bot.settings import HttpSettings, LimitsSettings, Settings
from infra.ports import free_port
from infra.topics import create_topics
from model.hosted.engine import HostedEngine
from model.hosted.keeper import Care
from model.hosted.restarts import RestartPolicy
from schemas.codes import Outcome as Kind
from tests.conftest import Kafka
from tests.kafka.playing import echo_settings
from tests.wait import wait_until

pytestmark = pytest.mark.kafka

COUNT = 40
PATIENCE_S = 120.0


async def ask(asker: Asker, settings: Settings, names: Sequence[str]) -> list[Outcome]:
    """All at once, each by a person and in a thread of their own; what became of them."""
    waiting = set()
    for name in names:
        who = Person(name, name, name)
        event = mention_of(settings.bot, who, "Well?", conversation_id=name)
        waiting.add(await publish(asker.writer, to_output(event)))
    landed: list[Outcome] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(landed) < len(names):
            for record in await asker.reader.read():
                landed += [o for o in asker.outcomes.add(record) if o.input in waiting]
    return landed


async def test_an_engine_that_is_killed_again_and_again_costs_nobody_an_answer(
    kafka: Kafka, unique: Callable[[str], str]
) -> None:
    settings = echo_settings(kafka).model_copy(update={"limits": LimitsSettings(enabled=False)})
    await create_topics(settings.kafka.bootstrap_servers, partitions=settings.kafka.partitions)
    engine = HostedEngine(
        "echo",
        {"latency_ms": 200, "slots": 4},
        care=Care(restarts=RestartPolicy(first_s=0.1, most_s=0.2, failures=100)),
    )
    stop = asyncio.Event()
    worker = asyncio.create_task(run_worker(settings, engine=engine, stop=stop))
    try:
        async with open_asker(settings.kafka) as asker:
            names = [unique(f"asker{n}") for n in range(COUNT)]
            asked = asyncio.create_task(ask(asker, settings, names))
            for kill in range(3):
                await wait_until(lambda: engine.stats().running >= 2)  # in the midst of answers
                assert engine.pid is not None
                os.kill(engine.pid, signal.SIGKILL)
                await wait_until(lambda kill=kill: engine.stats().restarts == kill + 1)  # type: ignore[misc]
            outcomes = await asked
    finally:
        stop.set()
        await worker
    assert [outcome.decision.outcome for outcome in outcomes] == [Kind.REPLIED] * COUNT
    replies = [reply for outcome in outcomes for reply in outcome.decision.reply_ids]
    assert len(set(replies)) == len(replies) == COUNT
    assert engine.stats().requests["engine-unavailable"] > 0
    assert engine.stats().state == "stopped"


async def test_an_engine_that_keeps_dying_is_told_on_the_pages_and_answers_when_it_is_back(
    kafka: Kafka, unique: Callable[[str], str]
) -> None:
    port = free_port()
    settings = echo_settings(kafka).model_copy(update={"http": HttpSettings(port=port)})
    await create_topics(settings.kafka.bootstrap_servers, partitions=settings.kafka.partitions)
    policy = RestartPolicy(first_s=0.0, most_s=0.0, failures=1, slow_s=6.0)
    engine = HostedEngine("echo", {}, care=Care(restarts=policy))
    stop = asyncio.Event()
    worker = asyncio.create_task(run_worker(settings, engine=engine, stop=stop))
    try:
        await until_page(port, "/readyz", '"ready": true')
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        await until_page(port, "/readyz", "the engine keeps failing, it was started again 1 times")
        async with open_asker(settings.kafka) as asker:
            (outcome,) = await ask(asker, settings, [unique("asker")])
        assert outcome.decision.outcome is Kind.REPLIED
        page = await until_page(port, "/metrics", 'twite_engine_state{state="up"} 1.0')
        assert "twite_retries_total{" not in page  # it waited; no try was used up
    finally:
        stop.set()
        await worker


async def until_page(port: int, path: str, wanted: str) -> str:
    """Ask until the page says so."""
    async with asyncio.timeout(PATIENCE_S):
        while wanted not in (page := await asyncio.to_thread(read, port, path)):  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # the page of another thread tells no event
    return page


def read(port: int, path: str) -> str:
    """The page, whatever its status; nothing where nobody listens yet."""
    try:
        with urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return str(answer.read().decode())
    except HTTPError as error:
        with error:
            return str(error.read().decode())
    except OSError:
        return ""
