"""``twite bench``: the benches of this checkout, run apart from the tests.

They live in ``tests/bench``, which an installed package does not carry.
"""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from bot.errors import Trouble

CHECKOUT = Path(__file__).parents[2]


def add_to(app: typer.Typer) -> None:
    """Register the command of this file."""
    app.command()(bench)


def bench(
    ids: Annotated[
        list[str] | None, typer.Argument(metavar="ID", help="Such as P1 or P5; all by default.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Short forms: all within ten minutes.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the JSON files; default: docs/benchmarks."),
    ] = None,
) -> None:
    """Measure this checkout on this machine, as ratios taken in one run.

    Starts brokers and workers of its own; the machine should have nothing else to do.

    Example: `twite bench P1 P5 --quick`
    """
    if not (CHECKOUT / "tests" / "bench").is_dir():
        raise Trouble(
            "the benches are not there: they come with a checkout, not with the package.",
            where=str(CHECKOUT),
            todo="Clone the project and run `make setup`, then `twite bench` there.",
        )
    options = [*(["--quick"] if quick else []), *(["--out", str(out.resolve())] if out else [])]
    command = [sys.executable, "-m", "tests.bench", *(ids or []), *options]
    raise typer.Exit(subprocess.run(command, cwd=CHECKOUT, check=False).returncode)
