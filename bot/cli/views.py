"""``twite views``: what workers on this machine remember, whether it is true, and anew."""

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from bot.cli.console import err, out, run, settings_of
from bot.errors import Trouble

if TYPE_CHECKING:  # pydantic takes a third of a second: too long for --help
    from bot.settings import Settings
    from consumers.views.compare import Comparison
    from consumers.views.files import File
    from consumers.views.view import View

app = typer.Typer(
    no_args_is_help=True,
    help="Show, verify and rebuild the views that workers on this machine keep.",
    rich_markup_mode=None,
)

Name = Annotated[str | None, typer.Option("--view", metavar="NAME", help="Only this view.")]
Partition = Annotated[int | None, typer.Option(min=0, help="Only this partition.")]
_MIB = 1024 * 1024


@app.command()
def show(context: typer.Context, view: Name = None, partition: Partition = None) -> None:
    """Show each file: rows, size, and how many records it lags behind the log.

    Example: twite views show --view conversation
    """
    from bot.rows import Rows

    settings = settings_of(context).settings
    found = run(_survey(settings, view, partition))
    if not found:
        out.print("no views here yet: a worker makes them when it starts")
        return
    names = ("view", "partition", "state", "rows", "MiB", "lag", "file")
    out.print(Rows(names, [_row(file) for file in found]), crop=False)
    out.print(f"under {found[0].path.parent.parent}", soft_wrap=True)


def _row(file: "File") -> list[Text]:
    state = f"{file.state}, in use" if file.in_use else file.state
    lag = "" if file.lag is None else f"{file.lag}"
    size = f"{file.size / _MIB:.1f}"
    cells = (file.view, file.key, state, f"{file.rows}", size, lag, file.path.name)
    return [Text(cell) for cell in cells]


@app.command()
def verify(context: typer.Context, view: Name = None, partition: Partition = None) -> None:
    """Build each view again from Kafka, beside it, and compare row for row.

    A running worker may go on meanwhile. Takes as long as a rebuild, and twice the disk space.
    Exit status 0: all are equal.
    """
    settings = settings_of(context).settings
    differing = run(_verify(settings, view, partition))
    if differing:
        raise Trouble(
            f"{differing} views differ from Kafka.",
            where=settings.kafka.bootstrap_servers,
            todo="Stop the workers that use them and run `twite views rebuild`.",
        )


@app.command()
def rebuild(context: typer.Context, view: Name = None, partition: Partition = None) -> None:
    """Throw views away and build them again from Kafka, now; a worker would do it at its start.

    Those that a running worker uses are refused.
    """
    run(_rebuild(settings_of(context).settings, view, partition))


async def _survey(settings: "Settings", view: str | None, partition: int | None) -> "list[File]":
    from dataclasses import replace

    from bot.remembering import follow_config
    from consumers.views.files import lags

    found = await _files(settings, view, partition)
    behind = await lags(follow_config(settings), found) if found else {}
    return [replace(file, lag=behind.get(file.path)) for file in found]


async def _verify(settings: "Settings", view: str | None, partition: int | None) -> int:
    from bot.remembering import follow_config
    from consumers.views.compare import compare

    files = [f for f in await _files(settings, view, partition) if f.state != "unknown"]
    if not files:
        raise _nothing(settings)
    known = {view.name: view for view in _views(settings)}
    cluster, differing = await _cluster(settings), 0
    for file in files:
        with tempfile.TemporaryDirectory(prefix="twite-verify-") as scratch:
            found = await compare(
                follow_config(settings), known[file.view], file.path, cluster, Path(scratch)
            )
        differing += not found.equal
        _tell(file, found)
    return differing


def _tell(file: "File", found: "Comparison") -> None:
    rows = sum(table.rows for table in found.tables)
    verdict = "equal" if found.equal else "DIFFERS"
    since = ""
    if found.since_ms is not None:
        since = time.strftime(" since %Y-%m-%dT%H:%M:%SZ", time.gmtime(found.since_ms / 1000))
    out.print(f"{file.view} {file.path.name}: {verdict}, {rows} rows{since}, {found.seconds:.1f} s")
    for table in found.tables:
        if table.only_view or table.only_log:
            out.print(
                f"  {table.table}: {table.only_view} rows only in the view,"
                f" {table.only_log} only by the log"
            )


async def _rebuild(settings: "Settings", view: str | None, partition: int | None) -> None:
    from bot.remembering import follow_config, views_directory
    from consumers.views.files import rebuild
    from consumers.views.store import Files

    cluster = await _cluster(settings)
    wanted = await _wanted(settings, view, partition)
    for one, number in wanted:
        files = Files(views_directory(settings), cluster, one.name, number)
        started = time.monotonic()
        with err.status(f"building {one.name} {files.key}") as status:
            size = await rebuild(
                follow_config(settings),
                one,
                files,
                lambda left, what=f"{one.name} {files.key}": status.update(  # type: ignore[misc]
                    f"building {what}: {left} records left"
                ),
            )
        seconds = time.monotonic() - started
        out.print(f"{one.name} {files.key}: built in {seconds:.1f} s, {size / _MIB:.1f} MiB")


async def _wanted(
    settings: "Settings", view: str | None, partition: int | None
) -> "list[tuple[View, int | None]]":
    """What is named; where nothing is, what is there."""
    all_views = _views(settings)
    views = [one for one in all_views if view in (None, one.name)]
    if not views:
        raise _unknown(view, all_views)
    if partition is not None:
        return [(one, partition) for one in views if one.scope == "partition"]
    there = {(file.view, file.key) for file in await _files(settings, view, None)}
    found: list[tuple[View, int | None]] = []
    for one in views:
        keys = sorted(int(key) for name, key in there if name == one.name and key.isdecimal())
        found += [(one, key) for key in keys] if one.scope == "partition" else [(one, None)]
    return found


async def _files(settings: "Settings", view: str | None, partition: int | None) -> "list[File]":
    from bot.remembering import views_directory
    from consumers.views.files import survey

    cluster, views = await _cluster(settings), _views(settings)
    found = await asyncio.to_thread(survey, views_directory(settings), cluster, views)
    if view is not None and view not in {one.name for one in views}:
        raise _unknown(view, views)
    return [
        file
        for file in found
        if view in (None, file.view) and (partition is None or file.key == str(partition))
    ]


async def _cluster(settings: "Settings") -> str:
    from bot.clients import cluster_id

    return await cluster_id(settings.kafka)


def _views(settings: "Settings") -> "Sequence[View]":
    from bot.views import bot_views

    return bot_views(settings.bot.account_id)


def _unknown(name: str | None, views: "Sequence[View]") -> Trouble:
    names = ", ".join(view.name for view in views)
    return Trouble(f"there is no view {name}.", where="--view", todo=f"Name one of {names}.")


def _nothing(settings: "Settings") -> Trouble:
    from bot.remembering import views_directory

    return Trouble(
        "there are no views of this cluster.",
        where=str(views_directory(settings)),
        todo="Start a worker with the same TWITE_VIEWS__DIRECTORY.",
    )
