"""Pauses between tries: short at first, bounded, drawn, and slow where it keeps failing."""

from hypothesis import given
from hypothesis import strategies as st

from model.hosted.restarts import Pause, RestartPolicy, Restarts

POLICY = RestartPolicy(first_s=1.0, most_s=10.0, failures=4, window_s=100.0, slow_s=60.0)


def test_pauses_grow_up_to_their_bound_and_then_it_keeps_failing() -> None:
    restarts = Restarts(POLICY)
    longest = [restarts.after(float(n), 1.0) for n in range(5)]
    assert longest == [
        Pause(2.0, False),
        Pause(4.0, False),
        Pause(8.0, False),
        Pause(60.0, True),
        Pause(60.0, True),
    ]


def test_the_bound_holds_however_many_failures_are_allowed() -> None:
    restarts = Restarts(RestartPolicy(first_s=1.0, most_s=10.0, failures=100))
    assert max(restarts.after(0.0, 1.0).seconds for _ in range(99)) == 10.0


def test_what_is_long_ago_is_forgotten() -> None:
    restarts = Restarts(POLICY)
    for n in range(10):
        assert restarts.after(n * 60.0, 1.0) == Pause(2.0 if n == 0 else 4.0, False)


def test_starts_that_fail_are_failures_in_a_row_however_slowly() -> None:
    """The clock is that of being up, which it never was meanwhile."""
    restarts = Restarts(POLICY)
    assert [restarts.after(7.0, 1.0).keeps_failing for _ in range(4)] == [False] * 3 + [True]


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 8))
def test_the_pause_is_drawn_below_its_bound(chance: float, times: int) -> None:
    restarts = Restarts(POLICY)
    pauses = [restarts.after(float(n), chance) for n in range(times)]
    for pause in pauses:
        if pause.keeps_failing:
            assert 30.0 <= pause.seconds <= 60.0
        else:
            assert 0.0 <= pause.seconds <= 10.0 * chance
