"""``bot.split`` and the parts of ``bot.reply.check``: nothing lost, no new links."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bot.links import Span, handles, links
from bot.reply import LINK, Allowed, Checked, check, neutralise
from bot.split import MAX_PARTS, Room, number, numbered, split, without_number
from bot.text import ELLIPSIS, clean, graphemes, size
from bot.values import Limits
from model.engine import Generation
from tests.examples import examples

FAMILY = "👨‍👩‍👧‍👦"
WALES = "\U0001f3f4\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f"
PIECES = [
    FAMILY, WALES, "🇩🇪", "🇫🇷", "👍🏽", "❤️", "e\u0301", "a\u0308\u0323", "\u200f", "שלום", "مرحبا",
    "٣", "क्षि", "한", "𝒳", "𠀀", "a", "Z", "word", "Donaudampfschiff", "9", " ", " ", " ", "\n",
    "\n\n", ". ", "! ", "? ", "。", "؟ ", "…", ",", "Dr. ", "-", "\u0301", "\u200d",
]  # fmt: skip
mixed = st.lists(st.sampled_from(PIECES), max_size=150).map("".join).map(clean)
rooms = st.builds(Room, st.integers(8, 40), st.integers(100, 300))
ALLOWED = Allowed(
    {"alice": "acc-alice"},
    dict.fromkeys(("https://x.org/a?b=1", "x.org/a?b=1"), "https://x.org/a?b=1"),
)
ANSWERS = [
    *PIECES, "@alice", "https://x.org/a?b=1", "x.org/a?b=1", "@bob", "evil.com", "[link]", "www.x",
    "metadata:abc", "例。comet", "x" * 70, "data", ":", "@", ".", "(", ")", "1.2.3.4",
]  # fmt: skip
answers = st.lists(st.sampled_from(ANSWERS), max_size=200).map("".join)


def bare(text: str) -> str:
    return "".join(text.split())


def said(text: str, max_graphemes: int, max_bytes: int, max_parts: int) -> Checked:
    limits = Limits(
        max_graphemes=max_graphemes, max_bytes=max_bytes, max_parts=max_parts, markdown=True
    )
    return check(Generation(text, (), (), "stop"), ALLOWED, limits, None)


@examples(300)
@given(mixed, rooms, st.integers(1, MAX_PARTS))
@example("word " * 30, Room(12, 100), 9)
@example("🇩🇪" * 60, Room(9, 100), 9)
@example("a " + " \u0301" * 30, Room(8, 100), 9)
def test_parts_fit_and_lose_nothing_but_white_space(text: str, room: Room, count: int) -> None:
    parts = split(text, room, count)
    assert 1 <= len(parts) <= count
    assert all(map(room.holds, parts))
    joined = bare("".join(parts))
    if len(parts) < count or not parts[-1].endswith(ELLIPSIS):
        assert bare(text).startswith(joined)
    if len(parts) < count:
        assert joined == bare(text)


@examples(300)
@given(mixed, rooms)
@example("🇩🇪🇫🇷" * 30, Room(9, 100))
@example(FAMILY * 30, Room(8, 100))
@example("شكرا \u0301" * 30, Room(8, 100))
def test_no_grapheme_is_cut(text: str, room: Room) -> None:
    parts = split(text, room, MAX_PARTS)
    whole = [one for one in graphemes(text) if not one.isspace()]
    cut = [one for part in parts[:-1] for one in graphemes(part) if not one.isspace()]
    assert cut == whole[: len(cut)]


@pytest.mark.parametrize(
    ("text", "room", "parts"),
    [
        ("One is here. Two is there. Three.", 16, ("One is here.", "Two is there.", "Three.")),
        ("One is here. Two is there. Three.", 26, ("One is here. Two is there.", "Three.")),
        ("No. But this is a long one.", 18, ("No. But this is a", "long one.")),
        ("alpha beta gamma", 11, ("alpha beta", "gamma")),
        ("一つです。二つです。三つです。", 10, ("一つです。二つです。", "三つです。")),
        ("ماذا قلت؟ نعم بالتأكيد", 12, ("ماذا قلت؟", "نعم بالتأكيد")),
        ("x" * 25, 10, ("x" * 10, "x" * 10, "x" * 5)),
        (FAMILY * 5, 2, (FAMILY * 2, FAMILY * 2, FAMILY)),
        ("# Title\n\n- one thing\n- two things", 20, ("# Title\n\n- one thing", "- two things")),
    ],
)
def test_parts_end_at_a_sentence_else_a_word_else_a_grapheme(
    text: str, room: int, parts: tuple[str, ...]
) -> None:
    assert split(text, Room(room, 1000), 9) == parts


def test_bytes_count_as_well() -> None:
    assert split("𠀀" * 10, Room(100, 18), 9) == ("𠀀" * 4, "𠀀" * 4, "𠀀" * 2)
    assert split(FAMILY * 2, Room(100, 30), 9) == (FAMILY, FAMILY)
    assert split("a" + FAMILY + "b", Room(100, 24), 9) == ("a",)  # too large for any part


def test_what_is_too_long_for_all_parts_ends_like_a_cut_text() -> None:
    parts = split("One is here. Two is there. Three has come.", Room(14, 100), 2)
    assert parts == ("One is here.", "Two is there.")
    assert split("alpha beta gamma delta", Room(10, 100), 2) == ("alpha beta", "gamma…")


def test_what_must_stay_whole_moves_to_the_next_part() -> None:
    def whole(text: str) -> list[tuple[int, int]]:
        place = text.find("http://a.b")
        return [(place, place + 10)] if place >= 0 else []

    assert split("一二三四五http://a.b", Room(12, 100), 9, whole=whole) == (
        "一二三四五",
        "http://a.b",
    )


def test_a_cut_moves_where_it_would_make_a_link() -> None:
    text = "一" * 8 + "metadata:x"
    parts = split(text, Room(12, 100), 9, stable=lambda part: not part.startswith("data:"))
    assert parts == ("一" * 8 + "met", "adata:x")


def test_numbers_come_and_go() -> None:
    assert numbered(("a",)) == ("a",)
    assert numbered(("a", "b")) == ("a (1/2)", "b (2/2)")
    assert without_number("a (1/2)") == "a"
    assert without_number("it is (1/12)") == "it is (1/12)"
    assert [len(number(n, 9)) for n in (1, 9)] == [6, 6]


@examples(300)
@given(answers, st.integers(60, 90), st.integers(200, 400), st.integers(1, MAX_PARTS))
def test_every_part_is_within_its_limits_and_the_allow_set(
    text: str, count: int, length: int, max_parts: int
) -> None:
    checked = said(text, count, length, max_parts)
    assert len(checked.parts) <= max_parts
    for part in checked.parts:
        assert size(part.text)[0] <= count
        assert size(part.text)[1] <= length
        assert neutralise(part.text, ALLOWED) == part.text
        shown = {part.text.encode()[f.byte_start : f.byte_end].decode() for f in part.facets}
        assert shown <= {"@alice", "https://x.org/a?b=1", "x.org/a?b=1"}
        found: list[Span] = [*links(part.text), *handles(part.text)]
        assert {span.text for span in found} <= shown
    ends = [number(n, len(checked.parts)) for n in range(1, len(checked.parts) + 1)]
    if len(ends) > 1:
        assert all(p.text.endswith(end) for p, end in zip(checked.parts, ends, strict=True))


@examples(200)
@given(mixed, st.integers(60, 90), st.integers(200, 400))
def test_a_thread_says_all_of_it(text: str, count: int, length: int) -> None:
    checked = said(text, count, length, MAX_PARTS)
    whole = said(text, 100_000, 1_000_000, 1)
    if len(checked.parts) < MAX_PARTS:
        joined = "".join(bare(without_number(part.text)) for part in checked.parts)
        assert joined == "".join(bare(part.text) for part in whole.parts)


def test_every_link_keeps_its_facet_in_its_part() -> None:
    text = "Look at this, please, @alice: https://x.org/a?b=1 " * 6
    checked = said(text, 120, 1000, MAX_PARTS)
    assert len(checked.parts) > 2
    shown = [
        part.text.encode()[facet.byte_start : facet.byte_end].decode()
        for part in checked.parts
        for facet in part.facets
    ]
    assert shown == ["@alice", "https://x.org/a?b=1"] * 6


def test_a_link_longer_than_a_part_is_no_link() -> None:
    url = "https://x.org/" + "y" * 90
    allowed = Allowed({}, {url: url})
    limits = Limits(max_graphemes=80, max_parts=3)
    checked = check(
        Generation(f"Here: {url} " + "word " * 20, (), (), "stop"), allowed, limits, None
    )
    assert checked.parts[0].text.startswith(f"Here: {LINK} word")
    assert all(not part.facets for part in checked.parts)


def test_short_limits_and_one_part_cut_as_ever() -> None:
    text = "First one is here. " * 10
    assert [p.text for p in said(text, 45, 1000, 3).parts] == [("First one is here. " * 2).strip()]
    assert len(said(text, 100, 1000, 1).parts) == 1
    assert len(said(text, 100, 1000, 3).parts) == 2


def test_the_verdict_says_how_many_parts() -> None:
    verdicts = {v.name: v for v in said("Some words here. " * 10, 80, 1000, 3).verdicts}
    assert (verdicts["length"].verdict, verdicts["length"].detail) == ("pass", "3 parts")
    cut = {v.name: v for v in said("Some words here. " * 30, 80, 1000, 3).verdicts}
    assert (cut["length"].verdict, cut["length"].detail) == ("changed", "3 parts")
