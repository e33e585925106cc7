"""From a folder of files to a model that can answer: device, precision, attention, tokenizer.

In come ``ModelFiles``, out comes ``Loaded``. Nothing is fetched and no code of the folder runs.
What cannot work is said here, before the first request: not a chat model, weights that are
broken, layers whose state a row of keys and values cannot hold.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.adapters import AdaptedModel
from model.chat import HfChatTokenizer
from model.engine import EngineError
from model.folder import read_json, tensors_of
from model.libraries import quiet_libraries
from model.memory import available, need_of, require_room
from model.placing import Placing, free_on_gpus
from model.weights import ModelFiles

DEFAULT_CONTEXT = 8192  # each row of the cache is as long as the context


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model with what an engine has to know of it. ``context_length`` in tokens."""

    model: Any
    tokenizer: HfChatTokenizer
    end_ids: frozenset[int]
    vocabulary: int
    context_length: int
    precision: str
    attention: str


def load_model(
    files: ModelFiles,
    *,
    device: str = "auto",
    dtype: str = "auto",
    context_length: int | None,
    slots: int = 0,
    placing: Placing | None = None,
    adapters: Mapping[str, Path] | None = None,
) -> Loaded:
    """Load model and tokenizer; raises ``EngineError`` with what is wrong and what to do.

    ``device``: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; several GPUs share a model under
    ``auto``. ``dtype``: ``auto``, ``bf16``, ``fp16`` or ``fp32``, also by torch's long names.
    ``slots``: rows that are to answer or to be kept, for the estimate of its memory. ``placing``:
    how to spread a model that is larger than a device. ``adapters``: folders of LoRA weights by
    name.
    """
    with quiet_libraries():
        try:
            where = _device(device)
            precision = _precision(dtype, where)
            tokenizer = _tokenizer(files.path)
            config = _config(files)
            length = _context_length(config.get_text_config(), context_length)
            if placing is None:
                _require_room(files, where, precision.itemsize, slots, length)
            model = _model(files, config, where, precision, placing)
            model = AdaptedModel(model, adapters) if adapters else model
        except EngineError:
            raise
        except Exception as error:  # whatever a broken folder makes the libraries raise
            raise EngineError(_told(files, error)) from error
    return Loaded(
        model=model,
        tokenizer=tokenizer,
        end_ids=_end_ids(model, tokenizer),
        vocabulary=int(config.get_text_config().vocab_size),
        context_length=length,
        precision=_name_of(model.dtype),
        attention=str(model.config._attn_implementation),
    )


def _told(files: ModelFiles, error: Exception) -> str:
    if "trust_remote_code" in str(error):
        return (
            f"The model in {files.path} brings code of its own, which Twite never runs. Choose a "
            "model whose kind transformers knows."
        )
    return (
        f"The model in {files.path} cannot be loaded ({type(error).__name__}: {error}). "
        "Check that the folder is whole and holds a causal language model."
    )


def _require_room(files: ModelFiles, device: str, width: int, slots: int, length: int) -> None:
    """Raise ``EngineError`` for a model that surely does not fit."""
    config = read_json(files.path / "config.json")
    need = need_of(tensors_of(files.path), config, width=width, slots=slots, context_length=length)
    if device not in ("cpu", "auto") and not device.startswith("cuda"):
        return  # nobody tells how much such a device has
    gpu = device != "cpu"
    there, where = (free_on_gpus(device), "the GPU's memory") if gpu else (available(), "memory")
    require_room(need, there, name=files.name, slots=slots, at_once=gpu, where=where)


def load_tokenizer(
    folder: Path, *, context_length: int | None = None
) -> tuple[HfChatTokenizer, int]:
    """Tokenizer and context length in tokens, without the weights. Raises ``EngineError``."""
    from transformers import AutoConfig

    with quiet_libraries():
        try:
            config = AutoConfig.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
            return _tokenizer(folder), _context_length(config.get_text_config(), context_length)
        except EngineError:
            raise
        except Exception as error:  # whatever a broken folder makes the libraries raise
            raise EngineError(
                f"The tokenizer in {folder} cannot be loaded ({type(error).__name__}: {error})."
            ) from error


def _tokenizer(folder: Path) -> HfChatTokenizer:
    from transformers import AutoTokenizer

    return HfChatTokenizer(
        AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    )


def _config(files: ModelFiles) -> Any:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(files.path, local_files_only=True, trust_remote_code=False)
    _require_full_attention(files, config)
    return config


def _model(
    files: ModelFiles, config: Any, device: str, precision: Any, placing: Placing | None
) -> Any:
    from transformers import AutoModelForCausalLM

    options = {
        "local_files_only": True,
        "trust_remote_code": False,
        "use_safetensors": True,
        "output_loading_info": True,
        "config": config,
        "dtype": precision,
    }
    if placing is not None:
        options |= placing.options(device)
    elif device != "cpu":
        # accelerate places the layers; "auto" spreads them over all GPUs.
        options["device_map"] = "auto" if device == "auto" else {"": device}
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            files.path, attn_implementation="sdpa", **options
        )
    except ValueError:  # a model that has no scaled dot product attention
        model, info = AutoModelForCausalLM.from_pretrained(
            files.path, attn_implementation="eager", **options
        )
    _require_whole(files, info)
    return model.eval()


def _require_whole(files: ModelFiles, info: Mapping[str, Any]) -> None:
    """Weights that the files lack would be random numbers, without a word from the library."""
    if missing := sorted(info["missing_keys"]):
        told = ", ".join(missing[:3]) + (" and others" if len(missing) > 3 else "")
        raise EngineError(
            f"The safetensors in {files.path} lack {len(missing)} of the model's weights ({told}): "
            "they are not those of this config.json. Fetch the model anew, with all its files."
        )


def _require_full_attention(files: ModelFiles, config: Any) -> None:
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    odd = sorted(kinds - {"full_attention", "sliding_attention"})
    if odd or getattr(config, "is_encoder_decoder", False):
        raise EngineError(
            f"The model {files.name} has layers that this engine cannot batch "
            f"({', '.join(odd) or 'an encoder'}). Choose a decoder with attention in each layer."
        )


def _device(wanted: str) -> str:
    """``cpu``, ``cuda:N``, or ``auto`` for all of several GPUs."""
    import torch

    if wanted == "auto":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return "cpu" if count == 0 else "cuda:0" if count == 1 else "auto"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise EngineError("The device is set to cuda, but torch sees no GPU here. Set it to auto.")
    return "cuda:0" if wanted == "cuda" else wanted


def _precision(wanted: str, device: str) -> Any:
    import torch

    named = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    wanted = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}.get(wanted, wanted)
    if wanted in named:
        return named[wanted]
    if wanted != "auto":
        raise EngineError(f"There is no precision {wanted!r}; choose auto, bf16, fp16 or fp32.")
    if device == "cpu":
        # Without AVX-512 a CPU only imitates bf16, and slowly.
        wide = "AVX512" in torch.backends.cpu.get_cpu_capability()
        return torch.bfloat16 if wide else torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def _name_of(dtype: Any) -> str:
    names = {"torch.bfloat16": "bf16", "torch.float16": "fp16", "torch.float32": "fp32"}
    return names.get(str(dtype), str(dtype))


def _context_length(text: Any, wanted: int | None) -> int:
    """As wanted, but never more than the model was made for.

    A model with sliding windows is used within its window, where they make no difference.
    """
    limits = [int(text.max_position_embeddings)]
    if window := getattr(text, "sliding_window", None):
        limits.append(int(window))
    return min(*limits, wanted or DEFAULT_CONTEXT)


def _end_ids(model: Any, tokenizer: HfChatTokenizer) -> frozenset[int]:
    """Tokens that end a reply: the model's own, and what closes a turn in the template."""
    declared = getattr(model.generation_config, "eos_token_id", None)
    if declared is None:
        declared = model.config.get_text_config().eos_token_id
    listed = [] if declared is None else declared if isinstance(declared, list) else [declared]
    return frozenset(listed) | tokenizer.end_of_turn_ids
