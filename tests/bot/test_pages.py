"""The generated pages are those of the code."""

from pathlib import Path

import pytest

from bot.pages import pages
from bot.settings import known_fields
from consumers.metrics import TABLE

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", pages())
def test_what_is_committed_is_what_the_code_says(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == pages()[name], "run `make docs`"


def test_every_setting_and_metric_is_there_with_its_meaning() -> None:
    rows = "\n".join(pages().values()).splitlines()
    for name in [*(field.name for field in known_fields()), *(d.name for d in TABLE)]:
        (row,) = [row for row in rows if row.startswith(f"| `{name}` |")]
        assert len(row.split("|")[-2].strip()) > 10, name
