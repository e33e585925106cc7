"""Where a model's files are, and what they are.

In comes a name: nothing (the default model), a local folder, a GGUF file, or a Hugging Face name.
Out come ``ModelFiles``: a folder of safetensors that can be loaded (``model.folder``), the
revision, and the SHA-256 of the weights, which goes on every decision record. GGUF files are
converted once (``model.converted``). Code from a model's folder never runs.
"""

import os
import re
from pathlib import Path
from typing import Any

from platformdirs import user_cache_dir

from model.converted import (
    DEFAULT_MODEL,
    ModelFiles,
    Progress,
    default_folder,
    default_model,
    find_gguf,
    gguf_folder,
    gguf_model,
)
from model.digests import sha256, weights_digest
from model.engine import EngineError, ModelNotFound

__all__ = [
    "DEFAULT_MODEL",
    "ModelFiles",
    "Progress",
    "find_gguf",
    "folder_here",
    "quiet",
    "resolve",
]

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")  # owner/model
FETCHED = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]


def quiet(message: str) -> None:
    """The progress callback that says nothing."""


def resolve(
    name: str | None = None,
    revision: str | None = None,
    cache_dir: Path | None = None,
    progress: Progress = quiet,
    *,
    pinned: str | None = None,
) -> ModelFiles:
    """Find the files of a model, fetch or convert them where they are not here yet.

    ``cache_dir`` is where conversions lie; Hugging Face models use that library's own cache.
    ``pinned``: the digest that the weights must have. Raises ``ModelNotFound``, or ``EngineError``
    for files that cannot be loaded or are not what they should be.
    """
    found = _find(name, revision, cache_dir or default_cache_dir(), progress)
    if pinned and pinned != found.digest:
        raise EngineError(
            f"The weights in {found.path} are not those that are pinned: their digest is "
            f"{found.digest}, and model.weights_digest says {pinned}. `twite model verify` tells "
            "which file has changed."
        )
    return found


def _find(name: str | None, revision: str | None, cache: Path, progress: Progress) -> ModelFiles:
    if name is None or name == DEFAULT_MODEL:
        return default_model(cache, progress)
    there = Path(name).expanduser()
    if there.is_dir():
        return ModelFiles(name, there, revision or "local", weights_digest(there))
    if there.is_file():
        return gguf_model(there, cache, progress)
    if _HUB_NAME.fullmatch(name):
        return _hugging_face(name, revision, progress)
    raise ModelNotFound(
        f"There is no model folder {name!r} here. Set the model's name to a folder with "
        f"safetensors, to a GGUF file, to a Hugging Face name (owner/model), or to "
        f"{DEFAULT_MODEL!r}."
    )


def folder_here(name: str, revision: str | None = None, cache_dir: Path | None = None) -> Path:
    """The folder of a model that needs no fetching and no converting; its weights are not looked
    at. Raises ``ModelNotFound``."""
    there = Path(name).expanduser()
    if name == DEFAULT_MODEL:
        folder = default_folder(cache_dir or default_cache_dir())
    elif there.is_file():
        folder = gguf_folder(there, sha256(there), cache_dir or default_cache_dir())
    elif there.is_dir():
        folder = there
    else:
        try:
            folder = _snapshot(name, revision, local=True)
        except Exception:  # not here: the hub raises errors of half a dozen libraries
            folder = Path(name)
    if not folder.is_dir():
        raise ModelNotFound(f"The model {name} has not been loaded on this machine yet.")
    return folder


def default_cache_dir() -> Path:
    """``TWITE_CACHE``/models, or ``models`` in the user's cache folder."""
    root = os.environ.get("TWITE_CACHE") or user_cache_dir("twite", appauthor=False)
    return Path(root) / "models"


# --- Hugging Face ---------------------------------------------------------------------------


def _hugging_face(name: str, revision: str | None, progress: Progress) -> ModelFiles:
    """What the hub's cache holds already wins, so a model never changes without being asked.

    The revision that is reported is the commit, whatever branch or tag was asked for.
    """
    try:
        path = _snapshot(name, revision, local=True)
        if not list(path.glob("*.safetensors")):
            raise FileNotFoundError(path)
    except Exception:  # not here, or not whole: the hub raises errors of half a dozen libraries
        path = _fetch(name, revision, progress)
    if not list(path.glob("*.safetensors")):
        raise EngineError(
            f"The model {name!r} comes without safetensors. Other formats can run code when they "
            "are opened, so Twite fetches none of them. Choose a model that has safetensors."
        )
    return ModelFiles(name, path, path.name, weights_digest(path))


def _fetch(name: str, revision: str | None, progress: Progress) -> Path:
    progress(f"Fetching {name} from Hugging Face")
    try:
        return _snapshot(name, revision, local=False)
    except Exception as error:
        raise ModelNotFound(
            f"The model {name!r} (revision {revision or 'main'}) could not be fetched from "
            f"Hugging Face: {type(error).__name__}. Check the name, the revision and the "
            "network (HF_TOKEN for gated models), or set the model's name to a local folder."
        ) from error


def _snapshot(name: str, revision: str | None, *, local: bool) -> Path:
    from huggingface_hub import snapshot_download

    options: dict[str, Any] = {"allow_patterns": FETCHED, "local_files_only": local}
    found = snapshot_download(
        name,
        revision=revision,
        ignore_patterns=["*/*"],  # other formats and variants lie in sub-folders
        **options,
    )
    return Path(found)
