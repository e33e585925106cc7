"""``twite topics``: the topics that Twite reads and writes."""

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from bot.cli.console import WIDE, out, run, settings_of
from bot.errors import Trouble

app = typer.Typer(
    no_args_is_help=True,
    help="Create the topics, or describe those that are there.",
    rich_markup_mode=None,
)


@app.command()
def create(
    context: typer.Context,
    partitions: Annotated[
        int | None, typer.Option(min=1, help="Instead of the setting kafka.partitions.")
    ] = None,
    replication: Annotated[
        int | None, typer.Option(min=1, help="Instead of the setting kafka.replication.")
    ] = None,
) -> None:
    """Create the topics that are not there yet; what is there stays as it is.

    Example: twite topics create --partitions 12 --replication 3
    """
    from bot.clients import options
    from infra.topics import create_topics

    chosen = {"partitions": partitions, "replication": replication}
    given = {name: value for name, value in chosen.items() if value is not None}
    kafka = settings_of(context, {"kafka": given}).settings.kafka
    created = run(
        create_topics(
            kafka.bootstrap_servers,
            partitions=kafka.partitions,
            replication=kafka.replication,
            client=options(kafka),
        )
    )
    for name in created:
        out.print(Text(f"created {name}"))
    from schemas.topics import TOPICS

    out.print(_told(len(created), len(TOPICS) - len(created)))


def _told(created: int, there: int) -> str:
    if not created:
        return f"nothing to create: all {there} are there"
    return f"{created} created" + (f", {there} were there" if there else "")


@app.command()
def describe(context: typer.Context) -> None:
    """Show each topic: what it carries, its key, and how it stands on the broker.

    Exit status 0: all are there.
    """
    from bot.clients import options
    from infra.topics import describe_topics
    from schemas.topics import TOPICS

    kafka = settings_of(context).settings.kafka
    there = run(describe_topics(kafka.bootstrap_servers, client=options(kafka)))
    wide = out.width >= WIDE
    table = Table("topic", "partitions", "copies", "key", "cleanup", *(["carries"] if wide else []))
    table.columns[0].no_wrap = True
    for name, topic in TOPICS.items():
        state = there.get(name)
        numbers = (str(state.partitions), str(state.replication)) if state else ("missing", "")
        carries = [topic.carries] if wide else []
        table.add_row(name, *numbers, topic.key, topic.cleanup, *carries)
    out.print(table)
    if len(there) < len(TOPICS):
        raise Trouble(
            f"{len(TOPICS) - len(there)} topics are missing.",
            where=kafka.bootstrap_servers,
            todo="Create them with `twite topics create`.",
        )


@app.command()
def acls(
    context: typer.Context,
    role: Annotated[
        str, typer.Argument(metavar="ROLE", help="worker, sealer, auditor, moderator or replay.")
    ],
    principal: Annotated[
        str, typer.Option(metavar="NAME", help="As the brokers know it, such as User:replay.")
    ],
) -> None:
    """Print the lines of kafka-acls.sh that give a principal what its role needs, and no more.

    Add --bootstrap-server yourself. Example: twite topics acls replay --principal User:replay
    """
    from bot.access import ROLES, rights_of

    if role not in ROLES:
        raise Trouble(f"{role} is no role.", todo=f"There are {', '.join(ROLES)}.", status=2)
    for right in rights_of(role, settings_of(context).settings.kafka.group_id):
        typer.echo(right.command(principal))
