"""Where Twite keeps what it downloads once, and how two starts at once share it.

In comes a name and a function that fills an empty folder; what is guaranteed is that
the named folder is either not there or complete, whoever else fills it at that moment
and whenever one of them is killed. The jars of Kafka go through here.
"""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_dir

Fill = Callable[[Path], None]
_UNFINISHED = ".unfinished-"


def cache_root() -> Path:
    """The user's cache of Twite; ``TWITE_CACHE`` names another place."""
    chosen = os.environ.get("TWITE_CACHE")
    return Path(chosen).expanduser() if chosen else Path(user_cache_dir("twite"))


def filled_once(target: Path, fill: Fill) -> Path:
    """``target``, made by ``fill`` unless it is there already.

    ``fill`` gets an empty folder beside ``target`` that is renamed when it is done, under
    a lock, so that a second start waits for the first instead of doing the work again.
    What a killed start left unfinished is removed by the next one.
    """
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.parent / f".{target.name}.lock"):
        if not target.exists():
            _remove_unfinished(target)
            _fill(target, fill)
    return target


def _fill(target: Path, fill: Fill) -> None:
    unfinished = Path(tempfile.mkdtemp(prefix=_prefix(target), dir=target.parent))
    try:
        fill(unfinished)
        unfinished.chmod(0o755)
        unfinished.rename(target)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _remove_unfinished(target: Path) -> None:
    for leftover in target.parent.glob(f"{_prefix(target)}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _prefix(target: Path) -> str:
    return f"{_UNFINISHED}{target.name}-"
