"""``bot.prompt_room``: a prompt file must leave room for what people ask."""

import asyncio
import dataclasses
from pathlib import Path

import pytest

from bot.app import run_worker
from bot.checks import check_prompts
from bot.gather import gather
from bot.guards import Level
from bot.memory import NoKnowledge
from bot.prompt import prompt_for
from bot.prompt_room import require_room, room_in, surely_fits
from bot.settings import BotSettings, KafkaSettings, ModelSettings, PromptsSettings, Settings
from bot.templates import PromptError, chosen
from bot.wiring import setup_of
from model.echo import ByteChatTokenizer, EchoEngine
from tests.bot.make import mention

ECHO = ModelSettings(engine="echo")
CONTEXT = 32768
OFTEN = BotSettings(prompt_tokens=1536, post_tokens=384)


def settings_with(folder: Path, words: int, bot: BotSettings = OFTEN) -> Settings:
    """With a prompt for mentions of so many words of five characters."""
    (folder / "mention.txt").write_text("word " * words)
    return Settings(
        kafka=KafkaSettings(bootstrap_servers="127.0.0.1:1"),
        bot=bot,
        model=ECHO,
        prompts=PromptsSettings(directory=folder),
    )


def look(settings: Settings, context_length: int = CONTEXT) -> None:
    setup = setup_of(settings, "")
    require_room(chosen(settings.prompts), setup, ByteChatTokenizer(), context_length)


def test_the_prompts_that_come_with_twite_fit() -> None:
    settings = Settings(model=ECHO)
    assert surely_fits(chosen(settings.prompts), setup_of(settings, ""))
    look(settings)


@pytest.mark.parametrize("words", [180, 9000])
def test_a_long_file_is_told_with_its_tokens_and_what_to_set(tmp_path: Path, words: int) -> None:
    settings = settings_with(tmp_path, words)
    with pytest.raises(PromptError) as error:
        look(settings)
    assert error.value.where == str(tmp_path / "mention.txt")
    assert "at most 768 may be" in error.value.what
    if words == 180:
        wanted = int(error.value.todo.split("bot.prompt_tokens to ")[1].split()[0])
        look(settings_with(tmp_path, words, BotSettings(prompt_tokens=wanted)))
        with pytest.raises(PromptError):
            look(settings_with(tmp_path, words, BotSettings(prompt_tokens=wanted - 1)))
    else:
        assert "the model's context has 32768 tokens" in error.value.todo


def test_what_the_model_leaves_counts_as_well(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, 100)
    look(settings)
    with pytest.raises(PromptError, match="the model's context has 600 tokens"):
        look(settings, 600)


def test_the_longest_file_that_is_taken_leaves_a_question_whole(tmp_path: Path) -> None:
    words = 0
    for words in range(130, 160):
        try:
            look(settings_with(tmp_path, words + 1))
        except PromptError:
            break
    settings = settings_with(tmp_path, words)
    setup = setup_of(settings, "")
    asking = mention("@twite " + "why? " * 60)
    made = prompt_for(
        gather(asking, setup.bot, setup.limits, NoKnowledge()),
        asking,
        None,
        setup,
        ByteChatTokenizer(),
        CONTEXT,
    )
    assert len(made.prompt.token_ids) <= 1536
    assert "why? " * 59 in made.messages[-1].content


@pytest.mark.parametrize(("tokens", "post", "kept"), [(1536, 384, 768), (8000, 384, 800)])
def test_half_or_two_posts_are_kept(tokens: int, post: int, kept: int) -> None:
    room = room_in(tokens, post)
    assert (room.posts, room.template) == (kept, tokens - kept)


def test_config_check_tells(tmp_path: Path) -> None:
    check = check_prompts(settings_with(tmp_path, 9000))
    assert check.level is Level.RED
    assert "at most 768 may be" in check.found
    assert str(tmp_path / "mention.txt") in check.found
    assert check_prompts(settings_with(tmp_path, 20)).level is Level.GREEN


def test_config_check_fetches_nothing_to_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWITE_CACHE", str(tmp_path / "cache"))
    settings = settings_with(tmp_path, 9000).model_copy(update={"model": ModelSettings()})
    check = check_prompts(settings)
    assert check.level is Level.YELLOW
    assert "how long can't be told here" in check.found
    assert not (tmp_path / "cache").exists()


async def test_a_worker_does_not_start_with_it(tmp_path: Path) -> None:
    class Watched(EchoEngine):
        stopped = False

        async def stop(self) -> None:
            self.stopped = True
            await super().stop()

    engine = Watched()
    settings = settings_with(tmp_path, 9000)
    with pytest.raises(PromptError, match=r"mention\.txt: \d+ tokens"):
        await run_worker(settings, engine=engine, stop=asyncio.Event())
    assert engine.stopped


def test_a_hint_at_the_language_counts(tmp_path: Path) -> None:
    settings = settings_with(tmp_path, 146)
    setup = setup_of(settings, "")
    longer = dataclasses.replace(setup.prompts, language_hint="In {language}! " * 10)
    files = chosen(settings.prompts)
    require_room(files, setup, ByteChatTokenizer(), CONTEXT)
    with pytest.raises(PromptError):
        require_room(
            files, dataclasses.replace(setup, prompts=longer), ByteChatTokenizer(), CONTEXT
        )
