"""The circuit breaker opens, looks, tries once, and closes."""

from model.openai.breaker import FAILURES, LONGEST_S, PAUSE_S, Breaker, State
from tests.model.openai.clock import Clock


def test_failures_in_a_row_open_it_and_others_do_not() -> None:
    breaker = Breaker(Clock())
    for _ in range(5):
        assert not breaker.failed("x")
        breaker.succeeded()
    assert breaker.allows(1)
    opened = [breaker.failed("x") for _ in range(FAILURES)]
    assert breaker.why == "x"
    assert opened == [False] * (FAILURES - 1) + [True]
    assert not breaker.allows(0)
    assert not breaker.failed("again")  # it was open already


def test_what_will_not_mend_itself_opens_it_at_once() -> None:
    breaker = Breaker(Clock())
    assert breaker.failed("key refused", at_once=True)
    assert breaker.why == "key refused"


def test_after_a_pause_and_a_look_one_request_is_the_trial() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    breaker.failed("x", at_once=True)
    assert [breaker.is_due] == [False]
    clock.now += PAUSE_S
    assert [breaker.is_due] == [True]
    assert not breaker.allows(0)  # nobody has looked yet
    breaker.is_back()
    assert breaker.allows(0)
    assert not breaker.allows(1)
    breaker.succeeded()
    assert breaker.allows(100)


def test_a_trial_that_fails_makes_the_pause_longer_up_to_a_bound() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    pauses = []
    for _ in range(10):
        breaker.failed("x", at_once=True)  # the trial, from the second time on
        start = clock.now
        while not breaker.is_due:
            clock.now += 0.5
        pauses.append(clock.now - start)
        breaker.is_back()
    assert pauses[:4] == [1, 2, 4, 8]
    assert max(pauses) == LONGEST_S
    breaker.succeeded()
    breaker.failed("x", at_once=True)
    clock.now += PAUSE_S
    assert breaker.is_due  # a success makes it short again


def test_requests_that_were_out_already_do_not_make_the_pause_longer() -> None:
    clock = Clock()
    breaker = Breaker(clock)
    for _ in range(50):
        breaker.failed("x")
    clock.now += PAUSE_S
    assert breaker.is_due


def test_a_look_at_a_server_that_works_changes_nothing() -> None:
    breaker = Breaker(Clock())
    breaker.is_back()
    assert breaker.state is State.CLOSED
