"""``twite replay``: its words, before any broker is asked."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from bot import cli
from bot.cli import replaying
from bot.cli.replaying import Target, ids_in, share, wanted_of
from bot.errors import Trouble
from bot.replay.folder import Folder
from bot.replay.report import Summary
from bot.replay.run import Progress
from bot.replay.wanted import Stretch
from schemas.replays import Change
from tests.bot.make import NOW
from tests.bot.replay.test_report import result, side

NOTHING: dict[str, Any] = {
    "range": None,
    "since": None,
    "until": None,
    "author": None,
    "conversation": None,
    "id": [],
    "prompt_hash": None,
    "of_model": None,
    "outcome": None,
    "reason": None,
    "all": False,
}


@pytest.mark.parametrize(
    ("text", "expected"), [("5%", 0.05), ("0.05", 0.05), ("0", 0.0), ("100%", 1.0), (" 1 ", 1.0)]
)
def test_a_share_is_read(text: str, expected: float) -> None:
    assert share(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "five", "-1", "101%", "2", "5 %%", "nan", "1e1"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(Trouble, match="is no share") as raised:
        share(text)
    assert raised.value.status == 2


def test_no_budget_is_none() -> None:
    assert share(None) is None


def test_ids_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "ids.txt"
    file.write_bytes(b"\xef\xbb\xbf# decisions\nd-1\n\n  at://p/1  \r\n")
    assert ids_in(file) == ["d-1", "at://p/1"]
    assert ids_in(None) == []


@pytest.mark.parametrize(
    ("content", "told"), [(b"# none\n", "holds no ids"), (b"\xff\xfe", "not UTF-8"), (None, "read")]
)
def test_a_file_of_ids_that_is_none_is_told(
    tmp_path: Path, content: bytes | None, told: str
) -> None:
    file = tmp_path / "ids.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(Trouble, match=told) as raised:
        ids_in(file)
    assert raised.value.status == 2


def test_conditions_become_what_is_wanted() -> None:
    given = {"range": ["feed.mentions/1/2-3"], "author": ["a", "b"], "outcome": ["replied"]}
    wanted = wanted_of(NOTHING | given)
    assert wanted.stretches == (Stretch("feed.mentions", 1, 2, 3),)
    assert wanted.authors == frozenset({"a", "b"})
    assert wanted.outcomes == frozenset({"replied"})
    assert wanted_of(NOTHING | {"all": True}).is_everything


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "nothing says which decisions"),
        ({"all": True, "author": ["a"]}, "--all goes alone"),
        ({"outcome": ["answered"]}, "is none"),
        ({"since": "yesterday"}, "is no time"),
        ({"range": ["feed.mentions"]}, "is no range"),
    ],
)
def test_conditions_that_are_written_wrong_are_told(given: dict[str, Any], told: str) -> None:
    with pytest.raises(Trouble, match=told) as raised:
        wanted_of(NOTHING | given)
    assert raised.value.status == 2


def test_a_prompt_to_try_means_the_pipeline_of_today() -> None:
    assert replaying._mode(Target()) == "frozen"
    assert replaying._mode(Target(against="next")) == "rebuilt"
    assert replaying._mode(Target(mode="rebuilt")) == "rebuilt"
    with pytest.raises(Trouble, match="the recorded prompt is used"):
        replaying._mode(Target(mode="frozen", against="next"))
    with pytest.raises(Trouble, match="is no mode"):
        replaying._mode(Target(mode="cold"))


def test_another_model_overrides_the_settings() -> None:
    assert Target().overrides == {}
    assert Target(model="m").overrides == {"model": {"name": "m", "revision": "main"}}
    assert Target(model="m", revision="r", engine="transformers").overrides == {
        "model": {"name": "m", "revision": "r", "engine": "transformers"}
    }


def test_help_is_there_without_anything_heavy() -> None:
    told = CliRunner().invoke(cli.app, ["replay", "--help"])
    assert told.exit_code == 0
    assert "--against" in told.output


def test_a_broker_that_is_away_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("TWITE_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("TWITE_MODEL__ENGINE", "echo")
    monkeypatch.setattr(
        sys, "argv", ["twite", "replay", "--all", "--nice", "0", "--state", str(tmp_path)]
    )
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert "No Kafka broker answers at 127.0.0.1:1" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_progress_has_a_rate_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of an earlier run what was done counts as done, and not as fast."""
    clock = iter((0.0, 10.0, 10.0, 11.0, 12.0, 20.0, 20.0))
    monkeypatch.setattr("bot.cli.replaying.time.monotonic", lambda: next(clock))
    lines = replaying._Lines()
    lines.tell(Progress(60, 100, 40))
    lines.tell(Progress(61, 100, 40))  # too soon for another line
    lines.tell(Progress(62, 100, 40))
    lines.tell(Progress(100, 100, 40))
    said = capsys.readouterr().err.splitlines()
    assert said == ["60 of 100, 2.0/s, 20 s left", "100 of 100, 3.0/s, 0 s left"]


def test_the_report_shows_what_changed_and_counts_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Folder.begin(tmp_path, {}, NOW)
    folder.keep([result(), result(decision_id="d-2", change=Change.TEXT, after=side(text="Lyon"))])
    folder.keep([result(decision_id=f"d-{n}", change=Change.TEXT) for n in (3, 4)])
    page = tmp_path / "report.html"
    summary = replaying.report(folder, html=page, show=1, as_json=False)
    said = capsys.readouterr().out
    assert "d-2" in said
    assert "d-3" not in said
    assert "and 2 more" in said
    assert summary.changes == {Change.IDENTICAL: 1, Change.TEXT: 3}
    assert page.is_file()
    replaying.report(folder, html=None, show=1, as_json=True)
    *results, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert [one["decision_id"] for one in results] == ["d-1", "d-2", "d-3", "d-4"]
    assert last["summary"]["total"] == 4
    folder.close()


@pytest.mark.parametrize(("allowed", "over"), [(0.4, True), (0.5, False)])
def test_a_budget_is_for_outcomes(allowed: float, over: bool) -> None:
    summary = Summary.of([result(change=Change.ACTION), result(change=Change.TEXT)])
    assert replaying.is_over(summary, allowed, as_json=True) is over
