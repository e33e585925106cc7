"""Quotas in a real worker: counted once through a crash, and changed while it runs."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis

from bot.app import run_worker
from bot.ask import Asker, open_asker, publish, to_output
from bot.events import Person, mention_of
from bot.observe import Outcome, wait_for
from bot.settings import LimitsSettings, Settings
from bot.worker_process import WorkerProcess
from infra.topics import create_topics
from schemas.codes import Outcome as Kind
from schemas.codes import SkipReason
from tests.bot.redis_server import RedisServer
from tests.conftest import Kafka
from tests.kafka.playing import echo_settings
from tests.wait import wait_until

pytestmark = pytest.mark.kafka

PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    one = RedisServer()
    one.start()
    yield one
    one.close()


def limited(kafka: Kafka, *, latency_ms: float = 0.0, **limits: object) -> Settings:
    told = LimitsSettings.model_validate({"per_thread": "", "overall": "", **limits})
    return echo_settings(kafka, latency_ms).model_copy(update={"limits": told})


@asynccontextmanager
async def working(settings: Settings) -> AsyncIterator[Asker]:
    await create_topics(settings.kafka.bootstrap_servers, partitions=settings.kafka.partitions)
    stop = asyncio.Event()
    worker = asyncio.create_task(run_worker(settings, stop=stop))
    try:
        async with open_asker(settings.kafka) as asker:
            yield asker
    finally:
        stop.set()
        await worker


async def ask(asker: Asker, settings: Settings, who: Person, thread: str) -> Outcome:
    event = mention_of(settings.bot, who, "How are you?", conversation_id=thread)
    outcome = await asker.ask(event, PATIENCE_S)
    assert outcome is not None
    return outcome


def said(outcome: Outcome) -> str:
    """``replied``, or the rule that skipped with what it says."""
    if outcome.decision.outcome is Kind.REPLIED:
        return "replied"
    last = outcome.decision.rules[-1]
    assert last.verdict == "skip"
    return f"{outcome.decision.reason}: {last.detail}"


def stranger(unique: Callable[[str], str]) -> Person:
    name = unique("stranger")
    return Person(name, name, "A stranger")


async def test_a_quota_stops_an_author_until_the_limits_file_says_otherwise(
    kafka: Kafka, unique: Callable[[str], str], tmp_path: Path
) -> None:
    file = tmp_path / "limits.toml"
    file.write_text('per_author = "2 per hour"')
    settings = limited(kafka, file=file)
    eager, other = stranger(unique), stranger(unique)
    async with working(settings) as asker:
        answers = [said(await ask(asker, settings, eager, unique("t"))) for _ in range(3)]
        assert answers == ["replied", "replied", "quota: author, 2 per 1 hour"]
        assert said(await ask(asker, settings, other, unique("t"))) == "replied"
        file.write_text('per_author = "3 per hour" # one more')
        async with asyncio.timeout(PATIENCE_S):
            while (
                answer := said(await ask(asker, settings, eager, unique("t")))
            ) == "quota: author, 2 per 1 hour":
                pass  # it looks once a second; who is refused takes nothing
        assert answer == "replied"
        assert said(await ask(asker, settings, eager, unique("t"))) == "quota: author, 3 per 1 hour"


async def test_an_input_whose_worker_was_killed_is_answered_and_counts_once(
    kafka: Kafka, unique: Callable[[str], str], tmp_path: Path, redis_server: RedisServer
) -> None:
    settings = limited(
        kafka, latency_ms=2000, per_author="2 per hour", storage_uri=redis_server.uri
    )
    await create_topics(settings.kafka.bootstrap_servers, partitions=settings.kafka.partitions)
    who = stranger(unique)
    worker = WorkerProcess(settings, tmp_path / "log", print)
    await worker.start()
    try:
        async with open_asker(settings.kafka) as asker:
            event = mention_of(settings.bot, who, "Are you there?", conversation_id=unique("t"))
            origin = await publish(asker.writer, to_output(event))
            with redis.Redis(port=redis_server.port) as counts:
                await wait_until(lambda: bool(counts.keys("*author/*")), PATIENCE_S)
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
            await wait_until(lambda: worker.pid is None, PATIENCE_S)
            await worker.keep_alive()
            outcome = await wait_for(asker.reader, asker.outcomes, origin, PATIENCE_S)
            assert outcome is not None
            assert said(outcome) == "replied"
            answers = [said(await ask(asker, settings, who, unique("t"))) for _ in range(2)]
            assert answers == ["replied", "quota: author, 2 per 1 hour"]
    finally:
        await worker.stop()


async def test_without_limits_nobody_is_stopped(kafka: Kafka, unique: Callable[[str], str]) -> None:
    settings = limited(kafka, enabled=False, per_author="1 per day", overall="0 per day")
    who = stranger(unique)
    async with working(settings) as asker:
        outcomes = [await ask(asker, settings, who, unique("t")) for _ in range(4)]
    assert [said(outcome) for outcome in outcomes] == ["replied"] * 4
    assert all(outcome.decision.reason is not SkipReason.QUOTA for outcome in outcomes)
