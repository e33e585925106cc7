"""How a step's prompt tokens are shared out among those who read."""

from hypothesis import given
from hypothesis import strategies as st

from model.readers import shares


def test_the_short_one_goes_first_and_the_long_one_goes_on() -> None:
    assert shares([4000, 150], 256) == [106, 150]
    assert shares([4000, 900], 256) == [64, 192]


def test_one_alone_has_all_of_it() -> None:
    assert shares([4000], 256) == [256]
    assert shares([10], 256) == [10]
    assert shares([], 256) == []


@given(st.lists(st.integers(1, 3000), max_size=4), st.integers(1, 600))
def test_a_step_is_used_up_where_there_is_enough_to_read(unread: list[int], budget: int) -> None:
    given_each = shares(unread, budget)
    assert sum(given_each) == min(budget, sum(unread))
    assert all(0 <= tokens <= left for tokens, left in zip(given_each, unread, strict=True))
