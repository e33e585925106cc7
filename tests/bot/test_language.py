"""``bot.language``: whose language it is, the hint, and what a reply says of itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.language import (
    LEAST,
    NAMES,
    Tongue,
    detected,
    detector,
    hint,
    langs_of_reply,
    tongue_of,
    verdict,
)
from tests.bot.make import post

WORDS = "Answer in {language}."


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Qual è la capitale della Francia?", "it"),
        ("What is the capital of France?", "en"),
        ("Wie heißt die Hauptstadt von Frankreich?", "de"),
        ("Quelle est la capitale de la France ?", "fr"),
        ("フランスの首都はどこですか？", "ja"),
        ("프랑스의 수도는 어디인가요?", "ko"),
        ("Яка столиця України?", "uk"),
        ("ما هي عاصمة فرنسا؟", "ar"),
        ("@a@far.example Qual è la capitale della Francia? https://example.org/the/news", "it"),
        ("lol", None),
        ("👍👍👍👍👍👍", None),
        ("12345 67890", None),
        ("", None),
        ("@somebody https://www.example.org/what-is-the-capital-of-france", None),
    ],
)  # fmt: skip
def test_the_language_of_a_text(text: str, code: str | None) -> None:
    tongue = tongue_of(post(text=text))
    assert tongue == (Tongue(code, told=False) if code else None)


def test_what_the_platform_says_comes_first() -> None:
    assert tongue_of(post(text="Hello my friend", langs=("pt-BR", "en"))) == Tongue(
        "pt-BR", told=True
    )
    assert tongue_of(post(text="Che cosa è questo?", langs=("<script>",))) == Tongue(
        "it", told=False
    )


@given(st.text(max_size=LEAST - 1))
def test_short_text_is_never_looked_at(text: str) -> None:
    def never(text: str) -> tuple[str, float]:
        raise AssertionError(text)

    assert detected(text, 0.5, never) is None


def test_the_same_text_is_told_alike_every_time() -> None:
    text = "Где находится столица Франции?"
    assert {detector()(text) for _ in range(3)} == {detector()(text)}
    assert detected("word " * 3, 0.5, lambda _: ("it", 0.4)) is None
    assert detected("word " * 3, 0.5, lambda _: ("klingon", 0.9)) is None


def test_the_hint_is_for_other_languages_than_the_prompts() -> None:
    assert hint(Tongue("it", told=True), "en", WORDS) == "Answer in Italian."
    assert hint(Tongue("pt-BR", told=True), "en", WORDS) == "Answer in Portuguese."
    assert hint(Tongue("en-GB", told=True), "en", WORDS) == ""
    assert hint(Tongue("it", told=True), "it", WORDS) == ""
    assert hint(Tongue("it", told=True), "en", "") == ""
    assert hint(None, "en", WORDS) == ""


@given(st.text(alphabet=st.characters(codec="ascii"), min_size=1, max_size=35))
def test_the_hint_never_holds_words_of_the_feed(tag: str) -> None:
    said = hint(Tongue(tag, told=True), "en", WORDS)
    assert said in {"", *(WORDS.replace("{language}", name) for name in NAMES.values())}


def test_a_reply_says_its_own_language_where_that_is_sure() -> None:
    italian = post(text="Qual è la capitale della Francia?")
    tongue = tongue_of(italian)
    assert langs_of_reply("La capitale della Francia è Parigi.", italian, tongue) == ("it",)
    english = "The capital of France is the beautiful city of Paris."
    assert langs_of_reply(english, italian, tongue) == ("en",)
    assert langs_of_reply("Parigi!", italian, tongue) == ("it",)
    several = post(langs=("de-AT", "en"))
    assert langs_of_reply(english, several, tongue_of(several)) == ("de-AT", "en")
    assert langs_of_reply("Ok", post(text="?"), None) == ()


def test_the_audit_says_it() -> None:
    hinted = verdict(Tongue("it", told=False), hinted=True)
    assert (hinted.name, hinted.verdict, hinted.detail) == ("language", "hint", "it detected")
    told = verdict(Tongue("en", told=True), hinted=False)
    assert (told.verdict, told.detail) == ("pass", "en told")
    assert verdict(Tongue("secret-words", told=True), hinted=False).detail == "another told"
    assert verdict(None, hinted=False).verdict == "unknown"


def test_names_are_names() -> None:
    assert len(NAMES) > 90
    assert all(code.isalpha() and code.islower() and 2 <= len(code) <= 3 for code in NAMES)
    assert all(name.replace(" ", "").isalpha() for name in NAMES.values())
