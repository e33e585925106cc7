"""What a bench found, as a value and as JSON (the form that other programs read).

A ``Result`` comes from a bench, ``save`` stamps it with machine, commit and time and writes
``<id>.json``, ``load_all`` reads the files back for the page.
"""

import json
import operator
import os
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import psutil

ORDER = (
    "P1",
    "P1-conversation",
    "P2",
    "P3",
    "P5",
    "P6",
    "P7",
    "P8",
    "view-rebuild",
    "context-lookup",
    "retraction",
    "replay-rate",
    "replay-interference",
    "replay-rescore",
    "audit-verify",
    "own-process",
    "first-token",
    "long-beside-short",
    "soak",
)
_COMPARE: Mapping[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge}
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Goal:
    """``ratio >= 0.8`` or ``value <= 25``: which of the two figures, and its bound."""

    figure: str
    sign: str
    bound: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ``ValueError`` for anything else."""
        figure, sign, bound = text.split()
        if figure not in ("ratio", "value") or sign not in _COMPARE:
            raise ValueError(f"not a goal: {text!r}")
        return cls(figure, sign, float(bound))

    def met(self, ratio: float | None, value: float | None) -> bool:
        """A figure that could not be had meets no goal."""
        found = ratio if self.figure == "ratio" else value
        return found is not None and _COMPARE[self.sign](found, self.bound)


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A further goal of a bench; ``found`` is None where it could not be measured."""

    what: str
    goal: str
    found: float | None

    @property
    def met(self) -> bool:
        return Goal.parse(self.goal).met(None, self.found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One bench's outcome. ``ratio`` is to ``baseline``, both taken in the same run."""

    id: str
    what: str
    goal: str
    ratio: float | None
    value: float | None
    unit: str
    baseline: float | None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    samples: Sequence[Mapping[str, Any]] = ()
    checks: Sequence[Check] = ()
    notes: Sequence[str] = ()

    @property
    def met(self) -> bool:
        return Goal.parse(self.goal).met(self.ratio, self.value)


def with_run(result: Result, *, quick: bool, others_cores: float) -> Result:
    """The result with which form it was, and how busy other programs kept the machine."""
    form = "quick" if quick else "long"
    run = {"form": form, "cores_used_by_others": others_cores}
    return replace(result, parameters={**result.parameters, **run})


def to_json(result: Result, *, machine: str, commit: str, at: str) -> dict[str, Any]:
    """The stored form; numbers are rounded to what they are worth."""
    data = asdict(result)
    data["checks"] = [{**asdict(check), "met": check.met} for check in result.checks]
    data |= {"met": result.met, "machine": machine, "commit": commit, "at": at}
    rounded: dict[str, Any] = _rounded(data)
    return rounded


def save(result: Result, folder: Path) -> Path:
    """Write ``<id>.json``, with where, of what and when."""
    at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    data = to_json(result, machine=machine(), commit=commit(), at=at)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result.id}.json"
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    return path


def load_all(folder: Path) -> list[dict[str, Any]]:
    """The stored results, in the order of the page."""
    return [json.loads((folder / f"{i}.json").read_text()) for i in ORDER if _is(folder, i)]


def machine() -> str:
    """Processor, cores, memory, kernel and Python in one line."""
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{_processor()}, {os.cpu_count()} cores, {memory:.0f} GiB,"
        f" {platform.system()} {platform.release()}, Python {platform.python_version()}"
    )


def commit() -> str:
    """The commit that was measured, with ``+`` where the code differs from it."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", "consumers", "tests")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if changed else "")


def _is(folder: Path, bench: str) -> bool:
    return (folder / f"{bench}.json").is_file()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=_ROOT, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}") if abs(value) < 1000 else round(value, 1)
    if isinstance(value, Mapping):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
