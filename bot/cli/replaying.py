"""What ``twite replay`` does with its words: an order of them, and a report of what came out.

In: options as they were typed, and the settings. Out: an ``Order`` for ``bot.replay.wiring``;
progress on standard error while it runs; then the report. Imported when the command runs, not
for ``--help``.
"""

import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import typer
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar
from rich.text import Text

from bot.cli.console import err, out, run
from bot.cli.prompts import prompt_named
from bot.clients import cluster_id, options
from bot.errors import Trouble
from bot.files import read_regular
from bot.moments import moment_ms
from bot.preview import with_prompt
from bot.prompt_room import require_room
from bot.replay.folder import Folder
from bot.replay.page import write_page
from bot.replay.plan import Plan
from bot.replay.report import CHANGED, Summary
from bot.replay.run import Progress
from bot.replay.show import case_lines, further, summary_rows
from bot.replay.wanted import Stretch, Wanted
from bot.replay.wiring import Order, Told, replay
from bot.settings import Settings
from bot.templates import PromptFile, chosen
from bot.wiring import engine_of, setup_of
from infra.cache import cache_root
from model.engine import Engine
from schemas.codes import Outcome
from schemas.replays import Change, ReplayMode

USAGE = 2  # exit status: the command was typed wrong
MAX_IDS_BYTES = 64 * 2**20
TELL_S = 5.0  # between two lines of progress where there is no terminal
_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)(%?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What the decisions are made again with."""

    mode: str | None = None
    against: str | None = None
    model: str | None = None
    revision: str | None = None
    engine: str | None = None
    any_model: bool = False
    score: bool = True
    reveal: bool = False

    @property
    def overrides(self) -> dict[str, Any]:
        """Of the settings."""
        given = {"name": self.model, "revision": self.revision, "engine": self.engine}
        named = {name: value for name, value in given.items() if value}
        if self.model and not self.revision:
            named["revision"] = "main"
        return {"model": named} if named else {}


def ids_in(file: Path | None) -> list[str]:
    """The ids of a file, one a line; empty lines and those with a # first are left out. Raises
    ``Trouble``."""
    if file is None:
        return []
    try:
        text = read_regular(file, MAX_IDS_BYTES + 1)
        lines = text.decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise Trouble(f"cannot be read: {why}.", where=str(file), status=USAGE) from None
    if len(text) > MAX_IDS_BYTES:
        raise Trouble("has more than 64 MiB.", where=str(file), status=USAGE)
    ids = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not ids:
        raise Trouble("holds no ids.", where=str(file), status=USAGE)
    return ids


def share(text: str | None) -> float | None:
    """``5%`` or ``0.05`` as a number from 0 to 1. Raises ``Trouble``."""
    if text is None:
        return None
    match = _SHARE.fullmatch(text.strip())
    value = float(match[1]) / (100 if match[2] else 1) if match else -1.0
    if not 0 <= value <= 1:
        todo = "Write 5% or 0.05."
        raise Trouble(f"{text!r} is no share.", where="--budget", todo=todo, status=USAGE)
    return value


def require_writable(html: Path | None) -> None:
    """Raises ``Trouble`` now, and not after an hour."""
    if html is None:
        return
    if html.is_dir() or not html.absolute().parent.is_dir():
        todo = "Name a file in a folder that is there."
        raise Trouble("no file can be written there.", where=str(html), todo=todo, status=USAGE)


def order_of(
    settings: Settings,
    conditions: Mapping[str, Any],
    target: Target,
    *,
    in_flight: int,
    publish: bool,
    resume: bool,
    root: Path | None,
) -> Order:
    """Asks the broker who it is. Raises ``Trouble`` and ``BrokerUnreachable``."""
    mode = _mode(target)
    wanted = wanted_of(conditions)
    prompt = prompt_named(target.against, settings.prompts) if target.against else None
    setup = setup_of(settings, run(cluster_id(settings.kafka)))
    setup = with_prompt(setup, prompt.template) if prompt else setup
    files = [prompt] if prompt else chosen(settings.prompts)

    def fit(engine: Engine) -> None:
        if mode == "rebuilt":
            length = engine.describe().context_length
            require_room(files, setup, engine.tokenizer, length)

    return Order(
        wanted=wanted,
        mode=mode,
        setup=setup,
        engine=lambda: engine_of(settings.model),
        spec=_spec(conditions, target, settings, files),
        root=root or cache_root() / "replays",
        bootstrap_servers=settings.kafka.bootstrap_servers,
        client=options(settings.kafka),
        limits=settings.limits,
        fit=fit,
        same_model=not (target.any_model or target.overrides),
        score=target.score,
        in_flight=in_flight,
        publish=publish,
        reveal=target.reveal,
        resume=resume,
    )


def wanted_of(conditions: Mapping[str, Any]) -> Wanted:
    """Raises ``Trouble`` for what is written wrong, and where nothing says which decisions."""
    now = datetime.now(UTC)
    since, until = conditions["since"], conditions["until"]
    wanted = Wanted(
        stretches=tuple(map(Stretch.parse, conditions["range"] or ())),
        since_ms=None if since is None else moment_ms(since, now),
        until_ms=None if until is None else moment_ms(until, now),
        authors=frozenset(conditions["author"] or ()),
        conversations=frozenset(conditions["conversation"] or ()),
        ids=frozenset(conditions["id"]),
        prompts=tuple(conditions["prompt_hash"] or ()),
        models=frozenset(conditions["of_model"] or ()),
        outcomes=frozenset(_outcomes(conditions["outcome"] or ())),
        reasons=frozenset(conditions["reason"] or ()),
    )
    if wanted.is_everything != conditions["all"]:
        what = "--all goes alone." if conditions["all"] else "nothing says which decisions."
        todo = "Give --since, --range, --id, --author or another condition, or only --all."
        raise Trouble(what, where="twite replay", todo=todo, status=USAGE)
    return wanted


def _outcomes(words: Any) -> list[str]:
    known = [outcome.value for outcome in Outcome]
    for word in words:
        if word not in known:
            todo = f"There are {', '.join(known)}."
            raise Trouble(f"{word!r} is none.", where="--outcome", todo=todo, status=USAGE)
    return list(words)


def _mode(target: Target) -> ReplayMode:
    mode = target.mode or ("rebuilt" if target.against else "frozen")
    if mode not in ("frozen", "rebuilt"):
        todo = "Say frozen or rebuilt."
        raise Trouble(f"{mode!r} is no mode.", where="--mode", todo=todo, status=USAGE)
    if mode == "frozen" and target.against:
        todo = "Leave out --mode, or --against."
        what = "the recorded prompt is used in frozen mode, and no other."
        raise Trouble(what, where="--against", todo=todo, status=USAGE)
    return cast("ReplayMode", mode)


def _spec(
    conditions: Mapping[str, Any],
    target: Target,
    settings: Settings,
    files: list[PromptFile],
) -> dict[str, Any]:
    """The command by which an interrupted replay is found again."""
    return {
        "conditions": dict(conditions),
        "target": asdict(target),
        "settings": settings.digest,
        "prompts": [file.template.hash for file in files],
    }


async def replayed(order: Order) -> Folder:
    """Runs it, with its progress told. The folder is to be removed once it was shown."""
    kept: list[Folder] = []
    with _progress() as tell:

        def planned(folder: Folder, plan: Plan) -> None:
            kept.append(folder)
            err.print(Text(f"replay {folder.id}: {len(plan.entries)} decisions", "dim"))
            if plan.unread:
                err.print(f"{plan.unread} records of the audit can't be read: left out")

        try:
            return await replay(order, Told(planned=planned, progress=tell))
        except BaseException:
            if kept:
                err.print(f"kept in {kept[0].path}: the same command with --resume goes on")
            raise


@contextmanager
def _progress() -> Iterator[Any]:
    """A bar at a terminal, a line now and then elsewhere."""
    if not err.is_terminal:
        yield _Lines().tell
        return
    columns = (
        TextColumn("replaying"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=err, transient=True) as bar:
        task = bar.add_task("replaying", total=None, rate="")
        lines = _Lines()

        def tell(progress: Progress) -> None:
            rate = f"{lines.rate(progress):.1f}/s"
            bar.update(task, completed=progress.done, total=progress.total, rate=rate)

        yield tell


class _Lines:
    """How fast it goes, and a line for it every few seconds."""

    def __init__(self) -> None:
        self._began = self._told = time.monotonic()

    def rate(self, progress: Progress) -> float:
        """Decisions a second of this run."""
        return (progress.done - progress.before) / max(1e-3, time.monotonic() - self._began)

    def tell(self, progress: Progress) -> None:
        now = time.monotonic()
        if progress.done < progress.total and now - self._told < TELL_S:
            return
        self._told = now
        rate = self.rate(progress)
        left = (progress.total - progress.done) / rate if rate else 0.0
        err.print(f"{progress.done} of {progress.total}, {rate:.1f}/s, {left:.0f} s left")


def report(folder: Folder, *, html: Path | None, show: int, as_json: bool) -> Summary:
    """Prints it, and writes the page where one is wanted."""
    summary = Summary()
    shown = 0
    for result in folder.results():
        summary.add(result)
        if as_json:
            typer.echo(result.model_dump_json())
        elif shown < show and result.change in (*CHANGED, Change.NOT_REPLAYED):
            shown += 1
            for line in case_lines(result):
                out.print(line, soft_wrap=True)
    if html is not None:
        write_page(html, folder.results, folder.id, datetime.now(UTC))
    if as_json:
        typer.echo(json.dumps({"replay_id": folder.id, "summary": summary.to_json()}))
        return summary
    more = summary.total - summary.changes[Change.IDENTICAL] - shown
    if more:
        out.print(f"… and {more} more (--show, --html, --json)")
    out.print(summary_rows(summary), crop=False)
    for told in further(summary):
        out.print(Text(told), soft_wrap=True)
    out.print(Text(f"replay {folder.id}" + (f", page {html}" if html else ""), "dim"))
    return summary


def is_over(summary: Summary, allowed: float, *, as_json: bool) -> bool:
    """Whether more outcomes changed than may; says so."""
    changed = summary.changed_outcomes
    over = changed > allowed
    if not as_json:
        word = "more than" if over else "within"
        line = f"{changed:.2%} of outcomes changed: {word} the budget of {allowed:.2%}"
        out.print(Text(line, "bold red" if over else "green"))
    return over
