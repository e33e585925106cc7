"""Commands of moderators through real Kafka: obeyed once, also by a worker that starts later."""

import asyncio
import json
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bot.ask import publish
from bot.cli import app
from bot.clients import options
from bot.settings import KafkaSettings, Settings
from bot.waiting import Shown, waiting
from consumers.reader import range_reader
from schemas import codec, names
from schemas.codes import Outcome as Kind
from schemas.codes import SkipReason
from schemas.control import ModerationCommanded
from schemas.envelope import Envelope
from tests.kafka.platform import Platform, platform, texts_now
from tests.kafka.test_presence import process
from tests.kafka.test_taking_back import reply_id, retracts, settings_on, working

pytestmark = pytest.mark.kafka
WHO = ("--as", "anna", "--reason", "rude")


@pytest.fixture
def settings(own_topics: str, tmp_path: Path) -> Settings:
    return settings_on(own_topics, tmp_path)


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
        said = await moderate(settings.kafka, "log", "--json")
        listed = [json.loads(line) for line in said.output.splitlines()]
        assert told.id in [one["id"] for one in listed]
        assert [o.decision.outcome for o in people.changes] == [Kind.CORRECTED, Kind.RETRACTED]


async def test_nothing_is_written_about_a_reply_that_nobody_knows(settings: Settings) -> None:
    said = await moderate(settings.kafka, "retract", "no-such-reply", *WHO)
    assert said.exit_code != 0
    unknown = ("block", "account:nobody", "--decision", "no-such-decision")
    said = await moderate(settings.kafka, *unknown, *WHO)
    assert said.exit_code != 0
    log = (await moderate(settings.kafka, "log")).output
    assert "no-such" not in log
    assert "account:nobody" not in log


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


async def held(kafka: KafkaSettings, conversations: set[str]) -> dict[str, Shown]:
    """What waits in these conversations, when there is something of each."""
    async with range_reader(kafka.bootstrap_servers, options(kafka)) as reader, asyncio.timeout(60):
        while True:
            now = {
                one.data.conversation_id: one for one in await waiting(reader, datetime.now(UTC))
            }
            if now.keys() >= conversations:
                return now
            await asyncio.sleep(0.05)


async def test_replies_wait_for_approval_also_over_a_kill(settings: Settings) -> None:
    kafka = settings.kafka
    async with platform(kafka, settings.bot) as people:
        good, bad, direct = (people.asking() for _ in range(3))
        subjects = [f"conversation:{one.conversation_id}" for one in (good, bad, direct)]
        for subject in subjects:
            assert (await moderate(kafka, "approve-first", subject, *WHO)).exit_code == 0
        inputs = [await people.mention(one) for one in (good, bad, direct)]
        with process(settings) as worker:
            shown = await held(kafka, {one.conversation_id for one in (good, bad, direct)})
            await people.replied(people.asking())  # nobody else waits
            worker.send_signal(signal.SIGKILL)
            worker.wait()
        assert not people.landed.keys() & set(inputs)
        ids = [shown[one.conversation_id].data.decision_id for one in (good, bad, direct)]
        assert ids[0] in (await moderate(kafka, "held")).output
        said = await moderate(kafka, "approve", ids[0], "--digest", "0000", *WHO)
        assert "another text" in str(said.exception)
        assert (await moderate(kafka, "approve", ids[0], *WHO)).exit_code == 0
        async with working(settings):
            approved = await people.outcome(inputs[0])
            assert (await moderate(kafka, "reject", ids[1], *WHO)).exit_code == 0
            rejected = await people.outcome(inputs[1])
            await moderate(kafka, "publish-directly", subjects[2], *WHO)
            ended = await people.outcome(inputs[2])
            await people.settled()
        texts = [tuple(reply.data.text for reply in one.replies) for one in (approved, ended)]
        assert texts == [shown[one.conversation_id].data.texts for one in (good, direct)]
        told = [one.decision.moderation for one in (approved, rejected)]
        assert [one and one.command for one in told] == ["approve", "reject"]
        assert (rejected.decision.reason, rejected.replies) == (SkipReason.REJECTED, ())
        said = await moderate(kafka, "approve", ids[1], *WHO)
        assert said.exit_code != 0


async def test_a_command_of_another_tool_is_obeyed_once(settings: Settings) -> None:
    """Also where it was written while no worker ran, and after a restart."""
    async with platform(settings.kafka, settings.bot) as people:
        asking = people.asking()
        async with working(settings):
            replied = await people.replied(asking)
        subject = f"reply:{reply_id(replied)}"
        command = ModerationCommanded(
            command="correct", subject=subject, reason="rude", moderator="a tool", text="Sorry."
        )
        head = Envelope(
            id="command-1", source="a tool", type=names.MODERATION_COMMANDED, time=datetime.now(UTC)
        )
        await publish(people.writer, codec.encode(names.BOT_MODERATION, subject, head, command))
        async with working(settings):
            corrected = await last_change(people)
            assert texts_now(corrected) == ["Sorry."]
            await people.settled()
        async with working(settings):
            await people.replied(people.asking())
            await people.settled()
        assert [one.decision.reason for one in people.changes] == [SkipReason.MODERATED]
        assert {one.decision.reason for one in people.reviews} <= {"moderated", "duplicate"}
