"""The table and ``docs/benchmarks.md``, made from the stored JSON files and nothing else."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from tests.bench import result

_INTRO = """\
# Benchmarks

Made by `make bench` from the files in `benchmarks/`; do not edit by hand. Ratios are taken
within one run, the two sides by turns, medians over several rounds. No test asserts a time.
Where other programs kept the machine busy during a run, the figure says how much: distrust
what was measured beside more than half a core of strangers.

No figure here is of a GPU: P4 and the GPU's form of P3 (`make bench-gpu`) were never run on one,
only their ways on a CPU. The engine has neither CUDA graphs nor a paged attention kernel.
"""

MEANING: Mapping[str, str] = {
    "P1": "What the runtime costs above the least that exactly once can cost. The ratio is events"
    " per second of the worker over those of a bare loop; 1 would be free of charge.",
    "P1-conversation": "What the whole bot costs above the least that exactly once can cost: the"
    " same as P1, with decoding, policy, quotas, context out of views, prompt, reply, audit records"
    " and references in the way, and the same bytes written by the loop. The engine is instant, so"
    " this is the most that one worker process can decide; a model is far slower.",
    "P2": "How full the slots are kept when answers are slow: replies per second over slots ÷"
    " latency, which nobody can exceed. Beside it what each framework promises, what it lost,"
    " doubled or put out of order over three kill -9, and the processor time of one reply.",
    "P3": "What the way from Kafka and back costs where a real model answers: the tokens per second"
    " of the whole worker over those of its engine alone with the same requests.",
    "P5": "What the runtime adds to the time of an answer: from the mention in the log to its"
    " reply readable by others. The ratio is to a plain produce → consume round trip.",
    "P6": "Whether a few slow answers hold the many short ones up: the short ones' 99th"
    " percentile beside slow ones, over the same alone.",
    "P7": "How the engine on a processor compares with what one would otherwise run there. The"
    " ratio is replies per second over those of llama.cpp on the same cores, by turns.",
    "P8": "How long the partitions of a worker that was killed stay unanswered.",
    "view-rebuild": "How fast what the bot remembers comes back from Kafka when its files are gone,"
    " and how soon a worker is ready when they are there. The ratio is to reading the same log"
    " without keeping anything.",
    "context-lookup": "How long the bot takes to look up what stands around a mention, in a view of"
    " a million posts that is being written meanwhile.",
    "retraction": "How soon words are taken back when the post that they answered is deleted, while"
    " the worker is at half of its load: over three topics and three transactions.",
    "replay-rate": "How fast recorded decisions are made again, over how fast the live pipeline"
    " made them: frozen; beside it rebuilt, with what the bot remembered then.",
    "replay-interference": "What live answers lose while a replay runs beside them on the same two"
    " cores: replies per second and their 99th percentile, with the replay and without.",
    "audit-verify": (
        "Moderators must be able to prove that nobody changed what the bot decided, over a year of"
        " it, and soon. Every record is read and hashed, texts apart, and compared with its seal."
    ),
    "replay-rescore": "Whether replies can be made again: how many recorded ones the model would"
    " draw again token by token, and how many came out the same, bit by bit.",
    "own-process": "What it brings that the engine has a process of its own: beside a worker's"
    " event loop that has work, tokens per second over those of the same engine in the worker's"
    " process; how late that loop wakes; and memory.",
    "first-token": "How long people wait for the first token, how long a worker's engine takes to"
    " start, and the memory that it holds.",
    "long-beside-short": "Whether long answers hold up short ones while slots are free.",
    "soak": "Whether anything grows: memory, tasks and open files over steady load.",
}


def write(folder: Path, page: Path) -> None:
    """``page`` from all JSON files of ``folder``."""
    page.write_text(markdown(result.load_all(folder)))


def table(results: Sequence[Mapping[str, Any]], only: Iterable[str]) -> Table:
    """For the terminal."""
    made = Table("id", "ratio", "value", "baseline", "goal", "", title="Benchmarks")
    for found in results:
        if found["id"] not in only:
            continue
        ok = "[green]met" if found["met"] else "[red]missed"
        made.add_row(*_row(found), ok)
        for check in found["checks"]:
            ok = "[green]met" if check["met"] else "[red]missed"
            figure = number(check["found"])
            made.add_row("", "", figure, f"[dim]{check['what']}", check["goal"], ok)
    return made


def markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """The whole page."""
    parts = [_INTRO, _overview(results)]
    parts += [_section(found) for found in results]
    return "\n".join(parts)


def number(value: float | None) -> str:
    """For people: no more digits than it is worth."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _row(found: Mapping[str, Any]) -> tuple[str, str, str, str, str]:
    unit = found["unit"]
    value, baseline = number(found["value"]), number(found["baseline"])
    return found["id"], number(found["ratio"]), f"{value} {unit}", baseline, found["goal"]


def _overview(results: Sequence[Mapping[str, Any]]) -> str:
    lines = ["| id | ratio | value | baseline | goal | met |", "|---|---|---|---|---|---|"]
    for found in results:
        lines.append(f"| {' | '.join(_row(found))} | {_yes(found['met'])} |")
        lines += [
            f"| {found['id']} | | {number(check['found'])} {check['what']} | | {check['goal']} |"
            f" {_yes(check['met'])} |"
            for check in found["checks"]
        ]
    return "\n".join(lines) + "\n"


def _section(found: Mapping[str, Any]) -> str:
    lines = [f"## {found['id']}: {found['what']}", "", MEANING[found["id"]], ""]
    lines += [f"- {note}" for note in found["notes"]]
    settings = ", ".join(
        f"{name} {_plain(value)}"
        for name, value in found["parameters"].items()
        if not isinstance(value, Mapping | list)
    )
    lines += [f"- Setting: {settings}.", f"- Machine: {found['machine']}."]
    lines += [f"- Commit {found['commit']}, {found['at']}.", ""]
    if "systems" in found["parameters"]:
        lines += [_systems(found["parameters"]["systems"]), ""]
    return "\n".join(lines)


def _systems(systems: Sequence[Mapping[str, Any]]) -> str:
    """The peers of P2, side by side."""
    columns = list(systems[0])
    head = " | ".join(column.replace("_", " ") for column in columns)
    lines = [f"| {head} |", "|" + "---|" * len(columns)]
    lines += [
        "| " + " | ".join(_plain(system.get(name)) for name in columns) + " |" for system in systems
    ]
    return "\n".join(lines)


def _plain(value: Any) -> str:
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        return number(value)
    return str(value)


def _yes(met: bool) -> str:
    return "yes" if met else "**no**"
