"""One pass of a Llama-shaped model on a CPU, written out.

In come token ids, positions and the blocks of keys and values (``model.slots``), out come logits.
The weights and the sums are those of the stock model in transformers; what is saved is the way
there: joined products (q, k and v; gate and up), weights in the processor's own layout, one index
for all writes, and the query heads that share keys read them once, as if they were further
queries (grouped-query attention, Ainslie et al. 2023), instead of from a copy for each.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.engine import EngineError
from model.linears import Linear, four_bit_linear_of, joined, linear_of

_MODELS = {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM"}
_ROPES = {"default", "linear", "llama3", "yarn"}  # those whose angles depend on nothing but place
_PROBE = 24  # tokens that both passes must agree on
# How far the logits of the two may lie apart on average, over the spread of the stock model's.
_NOISE = {"fp32": 1e-3, "bf16": 0.1, "int4": 0.5}

Make = Callable[[Tensor, Tensor | None], Linear]


@dataclass(frozen=True, slots=True)
class Where:
    """Which rows a pass writes and reads. ``rows``: how many; ``first``: number of the first of
    them; ``end``: positions that attention sees; ``mask``: what it sees of them, additive, shape
    (rows, 1, new tokens, end)."""

    first: int
    rows: int
    end: int
    positions: Tensor  # (rows, new tokens)
    mask: Tensor


@dataclass(frozen=True, slots=True)
class _Layer:
    """One block: its norms' weights and its products."""

    norm_in: Tensor
    qkv: Linear
    out: Linear
    norm_mid: Tensor
    gate_up: Linear
    down: Linear


class LlamaPass:
    """The weights of a stock model, laid out anew. ``length``: positions of a row; ``make``: lays
    out the products inside the blocks."""

    def __init__(self, model: Any, length: int, make: Make = linear_of) -> None:
        config = model.config
        self._heads = int(config.num_attention_heads)
        self.kv_heads = int(config.num_key_value_heads)
        self.size = int(getattr(config, "head_dim", 0) or config.hidden_size // self._heads)
        self._epsilon = float(config.rms_norm_eps)
        self._length = length
        self._embedding: Tensor = model.model.embed_tokens.weight.detach()
        self._layers = [_layer(block, make) for block in model.model.layers]
        self._norm: Tensor = model.model.norm.weight.detach()
        self._head = linear_of(model.lm_head.weight, model.lm_head.bias)
        everywhere = torch.arange(length)[None]
        cos, sin = model.model.rotary_emb(self._embedding[:1], everywhere)
        self._cos, self._sin = cos[0, :, None].clone(), sin[0, :, None].clone()

    def __call__(
        self, ids: Tensor, where: Where, blocks: Sequence[tuple[Tensor, Tensor]], keep: int
    ) -> Tensor:
        """``ids``: shape (rows, new tokens); ``blocks``: keys and values of each layer, shape
        (all rows, heads, length, head size), which are written to.

        Returns the logits after the last ``keep`` tokens of each row, shape (rows, keep,
        vocabulary).
        """
        rows, new = ids.shape
        flat = where.positions.flatten()
        turn = self._cos[flat], self._sin[flat]
        index = self._index(where)
        x = functional.embedding(ids.flatten(), self._embedding)
        for layer, (keys, values) in zip(self._layers, blocks, strict=True):
            h = self._normed(x, layer.norm_in)
            x = x + layer.out(self._attention(layer.qkv(h), turn, where, index, keys, values))
            gate, up = layer.gate_up(self._normed(x, layer.norm_mid)).chunk(2, dim=-1)
            x = x + layer.down(functional.silu(gate) * up)
        last = x.view(rows, new, -1)[:, new - keep :].reshape(rows * keep, -1)
        return self._head(self._normed(last, self._norm)).view(rows, keep, -1)

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        """Rounded before the weight comes in and after, as in the stock model."""
        return weight * functional.rms_norm(x, weight.shape, eps=self._epsilon)

    def _index(self, where: Where) -> Tensor:
        """Where the new keys lie in a block seen as (all rows × heads × length, head size); in
        the order (rows, new tokens, heads)."""
        row = torch.arange(where.first, where.first + where.rows)[:, None, None]
        head = torch.arange(self.kv_heads)
        place = (row * self.kv_heads + head) * self._length + where.positions[:, :, None]
        return place.flatten()

    def _attention(
        self,
        qkv: Tensor,
        turn: tuple[Tensor, Tensor],
        where: Where,
        index: Tensor,
        keys: Tensor,
        values: Tensor,
    ) -> Tensor:
        """Shape (tokens, heads × head size)."""
        tokens, heads, size = len(qkv), self._heads, self.size
        qkv = qkv.view(tokens, -1, size)
        turned = _turned(qkv[:, : heads + self.kv_heads], *turn)
        new_keys, new_values = turned[:, heads:], qkv[:, heads + self.kv_heads :]
        keys.view(-1, size).index_copy_(0, index, new_keys.reshape(-1, size))
        values.view(-1, size).index_copy_(0, index, new_values.reshape(-1, size))
        own = slice(where.first, where.first + where.rows)
        seen_keys, seen_values = keys[own, :, : where.end], values[own, :, : where.end]
        if tokens == where.rows:
            return self._one_each(turned[:, :heads], seen_keys, seen_values, where.mask)
        q = turned[:, :heads].view(where.rows, -1, heads, size).transpose(1, 2)
        seen = functional.scaled_dot_product_attention(
            q, seen_keys, seen_values, attn_mask=where.mask, enable_gqa=True
        )
        return seen.transpose(1, 2).reshape(tokens, -1)

    def _one_each(self, q: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """One new token per row: the heads of a group stand where queries stand."""
        grouped = q.reshape(len(q), self.kv_heads, -1, self.size)
        seen = functional.scaled_dot_product_attention(grouped, keys, values, attn_mask=mask)
        return seen.reshape(len(q), -1)


def pass_of(model: Any, length: int, quantization: str = "none") -> LlamaPass | None:
    """A pass for this model, or None where the stock model must do: another architecture or
    device, layers that somebody has replaced, or logits that differ from the stock model's.

    ``quantization``: ``none``, or ``int4`` for the products inside the blocks; raises
    ``EngineError`` where that is not possible. The stock model's own products are gone
    afterwards: use one or the other.
    """
    if quantization == "none":
        return _made(model, length, linear_of, "fp32" if model.dtype == torch.float32 else "bf16")
    try:
        made = _made(model, length, four_bit_linear_of, "int4")
    except ValueError as error:
        raise EngineError(f"{_NO_FOUR_BITS} ({error}).") from error
    if made is None:
        raise EngineError(f"{_NO_FOUR_BITS}.")
    return made


_NO_FOUR_BITS = (
    "The model's weights cannot be held in 4 bits here: that takes a Llama-shaped model without "
    "adapters, in bf16 on a CPU. Set model.quantization to none"
)


def _made(model: Any, length: int, make: Make, precision: str) -> LlamaPass | None:
    if not _is_known(model):
        return None
    made = LlamaPass(model, length, make)
    if not _agrees(model, made, _NOISE[precision]):
        return None
    _empty(model)
    return made


def _is_known(model: Any) -> bool:
    config, kind = model.config, type(model).__name__
    if kind not in _MODELS or model.device.type != "cpu" or config.hidden_act != "silu":
        return False
    if getattr(model, "hf_device_map", None):  # spread over several places by accelerate
        return False
    if config._attn_implementation != "sdpa" or getattr(model, "hf_device_map", None):
        return False
    products = [m for m in model.modules() if "Linear" in type(m).__name__]
    return all(type(m) is nn.Linear for m in products) and (
        config.rope_parameters.get("rope_type") in _ROPES
    )


@torch.inference_mode()
def _agrees(model: Any, made: LlamaPass, noise: float) -> bool:
    """Whether both give the same logits for a probe, up to the noise of the precision."""
    ids = torch.arange(_PROBE)[None] * 997 % len(made._embedding)
    stock = model(ids).logits.float()
    config, where = model.config, _probe(made._embedding.dtype)
    shape = (1, made.kv_heads, made._length, made.size)
    blocks = [
        (torch.zeros(shape, dtype=model.dtype), torch.zeros(shape, dtype=model.dtype))
        for _ in range(config.num_hidden_layers)
    ]
    ours = made(ids, where, blocks, _PROBE).float()
    spread = float(stock.std())
    return bool((stock - ours).abs().mean() <= noise * max(spread, 1e-6))


def _probe(dtype: torch.dtype) -> Where:
    places = torch.arange(_PROBE)[None]
    mask = torch.full((1, 1, _PROBE, _PROBE), float("-inf")).triu(1).to(dtype)
    return Where(first=0, rows=1, end=_PROBE, positions=places, mask=mask)


def _layer(block: Any, make: Make) -> _Layer:
    attention, mlp = block.self_attn, block.mlp
    return _Layer(
        norm_in=block.input_layernorm.weight.detach(),
        qkv=make(*joined([attention.q_proj, attention.k_proj, attention.v_proj])),
        out=make(attention.o_proj.weight, attention.o_proj.bias),
        norm_mid=block.post_attention_layernorm.weight.detach(),
        gate_up=make(*joined([mlp.gate_proj, mlp.up_proj])),
        down=make(mlp.down_proj.weight, mlp.down_proj.bias),
    )


def _empty(model: Any) -> None:
    """Give the memory of the stock model's products back."""
    for block in model.model.layers:
        for module in block.modules():
            if isinstance(module, nn.Linear):
                module.weight = nn.Parameter(torch.empty(0), requires_grad=False)


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021), halves as in Llama. ``x``: (tokens, heads,
    head size); ``cos``, ``sin``: (tokens, 1, head size)."""
    half = x.shape[-1] // 2
    swapped = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos + swapped * sin
