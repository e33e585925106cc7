"""Words taken back through real Kafka: deleted, edited, at any time, each exactly once."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from bot.app import run_worker
from bot.events import message_to
from bot.events import post as new_post
from bot.observe import Outcome
from bot.settings import (
    EchoSettings,
    KafkaSettings,
    LimitsSettings,
    LoggingSettings,
    ModelSettings,
    Settings,
    ViewsSettings,
)
from bot.worker_process import WorkerProcess
from schemas.codes import Outcome as Kind
from schemas.codes import SkipReason
from tests.kafka.platform import Platform, edited, is_retraction, person, platform, texts_now
from tests.wait import wait_until

pytestmark = pytest.mark.kafka


def settings_on(servers: str, folder: Path, latency_ms: float = 0.0) -> Settings:
    return Settings(
        kafka=KafkaSettings(
            bootstrap_servers=servers, group_id="taking-back", group_instance_id="the-worker"
        ),
        model=ModelSettings(engine="echo", echo=EchoSettings(latency_ms=latency_ms)),
        limits=LimitsSettings(enabled=False),
        views=ViewsSettings(directory=folder),
        logging=LoggingSettings(format="json", level="warning"),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The views of all tests of this module: each worker goes on with what is there."""
    return tmp_path_factory.mktemp("views")


@pytest.fixture
def settings(own_topics: str, folder: Path) -> Settings:
    return settings_on(own_topics, folder)


@pytest.fixture
async def people(settings: Settings) -> AsyncIterator[Platform]:
    """A platform without a worker."""
    async with platform(settings.kafka, settings.bot) as one:
        yield one


@asynccontextmanager
async def working(settings: Settings) -> AsyncIterator[None]:
    stop = asyncio.Event()
    worker = asyncio.create_task(run_worker(settings, stop=stop))
    try:
        yield
    finally:
        stop.set()
        await worker


@pytest.fixture
async def bot(settings: Settings, people: Platform) -> AsyncIterator[Platform]:
    """A platform with a worker, which has done everything in the end."""
    async with working(settings):
        yield people
        await people.settled()


def reply_id(outcome: Outcome) -> str:
    (reply,) = outcome.replies
    return reply.data.reply_id


async def one_change(bot: Platform) -> Outcome:
    """The one outcome that changed something, when all is done."""
    await bot.changed()
    await bot.settled()
    (outcome,) = bot.changes
    return outcome


def retracts(outcome: Outcome, replied: Outcome) -> bool:
    """Whether it takes back exactly that reply."""
    (change,) = outcome.changes
    told = outcome.decision.outcome is Kind.RETRACTED
    return told and is_retraction(change) and change.data.reply_id == reply_id(replied)


def corrects(outcome: Outcome, replied: Outcome, text: str) -> bool:
    """Whether the very same reply now says ``text``."""
    (change,) = outcome.changes
    told = outcome.decision.outcome is Kind.CORRECTED
    same = change.data.reply_id == reply_id(replied)
    return told and same and any(text in now for now in texts_now(outcome))


def seen(outcome: Outcome) -> str:
    """What the model saw."""
    assert outcome.decision.prompt is not None
    return "\n".join(message.content for message in outcome.decision.prompt.messages)


async def test_a_deleted_mention_takes_its_reply_with_it(bot: Platform) -> None:
    asking = bot.asking()
    replied = await bot.replied(asking)
    await bot.delete(asking)
    outcome = await one_change(bot)
    assert retracts(outcome, replied)
    assert outcome.decision.reason == SkipReason.DELETED


async def test_an_edited_mention_corrects_its_reply(bot: Platform) -> None:
    asking = bot.asking()
    replied = await bot.replied(asking)
    await bot.edit(asking, "what about tea?")
    assert corrects(await one_change(bot), replied, "tea")
    assert sum(bot.outcomes.replies.values()) == 1


async def test_an_edit_that_comes_as_a_new_mention_corrects_the_reply_too(bot: Platform) -> None:
    asking = bot.asking()
    replied = await bot.replied(asking)
    again = await bot.outcome(await bot.mention(edited(asking, "what about coffee?")))
    assert again.decision.reason == SkipReason.EDITED
    assert corrects(await one_change(bot), replied, "coffee")
    assert sum(bot.outcomes.replies.values()) == 1


async def test_an_edit_that_is_told_twice_corrects_once(bot: Platform) -> None:
    asking = bot.asking()
    replied = await bot.replied(asking)
    new = await bot.edit(asking, "what about milk?")
    await bot.mention(new)
    assert corrects(await one_change(bot), replied, "milk")


async def test_an_edit_that_changes_nothing_in_the_answer_keeps_it(bot: Platform) -> None:
    asking = bot.asking()
    await bot.replied(asking)
    same = asking.model_copy(update={"revision": "another", "version": 2})
    await bot.mention(same)
    await bot.settled()
    (kept,) = bot.reviews
    assert (kept.decision.outcome, kept.decision.reason) == (Kind.SKIPPED, SkipReason.KEPT)


async def test_a_quoted_post_of_another_conversation_is_taken_back(bot: Platform) -> None:
    quoted = new_post(person(), "The moon is made of cheese.", conversation_id="elsewhere")
    asking = bot.asking("Is this true?", quoted=quoted)
    replied = await bot.replied(asking, quoted=quoted)
    await bot.delete(quoted)
    assert "cheese" in seen(replied)
    outcome = await one_change(bot)
    assert corrects(outcome, replied, "true")
    assert "cheese" not in seen(outcome)
    await bot.edit(asking, "And this?")
    _, last = await bot.changed(2)
    assert "cheese" not in seen(last)


async def test_a_quoted_post_that_is_edited_corrects_the_reply(bot: Platform) -> None:
    quoted = new_post(person(), "The moon is made of cheese.", conversation_id="elsewhere")
    asking = bot.asking("Is this true?", quoted=quoted)
    replied = await bot.replied(asking, quoted=quoted)
    await bot.edit(quoted, "The moon is made of rock.")
    outcome = await one_change(bot)
    assert corrects(outcome, replied, "true")
    assert ("rock" in seen(outcome), "cheese" in seen(outcome)) == (True, False)
    await bot.edit(asking, "And now?")
    _, last = await bot.changed(2)
    assert ("rock" in seen(last), "cheese" in seen(last)) == (True, False)


async def test_an_edited_ancestor_corrects_the_replies_below_it(bot: Platform) -> None:
    root = new_post(person(), "I like green.", conversation_id=f"thread-{person().id}")
    await bot.write(root)
    asking = bot.asking("Which colour?", conversation_id=root.conversation_id, above=root)
    replied = await bot.replied(asking, ancestors=[root])
    await bot.edit(root, "I like blue.")
    outcome = await one_change(bot)
    assert corrects(outcome, replied, "")
    assert ("blue" in seen(outcome), "green" in seen(outcome)) == (True, False)


async def test_a_private_message_is_taken_back_in_private(bot: Platform) -> None:
    event = message_to(bot.bot, person(), "Hello, who are you?")
    message = event.data.message
    replied = await bot.outcome(await bot.tell(event))
    assert replied.replies[0].at.topic == "bot.direct-replies"
    new = await bot.edit_message(message, "Hello, what are you?")
    assert corrects(await one_change(bot), replied, "what")
    await bot.delete_message(new)
    _, gone = await bot.changed(2)
    await bot.settled()
    assert retracts(gone, replied)
    assert {c.at.topic for o in bot.changes for c in o.changes} == {"bot.direct-replies"}
    assert {o.at.topic for o in bot.landed.values()} == {"bot.audit-private"}


async def test_an_edit_and_then_a_deletion_end_in_a_retraction(bot: Platform) -> None:
    asking = bot.asking()
    replied = await bot.replied(asking)
    await bot.edit(asking, "what about tea?")
    await bot.delete(asking)
    await bot.settled()
    retractions = [one for one in bot.changes if one.decision.outcome is Kind.RETRACTED]
    assert len(retractions) == 1
    assert retracts(retractions[0], replied)
    assert bot.changes[-1] is retractions[0]


async def test_repeated_and_unknown_deletions_change_nothing_more(bot: Platform) -> None:
    asking, unknown = bot.asking(), bot.asking()
    replied = await bot.replied(asking)
    await bot.delete(unknown)
    for _ in range(3):
        await bot.delete(asking)
    await bot.delete(unknown)
    assert retracts(await one_change(bot), replied)


async def test_what_was_taken_back_stays_so_when_it_is_told_again(bot: Platform) -> None:
    asking = bot.asking()
    replied = await bot.replied(asking)
    await bot.delete(asking)
    await bot.changed()
    again = await bot.outcome(await bot.mention(edited(asking, "still there?")))
    assert again.decision.outcome is Kind.SKIPPED
    assert retracts(await one_change(bot), replied)


async def test_changes_while_no_worker_was_there_are_made_up_for(
    settings: Settings, people: Platform
) -> None:
    gone, changed, early = (people.asking() for _ in range(3))
    async with working(settings):
        first, second = await people.replied(gone), await people.replied(changed)
        await people.settled()
    await people.delete(gone)
    await people.edit(changed, "what about tea?")
    origin = await people.mention(early)
    await people.delete(early)
    async with working(settings):
        await people.changed(2)
        skipped = await people.outcome(origin)
        await people.settled()
    assert skipped.decision.reason == SkipReason.DELETED
    by_kind = {outcome.decision.outcome: outcome for outcome in people.changes}
    assert retracts(by_kind[Kind.RETRACTED], first)
    assert corrects(by_kind[Kind.CORRECTED], second, "tea")


async def test_killed_between_a_deletion_and_its_retraction_each_is_made_once(
    settings: Settings, people: Platform, tmp_path: Path
) -> None:
    """Killed at moments of chance, most of them within the quarter of a second it takes."""
    chance = random.Random(5)
    posts = [people.asking() for _ in range(20)]
    told = settings.model_copy(update={"logging": LoggingSettings(format="json")})
    worker = WorkerProcess(told, tmp_path / "worker.log", lambda line: None)
    await worker.start()
    try:
        replied = [await people.replied(post) for post in posts]
        for round_of in range(0, len(posts), 4):
            for post in posts[round_of : round_of + 4]:
                await people.delete(post)
            await asyncio.sleep(chance.uniform(0.0, 0.25))
            os.kill(worker.pid or 0, signal.SIGKILL)
            await wait_until(lambda: worker.pid is None)
            await worker.keep_alive()
        await people.changed(len(posts))
        await people.settled()
    finally:
        await worker.stop()
    assert sorted(map(reply_id, replied)) == sorted(people.outcomes.retractions)
    assert set(people.outcomes.retractions.values()) == {1}
    assert not people.outcomes.corrections


async def test_a_storm_of_edits_asks_the_model_seldom_and_holds_up_no_deletion(
    own_topics: str, folder: Path, people: Platform
) -> None:
    """A hundred edits of a post that twenty replies quote, and somebody deletes another post."""
    quoted = new_post(person(), "It is calm.", conversation_id="elsewhere")
    async with working(settings_on(own_topics, folder, latency_ms=50)):
        asking = [people.asking("Is it?", quoted=quoted) for _ in range(20)]
        replied = [await people.replied(one, quoted=quoted) for one in asking]
        other = people.asking()
        others = await people.replied(other)
        now = quoted
        for n in range(100):
            now = await people.edit(now, f"Storm {n}.")
            if n == 50:
                await people.delete(other)
        await people.settled()
    (gone,) = [one for one in people.changes if retracts(one, others)]
    assert gone.decision.reason == SkipReason.DELETED
    asked = [one for one in people.reviews if one.decision.prompt is not None]
    assert len(asked) <= 20 * 100 / 4
    corrections = [one for one in people.changes if one is not gone]
    last = {reply: seen(one) for one in corrections for reply in one.decision.reply_ids}
    assert all("Storm 99." in last[reply_id(one)] for one in replied)


@pytest.mark.parametrize("what", ["delete", "edit"])
async def test_a_change_while_the_answer_is_being_made_counts(
    own_topics: str, folder: Path, people: Platform, what: str
) -> None:
    async with working(settings_on(own_topics, folder, latency_ms=700)):
        warm = people.asking()
        await people.replied(warm)
        asking = people.asking()
        origin = await people.mention(asking)
        change: Any = people.delete(asking) if what == "delete" else people.edit(asking, "tea?")
        await change
        outcome = await people.outcome(origin)
        await people.settled()
    if what == "edit":
        said = [reply.data.text for reply in outcome.replies]
        now = [text for one in people.changes for text in texts_now(one)] or said
        assert "tea" in now[-1]
    elif outcome.decision.outcome is Kind.REPLIED:
        (taken,) = people.changes
        assert retracts(taken, outcome)
    else:
        assert (outcome.decision.reason, people.changes) == (SkipReason.DELETED, [])
