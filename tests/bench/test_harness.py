"""The harness itself: its arithmetic, the form of its files, the page. No broker, no times."""

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bot.settings import BotSettings
from schemas.codec import decode
from schemas.record import Output
from tests.bench import __main__ as command
from tests.bench import mentions, p2, page, result
from tests.bench.kafka import INPUT_BYTES, Input, shuffled_lanes
from tests.bench.programs.bare_loop import Writes
from tests.bench.programs.bot import Written
from tests.bench.result import Check, Goal, Result
from tests.bench.setting import Others
from tests.bench.stats import median, percentile, slope
from tests.bot.outcomes import as_record

# DESIGN, section 8: what other programs read.
FORM = {"id", "what", "ratio", "goal", "value", "unit", "baseline"} | {
    *("parameters", "samples", "machine", "commit", "at")
}


def made(bench: str = "P1", **changes: Any) -> Result:
    fields: dict[str, Any] = {
        "id": bench,
        "what": "a thing",
        "goal": "ratio >= 0.8",
        "ratio": 0.9,
        "value": 12345.678,
        "unit": "events/s",
        "baseline": 13000.0,
        "parameters": {"rounds": 3},
        "samples": [{"round": 1, "ratio": 0.91234567}],
    }
    return Result(**{**fields, **changes})


@pytest.mark.parametrize(
    ("percent", "expected"), [(0, 1), (50, 50), (99, 99), (99.5, 100), (100, 100)]
)
def test_a_percentile_is_a_value_that_was_seen(percent: float, expected: int) -> None:
    assert percentile(list(range(100, 0, -1)), percent) == expected


def test_a_percentile_of_one_value_is_that_value_and_of_none_an_error() -> None:
    assert percentile([7.0], 99) == 7.0
    with pytest.raises(ValueError, match="needs values"):
        percentile([], 50)
    with pytest.raises(ValueError, match="0 to 100"):
        percentile([1.0], 101)


def test_medians_of_odd_and_even_counts() -> None:
    assert median([3, 1, 2]) == 2
    assert median([4, 1, 2, 3]) == 2.5


def test_the_slope_of_a_line_and_of_noise_around_it() -> None:
    assert slope([(0, 1), (1, 3), (2, 5)]) == 2
    assert slope([(0, 1), (1, 1)]) == 0
    assert slope([(5, 1), (5, 9)]) == 0
    with pytest.raises(ValueError, match="two points"):
        slope([(0, 0)])


@pytest.mark.parametrize(
    ("text", "ratio", "value", "met"),
    [
        ("ratio >= 0.8", 0.8, None, True),
        ("ratio >= 0.8", 0.79, None, False),
        ("value <= 25", 99.0, 25.0, True),
        ("value <= 25", 0.0, 25.1, False),
        ("value <= 25", 0.0, None, False),
    ],
)
def test_goals(text: str, ratio: float | None, value: float | None, met: bool) -> None:
    assert Goal.parse(text).met(ratio, value) is met


@pytest.mark.parametrize("text", ["speed >= 1", "ratio > 1"])
def test_a_goal_that_nobody_can_check_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="not a goal"):
        Goal.parse(text)


def test_a_stored_result_has_the_form_that_other_programs_read(tmp_path: Path) -> None:
    path = result.save(made(checks=[Check(what="doubles", goal="value <= 0", found=1)]), tmp_path)
    data = json.loads(path.read_text())
    assert path.name == "P1.json"
    assert set(data) >= FORM
    assert data["samples"] == [{"round": 1, "ratio": 0.9123}]
    assert data["met"] is True
    assert data["checks"][0]["met"] is False
    assert data["at"].endswith("Z")
    assert data["machine"]
    assert data["commit"]


def test_the_page_shows_every_stored_result_in_its_order_and_says_what_is_missed(
    tmp_path: Path,
) -> None:
    result.save(made("P8", goal="value <= 8", value=9.5, ratio=None), tmp_path)
    result.save(made("P1", notes=["the loop was tuned"]), tmp_path)
    page.write(tmp_path, tmp_path / "page.md")
    text = (tmp_path / "page.md").read_text()
    assert text.index("## P1") < text.index("## P8")
    assert "| P1 | 0.9 | 12,346 events/s | 13,000 | ratio >= 0.8 | yes |" in text
    assert "| P8 | – | 9.5 events/s | 13,000 | value <= 8 | **no** |" in text
    assert "the loop was tuned" in text


def test_the_page_compares_systems_side_by_side(tmp_path: Path) -> None:
    systems = [{"system": "ours", "doubles": 0}, {"system": "theirs", "doubles": 470}]
    result.save(made("P2", parameters={"systems": systems}), tmp_path)
    text = page.markdown(result.load_all(tmp_path))
    assert "| system | doubles |" in text
    assert "| theirs | 470 |" in text


def test_the_table_names_goals_met_and_missed(tmp_path: Path) -> None:
    result.save(made(checks=[Check(what="doubles", goal="value <= 0", found=None)]), tmp_path)
    console = Console(record=True, width=160)
    console.print(page.table(result.load_all(tmp_path), only=["P1"]))
    text = console.export_text()
    assert "met" in text
    assert "missed" in text


def test_every_bench_has_a_file_and_a_meaning() -> None:
    folder = Path(result.__file__).parent
    for bench in result.ORDER:
        assert (folder / f"{bench.lower().replace('-', '_')}.py").is_file(), bench
        assert page.MEANING[bench]


def test_unknown_benches_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["P99"])
    assert "no bench P99" in capsys.readouterr().err


def test_an_input_carries_its_seconds_and_all_are_of_one_size() -> None:
    value = Input(lane=3, seconds=0.2, tag="short").value
    assert value.startswith(b"0.2 short ")
    assert len(value) == len(Input(lane=999).value) == INPUT_BYTES


def test_lanes_come_all_once_before_any_comes_again() -> None:
    lanes = list(shuffled_lanes(30, 10))
    assert sorted(lanes[:10]) == sorted(lanes[10:20]) == list(range(10))
    assert lanes[:10] != lanes[10:20]


def test_what_others_use_of_the_machine_is_never_negative() -> None:
    assert Others().cores() >= 0


def test_doubles_losses_and_disorder_are_counted() -> None:
    lanes = {0: b"a", 1: b"b", 2: b"a", 3: b"b", 4: b"a"}
    counted = p2.count_faults([1, 2, 0, 0, 3, 3], lanes, 5)
    assert counted == {"inputs": 5, "doubles": 2, "lost": 1, "misordered": 1}


def test_a_clean_log_has_no_faults() -> None:
    lanes = {0: b"a", 1: b"b", 2: b"a"}
    clean = {"inputs": 3, "doubles": 0, "lost": 0, "misordered": 0}
    assert p2.count_faults([1, 0, 2], lanes, 3) == clean


def test_processor_time_between_two_samples_lies_on_the_line() -> None:
    usage = [(0.0, 0.0), (10.0, 5.0), (20.0, 5.0)]
    at = [float(second) for second in range(20)]
    rate, us = p2._steady(at, usage)
    assert rate == pytest.approx(1.0)
    assert us == pytest.approx(1e6 * (5.0 - 1.0) / 15)


@pytest.mark.parametrize("replies", [6_400, 10_240, 10_300])
def test_the_rate_of_replies_in_waves_is_not_more_than_the_slots_can_do(replies: int) -> None:
    """256 at a time every 0.2 s are 1,280 a second, wherever the edges cut a wave."""
    at = [(i // 256) * 0.2 for i in range(replies)]
    rate, _ = p2._steady(at, [(0.0, 0.0), (at[-1], 1.0)])
    assert rate == pytest.approx(1280, rel=0.005)


def test_a_loop_writes_on_average_as_many_records_as_it_is_told() -> None:
    writes = Writes(topic="out", each=2.25, bytes=3, headers=[("ce_id", 4)])
    assert [writes.times() for _ in range(8)] == [2, 2, 2, 3, 2, 2, 2, 3]
    assert (writes.value, writes.made_headers) == (b"xxx", [("ce_id", b"hhhh")])


def test_what_a_worker_wrote_is_told_as_a_loop_needs_it() -> None:
    written = Written()
    for size in (10, 20, 30):
        written.add(Output(topic="a", key=None, value=b"v" * size, headers=(("ce_id", b"1234"),)))
    told = written.told("a", inputs=2)
    assert told == {"topic": "a", "each": 1.5, "bytes": 20, "headers": [["ce_id", 4]]}
    assert Writes(**told).bytes == 20


def test_mentions_of_a_round_stand_below_posts_that_only_the_views_know() -> None:
    bot, root = BotSettings(), mentions._root("round:1", 1, mentions.ROOT)
    output = mentions._mention(bot, root, 7, 1, mentions.QUESTION)
    data = decode(as_record(output)).data
    assert data.post.parent == root.ref
    assert (data.ancestors, data.ancestors_complete) == ((), False)
    assert mentions._created(root).key == output.key
