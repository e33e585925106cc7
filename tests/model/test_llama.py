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


def test_bf16_logits_of_a_prompt_are_those_of_the_stock_model_to_the_last_bit(
    tiny_folder: Path,
) -> None:
    import torch

    from model.slots import Slots

    model, ids = load(tiny_folder, "bfloat16"), list(range(20, 90))
    with torch.inference_mode():
        for name, weight in model.named_parameters():
            if "norm" in name:  # ones as they are made: nothing would be rounded
                weight.copy_(torch.rand_like(weight) + 0.5)
        stock = model(torch.tensor([ids])).logits[0, -1].float()
    slots = Slots(model, 1, 128)
    assert torch.equal(slots.read(ids, 0, slots.reading_rows[0]), stock)


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


def test_weights_that_come_from_16_levels_stay_what_they_are() -> None:
    import torch
    from torch.nn import functional

    from model.linears import GROUP, four_bit_linear_of

    torch.manual_seed(3)
    levels = torch.randint(0, 16, (64, 4, GROUP))
    levels[..., 0], levels[..., 1] = 0, 15
    weight = (levels * 0.25 - 2).view(64, -1).bfloat16()
    product = four_bit_linear_of(weight, torch.ones(64).bfloat16())
    for rows in (1, 4, 5, 40):
        x = torch.randn(rows, 4 * GROUP).bfloat16()
        wanted = functional.linear(x.float(), weight.float(), torch.ones(64))
        assert torch.allclose(product(x).float(), wanted, atol=0.1, rtol=0.02)


def test_few_rows_and_many_go_through_the_same_weights() -> None:
    import torch

    from model.linears import four_bit_linear_of

    torch.manual_seed(4)
    product = four_bit_linear_of(torch.randn(64, 128).bfloat16())
    x = torch.randn(8, 128).bfloat16()
    few = torch.cat([product(x[:4]), product(x[4:])])
    assert torch.allclose(product(x).float(), few.float(), atol=0.2, rtol=0.02)


def test_4_bits_are_refused_where_they_cannot_be(tiny_folder: Path) -> None:
    from model.engine import EngineError
    from model.llama import pass_of

    with pytest.raises(EngineError, match=r"Set model\.quantization to none"):
        pass_of(load(tiny_folder), 64, "int4")  # fp32
    assert pass_of(load(tiny_folder, "bfloat16"), 64, "int4") is not None
