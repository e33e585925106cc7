"""``twite replay``: decisions that are on the log, made again and compared."""

import os
from pathlib import Path
from typing import Annotated

import typer

from bot.cli.console import settings_of
from bot.cli.stopping import until_stopped

IN_FLIGHT = 8  # decisions made at once, so that live answers have the model too
NICENESS = 10  # of the process, so that they have the processor
OVER_BUDGET = 4  # exit status: more outcomes changed than --budget allows

Many = list[str] | None


def add_to(app: typer.Typer) -> None:
    """Register the command of this file."""
    app.command()(replay)


def replay(
    context: typer.Context,
    ranges: Annotated[
        Many,
        typer.Option(
            "--range",
            metavar="RANGE",
            help="Inputs or decision records: topic/partition/first-last; repeatable.",
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Decided not before: an age (30m, 2h, 7d) or RFC 3339 with a zone."
        ),
    ] = None,
    until: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Decided before this time, in the same forms."),
    ] = None,
    author: Annotated[
        Many, typer.Option(metavar="ACCOUNT", help="Asked by this account; repeatable.")
    ] = None,
    conversation: Annotated[
        Many, typer.Option(metavar="ID", help="Of this conversation; repeatable.")
    ] = None,
    ids: Annotated[
        Many, typer.Option("--id", metavar="ID", help="A decision id or the URI of what was asked.")
    ] = None,
    ids_file: Annotated[
        Path | None, typer.Option("--ids", metavar="FILE", help="A file of such ids, one a line.")
    ] = None,
    prompt_hash: Annotated[
        Many, typer.Option(metavar="HEX", help="Asked with the prompt of this hash, or beginning.")
    ] = None,
    of_model: Annotated[
        Many, typer.Option("--of-model", metavar="NAME", help="Answered by this model.")
    ] = None,
    outcome: Annotated[
        Many, typer.Option(help="replied, skipped, dead_lettered, corrected or retracted.")
    ] = None,
    reason: Annotated[Many, typer.Option(help="Skipped or failed for this reason.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every decision there is.")] = False,
    mode: Annotated[
        str | None,
        typer.Option(
            metavar="MODE",
            help="frozen: the recorded prompt once more. rebuilt: the input through today's"
            " pipeline. Default: frozen; rebuilt with --against.",
        ),
    ] = None,
    against: Annotated[
        str | None, typer.Option(metavar="PROMPT", help="Rebuilt with this prompt, or file.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Another model: a name or a folder.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="The revision of that model.")] = None,
    engine: Annotated[
        str | None, typer.Option(metavar="NAME", help="transformers, openai or echo.")
    ] = None,
    any_model: Annotated[
        bool,
        typer.Option("--any-model", help="Frozen also what other weights answered than these."),
    ] = False,
    score: Annotated[
        bool, typer.Option("--score/--no-score", help="Frozen: score the recorded tokens as well.")
    ] = True,
    in_flight: Annotated[
        int, typer.Option(min=1, max=4096, help="Most decisions that are made at once.")
    ] = IN_FLIGHT,
    niceness: Annotated[
        int,
        typer.Option(
            "--nice",
            min=0,
            max=19,
            help="How far it stands back for what else runs on this machine.",
        ),
    ] = NICENESS,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE", help="Exit status 4 where more outcomes than this change: 5%."
        ),
    ] = None,
    publish: Annotated[
        bool, typer.Option("--publish/--no-publish", help="Results on bot.replays as well.")
    ] = True,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the same command where it was stopped.")
    ] = False,
    state: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where a replay is kept until its report."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the report as one page.")
    ] = None,
    show: Annotated[int, typer.Option(min=0, help="Print so many changed cases.")] = 20,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Show also what people wrote in private.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs: a line for each result, then the counts.")
    ] = False,
) -> None:
    """Make decisions that are on the log again, and compare them with what they were.

    Nothing is ever published but results on bot.replays, no group is joined and no offset moved.
    Conditions of one kind widen, those of several kinds narrow. Ctrl-C keeps what is done.
    Exit status 4: more outcomes changed than --budget allows.

    Examples: `twite replay --since 2h`, `twite replay --id ID --mode rebuilt`,
    `twite replay --since 7d --against next.txt --budget 5%`
    """
    from model.threads import configure_environment

    configure_environment()  # before anything can load torch
    os.nice(max(0, niceness - os.nice(0)))  # threads and processes that it starts inherit it
    from bot.cli import replaying

    conditions = {
        "range": ranges,
        "since": since,
        "until": until,
        "author": author,
        "conversation": conversation,
        "id": [*(ids or ()), *replaying.ids_in(ids_file)],
        "prompt_hash": prompt_hash,
        "of_model": of_model,
        "outcome": outcome,
        "reason": reason,
        "all": everything,
    }
    allowed = replaying.share(budget)
    target = replaying.Target(
        mode=mode, against=against, model=model, revision=revision, engine=engine,
        any_model=any_model, score=score, reveal=reveal,
    )  # fmt: skip
    settings = settings_of(context, target.overrides).settings
    replaying.require_writable(html)
    order = replaying.order_of(
        settings, conditions, target,
        in_flight=in_flight, publish=publish, resume=resume, root=state,
    )  # fmt: skip
    folder = until_stopped(replaying.replayed(order))
    try:
        summary = replaying.report(folder, html=html, show=show, as_json=as_json)
        folder.remove()
    finally:
        folder.close()
    if allowed is not None and replaying.is_over(summary, allowed, as_json=as_json):
        raise typer.Exit(OVER_BUDGET)
