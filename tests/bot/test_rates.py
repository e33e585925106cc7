"""``bot.rates``: how rates are written."""

import pytest
from pydantic import ValidationError

from bot.rates import LiveLimits, rates_of


@pytest.mark.parametrize(
    ("text", "rates"),
    [
        ("", []),
        ("  ", []),
        ("30 per minute", [(30, 60)]),
        ("30/minute", [(30, 60)]),
        ("300 per hour; 30 per minute", [(30, 60), (300, 3600)]),
        ("20 per 10 minutes, 5 per second", [(5, 1), (20, 600)]),
        ("0 per day", [(0, 86_400)]),
        ("20 per 05 minutes", [(20, 300)]),
    ],
)
def test_rates_are_told_the_shortest_window_first(text: str, rates: list[tuple[int, int]]) -> None:
    assert [(rate.amount, rate.get_expiry()) for rate in rates_of(text)] == rates


@pytest.mark.parametrize(
    "text",
    [
        "many",
        "30",
        "30 per fortnight",
        "-1 per hour",
        "30 per minute;",
        "1000000001 per hour",
        "1 per 2 years",
        "1 per 0 minute",
        "1/0minutes",
        "30 per minute; 1 per 00 days",
        "1" * 5_000 + " per minute",
        ";".join(["1 per hour"] * 9),
    ],
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValidationError) as caught:
        LiveLimits(per_author=text)
    (error,) = caught.value.errors()
    assert error["loc"] == ("per_author",)
    assert error["msg"].startswith("Value error, must ")


@pytest.mark.parametrize("name", ["max_age_hours", "new_account_days"])
def test_yes_and_no_are_no_numbers(name: str) -> None:
    with pytest.raises(ValidationError) as caught:
        LiveLimits.model_validate({name: True})
    assert [error["loc"] for error in caught.value.errors()] == [(name,)]
    assert getattr(LiveLimits.model_validate({name: "3"}), name) == 3.0


def test_the_defaults_are_rates() -> None:
    told = LiveLimits()
    for name in ("per_author", "per_new_author", "per_thread", "per_target", "overall"):
        assert rates_of(getattr(told, name)), name
