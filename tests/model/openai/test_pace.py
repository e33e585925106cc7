"""The pace goes down quickly, up slowly, and stands still while it is asked to."""

from hypothesis import given
from hypothesis import strategies as st

from model.openai.pace import SETTLE_S, Pace
from tests.model.openai.clock import Clock


def test_too_much_once_counts_once() -> None:
    clock = Clock()
    pace = Pace(100, clock)
    for _ in range(20):  # a burst that was all refused
        pace.too_much(outstanding=100)
    assert pace.limit == 70
    clock.now += SETTLE_S
    pace.too_much(outstanding=70)
    assert pace.limit == 49


def test_it_is_what_was_out_that_was_too_much() -> None:
    pace = Pace(100, Clock())
    pace.too_much(outstanding=10)
    assert pace.limit == 7


def test_a_pause_is_kept_and_the_longest_one_counts() -> None:
    clock = Clock()
    pace = Pace(10, clock)
    pace.too_much(10, retry_after=5)
    pace.too_much(10, retry_after=2)
    assert pace.limit == 0
    clock.now += 4.9
    assert pace.limit == 0
    clock.now += 0.2
    assert pace.limit == 7


def test_it_grows_by_one_for_each_round_of_answers() -> None:
    pace = Pace(20, Clock())
    pace.too_much(10)
    for _ in range(8):
        pace.went_well()
    assert pace.limit == 8
    for _ in range(10_000):
        pace.went_well()
    assert pace.limit == 20


def test_a_queue_at_the_server_takes_down_what_waits_there() -> None:
    pace = Pace(32, Clock())
    pace.queue(16, 16, outstanding=32)
    assert pace.limit == 18  # two stay at hand there
    pace.queue(2, 16, outstanding=18)
    assert pace.limit == 18
    pace.queue(0, 16, outstanding=18)
    assert pace.limit == 19
    pace.queue(0, 3, outstanding=3)  # not at the limit: nothing is learnt
    assert pace.limit == 19


def test_each_of_several_workers_takes_back_its_own() -> None:
    paces = [Pace(32, Clock()) for _ in range(4)]
    for pace in paces:
        pace.queue(64, 64, outstanding=32)
    assert sum(pace.limit for pace in paces) == 64 + 64 // 8


def test_a_server_that_others_fill_still_gets_one() -> None:
    pace = Pace(32, Clock())
    pace.queue(500, 8, outstanding=0)
    assert pace.limit == 1


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("busy"), st.integers(0, 50), st.floats(0, 10)),
            st.tuples(st.just("queue"), st.integers(0, 50), st.integers(0, 50)),
            st.tuples(st.just("well"), st.just(0), st.just(0)),
            st.tuples(st.just("later"), st.integers(0, 5), st.just(0)),
        )
    ),
    st.integers(1, 40),
)
def test_whatever_comes_it_stays_in_its_bounds_and_comes_back(
    news: list[tuple[str, int, float]], most: int
) -> None:
    clock = Clock()
    pace = Pace(most, clock)
    for kind, a, b in news:
        match kind:
            case "busy":
                pace.too_much(a, b)
            case "queue":
                pace.queue(a, int(b), a)
            case "well":
                pace.went_well()
            case _:
                clock.now += a
        assert 0 <= pace.limit <= most
    clock.now = pace.resume + 1 if pace.resume > clock.now else clock.now
    for _ in range(most * most + most):
        pace.went_well()
    assert pace.limit == most
