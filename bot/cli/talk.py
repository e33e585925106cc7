"""``twite mention`` and ``twite dm``: write to the bot once and wait for what comes of it."""

import json
import math
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from bot.cli.console import err, out, run, settings_of
from bot.errors import Trouble

if TYPE_CHECKING:  # pydantic takes a third of a second: too long for --help
    from bot.settings import Settings
    from schemas.envelope import Event

NO_ANSWER = 3  # exit status: nothing came in time


def _id(value: str | None) -> str | None:
    """An option that becomes an id of the contract."""
    from schemas.fields import check_id

    if value is None:
        return None
    try:
        check_id(_words(value))
    except ValueError as error:
        raise typer.BadParameter(f"{error}.") from None
    return value


def _words(value: str) -> str:
    """A text that a JSON event can carry, and that says something."""
    if not value.strip():
        raise typer.BadParameter("it must not be empty or blank.")
    if any("\ud800" <= char <= "\udfff" for char in value):  # how Python keeps other bytes
        raise typer.BadParameter("it is not UTF-8.")
    return value


def _handle(value: str | None) -> str | None:
    return value if value is None else _words(value)


def _seconds(value: float) -> float:
    if not math.isfinite(value):
        raise typer.BadParameter("it must be a number of seconds.")
    return value


def _visibility(value: str) -> str:
    from schemas.feed import Visibility

    if value not in set(Visibility):
        raise typer.BadParameter(f"{value!r} is none of {', '.join(Visibility)}.")
    return value


Author = Annotated[
    str, typer.Option(metavar="ID", callback=_id, help="Account id of the person who asks.")
]
Handle = Annotated[
    str | None,
    typer.Option(metavar="NAME", callback=_handle, help="Handle of that person; default: its id."),
]
Visibility = Annotated[
    str,
    typer.Option(
        metavar="WHO",
        callback=_visibility,
        help="Who may see the post: public, unlisted, followers or direct.",
    ),
]
Timeout = Annotated[
    float,
    typer.Option(
        metavar="SECONDS", min=0.1, callback=_seconds, help="How long to wait for an outcome."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="For programs: print one JSON object.")]
Words = Annotated[
    str, typer.Argument(metavar="TEXT", callback=_words, help="What the person writes.")
]


def add_to(app: typer.Typer) -> None:
    """Register the commands of this file."""
    app.command()(mention)
    app.command()(dm)


def mention(
    context: typer.Context,
    text: Words,
    author: Author = "you",
    handle: Handle = None,
    conversation: Annotated[
        str | None,
        typer.Option(metavar="ID", callback=_id, help="Id of the thread; default: a new one."),
    ] = None,
    visibility: Visibility = "public",
    timeout: Timeout = 120.0,
    as_json: AsJson = False,
) -> None:
    """Mention the bot in a post and wait for its reply.

    Publishes one event to feed.mentions, as a platform would, and prints the reply, the
    reason of a skip, or the code of a dead letter. A worker must be running.
    Exit status 0: there is an outcome; 3: none came in time.

    Example: `twite mention "What is the capital of France?"`
    """
    from bot.events import Person, mention_of

    settings = settings_of(context).settings
    person = Person(author, handle or author)
    event = mention_of(
        settings.bot, person, text, conversation_id=conversation, visibility=visibility
    )
    _ask(settings, event, timeout, as_json=as_json)


def dm(
    context: typer.Context,
    text: Words,
    author: Author = "you",
    handle: Handle = None,
    conversation: Annotated[
        str | None,
        typer.Option(metavar="ID", callback=_id, help="Id of the talk; default: one per author."),
    ] = None,
    timeout: Timeout = 120.0,
    as_json: AsJson = False,
) -> None:
    """Write to the bot in private and wait for its answer.

    Publishes one event to feed.direct-messages. A worker must be running.
    Exit status 0: there is an outcome; 3: none came in time.

    Example: `twite dm "Who wrote Hamlet?" --author alice`
    """
    from bot.events import Person, message_to

    settings = settings_of(context).settings
    person = Person(author, handle or author)
    event = message_to(settings.bot, person, text, conversation_id=conversation)
    _ask(settings, event, timeout, as_json=as_json)


def _ask(settings: "Settings", event: "Event[Any]", timeout: float, *, as_json: bool) -> None:
    from bot.ask import ask
    from bot.show import as_json_value, outcome_text
    from schemas.codes import SkipReason

    outcome = run(ask(settings.kafka, event, timeout_s=timeout))
    if outcome is None:
        raise Trouble(
            f"no outcome within {timeout:g} s.",
            where=settings.kafka.bootstrap_servers,
            todo="Is a worker running? Start one with `twite worker`.",
            status=NO_ANSWER,
        )
    if as_json:
        typer.echo(json.dumps(as_json_value(outcome), ensure_ascii=False))
    else:
        out.print(outcome_text(outcome))
    if outcome.decision.reason == SkipReason.NOT_ADDRESSED:
        err.print(Text(f"hint: {_addressed(settings.bot.account_id)}", "yellow"))


def _addressed(account: str) -> str:
    """Why a worker may not feel meant by an event that was made for it."""
    return (
        f"this was written to the account {account} (the setting bot.account_id here); the worker"
        " seems to have another one. Give both the same."
    )
