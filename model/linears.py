"""Matrix products with weights that are laid out for this processor once, when a model loads.

In comes a weight (and bias) as the model's files have it, out comes a function from activations
to activations. oneDNN wants bf16 weights in blocks of its own; torch's plain ``linear`` makes
those blocks anew in each call, which for a batch of 4 to 16 rows costs more than the product.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

Linear = Callable[[Tensor], Tensor]

_TYPICAL_ROWS = 16  # what the blocks are chosen for; other numbers of rows work as well


def linear_of(weight: Tensor, bias: Tensor | None = None) -> Linear:
    """``x @ weight.T + bias`` for ``x`` of shape (tokens, inputs) in the weight's precision.

    ``weight``: shape (outputs, inputs). It may be given back to the system afterwards.
    """
    if weight.dtype == torch.bfloat16 and _has_blocks():
        return _Blocked(weight, bias)
    return _Plain(weight.detach().clone(), bias)


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
