"""``twite bench``: it hands over to the benches of the checkout."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from bot.cli import app, bench


def test_it_runs_the_benches_of_this_checkout() -> None:
    assert (bench.CHECKOUT / "tests" / "bench" / "__main__.py").is_file()
    assert CliRunner().invoke(app, ["bench", "no-such-bench"]).exit_code == 2


def test_without_a_checkout_it_says_where_the_benches_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(bench, "CHECKOUT", tmp_path)
    result = CliRunner().invoke(app, ["bench"])
    assert result.exit_code == 1
    assert "come with a checkout" in str(result.exception)
