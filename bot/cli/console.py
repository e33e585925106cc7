"""What commands share: consoles, the settings of this call, and how an error is told."""

import asyncio
import sys
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer
from rich.console import Console
from rich.text import Text

from bot.errors import Trouble

if TYPE_CHECKING:  # pydantic takes a third of a second: too long for --help
    from bot.config import Loaded

T = TypeVar("T")
WIDE = 120  # columns of a terminal that has room for explanations
out = Console(highlight=False)
err = Console(stderr=True, highlight=False, soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Call:
    """What was said before the sub-command: ``twite --config FILE …``."""

    config: Path | None = None
    debug: bool = False


def settings_of(context: typer.Context, overrides: Mapping[str, Any] | None = None) -> "Loaded":
    """The settings of this call; warnings about them go to standard error."""
    from bot.config import load

    call = context.obj if isinstance(context.obj, Call) else Call()
    loaded = load(call.config, overrides)
    for warning in loaded.warnings:
        err.print(Text.assemble(("warning: ", "yellow"), warning))
    return loaded


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine, without the chatter of the Kafka client's own log; of what our
    rooms log, warnings go to standard error and nothing to what the command prints."""
    import logging

    logger = logging.getLogger("aiokafka")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with _warnings_only():
            return asyncio.run(main)
    finally:
        logger.setLevel(level)


@contextmanager
def _warnings_only() -> Iterator[None]:
    import logging

    import structlog

    before, was_set = structlog.get_config(), structlog.is_configured()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    try:
        yield
    finally:
        structlog.reset_defaults()
        if was_set:
            structlog.configure(**before)


def tell(error: BaseException) -> int:
    """Print an error as one line per problem and return the exit status."""
    for line in _lines(error):
        err.print(Text.assemble(("error: ", "bold red"), line))
    return error.status if isinstance(error, Trouble) else 1


def _lines(error: BaseException) -> list[str]:
    from bot.config import SettingsError

    if isinstance(error, SettingsError):
        return [str(problem) for problem in error.problems]
    if isinstance(error, Trouble):
        return list(error.lines)
    if _made_for_people(error):
        return [str(error), *_hosts(error)]
    what = f"{type(error).__name__}: {error}".splitlines()[0]
    return [f"unexpected {what} (run `twite --debug …` to see where it came from)"]


def _hosts(error: BaseException) -> list[str]:
    """What is wrong with the address at which no broker answers."""
    from bot.hosts import told

    address = getattr(error, "bootstrap_servers", None)
    said = told(address) if isinstance(address, str) else ""
    return [said] if said else []


def _made_for_people(error: BaseException) -> bool:
    """Whether the error comes from a room of ours that writes its messages for people.

    Told by module name, since importing the rooms here would make ``--help`` slow.
    """
    rooms = ("bot", "consumers", "infra", "model", "schemas")
    ours = {cls.__module__.split(".")[0] for cls in type(error).__mro__}
    return not ours.isdisjoint(rooms)


def at_terminal() -> bool:
    """Whether a person can be asked."""
    return sys.stdin.isatty() and sys.stdout.isatty()
