"""``twite dead-letters``: what could not be handled, why, and once more."""

import json
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from bot.cli.console import at_terminal, err, out, run, settings_of
from bot.errors import Trouble
from bot.moments import moment_ms

if TYPE_CHECKING:  # pydantic takes a third of a second: too long for --help
    from bot.dead_letters import Found, Letter, Wanted
    from bot.observe import Position
    from bot.redrive import Plan, Refusal, Result
    from bot.settings import KafkaSettings
    from schemas.record import Record

USAGE = 2  # exit status: the command was typed wrong

app = typer.Typer(
    no_args_is_help=True,
    help="List, look at and re-drive records that could not be handled.",
    rich_markup_mode=None,
)

Which = Annotated[
    str, typer.Option("--topic", metavar="WHICH", help="public, private or all of them.")
]
Codes = Annotated[
    list[str] | None, typer.Option("--code", help="Only those with this error code; repeatable.")
]
Since = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Not before: an age (30m, 2h, 7d) or RFC 3339 with a zone."),
]
Until = Annotated[
    str | None, typer.Option(metavar="TIME", help="Before this time, in the same forms.")
]
Partition = Annotated[int | None, typer.Option(min=0, help="Only this partition.")]
AsJson = Annotated[bool, typer.Option("--json", help="For programs: print one JSON object.")]


@app.command("list")
def list_(
    context: typer.Context,
    topic: Which = "all",
    code: Codes = None,
    since: Since = None,
    until: Until = None,
    partition: Partition = None,
    limit: Annotated[int, typer.Option(min=0, help="Show the newest so many; all count.")] = 100,
    as_json: AsJson = False,
) -> None:
    """Show dead letters, oldest first, and how many there are of each code.

    Nothing of what people wrote is shown. Example: twite dead-letters list --since 2h
    """
    from bot import letter_view

    wanted = _wanted(topic, code, since, until, partition)
    found = run(_find(settings_of(context).settings.kafka, wanted))
    letters = found.chosen(wanted)
    shown = list(deque(letters, maxlen=limit))
    if as_json:
        value = {
            "letters": [letter_view.letter_value(letter) for letter in shown],
            "codes": letter_view.counts(letters),
            "total": len(letters),
            "redriven": sum(bool(letter.redriven) for letter in letters),
            "strange": found.strange,
        }
        typer.echo(json.dumps(value, ensure_ascii=False))
        return
    if shown:
        out.print(letter_view.table(shown), crop=False)
    if len(shown) < len(letters):
        out.print(f"… and {len(letters) - len(shown)} older ones (--limit)")
    out.print(Text(letter_view.counts_text(letters)), soft_wrap=True)
    if found.strange:
        out.print(f"{found.strange} other records stand there that are no dead letters")


@app.command()
def show(
    context: typer.Context,
    place: Annotated[
        str,
        typer.Argument(
            metavar="ORIGIN",
            help="topic/partition/offset of the original, or of the dead letter itself.",
        ),
    ],
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Show also what people wrote in private.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter: why, headers, key, and value as text, JSON or bytes.

    Private ones are shown as lengths and digests unless --reveal is given.

    Example: twite dead-letters show feed.mentions/2/4711
    """
    from bot import letter_view

    for letter, record in run(_read(settings_of(context).settings.kafka, _place(place))):
        if as_json:
            value = letter_view.record_value(letter, record, reveal=reveal)
            typer.echo(json.dumps(value, ensure_ascii=False))
        else:
            out.print(letter_view.record_text(letter, record, reveal=reveal), crop=False)


@app.command()
def redrive(
    context: typer.Context,
    places: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ORIGIN]...",
            help="topic/partition/offset of originals, or of the dead letters themselves.",
        ),
    ] = None,
    topic: Which = "all",
    code: Codes = None,
    since: Since = None,
    until: Until = None,
    partition: Partition = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All that were not re-driven yet.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Also those that were re-driven before.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Publish the originals of dead letters again, each once, to their own topic and partition.

    Key, value and headers stay byte for byte; the header twite_redrive_of is added. What was
    re-driven is marked in the same transaction, so neither a crash nor a second operator
    re-drives it twice; only --again does. Exit status 0: all chosen were re-driven, now or
    before; 1: some can't be, or something stopped it.

    Examples: twite dead-letters redrive --code deadline --since 2h --dry-run,
    twite dead-letters redrive feed.mentions/2/4711 --yes
    """
    wanted = _wanted(topic, code, since, until, partition, places or ())
    if wanted.everything != everything:
        what = "--all goes alone." if everything else "nothing says which dead letters."
        todo = "Name places, or give --code, --since, --until or --partition, or only --all."
        raise Trouble(what, where="twite dead-letters redrive", todo=todo, status=USAGE)
    kafka = settings_of(context).settings.kafka
    planned = run(_plan(kafka, wanted, again=again))
    if not as_json:
        _print_plan(planned, dry_run=dry_run)
    if dry_run or not planned.letters:
        _finish({}, planned.refused, dry_run=dry_run, as_json=as_json, planned=planned)
        return
    _confirm(planned, yes=yes)
    result = run(_redrive(kafka, planned))
    refused = (*planned.refused, *result.refused)
    _finish(result.done, refused, dry_run=False, as_json=as_json, planned=planned)


def _wanted(
    topic: str,
    codes: Sequence[str] | None,
    since: str | None,
    until: str | None,
    partition: int | None,
    places: Sequence[str] = (),
) -> "Wanted":
    from bot.dead_letters import Wanted

    now = datetime.now(UTC)
    return Wanted(
        topics=_topics(topic),
        places=frozenset(map(_place, places)),
        codes=frozenset(codes or ()),
        since_ms=None if since is None else moment_ms(since, now),
        until_ms=None if until is None else moment_ms(until, now),
        partition=partition,
    )


def _topics(which: str) -> tuple[str, ...]:
    from schemas.names import BOT_DEAD_LETTERS, BOT_DEAD_LETTERS_PRIVATE

    both = {"public": BOT_DEAD_LETTERS, "private": BOT_DEAD_LETTERS_PRIVATE}
    if which == "all":
        return tuple(both.values())
    if which not in both:
        todo = "Say public, private or all."
        raise Trouble(f"{which!r} is no topic of these.", where="--topic", todo=todo, status=USAGE)
    return (both[which],)


def _place(text: str) -> "Position":
    from bot.observe import Position

    try:
        return Position.parse(text)
    except ValueError:
        todo = "Write topic/partition/offset, such as feed.mentions/2/4711."
        raise Trouble(f"{text!r} is no place.", todo=todo, status=USAGE) from None


async def _find(kafka: "KafkaSettings", wanted: "Wanted") -> "Found":
    from bot.clients import options
    from bot.dead_letters import find
    from consumers.reader import range_reader

    async with range_reader(kafka.bootstrap_servers, options(kafka)) as reader:
        return await find(reader, wanted)


async def _read(kafka: "KafkaSettings", place: "Position") -> "list[tuple[Letter, Record]]":
    from bot.clients import options
    from bot.dead_letters import Wanted, find_named, read_one
    from consumers.reader import range_reader

    async with range_reader(kafka.bootstrap_servers, options(kafka)) as reader:
        letters = await find_named(reader, Wanted(places=frozenset({place})))
        return [(letter, await read_one(reader, letter.at)) for letter in letters]


async def _plan(kafka: "KafkaSettings", wanted: "Wanted", *, again: bool) -> "Plan":
    from bot.clients import options, topic_partitions
    from bot.dead_letters import find_named
    from bot.redrive import plan
    from consumers.reader import range_reader

    partitions = await topic_partitions(kafka)
    async with range_reader(kafka.bootstrap_servers, options(kafka)) as reader:
        letters = await find_named(reader, wanted)
    return plan(letters, partitions, again=again)


async def _redrive(kafka: "KafkaSettings", planned: "Plan") -> "Result":
    from bot.redrive import redrive

    done = 0

    def tell(batch: "Mapping[Position, Position]") -> None:
        nonlocal done
        done += len(batch)
        err.print(f"{done} of {len(planned.letters)} re-driven")

    return await redrive(kafka, planned.letters, tell)


def _print_plan(planned: "Plan", *, dry_run: bool) -> None:
    from bot import letter_view

    if planned.letters:
        out.print(letter_view.table(planned.letters), crop=False)
    topics = Counter(letter.origin.topic for letter in planned.letters)
    told = ", ".join(f"{count} to {topic}" for topic, count in topics.items())
    would = "would publish" if dry_run else "to publish"
    out.print(Text(f"{would} again: {told or 'nothing'}"), soft_wrap=True)


def _confirm(planned: "Plan", *, yes: bool) -> None:
    if yes:
        return
    if not at_terminal():
        todo = "Give --yes, or --dry-run to see what would happen."
        raise Trouble("nobody is there to be asked.", todo=todo, status=USAGE)
    if not typer.confirm(f"Publish {len(planned.letters)} records again?"):
        raise Trouble("nothing was re-driven.")


def _finish(
    done: "Mapping[Position, Position]",
    refused: "Sequence[Refusal]",
    *,
    dry_run: bool,
    as_json: bool,
    planned: "Plan",
) -> None:
    if as_json:
        typer.echo(json.dumps(_value(done, refused, planned, dry_run=dry_run), ensure_ascii=False))
    else:
        for refusal in refused:
            left_out = Text(f"left out: {refusal.letter.origin} {refusal.why}", "yellow")
            out.print(left_out, soft_wrap=True)
        for letter in planned.letters:
            if letter.at in done:
                out.print(Text(f"{letter.origin} → {done[letter.at]}"), soft_wrap=True)
    if not all(refusal.settled for refusal in refused):
        raise typer.Exit(1)


def _value(
    done: "Mapping[Position, Position]",
    refused: "Sequence[Refusal]",
    planned: "Plan",
    *,
    dry_run: bool,
) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "planned": [str(letter.origin) for letter in planned.letters],
        "redriven": [
            {
                "origin": str(letter.origin),
                "dead_letter": str(letter.at),
                "redriven_as": str(done[letter.at]),
            }
            for letter in planned.letters
            if letter.at in done
        ],
        "left_out": [
            {"origin": str(r.letter.origin), "dead_letter": str(r.letter.at), "why": r.why}
            for r in refused
        ],
    }
