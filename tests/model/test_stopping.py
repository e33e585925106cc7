"""Stop strings are found over pieces, and nothing of them is ever shown."""

from hypothesis import given
from hypothesis import strategies as st

from model.stopping import StopStrings

LETTERS = st.text("ab", max_size=12)


def test_a_stop_string_over_two_pieces_is_found_and_not_shown() -> None:
    stops = StopStrings(("\n\nUser:", "END"))
    assert [stops.push(p) for p in ("Hi", "\n\nUs", "er: x")] == ["Hi", "", ""]
    assert stops.hit
    assert stops.push("more") == stops.flush() == ""


def test_what_only_looked_like_a_stop_string_is_shown() -> None:
    stops = StopStrings(("END",))
    assert stops.push("the EN") == "the "
    assert stops.push("T") == "ENT"
    assert stops.push(" E") == " "
    assert stops.flush() == "E"
    assert not stops.hit


@given(text=LETTERS, stop=st.lists(st.text("ab", min_size=1, max_size=3)), cuts=st.data())
def test_however_the_text_is_cut_the_result_is_the_same(
    text: str, stop: list[str], cuts: st.DataObject
) -> None:
    stops = StopStrings(tuple(stop))
    shown, rest = "", text
    while rest:
        size = cuts.draw(st.integers(1, len(rest)))
        shown, rest = shown + stops.push(rest[:size]), rest[size:]
    shown += stops.flush()
    ends = [(text.find(s) + len(s), text.find(s)) for s in stop if s in text]
    assert stops.hit == bool(ends)
    assert shown == (text[: min(ends)[1]] if ends else text)
    assert not any(s in shown for s in stop)
