"""What a model's folder holds, told before anything of it is loaded.

In comes a folder, out come the headers of its safetensors; whatever cannot work ends here as an
``EngineError`` that names the file and says what to do: an adapter, pickled weights, a GGUF
beside which there is nothing else, a file that is cut short, a shard that is missing, a model
that does not chat. Reads headers and JSON only; nothing of the folder is ever run.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.engine import EngineError, ModelNotFound

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.msgpack", "*.h5")
INDEX = "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
_LONGEST_HEADER = 100_000_000  # bytes, the format's own limit
_BITS = {"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a file: its type as safetensors spell it, and how many numbers it has."""

    dtype: str
    count: int

    @property
    def is_float(self) -> bool:
        """Whether loading turns it into the precision that was asked for."""
        return self.dtype in ("F64", "F32", "F16", "BF16")

    @property
    def size(self) -> int:
        """Bytes in the file."""
        bits = _BITS.get(self.dtype) or int("".join(filter(str.isdigit, self.dtype)) or 8)
        return -(-self.count * bits // 8)


def require_model(folder: Path) -> dict[str, Tensor]:
    """The headers of a folder that may be loaded. Raises ``EngineError``."""
    _require_no_adapter(folder)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise EngineError(_without_safetensors(folder))
    require_all_shards(folder)
    _require_chat(folder, read_json(folder / "config.json"))
    return tensors_of(folder)


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a folder by its name, from the headers. Raises ``EngineError``."""
    found: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= header_of(file)
    return found


def header_of(file: Path) -> dict[str, Tensor]:
    """What a safetensors file says it holds; its size must be as it says.

    Raises ``EngineError`` where the file is cut short, has something else in it, or cannot be
    read.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= min(_LONGEST_HEADER, size - 8):
                raise EngineError(_broken(file, f"its {size} bytes hold no whole header"))
            header: dict[str, Any] = json.loads(stream.read(length))
            header.pop("__metadata__", None)
            wanted = 8 + length + max((t["data_offsets"][1] for t in header.values()), default=0)
            found = {
                name: Tensor(str(t["dtype"]), math.prod(t["shape"])) for name, t in header.items()
            }
    except OSError as error:
        raise EngineError(f"{file} cannot be read ({error.strerror}).") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise EngineError(_broken(file, "it does not begin as safetensors do")) from error
    if size != wanted:
        how = "is cut short" if size < wanted else "has something behind its end"
        raise EngineError(_broken(file, f"it {how}: {size} bytes, and its header says {wanted}"))
    return found


def require_all_shards(folder: Path) -> None:
    """Raise ``ModelNotFound`` where a file is missing that the index names."""
    index = folder / INDEX
    if not index.is_file():
        return
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, Mapping):
        raise EngineError(f"{index} does not say which file holds what. Fetch the model anew.")
    names = set(map(str, shards.values()))
    missing = sorted(name for name in names if not (folder / name).is_file())
    if missing:
        raise ModelNotFound(f"The model folder {folder} lacks {', '.join(missing)}; fetch it anew.")


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises ``EngineError`` with the file's name."""
    try:
        found = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise EngineError(
            f"The model folder {file.parent} has no {file.name}. Fetch the model anew, with all "
            "its files."
        ) from None
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or "it is no JSON"
        raise EngineError(f"{file} cannot be read ({what}). Fetch the model anew.") from error
    if not isinstance(found, dict):
        raise EngineError(f"{file} holds no JSON object. Fetch the model anew.")
    return found


def _require_no_adapter(folder: Path) -> None:
    if not (folder / ADAPTER).is_file() or (folder / "config.json").is_file():
        return
    base = read_json(folder / ADAPTER).get("base_model_name_or_path") or "the model it was made for"
    raise EngineError(
        f"{folder} holds a LoRA adapter and no model. Set the model's name to its base ({base}), "
        "and name this folder among the adapters (model.adapters)."
    )


def _without_safetensors(folder: Path) -> str:
    if found := sorted(file.name for kind in PICKLES for file in folder.glob(kind)):
        return (
            f"The model folder {folder} has no .safetensors file, only {', '.join(found[:3])}. "
            "Files of that kind can run code when they are opened, so Twite never opens them. "
            "Choose a model that comes as safetensors, or convert it where that may happen."
        )
    if found := sorted(str(file) for file in folder.glob("*.gguf")):
        return (
            f"The model folder {folder} has no .safetensors file. Set the model's name to a GGUF "
            f"file itself to have it converted, such as {found[0]}."
        )
    return (
        f"The model folder {folder} has no .safetensors file. Only safetensors are loaded; "
        "convert the model's weights first."
    )


def _require_chat(folder: Path, config: Mapping[str, Any]) -> None:
    """A model that was made to fill gaps or to classify would be loaded with a random head."""
    made_for = [str(name) for name in config.get("architectures") or ()]
    if made_for and not any(_generates(name) for name in made_for):
        raise EngineError(
            f"The model in {folder} is a {', '.join(made_for)}: it does not write text, so it is "
            "not a chat model. Choose a causal language model (…ForCausalLM) with a chat template."
        )


def _generates(architecture: str) -> bool:
    ends = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
    return architecture.endswith(ends)


def _broken(file: Path, what: str) -> str:
    return f"{file} is not a whole safetensors file: {what}. Fetch or copy it anew."
