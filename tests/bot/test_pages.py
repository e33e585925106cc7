"""The generated pages are those of the code."""

import re
from pathlib import Path

import pytest

from bot.pages import pages
from bot.policy import RULES
from bot.rates import LiveLimits
from bot.settings import known_fields
from consumers.metrics import TABLE
from schemas.codes import SkipReason

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", pages())
def test_what_is_committed_is_what_the_code_says(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == pages()[name], "run `make docs`"


def test_every_rule_is_there_in_its_order_and_every_reason_with_its_meaning() -> None:
    rows = pages()["policy.md"].splitlines()
    ruled = [row.split("|")[2].strip(" `") for row in rows if row[:3].strip("| ").isdigit()]
    assert ruled == [rule.name for rule in RULES]
    for reason in SkipReason:
        (row,) = [row for row in rows if row.startswith(f"| `{reason}` |")]
        assert reason.meaning in row
        assert len(reason.meaning) > 10


def test_the_limits_page_names_only_settings_that_are_there() -> None:
    """It is written by hand: names in it must not go stale."""
    text = (DOCS / "limits.md").read_text(encoding="utf-8")
    known = {field.name for field in known_fields()}
    told = set(re.findall(r"`((?:limits|worker)\.[a-z_]+)`", text))
    assert told
    assert told <= known
    for name in LiveLimits.model_fields:
        assert f"`{name}`" in text or f"`limits.{name}`" in text


def test_every_setting_and_metric_is_there_with_its_meaning() -> None:
    rows = "\n".join(pages().values()).splitlines()
    for name in [*(field.name for field in known_fields()), *(d.name for d in TABLE)]:
        (row,) = [row for row in rows if row.startswith(f"| `{name}` |")]
        assert len(row.split("|")[-2].strip()) > 10, name
