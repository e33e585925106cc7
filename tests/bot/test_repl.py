"""The talk at the terminal: what each line becomes."""

import io
from collections.abc import AsyncIterator
from typing import Any

import pytest
from rich.console import Console

from bot.events import Person
from bot.observe import Outcome
from bot.repl import Talk
from bot.settings import BotSettings
from schemas.envelope import Event
from schemas.feed import MentionCreated, MessageCreated
from tests.bot.outcomes import replied

BOT = BotSettings()


class Asked:
    """Remembers what was asked; answers ``Reply <n>``."""

    def __init__(self, *, silent: bool = False) -> None:
        self.events: list[Event[Any]] = []
        self.silent = silent

    async def __call__(self, event: Event[Any]) -> Outcome | None:
        self.events.append(event)
        return None if self.silent else replied(f"Reply {len(self.events)}")


async def lines(*typed: str) -> AsyncIterator[str]:
    for line in typed:
        yield line


async def talk(*typed: str, ask: Asked | None = None) -> tuple[Asked, str]:
    asked = ask or Asked()
    shown = io.StringIO()
    await Talk(BOT, Console(file=shown, width=200), asked).run(lines(*typed))
    return asked, shown.getvalue()


async def test_text_is_a_mention_of_the_bot() -> None:
    asked, shown = await talk("What is a bird?")
    (event,) = asked.events
    post = event.data.post
    assert isinstance(event.data, MentionCreated)
    assert post.text == f"@{BOT.handle} What is a bird?"
    assert [facet.account_id for facet in post.facets] == [BOT.account_id]
    assert "Reply 1" in shown


async def test_a_thread_remembers_what_was_said_in_it() -> None:
    asked, _ = await talk("one", "two")
    first, second = (event.data for event in asked.events)
    assert first.ancestors == ()
    assert [above.author.id for above in second.ancestors] == ["you", BOT.account_id]
    assert [above.text for above in second.ancestors] == [f"@{BOT.handle} one", "Reply 1"]
    assert second.post.parent.uri == second.ancestors[-1].uri
    assert second.post.conversation_id == first.post.conversation_id


async def test_thread_starts_a_new_one() -> None:
    asked, _ = await talk("one", "/thread", "two")
    first, second = (event.data for event in asked.events)
    assert second.ancestors == ()
    assert second.post.conversation_id != first.post.conversation_id


async def test_a_long_thread_keeps_to_the_contract() -> None:
    asked, _ = await talk(*(f"question {n}" for n in range(60)))
    assert len(asked.events[-1].data.ancestors) == 100


async def test_dm_is_a_private_message() -> None:
    asked, _ = await talk("/dm my secret", "/dm another")
    first, second = (event.data for event in asked.events)
    assert isinstance(first, MessageCreated)
    assert first.message.text == "my secret"
    assert set(first.message.participants) == {"you", BOT.account_id}
    assert first.message.conversation_id == second.message.conversation_id


async def test_quit_ends() -> None:
    asked, _ = await talk("", "/quit", "never said")
    assert asked.events == []


async def test_help_lists_the_commands() -> None:
    _, shown = await talk("/help")
    assert shown.count("/dm text") == 2  # at the start, and when asked


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/foo bar", "unknown command /foo, /help lists them"),
        ("/dm", "/dm needs a text"),
        ("/dm  ", "/dm needs a text"),
        ("quit", "/quit ends the talk"),
        ("Exit", "/quit ends the talk"),
    ],
)
async def test_what_means_nothing_gets_a_hint_and_no_answer(line: str, said: str) -> None:
    asked, shown = await talk(line)
    assert asked.events == []
    assert said in shown


async def test_a_new_thread_may_begin_with_a_text() -> None:
    asked, _ = await talk("one", "/thread two")
    first, second = (event.data for event in asked.events)
    assert second.post.text == f"@{BOT.handle} two"
    assert second.ancestors == ()
    assert second.post.conversation_id != first.post.conversation_id


async def test_a_sign_of_life_comes_before_the_answer() -> None:
    _, shown = await talk("hello")
    assert shown.index("thinking …") < shown.index("Reply 1")


async def test_at_a_terminal_the_sign_of_life_goes_away() -> None:
    shown = io.StringIO()
    console = Console(file=shown, width=80, force_terminal=True)
    await Talk(BOT, console, Asked()).run(lines("hello"))
    text = shown.getvalue()
    assert "thinking" in text
    assert text.index("thinking") < text.rindex("\x1b[2K") < text.index("Reply 1")


async def test_no_outcome_is_said() -> None:
    _, shown = await talk("hello", ask=Asked(silent=True))
    assert "no outcome came in time" in shown


async def test_text_of_others_cannot_steer_the_terminal() -> None:
    from bot.show import plain

    assert plain("a\x1b[31mb\rc\u202ed\n") == "a\ufffd[31mb\ufffdc\ufffdd\n"
    assert Person("a", "b").account().handle == "b"
