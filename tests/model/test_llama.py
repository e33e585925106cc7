"""The written-out pass gives what the stock model gives, and steps aside where it would not."""

from pathlib import Path
from typing import Any

import pytest

from model.libraries import quiet_libraries

pytestmark = pytest.mark.slow  # loads torch, which takes some seconds


def load(folder: Path, dtype: str = "float32") -> Any:
    with quiet_libraries():
        import torch
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()


def greedy(model: Any, ids: list[int], count: int) -> list[int]:
    """By our rows; the model's weights are in them afterwards."""
    from model.slots import Slots

    slots = Slots(model, 1, 256)
    logits = slots.read(ids, 0, slots.reading_rows[0])
    slots.move(slots.reading_rows[0], 0, len(ids))
    made = [int(logits.argmax())]
    while len(made) < count:
        logits = slots.decode([made[-1]], [len(ids) + len(made) - 1])[0]
        made.append(int(logits.argmax()))
    return made


def test_greedy_tokens_are_those_of_the_stock_model(tiny_folder: Path) -> None:
    import torch

    model, ids = load(tiny_folder), list(range(20, 90))
    stock = model.generate(
        torch.tensor([ids]), do_sample=False, max_new_tokens=40, min_new_tokens=40
    )[0, len(ids) :].tolist()
    stock = [token for token in stock if token != model.config.eos_token_id]
    assert [t for t in greedy(model, ids, 40) if t != model.config.eos_token_id] == stock


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_takes_the_weights_out_of_the_stock_model(tiny_folder: Path, dtype: str) -> None:
    from model.llama import pass_of

    model = load(tiny_folder, dtype)
    assert pass_of(model, 64) is not None
    assert model.model.layers[0].mlp.down_proj.weight.numel() == 0


def test_it_steps_aside_where_a_layer_was_replaced(tiny_folder: Path) -> None:
    from torch import nn

    from model.llama import pass_of

    class OtherLinear(nn.Linear):
        """As an adapter or a quantizer puts it in."""

    model = load(tiny_folder)
    model.model.layers[1].mlp.up_proj = OtherLinear(32, 64, bias=False)
    assert pass_of(model, 64) is None
    assert model.model.layers[0].mlp.down_proj.weight.numel() > 0


def test_it_steps_aside_where_its_logits_are_not_those_of_the_model(tiny_folder: Path) -> None:
    from model.llama import pass_of

    model = load(tiny_folder)
    model.model.layers[0].input_layernorm.variance_epsilon = 10.0  # not what the config says
    assert pass_of(model, 64) is None
    assert model.model.layers[0].mlp.down_proj.weight.numel() > 0


def test_other_architectures_are_left_to_their_own_pass() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    from model.llama import pass_of

    tiny = GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2, n_positions=32)
    assert pass_of(GPT2LMHeadModel(tiny), 32) is None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rows", [1, 3, 16, 70])
def test_products_laid_out_anew_are_the_plain_products(dtype: str, rows: int) -> None:
    import torch
    from torch.nn import functional

    from model.linears import linear_of

    kind = getattr(torch, dtype)
    weight, bias = torch.randn(96, 64).to(kind), torch.randn(96).to(kind)
    x = torch.randn(rows, 64).to(kind)
    for own in (None, bias):
        wanted = functional.linear(x, weight, own).float()
        assert torch.allclose(linear_of(weight, own)(x).float(), wanted, atol=0.1, rtol=0.02)
