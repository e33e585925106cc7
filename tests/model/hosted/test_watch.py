"""A process is at work, silent, or stands still."""

from collections.abc import Sequence

from model.hosted.watch import LOOKS, SLOWEST, Watch


def looks(watch: Watch, pulses: Sequence[Sequence[int | None]], *, at_work: bool) -> list[str]:
    """What each look says; before it come these pulses."""
    said = []
    for steps in pulses:
        for step in steps:
            watch.pulse(step)
        said.append(watch.look(at_work=at_work) or "")
    return said


def test_steps_are_a_sign_of_work() -> None:
    watch = Watch(60.0)
    assert watch.interval_s * LOOKS == 60.0
    assert set(looks(watch, [[n] for n in range(30)], at_work=True)) == {""}


def test_silence_is_told_with_work_and_without() -> None:
    for at_work in (True, False):
        said = looks(Watch(60.0), [[1], *[[]] * LOOKS], at_work=at_work)
        assert said == [*[""] * LOOKS, "it does not answer"]


def test_a_model_that_stands_still_is_told_only_while_it_has_work() -> None:
    still = [[7]] * (LOOKS + 1)
    assert looks(Watch(60.0), still, at_work=False) == [""] * (LOOKS + 1)
    assert looks(Watch(60.0), still, at_work=True)[-2:] == ["", "its model stands still"]


def test_one_that_was_idle_for_long_has_all_the_time_when_work_comes() -> None:
    watch = Watch(60.0)
    looks(watch, [[7]] * 50, at_work=False)
    assert looks(watch, [[7]] * (LOOKS - 1), at_work=True) == [""] * (LOOKS - 1)


def test_a_stop_of_our_own_counts_once() -> None:
    """All pulses of an hour come at once after it: one look found none, the next finds them."""
    watch = Watch(60.0)
    assert looks(watch, [[1], [], list(range(2, 100))], at_work=True) == ["", "", ""]


def test_an_engine_that_knows_of_no_steps_is_only_to_answer() -> None:
    assert set(looks(Watch(60.0), [[None]] * (3 * LOOKS), at_work=True)) == {""}


def test_a_model_whose_steps_take_minutes_gets_as_long() -> None:
    watch = Watch(60.0)
    watch.pulse(1, 0.5)
    assert watch.interval_s * LOOKS == 60.0
    watch.pulse(1, 100.0)
    assert watch.interval_s * LOOKS == SLOWEST * 100.0
    watch.pulse(2, 50.0)
    assert watch.interval_s * LOOKS == SLOWEST * 100.0
