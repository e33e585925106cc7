"""``twite moderate``: what moderators command, and what was commanded."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from bot.cli.console import err, out, run, settings_of
from bot.errors import Trouble

if TYPE_CHECKING:  # pydantic takes a third of a second: too long for --help
    from bot.explain.case import Decided
    from bot.moderation import Given
    from bot.settings import KafkaSettings
    from schemas.audit import DecisionRecorded
    from schemas.control import ModerationCommanded

WAIT_S = 30.0
LOOK_S = 0.05

app = typer.Typer(
    no_args_is_help=True,
    help="Take replies back, block, stop, pause, approve first; see what was commanded.",
    rich_markup_mode=None,
)

Reason = Annotated[str, typer.Option("--reason", help="Why; it stands on the audit trail.")]
Who = Annotated[
    str, typer.Option("--as", metavar="MODERATOR", envvar="TWITE_MODERATOR", help="Who commands.")
]
Wait = Annotated[bool, typer.Option("--wait", help="Until a worker obeyed; tell how long it took.")]
About = Annotated[
    str | None, typer.Option("--decision", metavar="ID", help="The decision that it refers to.")
]
What = Annotated[
    str, typer.Argument(metavar="REPLY", help="Id of a reply or its decision, or what it answers.")
]
Somebody = Annotated[str, typer.Argument(metavar="SUBJECT", help="account:ID or conversation:ID.")]
Surface = Annotated[
    str, typer.Argument(metavar="SURFACE", help="everything, mentions or direct-messages.")
]
Private = Annotated[
    bool, typer.Option("--private", help="Look also on the topics of what is not public.")
]


@app.command()
def retract(
    context: typer.Context,
    what: What,
    reason: Reason,
    moderator: Who,
    private: Private = False,
    wait: Wait = False,
) -> None:
    """Take a reply back, all its parts. Taken back is for good.

    Example: twite moderate retract at://post/1 --reason rude --as anna
    """
    _about_reply(context, what, "retract", reason, moderator, None, private=private, wait=wait)


@app.command()
def correct(
    context: typer.Context,
    what: What,
    text: Annotated[str, typer.Option("--text", help="What the reply is to say, in one post.")],
    reason: Reason,
    moderator: Who,
    private: Private = False,
    wait: Wait = False,
) -> None:
    """Have a reply say something else. The same checks of links and handles as for the model.

    Example: twite moderate correct at://post/1 --text "Sorry." --reason rude --as anna
    """
    from bot.split import Room

    bot = settings_of(context).settings.bot
    if not text.strip():
        todo = "Write what the reply is to say, or retract it."
        raise Trouble("the text is empty.", where="--text", todo=todo, status=2)
    if not Room(bot.max_graphemes, bot.max_bytes).holds(text):
        todo = f"Write 1 to {bot.max_graphemes} characters, or retract the reply."
        raise Trouble("the text does not fit into one post.", where="--text", todo=todo, status=2)
    _about_reply(context, what, "correct", reason, moderator, text, private=private, wait=wait)


@app.command()
def block(
    context: typer.Context, subject: Somebody, reason: Reason, moderator: Who, about: About = None
) -> None:
    """No answers to an account or in a conversation, until it is unblocked."""
    command(context, "block", subject, reason, moderator, about)


@app.command()
def unblock(
    context: typer.Context, subject: Somebody, reason: Reason, moderator: Who, about: About = None
) -> None:
    """Undo a block."""
    command(context, "unblock", subject, reason, moderator, about)


@app.command()
def stop(
    context: typer.Context, subject: Surface, reason: Reason, moderator: Who, about: About = None
) -> None:
    """The kill switch: no answers there, until it is resumed."""
    command(context, "stop", subject, reason, moderator, about)


@app.command()
def pause(
    context: typer.Context, subject: Somebody, reason: Reason, moderator: Who, about: About = None
) -> None:
    """Have what comes from an account or in a conversation wait, until it is resumed."""
    command(context, "pause", subject, reason, moderator, about)


@app.command()
def resume(
    context: typer.Context,
    subject: Annotated[str, typer.Argument(metavar="SUBJECT", help="What was stopped, or paused.")],
    reason: Reason,
    moderator: Who,
    about: About = None,
) -> None:
    """Undo a stop or a pause."""
    command(context, "resume", subject, reason, moderator, about)


@app.command()
def cancel(
    context: typer.Context, subject: Somebody, reason: Reason, moderator: Who, about: About = None
) -> None:
    """Skip what waits for its answer now, or is being answered; not what comes later."""
    command(context, "cancel", subject, reason, moderator, about)


@app.command("log")
def log_(
    context: typer.Context,
    as_json: Annotated[
        bool, typer.Option("--json", help="For programs: one JSON object a line.")
    ] = False,
) -> None:
    """Show every command that was given, oldest first, also those that a later one undid."""
    from bot.show import plain

    for at, given_id, data in run(_log(settings_of(context).settings.kafka)):
        if as_json:
            told = {"id": given_id, "at": at.isoformat(), **data.model_dump(mode="json")}
            typer.echo(json.dumps(told))
            continue
        about = f", on decision {data.decision_id}" if data.decision_id else ""
        what = f"{data.moderator}  {data.command} {data.subject}: {data.reason}"
        line = f"{at:%Y-%m-%d %H:%M:%S}  {what}  (command {given_id}{about})"
        out.print(Text(plain(line)), soft_wrap=True)


def command(
    context: typer.Context,
    word: str,
    named: str,
    reason: str,
    moderator: str,
    about: str | None,
    prompt: str | None = None,
) -> None:
    """Give a command on what is named, and tell. Raises ``Trouble``."""
    from bot.moderation import commanded, subject_of

    settings = settings_of(context).settings
    said(reason, "--reason")
    made = commanded(
        command=word,
        subject=subject_of(word, named),
        reason=reason,
        moderator=said(moderator, "--as"),
        decision_id=about,
        prompt=prompt,
    )
    tell(run(_checked(settings.kafka, settings.bot.account_id, made)))


async def _checked(kafka: "KafkaSettings", bot_id: str, command: "ModerationCommanded") -> "Given":
    """Give a command; the decision that it refers to has to be there. Raises ``Trouble``."""
    from bot.clients import options
    from bot.explain.find import Subject, find
    from bot.moderation import give
    from consumers.reader import range_reader

    if command.decision_id is not None:
        async with range_reader(kafka.bootstrap_servers, options(kafka)) as reader:
            await find(reader, Subject(command.decision_id), private=True)
    return await give(kafka, bot_id, command)


def _about_reply(
    context: typer.Context,
    what: str,
    word: str,
    reason: str,
    moderator: str,
    text: str | None,
    *,
    private: bool,
    wait: bool,
) -> None:
    settings = settings_of(context).settings
    who, why = said(moderator, "--as"), said(reason, "--reason")
    about = (word, why, who, text)
    given = run(_on_reply(settings.kafka, settings.bot.account_id, what, about, private))
    tell(given)
    if wait:
        _tell_obeyed(settings.kafka, given)


async def _on_reply(
    kafka: "KafkaSettings",
    bot_id: str,
    what: str,
    said: tuple[str, str, str, str | None],
    private: bool,
) -> "Given":
    """Find the reply, and command. Raises ``Trouble``; then nothing is written."""
    from bot.clients import options
    from bot.explain.find import Subject, find
    from bot.moderation import commanded, give
    from consumers.reader import range_reader

    word, reason, moderator, text = said
    async with range_reader(kafka.bootstrap_servers, options(kafka)) as reader:
        decided = await find(reader, Subject.of(what), private=private)
    command = commanded(
        command=word,
        subject=f"reply:{(*decided.data.reply_ids, decided.data.decision_id)[0]}",
        reason=reason,
        moderator=moderator,
        decision_id=decided.data.decision_id,
        text=text,
    )
    return await give(kafka, bot_id, command, decided)


def _tell_obeyed(kafka: "KafkaSettings", given: "Given") -> None:
    """Wait for a worker, and print what the command came to. Raises ``Trouble``."""
    began, stands = time.monotonic(), "The command stands and is obeyed later."
    try:
        done = run(_obeyed(kafka, given))
    except KeyboardInterrupt:
        what = "given; no worker has obeyed yet."
        raise Trouble(what, where=given.id, todo=stands, status=130) from None
    if done is None:
        what = f"no worker obeyed within {WAIT_S:.0f} s. {stands}"
        todo = "Does a worker run, and keep up?"
        raise Trouble(what, where=str(given.review), todo=todo, status=3)
    took, data = time.monotonic() - began, done.data
    told = f"{data.outcome.value} ({data.reason}) after {took:.2f} s: {data.decision_id}"
    out.print(Text(told), soft_wrap=True)
    for line in _of_checks(data):
        out.print(Text(line), soft_wrap=True)


def _of_checks(data: "DecisionRecorded") -> Iterator[str]:
    """What the checks made of a moderator's words, where they left them not as they were."""
    from schemas.codes import SkipReason

    changed = [rule.name for rule in data.rules if rule.verdict == "changed"]
    if changed:
        yield f"The checks changed the text ({', '.join(changed)})."
        yield f"`twite explain {data.decision_id} --private` shows what is published."
    if data.reason == SkipReason.NO_ANSWER:
        yield "The checks left nothing of it to say: the old reply stands as it was."


async def _obeyed(kafka: "KafkaSettings", given: "Given") -> "Decided | None":
    """The decision that a command about a reply came to; none where it takes too long."""
    import asyncio

    from bot.clients import options
    from bot.explain.find import Subject, look
    from consumers.reader import range_reader

    subject, until = Subject(str(given.review), given.review), time.monotonic() + WAIT_S
    since_ms = round(time.time() * 1000) - 60_000
    async with range_reader(kafka.bootstrap_servers, options(kafka)) as reader:
        while time.monotonic() < until:
            hits = await look(reader, subject, private=True, since_ms=since_ms)
            if hits.newest is not None:
                return hits.newest
            await asyncio.sleep(LOOK_S)
    return None


async def _log(kafka: "KafkaSettings") -> "list[tuple[datetime, str, ModerationCommanded]]":
    from bot.clients import options
    from consumers.reader import Range, range_reader
    from schemas.codec import Undecodable, decode
    from schemas.names import BOT_MODERATION_LOG

    found = []
    async with range_reader(kafka.bootstrap_servers, options(kafka)) as reader:
        async for record in reader.read(Range(BOT_MODERATION_LOG)):
            try:
                event = decode(record)
            except Undecodable as error:
                err.print(Text(f"offset {record.offset} can't be read: {error.code}"))
                continue
            at = datetime.fromtimestamp(record.timestamp_ms / 1000, UTC)
            found.append((at, event.envelope.id, event.data))
    return found


def said(text: str, option: str) -> str:
    """The text, which may not be blank. Raises ``Trouble``."""
    if not text.strip():
        raise Trouble("it may not be empty.", where=option, todo="Say it in words.", status=2)
    return text


def tell(given: "Given") -> None:
    """Print what was commanded."""
    command = given.command
    told = f"{command.command} {command.subject}, by {command.moderator}: command {given.id}"
    out.print(Text(told), soft_wrap=True)
