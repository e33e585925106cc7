"""Which models are on this machine, and how much of one is there while it is being made.

In come the folder of conversions and Hugging Face's own cache; out come ``Stored`` values, by
name. Nothing is loaded, fetched or changed.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from model.converted import DEFAULT_MODEL, default_folder
from model.engine import EngineError
from model.folder import require_model

Kind = Literal["default", "converted", "hugging-face", "folder"]
State = Literal["ready", "unusable", "not here"]


@dataclass(frozen=True, slots=True)
class Stored:
    """``size`` in bytes; ``why``: what is wrong with one that cannot be used."""

    name: str
    kind: Kind
    revision: str
    size: int
    state: State
    path: Path | None
    why: str = ""


def stored(cache: Path) -> list[Stored]:
    """The default model, which comes first and may not be here yet, and all others."""
    default = default_folder(cache)
    if default.is_dir():
        first = _look(DEFAULT_MODEL, "default", "", default)
    else:
        first = Stored(DEFAULT_MODEL, "default", "", 0, "not here", None)
    return [first, *_converted(cache, default), *_hub()]


def look_at(name: str, folder: Path) -> Stored:
    """A folder that somebody named."""
    return _look(name, "folder", "", folder)


def size_of(folder: Path) -> int:
    """Bytes of all files below; a link counts as its target."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def growing(name: str, cache: Path) -> int:
    """Bytes of a model so far, wherever its parts land while it is fetched or converted."""
    from huggingface_hub import constants

    blobs = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "blobs"
    try:
        return sum(size_of(place) for place in (*cache.glob("*.partial-*"), blobs))
    except OSError:  # it was renamed just now
        return 0


def _look(name: str, kind: Kind, revision: str, folder: Path) -> Stored:
    try:
        require_model(folder)
    except EngineError as error:
        return Stored(name, kind, revision, size_of(folder), "unusable", folder, str(error))
    return Stored(name, kind, revision, size_of(folder), "ready", folder)


def _converted(cache: Path, default: Path) -> Iterator[Stored]:
    for folder in sorted(cache.glob("*")) if cache.is_dir() else ():
        named = re.fullmatch(r"(.+)-([0-9a-f]{12})-\d+", folder.name)
        if named and folder.is_dir() and folder != default:
            yield _look(named[1], "converted", f"gguf:{named[2]}", folder)


def _hub() -> Iterator[Stored]:
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        repositories = scan_cache_dir().repos
    except CacheNotFound:
        return
    for one in sorted(repositories, key=lambda repository: repository.repo_id):
        for revision in one.revisions if one.repo_type == "model" else ():
            yield _look(one.repo_id, "hugging-face", revision.commit_hash, revision.snapshot_path)
