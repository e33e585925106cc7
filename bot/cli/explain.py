"""``twite explain``: why the bot said this, or did not."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from bot.cli.console import err, out, run, settings_of
from bot.errors import Trouble

if TYPE_CHECKING:  # pydantic takes a third of a second: too long for --help
    from bot.explain.case import Case
    from bot.explain.find import Subject
    from bot.settings import KafkaSettings
    from consumers.reader import Progress

Named = Annotated[
    str,
    typer.Argument(
        metavar="WHAT",
        help="Id of a reply or a decision, URI of a post, or topic/partition/offset.",
    ),
]
Private = Annotated[
    bool, typer.Option("--private", help="Look also on the topics of what is not public.")
]
Since = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Look no further back: an age (2h, 7d) or RFC 3339."),
]


def add_to(app: typer.Typer) -> None:
    """Register the command of this file."""
    app.command()(explain)


def explain(
    context: typer.Context,
    what: Named,
    private: Private = False,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Show also what people wrote in private.")
    ] = False,
    tokens: Annotated[
        bool, typer.Option("--tokens", help="Show the token ids of prompt and answer.")
    ] = False,
    since: Since = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs: print one JSON object.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one self-contained page.")
    ] = None,
) -> None:
    """Show why the bot said this, or did not: what it saw, its rules, its prompt, its model.

    The audit is read from its end backwards; nothing is written to Kafka. What is not public is
    looked for only with --private, and of that, texts are shown only with --reveal.

    Examples: twite explain at://post/1, twite explain feed.mentions/2/4711 --html why.html
    """
    from bot.explain.explanation import explain as explained
    from bot.explain.page import as_html
    from bot.explain.text import as_text

    case = case_of(context, what, private=private, since=since)
    told = explained(case, hidden=case.decided.private and not reveal, tokens=tokens)
    if html is not None:
        write(html, as_html(told).encode(), private=told.private and not told.hidden)
        err.print(Text(f"written to {html}", "dim"))
    if as_json:
        typer.echo(json.dumps(told.value(), ensure_ascii=False))
    elif html is None:
        out.print(as_text(told), crop=False)


def case_of(context: typer.Context, what: str, *, private: bool, since: str | None) -> "Case":
    """Everything on the log about what somebody names. Raises ``Trouble``."""
    from bot.explain.find import Subject
    from bot.moments import moment_ms

    subject = Subject.of(what)
    since_ms = None if since is None else moment_ms(since, datetime.now(UTC))
    kafka = settings_of(context).settings.kafka
    with err.status("reading the audit") as status:
        return run(_read(kafka, subject, private, since_ms, status.update))


async def _read(
    kafka: "KafkaSettings",
    subject: "Subject",
    private: bool,
    since_ms: int | None,
    show: Callable[[str], Any],
) -> "Case":
    from bot.clients import options
    from bot.explain.find import find
    from bot.explain.gather import gather
    from consumers.reader import range_reader

    def tell(topic: str, progress: "Progress") -> None:
        if progress.done % 500 == 0 or progress.done == progress.total:
            show(f"{topic}: {progress.done} of {progress.total} offsets")

    async with range_reader(kafka.bootstrap_servers, options(kafka)) as reader:
        decided = await find(reader, subject, private=private, since_ms=since_ms, tell=tell)
        return await gather(reader, decided, private=private, tell=tell)


def write(path: Path, data: bytes, *, private: bool) -> None:
    """``bot.files.write_whole``, whose errors are told to people. Raises ``Trouble``."""
    from bot.files import write_whole

    try:
        write_whole(path, data, private=private)
    except (OSError, ValueError) as error:
        what = f"cannot be written: {getattr(error, 'strerror', None) or error}."
        raise Trouble(what, where=str(path), todo="Name a file in a folder of yours.") from error
