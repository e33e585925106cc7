"""The talk at the terminal: what each line becomes."""

import io
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from rich.console import Console

from bot.events import Person
from bot.observe import Outcome, Position
from bot.repl import Talk
from bot.settings import BotSettings
from bot.show import headline
from schemas.codes import Outcome as Kind
from schemas.envelope import Event
from schemas.feed import (
    AccountChanged,
    MentionCreated,
    MessageCreated,
    MessageDeleted,
    MessageEdited,
    PostDeleted,
    PostEdited,
)
from tests.bot.outcomes import INPUT, changed, decision, replied

BOT = BotSettings()


class Asked:
    """Remembers what was asked and what changed; answers ``Reply <n>``, and to a change with
    ``comes``."""

    def __init__(self, *comes: Outcome, silent: bool = False) -> None:
        self.events: list[Event[Any]] = []
        self.changes: list[Event[Any]] = []
        self.comes = comes
        self.silent = silent

    async def change(self, event: Event[Any]) -> Sequence[Outcome] | None:
        self.changes.append(event)
        return None if self.silent else self.comes

    async def __call__(self, event: Event[Any]) -> Outcome | None:
        self.events.append(event)
        number = len(self.events)
        return None if self.silent else replied(f"Reply {number}", f"reply-{number}")


async def lines(*typed: str) -> AsyncIterator[str]:
    for line in typed:
        yield line


async def talk(*typed: str, ask: Asked | None = None) -> tuple[Asked, str]:
    asked = ask or Asked()
    shown = io.StringIO()
    await Talk(BOT, Console(file=shown, width=200), asked, asked.change).run(lines(*typed))
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
    for command in ("/dm text", "/edit N text", "/delete N", "/optout", "/optin"):
        assert shown.count(command) == 2  # at the start, and when asked


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/foo bar", "unknown command /foo, /help lists them"),
        ("/dm", "/dm needs a text"),
        ("/dm  ", "/dm needs a text"),
        ("/edit", "/edit needs the number of a line and a text"),
        ("/edit 1", "/edit needs the number of a line and a text"),
        ("/edit one two", "/edit needs the number of a line and a text"),
        ("/edit 1 two", "there is no line 1 of yours; there are: none"),
        ("/delete", "/delete needs the number of a line"),
        ("/delete 1 now", "/delete needs the number of a line"),
        ("/delete 7", "there is no line 7 of yours"),
        ("quit", "/quit ends the talk"),
        ("/quit now", "/quit stands alone on its line"),
        ("/optout please", "/optout stands alone on its line"),
        ("/forget", "did you mean /dm /forget?"),
        ("Exit", "/quit ends the talk"),
    ],
)
async def test_what_means_nothing_gets_a_hint_and_no_answer(line: str, said: str) -> None:
    asked, shown = await talk(line)
    assert asked.events == []
    assert said in shown


async def test_a_line_can_be_edited_by_its_number() -> None:
    asked, shown = await talk(
        "one", "two", "/edit 1 three", "four", ask=Asked(changed("Reply now"))
    )
    (event,) = asked.changes
    first, _, last = (event.data for event in asked.events)
    assert isinstance(event.data, PostEdited)
    assert event.data.post.uri == first.post.uri
    assert event.data.previous_revision == first.post.revision != event.data.post.revision
    assert event.data.post.text == f"@{BOT.handle} three"
    assert event.data.post.facets == first.post.facets
    texts = [above.text for above in last.ancestors]
    assert texts == [f"@{BOT.handle} three", "Reply now", f"@{BOT.handle} two", "Reply 2"]
    assert "you said this as line 2" in shown
    assert "corrected, edited" in shown


async def test_a_line_that_is_deleted_is_gone_with_its_reply() -> None:
    asked, shown = await talk("one", "/delete 1", "/delete 1", "two", ask=Asked(changed()))
    (event,) = asked.changes
    assert isinstance(event.data, PostDeleted)
    assert event.data.ref == asked.events[0].data.post.ref
    assert asked.events[1].data.ancestors == ()
    assert "retracted, deleted" in shown
    assert "there is no line 1 of yours" in shown


async def test_private_lines_have_numbers_too() -> None:
    asked, shown = await talk("one", "/dm two", "/edit 2 three", "/edit 2 four", "/delete 2")
    first, second, gone = (event.data for event in asked.changes)
    assert isinstance(first, MessageEdited)
    assert isinstance(gone, MessageDeleted)
    assert (first.message.version, second.message.version) == (2, 3)
    assert second.previous_revision == first.message.revision
    assert gone.ref == second.message.ref
    assert shown.count("no reply of the bot is built on it") == 3


async def test_an_edit_that_changes_nothing_is_not_told() -> None:
    asked, shown = await talk("one", "/dm two", "/edit 1 one", "/edit 2 two")
    assert asked.changes == []
    assert shown.count("it says that already: nothing changed") == 2
    assert "no reply" not in shown


async def test_skips_for_one_reason_are_said_once() -> None:
    unknown = [
        Outcome(at, decision(Kind.SKIPPED, reason="unknown-reply", origin=at), at)
        for at in (Position("bot.reviews", 0, offset) for offset in range(3))
    ]
    _, shown = await talk("one", "/delete 1", ask=Asked(unknown[0], changed(), *unknown[1:]))
    assert shown.count("skipped, unknown-reply") == 1
    assert "the same for 2 more of its replies" in shown
    assert shown.count("retracted, deleted") == 1


@pytest.mark.parametrize(
    ("kind", "parts", "line"),
    [
        (Kind.RETRACTED, 1, "retracted, deleted"),
        (Kind.RETRACTED, 2, "retracted, deleted (both parts)"),
        (Kind.RETRACTED, 3, "retracted, deleted (all 3 parts)"),
        (Kind.CORRECTED, 2, "corrected, deleted (2 parts)"),
        (Kind.REPLIED, 2, "replied, deleted in 2 parts"),
    ],
)
def test_a_reply_of_several_parts_says_so(kind: Kind, parts: int, line: str) -> None:
    replies = tuple(f"reply-{n}" for n in range(parts))
    assert headline(Outcome(INPUT, decision(kind, replies, "deleted"), INPUT)) == line


async def test_opting_out_and_in() -> None:
    asked, shown = await talk("/optout", "/optin")
    out, back = (event.data for event in asked.changes)
    assert isinstance(out, AccountChanged)
    assert (out.account_id, out.opted_out, back.opted_out) == ("you", True, False)
    assert shown.index("you are opted out") < shown.index("you are opted in again")


async def test_a_change_without_an_end_is_said() -> None:
    _, shown = await talk("one", "/delete 1", "/optout", ask=Asked(silent=True))
    assert shown.count("no outcome came in time") == 3


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
    asked = Asked()
    await Talk(BOT, console, asked, asked.change).run(lines("hello"))
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
