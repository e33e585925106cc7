"""The report as one HTML page that needs nothing else.

In: the results of a replay. Out: a file. Guaranteed: every text is escaped (Jinja2 with
autoescape) and shown without the characters that turn the reading direction, no script runs and
nothing is fetched (the page's own Content-Security-Policy says so too), and the file is whole or
not there. Bounded: the first ``MOST`` cases that are not identical, then as many identical ones as
are left of that.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib import resources
from itertools import islice
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from bot.errors import Trouble
from bot.replay.report import (
    MEANING,
    Difference,
    Summary,
    action,
    changed_context,
    changed_rules,
)
from bot.replay.show import further
from bot.replay.words import Piece, pieces
from bot.show import plain
from schemas.replays import Change, ReplayCompared

MOST = 1000
Results = Callable[[], Iterable[ReplayCompared]]
"""Gives all results from the start, each time it is asked."""


@dataclass(frozen=True, slots=True)
class Case:
    """One result with what the page shows of it."""

    result: ReplayCompared
    origin: str
    pieces: tuple[Piece, ...]
    rules: tuple[Difference, ...]
    context: tuple[Difference, ...]


def write_page(file: Path, results: Results, replay_id: str, now: datetime) -> None:
    """Raises ``Trouble`` where the file can't be written."""
    new = file.with_name(f".{file.name}.new")
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as opened:
            opened.writelines(page(results, replay_id, now))
        new.replace(file)
    except OSError as error:
        new.unlink(missing_ok=True)
        what = f"the page can't be written: {error.strerror or error}."
        raise Trouble(what, where=str(file)) from error


def page(results: Results, replay_id: str, now: datetime) -> Iterator[str]:
    """The page piece by piece; memory does not grow with the results."""
    summary = Summary.of(results())
    first = next(iter(results()), None)
    changed = summary.total - summary.changes[Change.IDENTICAL]
    template = _environment().from_string(_source())
    return template.generate(
        replay_id=replay_id,
        mode=first.mode if first else "frozen",
        made_at=f"{now:%Y-%m-%d %H:%M} UTC",
        summary=summary,
        changes=list(Change),
        meaning=MEANING,
        further=list(further(summary)),
        action=action,
        most=MOST,
        left_out=max(0, changed - MOST),
        cases=islice(_cases(results), MOST),
    )


def _cases(results: Results) -> Iterator[Case]:
    """Those that are not identical first."""
    for identical in (False, True):
        for result in results():
            if (result.change is Change.IDENTICAL) is identical:
                yield _case(result)


def _case(result: ReplayCompared) -> Case:
    before, after, at = result.before, result.after, result.input
    origin = f"{at.topic}/{at.partition}/{at.offset}" if at else "no input"
    if before is None or after is None:
        return Case(result, origin, (), (), ())
    words = tuple(pieces(before.text or "", after.text or ""))
    rules = tuple(changed_rules(before, after))
    return Case(result, origin, words, rules, tuple(changed_context(before, after)))


def _environment() -> Environment:
    return Environment(autoescape=True, undefined=StrictUndefined, finalize=_finalize)


def _finalize(value: object) -> object:
    """What is put into the page, without what steers it; markup of ours is none of it."""
    return plain(value) if type(value) is str else value


def _source() -> str:
    return (resources.files("bot.replay") / "page.html").read_text("utf-8")
