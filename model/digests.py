"""What a model's files are, as SHA-256: of the weights, which goes on every decision record, and
of each file, which tells the one that has changed.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from model.engine import EngineError
from model.folder import require_model

SIDECAR = "twite-weights.json"


def weights_digest(folder: Path) -> str:
    """SHA-256 of the safetensors in a folder, as ``sha256:…``.

    One file: its own digest. Several: the digest of the lines ``name digest``, sorted by name.
    Raises ``EngineError`` for a folder that cannot be loaded (``model.folder``).
    """
    require_model(folder)
    return joined_digest({file.name: sha256(file) for file in sorted(folder.glob("*.safetensors"))})


def joined_digest(files: Mapping[str, str]) -> str:
    """The digest of weights whose files have these digests."""
    if len(files) == 1:
        return f"sha256:{next(iter(files.values()))}"
    lines = "".join(f"{name} {files[name]}\n" for name in sorted(files))
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


def sha256(file: Path) -> str:
    """SHA-256 of a file, as hex. Raises ``EngineError`` where it cannot be read."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise EngineError(f"{file} cannot be read ({error.strerror}).") from error


def write_sidecar(folder: Path, **more: object) -> str:
    """Note the digests of a folder's files beside them; returns that of the weights."""
    require_model(folder)
    files = {file.name: sha256(file) for file in sorted(folder.iterdir()) if file.is_file()}
    digest = joined_digest({n: d for n, d in files.items() if n.endswith(".safetensors")})
    note = {"digest": digest, **more, "files": files}
    (folder / SIDECAR).write_text(json.dumps(note, indent=2) + "\n", "utf-8")
    return digest


def noted(folder: Path) -> dict[str, object] | None:
    """What the sidecar says; None where there is none, or none that can be read."""
    try:
        found = json.loads((folder / SIDECAR).read_text("utf-8"))
        return found if isinstance(found["digest"], str) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def differing(folder: Path) -> Iterator[tuple[str, str]]:
    """Files that are not what was noted or fetched: name and what is wrong with it.

    A folder with a sidecar is compared with that. One of Hugging Face's cache tells by its links:
    a file's target is called by its digest. Of any other folder nothing is known.
    """
    note = noted(folder)
    files = note.get("files") if note else None
    if isinstance(files, Mapping):
        for name, digest in files.items():
            if not (folder / name).is_file():
                yield name, "is missing"
            elif sha256(folder / name) != digest:
                yield name, "differs"
    elif note is None:
        yield from _differing_links(folder)
    elif note["digest"] != weights_digest(folder):  # noted by an earlier version
        yield "the weights", "differ"


def is_known(folder: Path) -> bool:
    """Whether there is anything to compare a folder's files with."""
    return noted(folder) is not None or any(_links(folder))


def _links(folder: Path) -> Iterator[Path]:
    return (f for f in sorted(folder.iterdir()) if f.is_symlink() and f.readlink().parent.name)


def _differing_links(folder: Path) -> Iterator[tuple[str, str]]:
    for link in _links(folder):
        name = link.readlink().name
        if not link.is_file():
            yield link.name, "is missing"
            continue
        digest = _git_hash(link) if len(name) == 40 else sha256(link)
        if digest != name:
            yield link.name, "differs"


def _git_hash(file: Path) -> str:
    """How git, and with it the hub, calls a small file: SHA-1 over a header and the content."""
    content = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
