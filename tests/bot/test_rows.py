"""``bot.rows``: nothing is cut at any width, and only prose is broken, between its words."""

import io
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from bot.rows import Rows

PLACE = "feed.direct-messages/12/1234567890"
ADVICE = "Start one with 'twite broker', or set TWITE_KAFKA__BOOTSTRAP_SERVERS to its address."


def printed(rows: Rows, width: int) -> str:
    file = io.StringIO()
    Console(file=file, width=width).print(rows, crop=False)
    return file.getvalue()


def of(*cells: Sequence[str]) -> list[list[Text]]:
    return [[Text(cell) for cell in row] for row in cells]


ROWS = Rows(("place", "advice"), of([PLACE, ADVICE], ["a/0/1", ""]), prose=frozenset({1}))


@given(st.integers(1, 200))
def test_what_is_to_be_pasted_is_whole_at_every_width(width: int) -> None:
    shown = printed(ROWS, width)
    for word in (PLACE, *ADVICE.split()):
        assert word in shown
    assert "…" not in shown


@pytest.mark.parametrize("width", [80, 100, 200])
def test_a_table_that_fits_is_one_and_no_wider_than_the_screen(width: int) -> None:
    lines = printed(ROWS, width).splitlines()
    assert lines[0].startswith("┏")
    assert max(map(len, lines)) <= width


def test_where_it_does_not_fit_each_cell_is_a_line() -> None:
    assert printed(ROWS, 60).splitlines() == [
        f"place   {PLACE}",
        f"advice  {ADVICE}",
        "",
        "place   a/0/1",
    ]


def test_rows_may_have_lines_of_their_own() -> None:
    def lines(row: Sequence[Text]) -> Iterator[Text]:
        yield Text(f"{row[0]}: {row[1]}")

    assert printed(Rows(ROWS.names, ROWS.rows, lines=lines), 20) == f"{PLACE}: {ADVICE}\na/0/1: \n"


def test_a_table_without_rows_is_its_head() -> None:
    assert "place" in printed(Rows(("place",), []), 80)
