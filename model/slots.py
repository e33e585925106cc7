"""A batch of requests inside a stock transformers model: one row and one length for each.

The model is given a cache object whose keys and values lie in one block per layer, shape
(rows, heads, context length, head size). A step says which rows it writes and where; masks and
position ids are explicit, so rows of different length run side by side. Rows 0 to n-1 decode;
one row more is where a newcomer's prompt is read before it joins them.
"""

import math
import mmap
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from model.adapters import AdaptedModel
from model.placing import input_device

_ROUND = 32  # lengths that attention sees are rounded up, so that shapes repeat


class _Step:
    """Where the running forward pass writes, and how much of each row it reads."""

    rows: slice | Tensor
    write: slice | Tensor
    read: tuple[slice, slice]  # rows, positions


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer; allocated on the layer's own device at its first step."""

    is_sliding = False

    def __init__(self, step: _Step, rows: int, length: int) -> None:
        super().__init__()
        self._step, self._rows, self._length = step, rows, length

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.keys = self._block(key_states)
        self.values = self._block(value_states)
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None  # noqa: S101 - for the type checker
        assert self.values is not None  # noqa: S101
        step = self._step
        rows, write = _on(step.rows, self.keys.device), _on(step.write, self.keys.device)
        if isinstance(rows, slice):  # one row, a run of positions
            self.keys[rows, :, write] = key_states
            self.values[rows, :, write] = value_states
        else:  # many rows, one position each
            self.keys[rows, :, write] = key_states[:, :, 0]
            self.values[rows, :, write] = value_states[:, :, 0]
        read_rows, read = step.read
        return self.keys[read_rows, :, read], self.values[read_rows, :, read]

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` positions of one row over another."""
        for block in (self.keys, self.values):
            if block is not None:
                block[target, :, :length] = block[source, :, :length]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        positions = self._step.read[1]
        return int(positions.stop), 0

    def get_seq_length(self) -> int:
        return int(self._step.read[1].stop)

    def get_max_length(self) -> int:
        return self._length

    def _block(self, like: Tensor) -> Tensor:
        shape = (self._rows, like.shape[1], self._length, like.shape[3])
        if like.device.type != "cpu":
            return torch.zeros(shape, dtype=like.dtype, device=like.device)
        return _lazy_zeros(shape, like.dtype)


def _lazy_zeros(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Zeros that take memory only where they are written: most rows stay short.

    torch's own zeros are written at once, and numpy asks for huge pages, of which a few bytes
    take two megabytes.
    """
    size = math.prod(shape) * dtype.itemsize
    memory = mmap.mmap(-1, size)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype).view(shape)


class Slots:
    """The rows of a model: read a prompt, decode one token for each row, move rows.

    ``model``: a causal language model of transformers with full attention in each layer.
    ``slots``: how many rows can decode; ``length``: positions in a row.
    """

    def __init__(self, model: Any, slots: int, length: int) -> None:
        self._model = model
        self._additive = model.config._attn_implementation == "eager"
        self._dtype = model.dtype
        self._device = input_device(model)
        self._length = length
        self._step = _Step()
        self.reading_row = slots
        layers = model.config.get_text_config().num_hidden_layers
        self._layers = [SlotLayer(self._step, slots + 1, length) for _ in range(layers)]
        self._cache = Cache(layers=list(self._layers))

    def read(self, token_ids: Sequence[int], start: int, *, every: bool = False) -> Tensor:
        """Take in a piece of a prompt, positions from ``start``, on the reading row.

        Returns the logits after its last token, shape (vocabulary,); with ``every`` those after
        each of its tokens, shape (tokens, vocabulary).
        """
        end = start + len(token_ids)
        row = slice(self.reading_row, self.reading_row + 1)
        self._step.rows, self._step.write = row, slice(start, end)
        self._step.read = (row, slice(0, end))
        positions = torch.arange(start, end, device=self._device)
        ids = torch.tensor([list(token_ids)], device=self._device)
        logits = self._forward(ids, positions[None], end, keep=len(token_ids) if every else 1)[0]
        return logits if every else logits[-1]

    def decode(self, token_ids: Sequence[int], positions: Sequence[int]) -> Tensor:
        """One more token for rows 0 to n-1: row i takes ``token_ids[i]`` at ``positions[i]``.

        Returns the logits after it, shape (n, vocabulary).
        """
        count = len(token_ids)
        end = min(-(-(max(positions) + 1) // _ROUND) * _ROUND, self._length)
        where = torch.tensor(list(positions), device=self._device)
        self._step.rows = torch.arange(count, device=self._device)
        self._step.write = where
        self._step.read = (slice(0, count), slice(0, end))
        ids = torch.tensor(list(token_ids), device=self._device)
        return self._forward(ids[:, None], where[:, None], end)[:, -1]

    def use(self, adapters: Sequence[str | None]) -> None:
        """Which LoRA weights the rows of the next ``read`` or ``decode`` take, one for each."""
        if isinstance(self._model, AdaptedModel):
            self._model.rows = adapters

    def move(self, source: int, target: int, length: int) -> None:
        """Make row ``target`` the same as row ``source``, whose first ``length`` count."""
        with torch.inference_mode():
            for layer in self._layers:
                layer.move(source, target, length)

    @torch.inference_mode()
    def _forward(self, ids: Tensor, positions: Tensor, end: int, keep: int = 1) -> Tensor:
        """Logits after the last ``keep`` tokens, shape (rows, keep, vocabulary)."""
        output = self._model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=self._mask(positions, end),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        logits: Tensor = output.logits[:, -keep:]
        return logits.float()

    def _mask(self, positions: Tensor, end: int) -> Tensor:
        """Shape (rows, 1, new tokens, end): each token sees its row up to itself."""
        seen = torch.arange(end, device=positions.device) <= positions[:, :, None]
        if not self._additive:
            return seen[:, None]
        hidden = torch.finfo(self._dtype).min
        return torch.zeros(seen.shape, dtype=self._dtype, device=seen.device).masked_fill(
            ~seen, hidden
        )[:, None]


def _on(index: slice | Tensor, device: torch.device) -> slice | Tensor:
    return index if isinstance(index, slice) else index.to(device)
