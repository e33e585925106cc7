"""Commands of moderators through real Kafka: obeyed once, also by a worker that starts later."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bot.cli import app
from bot.settings import KafkaSettings, Settings
from infra.broker import LocalBroker
from infra.topics import create_topics
from schemas.codes import Outcome as Kind
from schemas.codes import SkipReason
from tests.kafka.platform import Platform, platform, texts_now
from tests.kafka.test_taking_back import reply_id, retracts, settings_on, working

pytestmark = pytest.mark.kafka
WHO = ("--as", "anna", "--reason", "rude")


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    local = LocalBroker()
    asyncio.run(local.start())
    try:
        asyncio.run(create_topics(local.bootstrap_servers, partitions=4))
        yield local.bootstrap_servers
    finally:
        asyncio.run(local.stop())


@pytest.fixture
def settings(broker: str, tmp_path: Path) -> Settings:
    return settings_on(broker, tmp_path)


async def moderate(kafka: KafkaSettings, *words: str) -> Any:
    environment = {"TWITE_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers}

    def call() -> Any:
        return CliRunner().invoke(app, ["moderate", *words], env=environment)

    return await asyncio.to_thread(call)


async def last_change(people: Platform, count: int = 1) -> Any:
    changes = await people.changed(count)
    return changes[-1]


async def test_a_reply_is_corrected_then_retracted_and_each_is_told(settings: Settings) -> None:
    async with platform(settings.kafka, settings.bot) as people:
        asking = people.asking()
        async with working(settings):
            replied = await people.replied(asking)
            words = ("correct", asking.uri, "--text", "I was wrong.", "--wait", *WHO)
            said = await moderate(settings.kafka, *words)
            assert said.exit_code == 0, said.output
            assert "corrected (moderated)" in said.output
            corrected = await last_change(people)
            assert texts_now(corrected) == ["I was wrong."]
            told = corrected.decision.moderation
            assert (told.moderator, told.reason, told.command) == ("anna", "rude", "correct")
            await people.edit(asking, "what about tea?")
            await people.settled()
            assert [one.decision.reason for one in people.reviews] == ["moderated", "kept"]
        # Nobody is there to obey: whoever comes next does, once.
        said = await moderate(settings.kafka, "retract", reply_id(replied), *WHO)
        assert said.exit_code == 0, said.output
        async with working(settings):
            taken_back = await last_change(people, 2)
            await people.settled()
        assert retracts(taken_back, replied)
        assert taken_back.decision.reason == SkipReason.MODERATED
        said = await moderate(settings.kafka, "log")
        assert ("correct" in said.output, "retract" in said.output) == (True, True)
        assert [o.decision.outcome for o in people.changes] == [Kind.CORRECTED, Kind.RETRACTED]


async def test_nothing_is_written_about_a_reply_that_nobody_knows(settings: Settings) -> None:
    said = await moderate(settings.kafka, "retract", "no-such-reply", *WHO)
    assert said.exit_code != 0
    assert "no-such-reply" not in (await moderate(settings.kafka, "log")).output


async def test_what_is_paused_waits_until_it_is_resumed_or_cancelled(settings: Settings) -> None:
    async with platform(settings.kafka, settings.bot) as people:
        first, second, free = people.asking(), people.asking(), people.asking()
        paused = [f"conversation:{first.conversation_id}", f"account:{second.author.id}"]
        for subject in paused:
            assert (await moderate(settings.kafka, "pause", subject, *WHO)).exit_code == 0
        waiting = [await people.mention(one) for one in (first, second)]
        async with working(settings):
            await people.replied(free)
            assert not people.landed.keys() & set(waiting)
        async with working(settings):  # after a restart as well
            await people.replied(people.asking())
            assert not people.landed.keys() & set(waiting)
            await moderate(settings.kafka, "cancel", paused[1], *WHO)
            gone = await people.outcome(waiting[1])
            assert (gone.decision.reason, gone.replies) == (SkipReason.CANCELLED, ())
            await moderate(settings.kafka, "resume", paused[0], *WHO)
            done = await people.outcome(waiting[0])
            assert done.decision.outcome is Kind.REPLIED
            await people.settled()
