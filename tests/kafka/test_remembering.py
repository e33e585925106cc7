"""What the bot remembers, through real Kafka: talks, threads, repeats and who said no."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bot.app import run_worker
from bot.events import Person, message_to
from bot.events import post as new_post
from bot.forget import FORGOTTEN
from bot.observe import Outcome
from bot.settings import (
    KafkaSettings,
    LimitsSettings,
    LoggingSettings,
    ModelSettings,
    Settings,
    ViewsSettings,
)
from schemas import names
from schemas.control import ModerationCommanded
from schemas.feed import AccountChanged
from tests.kafka.platform import Platform, _event, person, platform

pytestmark = pytest.mark.kafka


def settings_on(servers: str, folder: Path) -> Settings:
    return Settings(
        kafka=KafkaSettings(
            bootstrap_servers=servers, group_id="remembering", group_instance_id="the-worker"
        ),
        model=ModelSettings(engine="echo"),
        limits=LimitsSettings(enabled=False),
        views=ViewsSettings(directory=folder),
        logging=LoggingSettings(format="json", level="warning"),
    )


@asynccontextmanager
async def working(settings: Settings) -> AsyncIterator[Platform]:
    """A platform beside a worker of its own."""
    stop = asyncio.Event()
    async with platform(settings.kafka, settings.bot) as people:
        worker = asyncio.create_task(run_worker(settings, stop=stop))
        try:
            yield people
        finally:
            stop.set()
            await worker


async def says(people: Platform, author: Person, text: str) -> Outcome:
    """Somebody writes to the bot; what came of it."""
    return await people.outcome(await people.tell(message_to(people.bot, author, text)))


def shown(outcome: Outcome) -> str:
    """What the model saw."""
    prompt = outcome.decision.prompt
    return "" if prompt is None else "".join(part.content for part in prompt.messages)


def whys(outcome: Outcome) -> list[str | None]:
    return [item.why for item in outcome.decision.context]


async def test_a_talk_is_remembered_over_a_restart_and_by_a_worker_without_files(
    own_topics: str, tmp_path: Path
) -> None:
    author = person()
    async with working(settings_on(own_topics, tmp_path / "one")) as people:
        first = await says(people, author, "My name is Canary.")
        second = await says(people, author, "What is it?")
        assert "Canary" in shown(second)
        assert first.replies[0].data.text in shown(second)
        assert whys(second) == ["turn", "own-reply", "asking"]
    async with working(settings_on(own_topics, tmp_path / "one")) as people:
        assert "Canary" in shown(await says(people, author, "And now?"))
    async with working(settings_on(own_topics, tmp_path / "another machine")) as people:
        assert "Canary" in shown(await says(people, author, "And here?"))


async def test_forget_empties_a_talk_for_good(own_topics: str, tmp_path: Path) -> None:
    author = person()
    async with working(settings_on(own_topics, tmp_path)) as people:
        await says(people, author, "My name is Canary.")
        forgotten = await says(people, author, "/forget")
        assert forgotten.replies[0].data.text == FORGOTTEN
        after = await says(people, author, "What is my name?")
        assert whys(after) == ["asking"]
    async with working(settings_on(own_topics, tmp_path / "another machine")) as people:
        later = await says(people, author, "And now?")
        assert "Canary" not in shown(later)
        assert "What is my name?" in shown(later)


async def test_a_thread_comes_from_the_posts_that_the_platform_told(
    own_topics: str, tmp_path: Path
) -> None:
    async with working(settings_on(own_topics, tmp_path)) as people:
        root = new_post(person(), "Tea is better than coffee.", conversation_id="thread:tea")
        await people.write(root)
        answer = new_post(person(), "No.", above=root, conversation_id=root.conversation_id)
        await people.write(answer)
        asking = people.asking(above=answer, conversation_id=root.conversation_id)
        outcome = await people.replied(asking)
        assert whys(outcome) == ["root", "ancestor", "asking"]
        assert "Tea is better" in shown(outcome)
        assert ("views", "reached") in [(r.name, r.verdict) for r in outcome.decision.rules]
        assert any(name.startswith("conversation/") for name in outcome.decision.positions)


async def test_who_said_no_is_neither_answered_nor_shown(own_topics: str, tmp_path: Path) -> None:
    nobody = person()
    async with working(settings_on(own_topics, tmp_path)) as people:
        gone = AccountChanged(account_id=nobody.id, opted_out=True)
        await people.tell(_event(names.ACCOUNT_CHANGED, gone))
        refused = await says(people, nobody, "Hello?")
        assert refused.decision.reason == "opted-out"
        root = new_post(nobody, "Canary.", conversation_id="thread:no")
        await people.write(root)
        asking = people.asking(above=root, conversation_id=root.conversation_id)
        outcome = await people.replied(asking)
        assert whys(outcome) == ["consent", "asking"]
        record = outcome.decision.model_dump_json()
        assert "Canary" not in record
        assert nobody.id not in record


async def test_a_moderator_stops_the_bot_and_lets_it_go_on(own_topics: str, tmp_path: Path) -> None:
    def command(word: str) -> ModerationCommanded:
        return ModerationCommanded(
            command=word, subject="direct-messages", reason="a test", moderator="mod"
        )

    async with working(settings_on(own_topics, tmp_path)) as people:
        await people.tell(_event(names.MODERATION_COMMANDED, command("stop")))
        assert (await says(people, person(), "Hello?")).decision.reason == "stopped"
        assert (await people.replied(people.asking())).replies
        await people.tell(_event(names.MODERATION_COMMANDED, command("resume")))
        assert (await says(people, person(), "Hello?")).replies


async def test_a_repeat_is_known_to_a_worker_that_never_saw_the_first(
    own_topics: str, tmp_path: Path
) -> None:
    async with working(settings_on(own_topics, tmp_path)) as people:
        asking = people.asking()
        first = await people.replied(asking)
    async with working(settings_on(own_topics, tmp_path / "another machine")) as people:
        again = await people.outcome(await people.mention(asking))
        assert again.decision.reason == "duplicate"
        assert again.decision.duplicate_of == first.decision.decision_id
