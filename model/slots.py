"""A batch of requests inside a stock transformers model: one row and one length for each.

The model is given a cache object whose keys and values lie in one block per layer, shape
(rows, heads, context length, head size). A step says which rows it writes and where; masks and
position ids are explicit, so rows of different length run side by side. Rows 0 to n-1 decode;
the rows behind them are where newcomers' prompts are read before they join, where a recorded
reply is scored, and where prompts are kept whose beginning others may share.
On a CPU, models of a known shape run through a pass of our own (``model.llama``).
"""

import math
import mmap
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from model.adapters import AdaptedModel
from model.llama import Where, pass_of
from model.placing import input_device

READERS = 2  # prompts that are read at the same time: a short one need not wait for a long one
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

    def blocks(self, heads: int, size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Keys and values on the CPU, allocated now; shape (rows, heads, length, size)."""
        like = torch.empty((1, heads, 1, size), dtype=dtype)
        self.lazy_initialization(like, like)
        return self._there()

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        keys, values = self._there()
        step = self._step
        rows, write = _on(step.rows, keys.device), _on(step.write, keys.device)
        if isinstance(rows, slice):  # one row, a run of positions
            keys[rows, :, write] = key_states
            values[rows, :, write] = value_states
        else:  # many rows, one position each
            keys[rows, :, write] = key_states[:, :, 0]
            values[rows, :, write] = value_states[:, :, 0]
        read_rows, read = step.read
        return keys[read_rows, :, read], values[read_rows, :, read]

    def _there(self) -> tuple[Tensor, Tensor]:
        assert self.keys is not None  # noqa: S101 - for the type checker
        assert self.values is not None  # noqa: S101
        return self.keys, self.values

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first ``length`` positions of one row over another."""
        for block in (self.keys, self.values):
            if block is not None:
                block[target, :, :length] = block[source, :, :length]

    def wipe(self, row: int, length: int) -> None:
        """Set the first ``length`` positions of a row to 0."""
        for block in (self.keys, self.values):
            if block is not None:
                block[row, :, :length] = 0

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
    """The rows of a model: read prompts, decode one token for each row, move rows.

    ``model``: a causal language model of transformers with full attention in each layer.
    ``slots``: how many rows can decode; ``length``: positions in a row; ``kept``: rows for
    prompts that are kept. Their numbers: ``reading_rows``, ``scoring_row``, ``kept_rows``.
    ``quantization``: see ``model.llama.pass_of``.
    """

    def __init__(
        self, model: Any, slots: int, length: int, kept: int = 0, quantization: str = "none"
    ) -> None:
        self._model = model
        self._additive = model.config._attn_implementation == "eager"
        self._dtype = model.dtype
        self._device = input_device(model)
        self.length = length
        self._step = _Step()
        self.scoring_row = slots + READERS
        self.reading_rows = range(slots, self.scoring_row)
        self.kept_rows = range(self.scoring_row + 1, self.scoring_row + 1 + kept)
        layers = model.config.get_text_config().num_hidden_layers
        rows = self.kept_rows.stop
        self._layers = [SlotLayer(self._step, rows, length) for _ in range(layers)]
        self._cache = Cache(layers=list(self._layers))
        self._own = pass_of(model, length, quantization)
        if own := self._own:
            self._blocks = [
                layer.blocks(own.kv_heads, own.size, self._dtype) for layer in self._layers
            ]

    def read(
        self, token_ids: Sequence[int], start: int, row: int | None = None, *, every: bool = False
    ) -> Tensor:
        """Take in a piece of a prompt, positions from ``start``, on ``row`` (None: the one for
        scoring).

        Returns the logits after its last token, shape (vocabulary,); with ``every`` those after
        each of its tokens, shape (tokens, vocabulary).
        """
        first = self.scoring_row if row is None else row
        end = start + len(token_ids)
        positions = torch.arange(start, end, device=self._device)
        ids = torch.tensor([list(token_ids)], device=self._device)
        keep = len(token_ids) if every else 1
        logits = self._forward(first, ids, positions[None], end, keep)[0]
        return logits if every else logits[-1]

    def decode(self, token_ids: Sequence[int], positions: Sequence[int]) -> Tensor:
        """One more token for rows 0 to n-1: row i takes ``token_ids[i]`` at ``positions[i]``.

        Returns the logits after it, shape (n, vocabulary).
        """
        end = min(-(-(max(positions) + 1) // _ROUND) * _ROUND, self.length)
        where = torch.tensor(list(positions), device=self._device)
        ids = torch.tensor(list(token_ids), device=self._device)
        return self._forward(0, ids[:, None], where[:, None], end, 1)[:, -1]

    def try_out(self) -> None:
        """A short prompt and a token for each row. Whatever the rows hold may be lost."""
        self.use([None])
        self.read([0] * min(16, self.length), 0)
        rows = self.reading_rows.start
        self.use([None] * rows)
        self.decode([0] * rows, [0] * rows)

    def use(self, adapters: Sequence[str | None]) -> None:
        """Which LoRA weights the rows of the next ``read`` or ``decode`` take, one for each."""
        if isinstance(self._model, AdaptedModel):
            self._model.rows = adapters

    def move(self, source: int, target: int, length: int) -> None:
        """Make row ``target`` the same as row ``source``, whose first ``length`` count."""
        with torch.inference_mode():
            for layer in self._layers:
                layer.move(source, target, length)

    def wipe(self, row: int, length: int) -> None:
        """Forget the first ``length`` positions of a row."""
        with torch.inference_mode():
            for layer in self._layers:
                layer.wipe(row, length)

    @torch.inference_mode()
    def _forward(self, first: int, ids: Tensor, positions: Tensor, end: int, keep: int) -> Tensor:
        """Logits after the last ``keep`` tokens, shape (rows, keep, vocabulary). ``ids`` and
        ``positions``: shape (rows, new tokens), for the rows from ``first``."""
        seen = torch.arange(end, device=positions.device) <= positions[:, :, None]
        if self._own:
            mask = self._weighed(seen)[:, None]
            where = Where(first=first, rows=len(ids), end=end, positions=positions, mask=mask)
            return self._own(ids, where, self._blocks, keep).float()
        self._aim(first, positions, end)
        output = self._model(
            input_ids=ids,
            position_ids=positions,
            attention_mask=(self._weighed(seen) if self._additive else seen)[:, None],
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        logits: Tensor = output.logits[:, -keep:]
        return logits.float()

    def _aim(self, first: int, positions: Tensor, end: int) -> None:
        """Where the next pass of the stock model writes and reads."""
        count, new = positions.shape
        rows = slice(first, first + count)
        self._step.read = (rows, slice(0, end))
        if count == 1:
            self._step.rows, self._step.write = rows, slice(end - new, end)
            if new == 1:
                at = int(positions[0, 0])
                self._step.write = slice(at, at + 1)
        else:
            self._step.rows = torch.arange(first, first + count, device=positions.device)
            self._step.write = positions[:, 0]

    def _weighed(self, seen: Tensor) -> Tensor:
        """A mask that is added: nothing where a token sees, next to minus infinity elsewhere."""
        zeros = torch.zeros(seen.shape, dtype=self._dtype, device=seen.device)
        return zeros.masked_fill(~seen, torch.finfo(self._dtype).min)


def _on(index: slice | Tensor, device: torch.device) -> slice | Tensor:
    return index if isinstance(index, slice) else index.to(device)
