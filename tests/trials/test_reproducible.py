"""The trial's prompts are the same each time, and its tables say what was found."""

from itertools import islice
from pathlib import Path

import pytest

from bot.settings import Settings
from bot.wiring import setup_of
from model.echo import ByteChatTokenizer
from model.engine import Prompt
from tests.trials.reproducible import Results, Work
from tests.trials.reproducible_report import report
from tests.trials.talks import prompts

FEED = Path(__file__).parents[2] / "docs" / "sample-feed.jsonl"


def some(files: list[Path], count: int) -> list[Prompt]:
    settings = Settings()
    found = prompts(files, setup_of(settings, ""), settings.bot, ByteChatTokenizer(), 32768)
    return list(islice(found, count))


def test_prompts_are_many_different_and_the_same_each_time() -> None:
    first = some([], 60)
    assert len(first) == 60
    assert len({prompt.token_ids for prompt in first}) > 50
    assert some([], 60) == first


def test_prompts_of_a_feed_are_those_it_asks() -> None:
    told = [ByteChatTokenizer().decode(prompt.token_ids) for prompt in some([FEED], 9)]
    assert len(told) == 4
    assert "What is the capital of France?" in told[0]


def test_results_are_kept_whole_line_by_line(tmp_path: Path) -> None:
    work = Work("bf16", 0.0, "alone", 0)
    results = Results(tmp_path / "found.jsonl")
    assert results.of(work) is None
    results.add(work, [[1, 2]])
    again = Results(tmp_path / "found.jsonl")
    assert again.of(work) == [[1, 2]]
    assert again.of(Work("bf16", 0.7, "alone", 0)) is None


def test_the_tables_count_replies_and_margins(tmp_path: Path) -> None:
    results = Results(tmp_path / "found.jsonl")
    place = ("fp32", 0.0)
    results.add(Work(*place, "alone", 0), [[1, 2], [3, 4], [5]])
    results.add(Work(*place, "together", 0), [[1, 2], [3, 9], [5]])
    scored = {
        "alone": [[0.0, 0.0], [0.0, 0.00001], [0.0]],
        "together": [[0.0, 0.0], [0.0, 5.0], [0.0]],
        "another prompt": [[9.0, 2.0]],
        "another seed": [],
        "another precision": [],
    }
    results.add(Work(*place, "scored", 0), scored)
    lines = report(results.rows).splitlines()
    assert lines[2] == "| fp32 | 0.0 | 3 | 5 | 2 | 3 | 2 |"
    assert "| fp32 | 0.0 | alone | 3 | 5 | 1 | 1e-05 | 1e-05 | 1e-05 | 1e-05 | 3 |" in lines
    assert "| fp32 | 0.0 | another prompt | 1 | 2 | 2 | 9 | 9 | 9 | 9 | 0 |" in lines


@pytest.mark.parametrize("count", [0, 1])
def test_tables_of_next_to_nothing(tmp_path: Path, count: int) -> None:
    results = Results(tmp_path / "found.jsonl")
    for _ in range(count):
        results.add(Work("bf16", 0.7, "alone", 0), [[1]])
    assert len(report(results.rows).splitlines()) == 5 + count
