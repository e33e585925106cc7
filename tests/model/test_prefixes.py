"""Which row shares a prompt's beginning, and which of those that ended are kept."""

from hypothesis import given
from hypothesis import strategies as st

from model.prefixes import Held, Kept, best, shared

SYSTEM = tuple(range(100, 112))
IDS = st.lists(st.integers(0, 2), max_size=40).map(tuple)


@given(IDS, IDS)
def test_what_two_share_is_their_common_beginning(
    one: tuple[int, ...], two: tuple[int, ...]
) -> None:
    alike = [a == b for a, b in zip(one, two, strict=False)]
    assert shared(one, two) == (alike.index(False) if False in alike else len(alike))


def test_the_row_that_shares_most_is_taken() -> None:
    rows = [Held(0, (*SYSTEM, 1)), Held(1, (*SYSTEM, 1, 2, 3)), Held(2, (9, *SYSTEM))]
    assert best(rows, (*SYSTEM, 1, 2, 5)) == (1, 14)


def test_the_last_token_is_always_read() -> None:
    assert best([Held(4, (*SYSTEM, 1))], SYSTEM) == (4, len(SYSTEM) - 1)


def test_a_few_tokens_are_not_worth_it_and_other_weights_share_nothing() -> None:
    assert best([Held(0, SYSTEM)], (*SYSTEM[:7], 1, 2)) is None
    assert best([Held(0, SYSTEM, "pirate")], (*SYSTEM, 1)) is None
    assert best([Held(0, SYSTEM, "pirate")], (*SYSTEM, 1), "pirate") == (0, 12)
    assert best([], SYSTEM) is None


def talk(number: int, turns: int = 1) -> tuple[int, ...]:
    return (number, *SYSTEM * turns)


def test_a_later_turn_takes_the_place_of_the_earlier_one() -> None:
    kept = Kept([7, 8, 9, 10], 1000)
    first = kept.keep(talk(1), key="a")
    other = kept.keep(talk(2), key="b")
    later = kept.keep(talk(1, 2), key="a")
    assert [held and held.row for held in (first, other, later)] == [10, 9, 10]
    assert {held.ids for held in kept.held()} == {talk(1, 2), talk(2)}


def test_the_one_of_use_longest_ago_makes_room() -> None:
    kept = Kept([7, 8, 9], 1000)
    rows = [held.row for n in range(3) if (held := kept.keep(talk(n), key=n))]
    kept.used(rows[0])
    assert len(set(rows)) == 3
    newest = kept.keep(talk(3), key=3)
    assert newest
    assert newest.row == rows[1]


def test_what_has_no_key_takes_a_quarter_at_most() -> None:
    kept = Kept(range(8), 1000)
    for n in range(20):
        kept.keep(talk(n))
    kept.keep(talk(50), key="a")
    assert len(kept.held()) == 3
    assert {held.ids for held in kept.held()} == {talk(18), talk(19), talk(50)}


def test_what_is_there_already_is_not_kept_twice_and_long_ones_are_cut() -> None:
    kept = Kept([7, 8, 9, 10], 20)
    whole = kept.keep(tuple(range(30)), key="a")
    assert whole
    assert whole.ids == tuple(range(20))
    assert kept.keep(tuple(range(15))) is None
    assert kept.keep((1, 2)) is None


def test_without_rows_nothing_is_kept() -> None:
    kept = Kept([], 1000)
    assert kept.keep(talk(1)) is None
    assert kept.keep(talk(1), key="a") is None
    assert kept.held() == []


def test_what_was_forgotten_can_be_kept_again() -> None:
    kept = Kept([7], 1000)
    kept.keep(talk(1), key="a")
    kept.forget()
    assert kept.held() == []
    assert kept.keep(talk(2), key="b")
