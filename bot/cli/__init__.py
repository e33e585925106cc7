"""The command line: ``twite`` and its sub-commands.

Arguments come in, a message and an exit status go out: 0 done, 1 something is wrong (one line
says what, where, and what to do), 2 the command was typed wrong, 3 no answer in time. Nothing
heavy is imported before a command runs, so that ``--help`` is instant.
"""

import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer

from bot.cli import (
    approving,
    audit,
    bench,
    config,
    dead_letters,
    evidence,
    explain,
    model,
    moderate,
    prompts,
    replay,
    run,
    schemas,
    talk,
    topics,
    views,
)
from bot.cli.console import Call, err, tell
from bot.cli.tidy import tidy

EPILOG = """
**Try it**

- `twite demo` starts everything on this machine and shows the bot at work.
- `twite demo --engine echo` does the same without a model, in seconds.

**Run it**

- `twite config check` looks whether your settings, broker, topics and model are in order.
- `twite topics create` makes the topics, `twite worker` answers.
- `twite mention "What is the capital of France?"` asks the bot and waits for its answer.
- `twite model list` shows the models on this machine, `bench` how fast one is.
- `twite views show` shows what workers on this machine remember.
- `twite explain WHAT` says why the bot said this, or did not.
- `twite replay --since 2h` makes decisions again and says what changed.
- `twite audit verify` proves that no decision record was changed since it was sealed.
- `twite moderate retract WHAT` takes a reply back; `block`, `stop`, `pause` and more.
- `twite dead-letters list` shows what could not be handled, `redrive` lets it try again.

**Settings** come from a TOML file (`--config`, `TWITE_CONFIG` or `./twite.toml`) and from
variables such as `TWITE_KAFKA__BOOTSTRAP_SERVERS`; `twite config show` lists them all.
"""

app = typer.Typer(
    name="twite",
    help="A bot that answers mentions and direct messages from Kafka with a model of your own.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
run.add_to(app)
talk.add_to(app)
explain.add_to(app)
replay.add_to(app)
bench.add_to(app)
app.add_typer(topics.app, name="topics")
app.add_typer(schemas.app, name="schemas")
app.add_typer(config.app, name="config")
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(audit.app, name="audit")
app.add_typer(evidence.app, name="evidence")
app.add_typer(model.app, name="model")
approving.add_to(moderate.app)
app.add_typer(moderate.app, name="moderate")
app.add_typer(prompts.app, name="prompts")
app.add_typer(views.app, name="views")


def _version(wanted: bool) -> None:
    if not wanted:
        return
    try:
        typer.echo(f"twite {version('twite')}")
    except PackageNotFoundError:
        typer.echo("twite (not installed as a package)")
    raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", metavar="FILE", help="TOML file with settings."),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    _: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version.")
    ] = False,
) -> None:
    context.obj = Call(config, debug)


tidy(app)


def general_first(arguments: list[str]) -> list[str]:
    """The options of every command may stand anywhere: ``twite worker --config FILE``."""
    front: list[str] = []
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--":
            return [*front, *rest, word, *words]
        if word in ("--config", "-c"):
            front += [word, *[value for value in [next(words, None)] if value is not None]]
        elif word == "--debug" or word.startswith("--config="):
            front.append(word)
        else:
            rest.append(word)
    return [*front, *rest]


def main() -> None:
    """The entry point of the ``twite`` command."""
    sys.argv[1:] = general_first(sys.argv[1:])
    try:
        app()
    except KeyboardInterrupt:
        err.print("stopped")
        sys.exit(130)
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        sys.exit(tell(error))
