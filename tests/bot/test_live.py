"""What is shown of an answer that grows: checked, cut at a word, and nothing that may change."""

import itertools
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.conversation import Decision, answer
from bot.live import settled
from bot.memory import NoKnowledge
from bot.reply import allow_set, neutralise
from bot.values import Source
from model.echo import EchoEngine
from model.engine import Chunk, Generation, GenerationRequest
from tests.bot.make import BOT, NOW, asked, direct, mention, setup


class Writes(EchoEngine):
    """Streams the words that a test gives, piece by piece; one list for each try."""

    def __init__(self, *tries: list[str]) -> None:
        super().__init__()
        self.tries = list(tries)
        self.streamed = 0

    async def generate(self, request: GenerationRequest) -> Generation:
        return Generation("".join(self.tries.pop(0)), (104,), (-0.5,), "stop")

    async def stream(self, request: GenerationRequest) -> AsyncIterator[Chunk]:
        self.streamed += 1
        pieces = self.tries.pop(0)
        for piece in pieces:
            yield Chunk(piece)
        yield Chunk("", Generation("".join(pieces), (104,), (-0.5,), "stop"))


class Sees:
    """Takes every partial text."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.seen: list[str] = []
        self.fault = fault

    def typing(self) -> None:
        self.seen.append("(typing)")

    def wants_text(self) -> bool:
        return True

    def partial(self, text: str) -> None:
        if self.fault:
            raise self.fault
        self.seen.append(text)

    def done(self) -> None:
        self.seen.append("(done)")


async def decide(data: Source, engine: EchoEngine, watcher: Sees | None) -> Decision:
    ticks = itertools.count()
    return await answer(
        asked(data),
        setup(),
        engine,
        NoKnowledge(),
        now=lambda: NOW,
        counter=lambda: next(ticks) / 1000,
        watcher=watcher,
    )


async def test_the_text_grows_word_by_word_and_the_reply_is_the_same_as_unseen() -> None:
    pieces = ["A log", " is a", " list that", " only grows."]
    sees = Sees()
    watched = await decide(direct(), Writes(pieces), sees)
    alone = await decide(direct(), Writes(pieces), None)
    grown = ["A", "A log is", "A log is a list", "A log is a list that only"]
    assert sees.seen == ["(typing)", *grown]
    assert watched.replies == alone.replies
    assert watched.replies[0].text == "A log is a list that only grows."


@pytest.mark.parametrize(
    ("pieces", "never"),
    [
        (["See ht", "tps://ev", "il.example/x", " or not", " at all, then."], "evil.example"),
        (["See evil", ".exam", "ple for", " more of it", " and so on."], "evil.example"),
        (["Ask @mal", "lory abo", "ut this", " and that", " too, then."], "@mallory"),
        (["Ask @", "mallory", " about", " this, then."], "@"),
    ],
)
async def test_what_the_checks_take_out_is_never_shown(pieces: list[str], never: str) -> None:
    sees = Sees()
    decision = await decide(direct(), Writes(pieces), sees)
    assert len(sees.seen) > 2
    assert not [text for text in sees.seen if never in text]
    assert never not in decision.replies[0].text


async def test_of_an_answer_that_is_none_nothing_more_is_shown_and_the_next_one_wins() -> None:
    sees = Sees()
    engine = Writes(["the "] * 40, ["A log ", "only ", "grows."])
    decision = await decide(direct(), engine, sees)
    second = len(sees.seen) - 1 - sees.seen[::-1].index("(typing)")
    assert max(map(len, sees.seen[:second])) < 60
    assert sees.seen[second:] == ["(typing)", "A log", "A log only", "A log only"]
    assert decision.replies[0].text == "A log only grows."


async def test_a_fault_of_what_is_shown_is_none_of_the_reply() -> None:
    decision = await decide(direct(), Writes(["A log ", "only grows."]), Sees(KeyError("x")))
    assert decision.replies[0].text == "A log only grows."


async def test_without_a_watcher_nothing_is_streamed() -> None:
    engine = Writes(["A log only grows."])
    await decide(mention(), engine, None)
    assert engine.streamed == 0


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", ""),
        ("word", ""),
        ("two words", "two"),
        ("ends with a blank ", "ends with a blank"),
        ("see [the page](http://a.example and", "see"),
        ("see [the page](http://a.example) and", "see [the page](http://a.example)"),
        ("a `code that is", "a"),
        ("[a [b [c d", ""),
    ],
)
def test_what_may_still_change_is_held_back(text: str, kept: str) -> None:
    assert settled(text) == kept


@given(st.text(alphabet="ab .@/:[]()`<>*_\n", max_size=80), st.text(alphabet="ab .@/:", max_size=9))
def test_what_is_shown_is_a_beginning_whatever_comes_behind(text: str, more: str) -> None:
    shown = settled(text)
    assert text.startswith(shown)
    allowed = allow_set(direct().message, BOT.id)
    whole = neutralise(shown, allowed)
    assert neutralise(whole, allowed) == whole or whole != shown
    assert (text + more).startswith(shown)
