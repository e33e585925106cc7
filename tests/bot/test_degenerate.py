"""``bot.degenerate``: answers that are none, and how the model is asked once more."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.context import ContextPost, Kind, ThreadPost, Why
from bot.degenerate import Fault, again, fault_of, is_repetition, verdict, words_of
from bot.reply import Checked, Said, seed_of
from model.engine import Sampling
from schemas.feed import Visibility
from tests.bot.make import ALICE, BOT, mention, post

ID = "9a1ff0de-26bb-5e4c-8d3d-0123456789ab"
PROSE = (
    "Kafka is a log that many programs write to and read from, each at its own pace. A topic is "
    "cut into partitions, and the order holds within each of them, so readers can share the work."
)


def said(*texts: str) -> Checked:
    return Checked(" ".join(texts), tuple(map(Said, texts)), ())


def turn(text: str, *, by_bot: bool = True, included: bool = True) -> ContextPost:
    author = BOT if by_bot else ALICE
    return ThreadPost(
        ref=post().ref,
        author=author,
        text=text,
        kind=Kind.ANCESTOR,
        visibility=Visibility.PUBLIC,
        is_bot=by_bot,
        included=included,
        why=Why.ANCESTOR,
    )


QUESTION = mention("@twite what is a log, and what is it for?").post


def test_an_answer_is_fine() -> None:
    assert fault_of(said(PROSE), QUESTION, [turn("A log is a list.")]) is None


def test_nothing_left_is_no_answer() -> None:
    assert fault_of(Checked("", (), ()), QUESTION, ()) is Fault.EMPTY


@pytest.mark.parametrize(
    "text",
    [
        "the " * 40,
        "I am a bot. " * 12,
        "Well, I think so. " + "Yes, it is so, I am sure. " * 8,
        "A" * 200,
        "哈哈" * 30,
        "これは本です。" * 10,
        "🎉" * 40,
        "a b c d e f g h i j k l m n o p q r s t. " * 5,
        "да нет " * 20,
        "สวัสดี" * 20,
    ],
)
def test_one_phrase_over_and_over_is_no_answer(text: str) -> None:
    assert fault_of(said(text), QUESTION, ()) is Fault.REPETITION


@pytest.mark.parametrize(
    "text",
    [
        PROSE,
        "No, no, no!",
        "Ha ha ha ha ha.",
        "1. First: read it. 2. Second: write it. 3. Third: read it again. 4. Fourth: rest.",
        "The cat saw the dog, the dog saw the cat, and the cat and the dog went home to eat.",
        "日本の首都は東京です。フランスの首都はパリです。イタリアの首都はローマです。",
        "buffalo buffalo buffalo buffalo",
        "",
    ],
)
def test_ordinary_text_is_no_repetition(text: str) -> None:
    assert not is_repetition(words_of(text))


@given(st.lists(st.sampled_from("abcdefgh"), min_size=12, max_size=60, unique=False))
def test_a_repeated_tail_is_found_however_the_text_begins(words: list[str]) -> None:
    tail = ["over", "and", "out"] * (len(words) + 4)
    assert is_repetition([*words, *tail])


def test_the_askers_own_words_are_no_answer() -> None:
    for text in ("What is a log, and what is it for?", "what is a log and what is it for"):
        assert fault_of(said(text), QUESTION, ()) is Fault.ASKERS_WORDS
    assert fault_of(said("What is a log?"), QUESTION, ()) is None
    hello = mention("@twite Good morning!").post
    assert fault_of(said("Good morning!"), hello, ()) is None


def test_what_the_bot_said_before_is_no_answer() -> None:
    before = [
        turn("An old answer it was."),
        turn("Why?", by_bot=False),
        turn("Because it is so here."),
    ]
    asking = turn("Why?", by_bot=False)
    assert fault_of(said("Because it is so here"), QUESTION, [*before, asking]) is Fault.SAID_BEFORE
    assert fault_of(said("An old answer it was."), QUESTION, [*before, asking]) is None
    left_out = replace(before[-1], included=False)
    assert fault_of(said("Because it is so here."), QUESTION, [left_out, asking]) is None


def test_a_thread_said_before_is_compared_as_a_whole() -> None:
    before = [turn("One is here, I say. (1/2)"), turn("Two is there, I say. (2/2)")]
    now = Checked("One is here, I say. Two is there, I say.", (Said("…"), Said("…")), ())
    assert fault_of(now, QUESTION, before) is Fault.SAID_BEFORE


def test_the_second_try_is_another_one_and_always_the_same() -> None:
    first = Sampling(seed=seed_of(ID), temperature=0.0, top_p=0.9)
    second = again(first, ID, 0.7)
    assert second == again(first, ID, 0.7)
    assert second.seed not in (first.seed, seed_of(ID))
    assert 0 <= second.seed < 2**53
    assert (second.temperature, second.top_p) == (0.7, 0.9)
    assert again(replace(first, temperature=1.2), ID, 0.7).temperature == 1.2


def test_the_audit_knows_both_tries() -> None:
    sampling = Sampling(seed=7, temperature=0.0)
    retry = verdict(Fault.REPETITION, sampling, last=False)
    assert (retry.name, retry.verdict) == ("worth-saying", "retry")
    assert retry.detail == "repetition; seed 7, temperature 0.0"
    assert verdict(Fault.EMPTY, sampling, last=True).verdict == "skip"
    assert verdict(None, sampling, last=False).verdict == "pass"
