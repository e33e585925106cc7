"""``twite moderate``: replies that are approved before they are published, and pinned prompts."""

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.padding import Padding
from rich.text import Text

from bot.cli.console import out, run, settings_of
from bot.cli.moderate import About, Reason, Who, command, said, tell

if TYPE_CHECKING:  # pydantic takes a third of a second: too long for --help
    from bot.settings import KafkaSettings
    from bot.waiting import Shown

DIGEST = 12  # characters of a digest that are shown
HASH = re.compile(r"[0-9a-f]{8,64}")  # of a prompt file, or its beginning

Anything = Annotated[
    str,
    typer.Argument(
        metavar="SUBJECT",
        help="account:ID, conversation:ID, everything, mentions or direct-messages.",
    ),
]
Prompted = Annotated[str, typer.Argument(metavar="SURFACE", help="mention or direct.")]
Decision = Annotated[str, typer.Argument(metavar="DECISION", help="As `held` shows it.")]


def add_to(app: typer.Typer) -> None:
    """The commands, among the others of ``twite moderate``."""
    app.command("approve-first")(approve_first)
    app.command("publish-directly")(publish_directly)
    app.command()(held)
    app.command()(approve)
    app.command()(reject)
    app.command()(pin)
    app.command()(unpin)


def approve_first(
    context: typer.Context, subject: Anything, reason: Reason, moderator: Who, about: About = None
) -> None:
    """Publish no reply there that a moderator has not approved, until publish-directly."""
    command(context, "approve-first", subject, reason, moderator, about)


def publish_directly(
    context: typer.Context, subject: Anything, reason: Reason, moderator: Who, about: About = None
) -> None:
    """Undo approve-first on that very subject; what waits only for that is published."""
    command(context, "publish-directly", subject, reason, moderator, about)


def held(
    context: typer.Context,
    reveal: Annotated[bool, typer.Option("--reveal", help="Show private texts as well.")] = False,
) -> None:
    """Show the replies that wait for approval, the oldest first: decision, digest, text."""
    from bot.text import safe

    for one in run(_waiting(settings_of(context).settings.kafka)):
        data = one.data
        digest, until = data.text_digest[:DIGEST], f"{data.held_until:%Y-%m-%d %H:%M:%S}"
        where = f"{data.author_id} in {data.conversation_id}"
        line = f"{data.decision_id}  {digest}  until {until}  {where}"
        out.print(Text(line, style="bold"), soft_wrap=True)
        text = "\n".join(data.texts)
        if data.private and not reveal:
            text = f"(private, {len(text)} characters)"
        out.print(Padding(Text(safe(text)), (0, 0, 0, 2)))


def approve(
    context: typer.Context,
    decision: Decision,
    reason: Reason,
    moderator: Who,
    digest: Annotated[
        str | None, typer.Option("--digest", help="Of the text that you saw, or its beginning.")
    ] = None,
) -> None:
    """Publish a reply that waits, exactly as it was shown.

    Example: twite moderate approve DECISION --reason harmless --as anna
    """
    from bot.waiting import digest_to_approve

    shown = run(_waiting(settings_of(context).settings.kafka))
    one = digest_to_approve(shown, decision, digest)
    _about_held(context, "approve", one, reason, moderator, one.data.text_digest)


def reject(context: typer.Context, decision: Decision, reason: Reason, moderator: Who) -> None:
    """Publish no reply there, whatever would be said instead."""
    from bot.waiting import that_waits

    shown = run(_waiting(settings_of(context).settings.kafka))
    _about_held(context, "reject", that_waits(shown, decision), reason, moderator, None)


def pin(
    context: typer.Context,
    surface: Prompted,
    prompt: Annotated[
        str,
        typer.Argument(metavar="PROMPT", help="Its name here, its file, or 8 digits of its hash."),
    ],
    reason: Reason,
    moderator: Who,
    about: About = None,
) -> None:
    """Have all workers use one prompt there, whatever their settings say, until it is unpinned.

    A worker that has no such file says so and goes on with its own.
    """
    from bot.cli.prompts import prompt_named

    prompts = settings_of(context).settings.prompts
    named = prompt if HASH.fullmatch(prompt) else prompt_named(prompt, prompts).template.hash
    command(context, "pin", surface, reason, moderator, about, prompt=named)


def unpin(
    context: typer.Context, surface: Prompted, reason: Reason, moderator: Who, about: About = None
) -> None:
    """Have the workers use the prompts of their settings again."""
    command(context, "unpin", surface, reason, moderator, about)


def _about_held(
    context: typer.Context,
    word: str,
    one: "Shown",
    reason: str,
    moderator: str,
    digest: str | None,
) -> None:
    from bot.moderation import commanded, give

    settings, decision_id = settings_of(context).settings, one.data.decision_id
    made = commanded(
        command=word,
        subject=f"held:{decision_id}",
        reason=said(reason, "--reason"),
        moderator=said(moderator, "--as"),
        decision_id=decision_id,
        text_digest=digest,
    )
    tell(run(give(settings.kafka, settings.bot.account_id, made)))


async def _waiting(kafka: "KafkaSettings") -> "list[Shown]":
    from bot.clients import options
    from bot.waiting import waiting
    from consumers.reader import range_reader

    async with range_reader(kafka.bootstrap_servers, options(kafka)) as reader:
        return await waiting(reader, datetime.now(UTC))
