"""``twite config``: what is set, where it came from, and whether it is in order."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from bot.cli.console import WIDE, out, run, settings_of

if TYPE_CHECKING:  # pydantic takes a third of a second: too long for --help
    from collections.abc import Iterator, Sequence

    from bot.config import Loaded
    from bot.guards import Check
    from bot.rows import Rows

MARKS = {"ok": "green", "advice": "yellow", "no": "bold red"}

app = typer.Typer(
    no_args_is_help=True,
    help="Show the settings, or check that everything is in order.",
    rich_markup_mode=None,
)


@app.command()
def show(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")] = False,
) -> None:
    """Show every setting with its value and its origin; secrets stay hidden.

    The origin is "default", a file, or the variable that set it. The meaning of each setting
    stands beside it where there is room, and always with --json.
    """
    loaded = settings_of(context)
    if as_json:
        typer.echo(json.dumps(_rows(loaded), indent=2, ensure_ascii=False))
        return
    out.print(_table(_rows(loaded), wide=out.width >= WIDE), crop=False)
    file = f"file: {loaded.file or 'none (--config, TWITE_CONFIG or ./twite.toml)'}"
    out.print(Text(file), soft_wrap=True)


def _table(rows: dict[str, dict[str, Any]], *, wide: bool) -> "Rows":
    from bot.rows import Rows

    cells = [_cells(name, row)[: 4 if wide else 3] for name, row in rows.items()]
    names = ("setting", "value", "origin", "meaning")[: len(cells[0])]
    return Rows(names, cells, prose=frozenset({3}), lines=_setting_lines)


def _cells(name: str, row: dict[str, Any]) -> list[Text]:
    style = "" if row["origin"] == "default" else "bold"
    value = "" if row["value"] is None else str(row["value"])
    return [Text(name, style), Text(value, style), Text(row["origin"]), Text(row["meaning"])]


def _setting_lines(row: "Sequence[Text]") -> "Iterator[Text]":
    name, value, origin, *_ = row
    yield Text.assemble(name, " = ", value, (f"  ({origin.plain})", "dim"))


def _rows(loaded: "Loaded") -> dict[str, dict[str, Any]]:
    from bot.settings import json_value, known_fields

    return {
        known.name: {
            "value": json_value(known.read(loaded.settings)),
            "origin": loaded.origins[known.name],
            "variable": known.variable,
            "meaning": known.description.replace("``", ""),
        }
        for known in known_fields()
    }


@app.command()
def check(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="For programs: one JSON object.")] = False,
) -> None:
    """Check settings, broker, topics, rights, group and model; a red line says what to do.

    Yellow is advice. Exit status 0: nothing is red. Nothing is changed.
    """
    from bot.checks import check_all

    results = run(check_all(settings_of(context)))
    if as_json:
        checks = [{**asdict(result), "level": result.level.value} for result in results]
        typer.echo(json.dumps({"checks": checks}, indent=2, ensure_ascii=False))
    else:
        out.print(_checks(results), crop=False)
    if not all(result.ok for result in results):
        raise typer.Exit(1)


def _checks(results: "Sequence[Check]") -> "Rows":
    from bot.rows import Rows

    cells = [
        [
            Text(result.level.value, MARKS[result.level.value]),
            Text(result.name),
            Text(result.found),
            Text(result.todo),
        ]
        for result in results
    ]
    names = ("", "checked", "found", "what to do")
    return Rows(names, cells, prose=frozenset({2, 3}), lines=_check_lines)


def _check_lines(row: "Sequence[Text]") -> "Iterator[Text]":
    mark, name, found, todo = row
    yield Text.assemble(mark, " " * (8 - len(mark)), name, ": ", found)
    if todo:
        yield Text.assemble(" " * 8, todo)
