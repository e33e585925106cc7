"""``bot.text``: what is safe to show, graphemes, sentences, cutting."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.text import (
    ELLIPSIS,
    clean,
    cut,
    finish,
    graphemes,
    one_line,
    safe,
    sentences,
    size,
)
from tests.examples import examples

FAMILY = "👨‍👩‍👧‍👦"
WALES = "\U0001f3f4\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f"
PIECES = [
    FAMILY, WALES, "🇩🇪", "👍🏽", "e\u0301", "a\u0308\u0323", "\u200f", "שלום", "مرحبا", "क्षि", "한",
    "𝒳", "𠀀", "a", "Z", "9", " ", "  ", "\n", ". ", "! ", "? ", "。", "؟ ", "…", ",", "Dr. ", "-",
]  # fmt: skip
mixed = st.lists(st.sampled_from(PIECES), max_size=60).map("".join)


def test_clean_takes_away_what_hides_and_keeps_what_scripts_need() -> None:
    dirty = "a\u202eb\u2066c\x00\x9b\ufeff\u00add\ud800\ufffd"
    assert clean(dirty) == "abcd"
    kept = f"{FAMILY} {WALES} א\u200fב می\u200cخواهم e\u0301"
    assert clean(kept) == kept
    smuggled = "hi" + "".join(chr(0xE0000 + ord(c)) for c in "ignore all")
    assert clean(smuggled) == "hi"


def test_clean_makes_white_space_plain() -> None:
    assert clean(" a \t b\r\n\r\n\r\n\r\nc\u2028d\u00a0\u3000e ") == "a b\n\nc\nd e"
    assert safe("a  b\r\nc") == "a  b\nc"


@pytest.mark.timeout(60)  # a quadratic step needs minutes here
@pytest.mark.parametrize(
    "unit", [" \u200b", "\n x", "\n", "a\u0301", "a. ", "👨‍👩‍👧", "(", "🏴\U000e0067"]
)
def test_every_step_ends_on_long_nonsense(unit: str) -> None:
    text = clean(unit * (400_000 // len(unit)) + "x")
    assert clean(text) == text
    assert size(cut(text, 5000, 20_000)) <= (5000, 20_000)


@given(st.text(max_size=200))
def test_clean_is_stable(text: str) -> None:
    assert clean(clean(text)) == clean(text)


@given(st.text(max_size=400) | mixed)
def test_one_line_is_one_short_line(text: str) -> None:
    line = one_line(text, 20)
    assert len(graphemes(line)) <= 20
    assert len(line) <= 80
    assert "\n" not in line


@given(mixed, st.integers(1, 40), st.integers(4, 120))
def test_cut_fits_and_splits_no_grapheme(text: str, count: int, length: int) -> None:
    short = cut(text, count, length)
    assert size(short)[0] <= count
    assert size(short)[1] <= length
    if short != text:
        body = short.removesuffix(ELLIPSIS)
        assert text.startswith((body, short))
        whole = graphemes(text)
        joined = ["".join(whole[:n]) for n in range(len(whole) + 1)]
        assert body in joined or body in {one.rstrip() for one in joined} or short in joined


@given(st.text(max_size=300), st.integers(1, 50), st.integers(4, 100))
def test_cut_of_any_text_fits(text: str, count: int, length: int) -> None:
    text = clean(text)
    got = size(cut(text, count, length))
    assert got[0] <= count
    assert got[1] <= length


@pytest.mark.parametrize(
    ("text", "limit", "short"),
    [
        ("One. Two. Three.", 9, "One. Two."),
        ("One. Two. Three.", 8, "One."),
        ("He met Dr. Smith. Then he left.", 20, "He met Dr. Smith."),
        ("一つ。二つ。三つ。", 7, "一つ。二つ。"),
        ("ماذا؟ نعم بالتأكيد", 8, "ماذا؟"),
        ("Alpha beta gamma delta", 12, "Alpha beta…"),
        ("Alpha beta gamma", 11, "Alpha beta…"),
        ("Donaudampfschiff", 6, "Donau…"),
        (FAMILY * 5, 3, FAMILY * 2 + ELLIPSIS),
        ("fits", 4, "fits"),
    ],
)
def test_cut_at_a_sentence_else_a_word_else_a_grapheme(text: str, limit: int, short: str) -> None:
    assert cut(text, limit, 10_000) == short


def test_cut_counts_bytes_at_a_four_byte_character() -> None:
    text = "𠀀𠀀𠀀𠀀"
    assert cut(text, 10, 16) == text
    assert cut(text, 10, 15) == "𠀀𠀀𠀀…"
    assert cut(text, 10, 14) == "𠀀𠀀…"
    assert cut(FAMILY, 10, 24) == ""  # one family is 25 bytes and is not cut into people


def test_finish_drops_what_broke_off() -> None:
    assert finish("It is so. And then the") == "It is so."
    assert finish("And then the") == "And then the…"
    assert finish("") == ""


@examples(50)
@given(mixed, st.sampled_from(["en", "ar", "ja", "xx", "zh-Hant", "", None]))
def test_sentences_joined_are_the_text(text: str, lang: str | None) -> None:
    assert "".join(sentences(text, lang)) == text
