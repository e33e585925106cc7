"""``twite audit``: the chain of digests behind the decisions, and the proof that it holds."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from bot.cli.console import err, out, run, settings_of
from bot.cli.stopping import until_stopped

if TYPE_CHECKING:  # pydantic takes a third of a second: too long for --help
    from bot.sealing.check import Verdict

app = typer.Typer(
    no_args_is_help=True,
    help="Seal the decision records, and prove that none was changed, removed or put in.",
    rich_markup_mode=None,
)
_TELL_EVERY_S = 0.2


@app.command()
def seal(context: typer.Context) -> None:
    """Seal the audit until stopped: a chain of digests for each partition, on bot.audit-seals.

    One is enough for a cluster. A second one stands by and takes over. Example: twite audit seal
    """
    from bot.sealing.sealer import seal_all

    kafka = settings_of(context).settings.kafka

    async def forever() -> None:
        await seal_all(kafka, asyncio.Event(), lambda count: out.print(f"sealing {count} logs"))

    until_stopped(forever())


@app.command()
def verify(
    context: typer.Context,
    file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="An export, in place of the topics.")
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Of a file: against the seals that stand in it.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs: print one JSON object.")
    ] = False,
) -> None:
    """Say of every decision record whether it is as it was sealed, and whether one is missing.

    Nothing is written. Exit status 1: something was changed, or a file has no seals at all. What
    nobody sealed yet is told, and is no fault. Examples: twite audit verify, twite audit verify
    --file audit.jsonl
    """
    from bot.errors import Trouble
    from bot.sealing import verify as verifying

    if offline and file is None:
        raise Trouble("--offline needs --file.", status=2)
    kafka = None if offline else settings_of(context).settings.kafka
    started = time.monotonic()
    with err.status("reading the seals") as status:
        tell = _telling(status.update)
        if file is not None:
            found = run(verifying.verify_file(file, kafka, tell))
        else:
            found = run(verifying.verify(settings_of(context).settings.kafka, tell))
    seconds = time.monotonic() - started
    if as_json:
        typer.echo(json.dumps(_value(found, seconds)))
    else:
        _print(found, seconds)
    bare = file is not None and not any(verdict.head for verdict in found)
    if bare:
        err.print(Text(f"{file}: no seal stands for it, so nothing is proven."), soft_wrap=True)
    if bare or any(verdict.faulty for verdict in found):
        raise typer.Exit(1)


@app.command()
def export(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")],
    erase_text: Annotated[
        bool,
        typer.Option("--erase-text", help="Write digests in place of what was written."),
    ] = False,
    private: Annotated[
        bool, typer.Option("--private", help="Also what is on bot.audit-private.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="From then on: an age (2h, 7d) or RFC 3339."),
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Before then.")] = None,
) -> None:
    """Write decision records and their seals into a file that `twite audit verify` can check.

    Without texts it still verifies. Example: twite audit export audit.jsonl --erase-text
    """
    from datetime import UTC, datetime

    from bot.moments import moment_ms
    from bot.sealing.exporting import export as exported
    from consumers.reader import Bound

    now = datetime.now(UTC)
    start, end = (
        Bound(timestamp_ms=None if moment is None else moment_ms(moment, now))
        for moment in (since, until)
    )
    kafka = settings_of(context).settings.kafka
    with err.status("reading the audit"):
        count = run(exported(kafka, file, (start, end), erases=erase_text, private=private))
    out.print(f"{file}: {count} decision records", soft_wrap=True)


def _telling(
    show: Callable[[Text], Any], every_s: float = _TELL_EVERY_S
) -> "Callable[[Verdict], None]":
    """Progress of one partition, a few times a second, with its rate."""
    began = told_at = time.monotonic()
    place, base = "", 0

    def tell(verdict: "Verdict") -> None:
        nonlocal began, told_at, place, base
        now = time.monotonic()
        here = f"{verdict.topic}/{verdict.partition}"
        if here != place:
            place, began, base = here, now, verdict.records
        if now - told_at >= every_s:
            told_at = now
            rate = (verdict.records - base) / max(now - began, 0.001)
            show(Text(f"{here}: {verdict.records} records, {rate:,.0f}/s"))  # no markup

    return tell


def _print(found: "list[Verdict]", seconds: float) -> None:
    for verdict in found:
        out.print(Text(_line(verdict), "red" if verdict.faulty else ""), soft_wrap=True)
        for fault in verdict.faults:
            out.print(Text(f"  {fault.place}: {fault.what}", "red"), soft_wrap=True)
        if (more := verdict.faulty - len(verdict.faults)) > 0:
            out.print(Text(f"  and {more} more", "red"))
    records = sum(verdict.records for verdict in found)
    faulty = sum(verdict.faulty for verdict in found)
    good = sum(verdict.good for verdict in found)
    told = f"{records} records in {seconds:.1f} s ({records / max(seconds, 0.001):,.0f}/s): "
    told += f"{faulty} faults" if faulty else f"no fault, {good} proven"
    out.print(Text(told, "bold red" if faulty else "bold green"), soft_wrap=True)


def _line(verdict: "Verdict") -> str:
    parts = [f"{verdict.good} of {verdict.records} hold"]
    parts += [f"{verdict.erased} without their texts"] if verdict.erased else []
    parts += [f"{verdict.cut} before offset {verdict.first} are gone"] if verdict.cut else []
    if verdict.unsealed:
        parts.append(f"{verdict.unsealed} not sealed, from offset {verdict.unsealed_from}")
    if verdict.head is not None:
        parts.append(f"seal {verdict.head.number} is {verdict.head.digest}")
    return f"{verdict.topic}/{verdict.partition}: {'; '.join(parts)}"


def _value(found: "list[Verdict]", seconds: float) -> dict[str, Any]:
    def one(verdict: "Verdict") -> dict[str, Any]:
        head = verdict.head
        numbers = ("first", "records", "good", "erased", "cut", "unsealed", "unsealed_from")
        return {
            "topic": verdict.topic,
            "partition": verdict.partition,
            **{name: getattr(verdict, name) for name in numbers},
            "holds_from": verdict.holds_from,
            "head": {"number": head.number, "digest": head.digest, "end": head.end}
            if head
            else None,
            "faulty": verdict.faulty,
            "faults": [{"what": fault.what, "place": fault.place} for fault in verdict.faults],
        }

    return {
        "good": not any(verdict.faulty for verdict in found),
        "seconds": seconds,
        "partitions": [one(verdict) for verdict in found],
    }
