"""``twite worker``, ``twite demo`` and ``twite broker``: the commands that keep running."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from bot.cli.console import at_terminal, err, out, run, settings_of
from bot.cli.stopping import until_stopped
from bot.errors import Trouble

if TYPE_CHECKING:  # pydantic takes a third of a second: too long for --help
    from bot.settings import Settings

USAGE = 2  # exit status: the command was typed wrong
Engine = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="`transformers` (a real model here), `openai` (servers of one) or `echo` (none).",
    ),
]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    app.command()(demo)
    app.command()(worker)
    app.command()(broker)


def worker(
    context: typer.Context,
    engine: Engine = None,
) -> None:
    """Answer mentions and direct messages until stopped.

    Start as many workers as you like with the same settings: they share the partitions.
    SIGTERM or Ctrl-C stops one cleanly: it takes no new work, finishes what is in flight
    within the grace, and leaves the rest to the next worker.

    Example: `TWITE_KAFKA__BOOTSTRAP_SERVERS=kafka:9092 twite worker`
    """
    from model.threads import configure_environment

    configure_environment()  # before anything can load torch
    from bot.app import run_worker

    asyncio.run(run_worker(settings_of(context, _engine(engine)).settings))


def demo(
    context: typer.Context,
    feed: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="JSON lines to play instead of the built-in feed: contract events or raw"
            " records, `-` for standard input.",
        ),
    ] = None,
    engine: Engine = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep Kafka's data and the worker's log in this folder."),
    ] = None,
    talk: Annotated[
        bool | None,
        typer.Option(
            "--talk/--no-talk", help="Go on with a talk after the feed; default: at a terminal."
        ),
    ] = None,
    yes: Annotated[
        bool,
        typer.Option("--yes", "-y", help="Do not ask before publishing to a broker of yours."),
    ] = False,
) -> None:
    """Watch the whole thing work on this machine, then talk to it.

    Starts Apache Kafka (or uses the broker of your settings), creates the topics, starts a
    worker, plays a small feed and prints each input beside its outcome: the reply, the skip
    with its reason, or the dead letter with its code. At a terminal you can then write to the
    bot. Exit status 0: every input had exactly one outcome; 2: there was nothing to play.

    On a broker of yours it asks first. Where workers of your group are running, these answer and
    no other is started. Where none is, its worker also answers what real people wrote there.

    Examples: `twite demo`, `twite demo --engine echo`, `twite demo --feed my-events.jsonl`
    """
    from bot.demo import Demo

    loaded = settings_of(context, _engine(engine))
    origin = loaded.origins["kafka.bootstrap_servers"]
    there = origin != "default"
    show = Demo(
        loaded.settings,
        out,
        own_broker=not there,
        feed=feed,
        data_dir=data_dir,
        talk=at_terminal() if talk is None else talk,
    )
    show.check()
    if there:
        others = _workers_there(loaded.settings, named=engine is not None)
        _confirm(loaded.settings, origin, others=others, yes=yes)
        show.starts_worker = not others
    status = until_stopped(show.run())
    if status:
        raise typer.Exit(status)


def broker(
    context: typer.Context,
    port: Annotated[
        int, typer.Option(min=1, max=65535, metavar="PORT", help="Port on 127.0.0.1.")
    ] = 9092,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Keep the data here; otherwise it is gone when the broker stops."
        ),
    ] = None,
) -> None:
    """Run Apache Kafka on this machine, for development, until Ctrl-C.

    One JVM from the official jars; needs no Java and no Docker. The first start downloads
    45 MB. Only this machine can reach it.

    Example: `twite broker --port 9092 --data-dir ./kafka-data`
    """
    from infra.broker import run_broker_forever

    def progress(line: str) -> None:
        out.print(Text(line))

    until_stopped(run_broker_forever(port=port, data_dir=data_dir, progress=progress))


def _engine(name: str | None) -> dict[str, Any]:
    return {"model": {"engine": name}} if name else {}


def _workers_there(settings: "Settings", *, named: bool) -> int:
    """How many are in the group. ``named``: the call names an engine, which only a worker of
    the demo's own would have."""
    from bot.cluster import members_of

    kafka = settings.kafka
    count = len(run(members_of(kafka)))
    if count and named:
        raise Trouble(
            f"{_workers(count)} of the group {kafka.group_id} will answer, with an engine of"
            " their own.",
            where=kafka.bootstrap_servers,
            todo="Leave out --engine, or stop them first.",
            status=USAGE,
        )
    return count


def _confirm(settings: "Settings", origin: str, *, others: int, yes: bool) -> None:
    """Say before anything is published where it will go and who answers; then ask."""
    where = settings.kafka.bootstrap_servers
    err.print(
        Text(
            f"This will publish a feed onto the topics of the Kafka at {where} (named by"
            f" {origin}) and create those that are missing. {_answering(settings, others)}"
        )
    )
    if yes:
        return
    if settings.model.engine == "echo" and not others:
        what = "the echo engine would answer everybody who writes there with nonsense."
        todo = "Leave it out, or give --yes if only you use this Kafka."
        raise Trouble(what, where=where, todo=todo, status=USAGE)
    if not at_terminal():
        raise Trouble("nobody is there to be asked.", todo="Give --yes.", status=USAGE)
    if not typer.confirm("Go on?"):
        todo = "Unset that address, and the demo starts a broker of its own."
        raise Trouble("nothing was published.", todo=todo)


def _answering(settings: "Settings", others: int) -> str:
    group, bot = settings.kafka.group_id, settings.bot.account_id
    if others:
        return f"{_workers(others)} of the group {group} will answer; no other is started."
    return (
        f"A worker will be started in the group {group}: as long as the demo runs it answers as"
        f" {bot} whatever stands there unanswered, real people included."
    )


def _workers(count: int) -> str:
    return "1 running worker" if count == 1 else f"{count} running workers"
