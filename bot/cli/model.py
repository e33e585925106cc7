"""``twite model``: which models are here, fetch one, is it whole, and how fast is it."""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.text import Text

from bot.cli.console import err, out, run, settings_of
from bot.errors import Trouble

if TYPE_CHECKING:  # pydantic takes a third of a second: too long for --help
    from bot.settings import ModelSettings
    from model.catalog import Stored
    from model.speed import Speed

T = TypeVar("T")
app = typer.Typer(
    no_args_is_help=True,
    help="List, fetch, verify and measure models.",
    rich_markup_mode=None,
)

Name = Annotated[
    str | None,
    typer.Argument(
        metavar="[NAME]",
        help="A folder, a GGUF file, a Hugging Face name or the default's; default: model.name.",
    ),
]
Revision = Annotated[
    str | None, typer.Option(help="Commit or branch of a Hugging Face repository.")
]
AsJson = Annotated[bool, typer.Option("--json", help="For programs: JSON.")]
MB = 1_000_000
LOOK_S = 0.5  # between two looks at how much has arrived
MARKS = {"ready": "green", "unusable": "red", "not here": "yellow"}


@app.command("list")
def list_(context: typer.Context, as_json: AsJson = False) -> None:
    """List the models on this machine: the default, conversions, Hugging Face's cache.

    The one of the settings is marked with *.
    """
    from model.catalog import stored
    from model.weights import default_cache_dir

    settings = settings_of(context).settings.model
    found = stored(default_cache_dir())
    if as_json:
        rows = [{**asdict(one), "path": str(one.path) if one.path else None} for one in found]
        typer.echo(json.dumps({"models": rows}, indent=2, ensure_ascii=False))
        return
    _print_models(found, settings.name)


def _print_models(found: "Sequence[Stored]", chosen: str) -> None:
    from bot.rows import Rows

    names = ("", "model", "kind", "revision", "MB", "state", "folder")
    cells = [
        [
            Text("*" if one.name == chosen else ""),
            Text(one.name),
            Text(one.kind),
            Text(one.revision[:17]),
            Text(f"{one.size // MB}"),
            Text(one.state, MARKS[one.state]),
            Text(f"{one.path or ''}"),
        ]
        for one in found
    ]
    out.print(Rows(names, cells), crop=False)
    for one in found:
        if one.why:
            err.print(Text.assemble((f"{one.name}: ", "red"), one.why))


@app.command()
def fetch(context: typer.Context, name: Name = None, revision: Revision = None) -> None:
    """Fetch a model, or convert it, so that a worker finds it ready; what is here stays.

    Examples: twite model fetch, twite model fetch Qwen/Qwen3-0.6B --revision main,
    twite model fetch ./model.Q8_0.gguf
    """
    from model.weights import default_cache_dir, resolve

    settings = settings_of(context).settings.model
    wanted, pin = _wanted(settings, name, revision)
    cache = default_cache_dir()
    found = run(
        _watched(
            wanted,
            cache,
            lambda say: resolve(wanted, pin, cache, say, pinned=_pinned(settings, name)),
        )
    )
    out.print(f"{found.name} {found.revision} is ready in {found.path}", soft_wrap=True)
    out.print(f"weights {found.digest}", soft_wrap=True)


async def _watched(name: str, cache: Path, work: Callable[[Callable[[str], None]], T]) -> T:
    """The work in a thread; its stages as lines, and how much is there as it grows."""
    from model.catalog import growing

    said = ["looking"]

    def say(line: str) -> None:
        said.append(line)
        err.print(Text(line, "dim"))

    task = asyncio.create_task(asyncio.to_thread(work, say))
    with err.status(said[-1]) as status:
        while not (await asyncio.wait([task], timeout=LOOK_S))[0]:
            size = growing(name, cache) // MB
            status.update(f"{said[-1]}{f', {size} MB so far' if size else ''}")
    return await task


@app.command()
def verify(context: typer.Context, name: Name = None, revision: Revision = None) -> None:
    """Compare a model's files with what was noted when they came, and name those that differ.

    A conversion is compared with the note beside it, Hugging Face's cache with the digests that
    its files are called by, and the weights with model.weights_digest, if that is set. Nothing is
    changed. Exit status 1: something differs.
    """
    from model.digests import differing, is_known, weights_digest
    from model.weights import folder_here

    settings = settings_of(context).settings.model
    wanted, pin = _wanted(settings, name, revision)
    folder = folder_here(wanted, pin)
    with err.status(f"reading {folder}"):
        wrong = [f"{file} {what}" for file, what in differing(folder)]
        if wrong:
            raise Trouble(f"{'; '.join(wrong)}.", where=str(folder), todo=_todo(wanted))
        digest = weights_digest(folder)
    pinned = _pinned(settings, name)
    if pinned and pinned != digest:
        what = f"the weights are {digest}, and model.weights_digest says {pinned}."
        raise Trouble(what, where=str(folder), todo=_todo(wanted))
    against = "as noted" if is_known(folder) else "whole; there is no note to compare it with"
    out.print(f"{wanted} in {folder}: {against}{', as pinned' if pinned else ''}", soft_wrap=True)
    out.print(f"weights {digest}", soft_wrap=True)


def _todo(name: str) -> str:
    return f"Remove that folder and run `twite model fetch {name}`."


@app.command()
def bench(
    context: typer.Context,
    name: Name = None,
    revision: Revision = None,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens of each reply.")] = 64,
    in_flight: Annotated[
        str, typer.Option(metavar="N,N", help="How many requests at once.")
    ] = "1,4,16",
    as_json: AsJson = False,
) -> None:
    """Measure how many tokens a second this model writes on this machine.

    Precision, device and threads are those of the settings. The machine should have nothing else
    to do.
    """
    settings = settings_of(context).settings.model
    wanted, pin = _wanted(settings, name, revision)
    counts = _counts(in_flight)
    told = settings.model_copy(
        update={"name": wanted, "revision": pin, "slots": max(*counts, settings.slots)}
    )
    found = run(_measure(told, counts, tokens))
    if as_json:
        typer.echo(
            json.dumps({"model": wanted, "speeds": [asdict(one) for one in found]}, indent=2)
        )
    else:
        _print_speeds(found)


def _counts(text: str) -> list[int]:
    try:
        counts = [int(word) for word in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1 or max(counts) > 1024:
        raise Trouble(
            f"{text!r} is no list of numbers from 1 to 1024.",
            where="--in-flight",
            todo="Write it as 1,4,16.",
        )
    return counts


async def _measure(settings: "ModelSettings", counts: Sequence[int], tokens: int) -> "list[Speed]":
    from bot.wiring import engine_of
    from model.speed import speeds

    engine = engine_of(settings)
    found = []
    with err.status(f"loading {settings.name}") as status:
        await engine.start()
        try:
            status.update(f"{settings.name}: warming up")
            async for speed in speeds(engine, counts, tokens):
                found.append(speed)
                status.update(f"{speed.in_flight} in flight: {speed.tokens_per_s:.1f} tokens/s")
        finally:
            await engine.stop()
    return found


def _print_speeds(found: "Sequence[Speed]") -> None:
    from bot.rows import Rows

    cells = [
        [
            Text(f"{one.in_flight}"),
            Text(f"{one.tokens_per_s:.1f}"),
            Text(f"{one.first_token_s * 1000:.0f}"),
        ]
        for one in found
    ]
    out.print(Rows(("in flight", "tokens/s", "first token, ms"), cells), crop=False)


def _wanted(
    settings: "ModelSettings", name: str | None, revision: str | None
) -> tuple[str, str | None]:
    """The model of the call, else that of the settings with its revision."""
    if name is None:
        return settings.name, revision or settings.revision
    return name, revision


def _pinned(settings: "ModelSettings", name: str | None) -> str | None:
    """The digest of the settings, which is that of their own model."""
    return settings.weights_digest if name in (None, settings.name) else None
