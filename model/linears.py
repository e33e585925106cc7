"""Matrix products with weights that are laid out for this processor once, when a model loads.

In comes a weight (and bias) as the model's files have it, out comes a function from activations
to activations. oneDNN wants bf16 weights in blocks of its own; torch's plain ``linear`` makes
those blocks anew in each call, which for a batch of 4 to 16 rows costs more than the product.

With 4 bits a few rows read a quarter of the memory, which is what they wait for; more rows go
through bf16 again, with the very weights that the 4 bits stand for, since there the products
count and not the memory.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

Linear = Callable[[Tensor], Tensor]

_TYPICAL_ROWS = 16  # what the blocks are chosen for; other numbers of rows work as well
_FEW_ROWS = 4  # up to here 4 bits are faster than bf16 in blocks
GROUP = 32  # weights that share a scale and a middle, as in GGUF's Q4_0 and Q4_1


def linear_of(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """``x @ weight.T + bias`` for ``x`` of shape (tokens, inputs) in the weight's precision.

    ``weight``: shape (outputs, inputs). It may be given back to the system afterwards.
    """
    if weight.dtype == torch.bfloat16 and _has_blocks():
        return _Blocked(weight, bias)
    return _Plain(weight.detach().clone(), bias)


def four_bit_linear_of(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """The same with each weight rounded to one of 16 levels between the least and the largest of
    its group of ``GROUP``; exact, up to bf16, where it came from such levels.

    Raises ``ValueError`` where the weight's shape or precision or this torch allows no 4 bits.
    """
    outputs, inputs = weight.shape
    if weight.dtype != torch.bfloat16 or inputs % GROUP or outputs % 16 or not _has_four_bits():
        raise ValueError(f"no 4 bits for a {weight.dtype} weight of {outputs} times {inputs}")
    return _FourBit(weight.detach(), bias)


def joined(modules: Sequence[nn.Linear]) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of several linear layers over the same input, one below the other."""
    weight = torch.cat([module.weight.detach() for module in modules])
    biases = [bias.detach() for module in modules if (bias := _bias(module)) is not None]
    return weight, torch.cat(biases) if biases else None


def _bias(module: nn.Linear) -> Tensor | None:
    return module.bias


class _Plain:
    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, x: Tensor) -> Tensor:
        return functional.linear(x, self._weight, self._bias)


class _Blocked:
    """bf16 through oneDNN, the weight in its own layout."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        plain = weight.detach().contiguous()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(plain, _TYPICAL_ROWS)
        self._bias = bias
        self._run = torch.ops.mkldnn._linear_pointwise.default

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = self._run(x, self._weight, self._bias, "none", [], "")
        return y


class _FourBit:
    """Levels 0 to 15 of a group stand for (level - 8) * scale + middle, all in bf16."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        levels, scale, middle = _levels(weight)
        meant = (levels - 8) * scale.float() + middle.float()
        self._many = linear_of(meant.view_as(weight).to(weight.dtype), bias)
        self._bias = bias
        self._levels = torch.ops.aten._convert_weight_to_int4pack_for_cpu(
            levels.view_as(weight).int(), 1
        )
        self._scales = torch.cat([scale, middle], -1).transpose(0, 1).contiguous()

    def __call__(self, x: Tensor) -> Tensor:
        if len(x) > _FEW_ROWS:
            return self._many(x)
        y: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(x, self._levels, GROUP, self._scales)
        return y if self._bias is None else y + self._bias


def _levels(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Levels, shape (outputs, groups, ``GROUP``), and of each group its scale and middle in bf16,
    shape (outputs, groups, 1)."""
    groups = weight.float().view(len(weight), -1, GROUP)
    least, most = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    scale = ((most - least) / 15).to(weight.dtype)
    middle = (least + 8 * scale.float()).to(weight.dtype)
    steps = scale.float().clamp_min(1e-12)
    levels = torch.round((groups - middle.float()) / steps + 8).clamp_(0, 15)
    return levels, scale, middle


def _has_four_bits() -> bool:
    """Whether this torch has the product for CPUs; it is a part of its own quantization."""
    return _has_blocks() and all(
        hasattr(torch.ops.aten, name)
        for name in ("_convert_weight_to_int4pack_for_cpu", "_weight_int4pack_mm_for_cpu")
    )


def _has_blocks() -> bool:
    """Whether this torch and this processor have bf16 in oneDNN. The operators are those that
    torch's own compiler uses; a torch without them falls back to plain products."""
    try:
        supported = torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return bool(torch._C._has_mkldnn and supported) and all(
            hasattr(torch.ops.mkldnn, name)
            for name in ("_reorder_linear_weight", "_linear_pointwise")
        )
    except (AttributeError, RuntimeError):
        return False
