"""Does a model fit, told before it is loaded.

In come the headers of its safetensors, its configuration and how it is to be run; out comes
``Need``, in bytes: weights at the precision they will have, and keys and values of every row.
``require_room`` compares it with what there is. An estimate: activations and the libraries
themselves are counted by a flat reserve.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from model.engine import EngineError
from model.folder import Tensor

BESIDE = 3  # rows beside those that answer or are kept: two are read into, one is scored
RESERVE = 256 * 1024**2  # bytes for activations, buffers and the libraries
WIDTHS = {"bf16": 2, "fp16": 2, "fp32": 4}
_CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes. ``row``: keys and values of one request at the full context; ``rows``: of all."""

    weights: int
    row: int
    rows: int

    @property
    def total(self) -> int:
        """With every row filled up."""
        return self.weights + self.rows + RESERVE

    @property
    def least(self) -> int:
        """With one request at a time, at its full length."""
        return self.weights + self.row + RESERVE


def need_of(
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    *,
    width: int,
    slots: int,
    context_length: int,
) -> Need:
    """``width``: bytes of one number in memory; ``slots``: rows that answer or are kept."""
    weights = sum(t.count * width if t.is_float else t.size for t in tensors.values())
    row = per_token(config, width) * context_length
    return Need(weights, row, row * (slots + BESIDE))


def per_token(config: Mapping[str, Any], width: int) -> int:
    """Bytes of keys and values for one token in one row; 0 where the config does not say."""
    text = config.get("text_config") or config
    layers = int(text.get("num_hidden_layers") or 0)
    heads = int(text.get("num_attention_heads") or 0)
    size = int(text.get("head_dim") or (int(text.get("hidden_size") or 0) // max(heads, 1)))
    return 2 * layers * int(text.get("num_key_value_heads") or heads) * size * width


def available() -> int:
    """Bytes that this process may still take: the machine's, or its container's if that is less."""
    free = int(psutil.virtual_memory().available)
    return min([free, *_left_in_cgroup()])


def _left_in_cgroup() -> list[int]:
    """Version 2 of control groups; empty where there is no limit."""
    try:
        most = (_CGROUP / "memory.max").read_text("ascii").strip()
        now = int((_CGROUP / "memory.current").read_text("ascii"))
        stat = (_CGROUP / "memory.stat").read_text("ascii").split()
        given_back = int(stat[stat.index("inactive_file") + 1])  # files that were only read
        return [] if most == "max" else [int(most) - now + given_back]
    except (OSError, ValueError, IndexError):
        return []


def require_room(
    need: Need, there: int, *, name: str, slots: int, at_once: bool, where: str = "memory"
) -> None:
    """Raise ``EngineError`` unless the model fits into ``there`` bytes.

    ``at_once``: the cache is taken whole at the start, as on a GPU. Elsewhere rows take what they
    fill, most stay short, and the model may start as soon as one of them can fill up.
    """
    wanted = need.total if at_once else need.least
    if wanted <= there:
        return
    rows = slots + BESIDE if at_once else 1
    raise EngineError(
        f"The model {name} does not fit into {where}: {_gb(need.weights)} for its weights, "
        f"{_gb(need.row * rows)} for keys and values ({rows} times {_gb(need.row)}, at its full "
        f"context) and {_gb(RESERVE)} besides make {_gb(wanted)}, and {_gb(there)} are "
        f"free. {_todo(need, there, slots, at_once)}"
    )


def _todo(need: Need, there: int, slots: int, at_once: bool) -> str:
    left = there - need.weights - RESERVE
    fitting = left // need.row - BESIDE if need.row else slots
    if at_once and 1 <= fitting < slots:
        return (
            f"Set model.slots and model.kept_prompts to {fitting} together or less, or a shorter "
            "model.context_length."
        )
    if left > 0:
        return "Set a shorter model.context_length, a smaller model, or give it more memory."
    return "Choose a smaller model (model.name), a smaller model.dtype, or give it more memory."


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
