"""Private talks see that an answer is on its way, and lose nothing where they do not."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from bot.app import run_worker
from bot.ask import open_asker, publish, to_output
from bot.clients import lossy_sender
from bot.config import as_environment
from bot.events import Person, message_to
from bot.observe import OutcomeReader, open_reader, wait_for
from bot.settings import LimitsSettings, Settings
from infra.topics import create_topics
from model.echo import EchoEngine
from model.engine import Chunk, Engine, Generation, GenerationRequest
from schemas import codec, names
from schemas.codes import Outcome as Kind
from schemas.envelope import Event
from schemas.replies import ActivityState, DirectActivity
from tests.conftest import Kafka
from tests.kafka.playing import echo_settings

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0


class Writes(EchoEngine):
    """Stops in the middle of each reply until it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()

    async def stream(self, request: GenerationRequest) -> AsyncIterator[Chunk]:
        yield Chunk("A log is")
        await self.go_on.wait()
        yield Chunk(" a list.")
        yield Chunk("", Generation("A log is a list.", (104,), (-0.5,), "stop"))


@asynccontextmanager
async def working(settings: Settings, engine: Engine | None = None) -> AsyncIterator[None]:
    await create_topics(settings.kafka.bootstrap_servers, partitions=settings.kafka.partitions)
    stop = asyncio.Event()
    worker = asyncio.create_task(run_worker(settings, engine=engine, stop=stop))
    try:
        yield
    finally:
        stop.set()
        await worker


def settings_for(kafka: Kafka, latency_ms: float = 0.0) -> Settings:
    limits = {"limits": LimitsSettings(enabled=False)}
    return echo_settings(kafka, latency_ms).model_copy(update=limits)


def message(settings: Settings, name: str) -> Event[Any]:
    return message_to(settings.bot, Person(name, name, name), "Well?", conversation_id=name)


async def shown_until(
    reader: OutcomeReader, conversation: str, wanted: ActivityState
) -> list[DirectActivity]:
    """What that talk was shown, up to the first of a kind."""
    seen: list[DirectActivity] = []
    async with asyncio.timeout(PATIENCE_S):
        while not seen or seen[-1].state is not wanted:
            for record in await reader.read():
                data = codec.decode(record).data
                if data.conversation_id == conversation:
                    seen.append(data)
    return seen


async def test_a_private_talk_sees_the_text_before_the_reply(
    kafka: Kafka, unique: Callable[[str], str]
) -> None:
    settings, engine, name = settings_for(kafka), Writes(), unique("talk")
    async with (
        working(settings, engine),
        open_reader(settings.kafka, topics=(names.BOT_DIRECT_ACTIVITY,)) as watching,
        open_asker(settings.kafka) as asker,
    ):
        asking = asyncio.create_task(asker.ask(message(settings, name), PATIENCE_S))
        seen = await shown_until(watching, name, ActivityState.PARTIAL)
        assert [(one.state.value, one.text) for one in seen] == [
            ("typing", None),
            ("partial", "A log"),
        ]
        assert not asking.done()
        engine.go_on.set()
        outcome = await asking
        assert outcome is not None
        assert [reply.data.text for reply in outcome.replies] == ["A log is a list."]
        (last,) = await shown_until(watching, name, ActivityState.DONE)
        assert last.decision_id == outcome.decision.decision_id == seen[0].decision_id


@contextmanager
def process(settings: Settings) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker of its own, which can be killed."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TWITE_")}
    with subprocess.Popen(
        [sys.executable, "-m", "bot.cli", "worker"],
        cwd=ROOT,
        env=clean | as_environment(settings),
        stderr=subprocess.DEVNULL,
    ) as started:
        try:
            yield started
        finally:
            started.kill()


async def test_a_worker_that_dies_while_it_is_watched_answers_once(
    kafka: Kafka, unique: Callable[[str], str]
) -> None:
    slow, name = settings_for(kafka, latency_ms=3_600_000), unique("talk")
    await create_topics(slow.kafka.bootstrap_servers, partitions=slow.kafka.partitions)
    async with (
        open_reader(slow.kafka, topics=(names.BOT_DIRECT_ACTIVITY,)) as watching,
        open_asker(slow.kafka) as asker,
    ):
        with process(slow) as worker:
            at = await publish(asker.writer, to_output(message(slow, name)))
            first = await shown_until(watching, name, ActivityState.TYPING)
            worker.send_signal(signal.SIGKILL)
            worker.wait()
        async with working(settings_for(kafka)):
            outcome = await wait_for(asker.reader, asker.outcomes, at, PATIENCE_S)
            assert outcome is not None
            assert outcome.decision.outcome is Kind.REPLIED
            assert len(outcome.replies) == 1
            again = await shown_until(watching, name, ActivityState.DONE)
    assert {one.decision_id for one in (*first, *again)} == {outcome.decision.decision_id}


async def test_replies_go_on_where_the_topic_cannot_be_written(
    kafka: Kafka, unique: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, engine = settings_for(kafka), Writes()
    engine.go_on.set()
    nobody = settings.kafka.model_copy(update={"bootstrap_servers": "127.0.0.1:1"})
    monkeypatch.setattr("bot.app.lossy_sender", lambda kafka: lossy_sender(nobody))
    async with working(settings, engine), open_asker(settings.kafka) as asker:
        outcome = await asker.ask(message(settings, unique("talk")), PATIENCE_S)
    assert outcome is not None
    assert outcome.decision.outcome is Kind.REPLIED
