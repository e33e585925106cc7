"""``bot.echoes``: whether somebody says the bot's own words."""

import pytest

from bot.echoes import MAX_LENGTH, Echoes, same_words, words_of

SAID = "The moon is as far away as thirty Earths in a row."


class Clock:
    """Seconds that go up when told."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


@pytest.mark.parametrize(
    "text",
    [
        SAID,
        f"@twite {SAID}",
        f"@twite@feed.example {SAID.upper()}!!",
        f"  1/3 {SAID}\n",
        f"{SAID} (2/3)",
        f"@twite {SAID} 2/2",
        "The moon — is as far away, as thirty Earths in a row",
        "Ｔｈｅ ｍｏｏｎ is as far away as thirty Earths in a row",
        "> *The moon* is as far away as _thirty_ Earths in a row.",
    ],
)
def test_the_same_words_however_they_are_dressed(text: str) -> None:
    assert same_words(SAID, text)


@pytest.mark.parametrize(
    "text",
    [
        f"{SAID} Is that so?",
        SAID.replace("thirty", "forty"),
        "Is " + SAID,
        "",
        SAID.replace("thirty", "1/2"),
    ],
)
def test_other_words_are_no_echo(text: str) -> None:
    assert not same_words(SAID, text)


def test_what_everybody_says_and_what_nobody_answered_are_no_echo() -> None:
    assert not same_words("Good morning!", "Good morning!")
    assert not same_words("?!?!?!?!?!?!?!?!?!?!?!", "?!?!?!?!?!?!?!?!?!?!?!")
    assert words_of("word " * MAX_LENGTH) is None
    assert words_of("\ud800" * 5 + SAID) is not None


def test_other_scripts_have_words() -> None:
    hindi = "चाँद धरती से तीस पृथ्वियों की दूरी पर है"
    assert same_words(hindi, f"@twite {hindi}।")
    assert not same_words(hindi, hindi.replace("तीस", "चालीस"))


def test_where_it_was_said_and_anywhere() -> None:
    echoes = Echoes()
    assert not echoes.knows(SAID, None)
    echoes.said(SAID, "here")
    assert echoes.knows(SAID, "here")
    assert not echoes.knows(SAID, "there")
    assert echoes.knows(SAID, None)


def test_a_reply_that_only_repeats_the_question_makes_nobody_an_echo() -> None:
    echoes = Echoes()
    echoes.said(SAID, "here", to=f"@twite {SAID}")
    assert not echoes.knows(SAID, "here")
    echoes.said(SAID, "here", to="How far away is the moon?")
    assert echoes.knows(SAID, "here")


def test_it_is_bounded_by_number_and_by_time() -> None:
    clock = Clock()
    echoes = Echoes(entries=2, keep_s=10, counter=clock)
    texts = [f"{SAID} Number {n}, that is." for n in range(3)]
    for text in texts:
        echoes.said(text, "c")
    assert [echoes.knows(text, "c") for text in texts] == [False, True, True]
    clock.seconds = 9.9
    assert echoes.knows(texts[2], "c")
    clock.seconds = 10.0
    assert not echoes.knows(texts[2], "c")
    echoes.said("short", "c")
    assert len(echoes._said) == 2
