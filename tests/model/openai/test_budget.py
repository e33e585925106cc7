"""Retries are a share of requests, whatever breaks."""

from model.openai.budget import BURST, RetryBudget


def test_in_an_outage_retries_stay_a_share_of_requests() -> None:
    budget = RetryBudget(0.1)
    for _ in range(1000):  # every request fails, and wants to be made again
        budget.request()
        budget.take()
    assert budget.taken <= 0.1 * 1000 + BURST
    assert budget.taken >= 0.1 * 1000


def test_a_few_may_be_made_again_at_once_also_at_the_start() -> None:
    budget = RetryBudget(0.1)
    assert sum(budget.take() for _ in range(100)) == BURST / 2


def test_what_is_saved_up_is_bounded() -> None:
    budget = RetryBudget(0.5)
    for _ in range(10_000):
        budget.request()
    assert sum(budget.take() for _ in range(100)) == BURST


def test_none_at_all() -> None:
    budget = RetryBudget(0.0)
    for _ in range(100):
        budget.request()
    assert not budget.take()
