"""Rows of different length side by side compute what each would compute alone."""

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from model.libraries import quiet_libraries

if TYPE_CHECKING:  # the plain run leaves these tests out, and torch takes it seconds to import
    import torch

    from model.slots import Slots

pytestmark = pytest.mark.slow  # loads torch, which takes some seconds


@pytest.fixture(params=["own", "stock", "eager"])
def model(
    request: pytest.FixtureRequest, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """``own``: through ``model.llama``; the others through transformers' pass."""
    if request.param == "stock":
        monkeypatch.setattr("model.slots.pass_of", lambda *_: None)
    attention = "eager" if request.param == "eager" else "sdpa"
    with quiet_libraries():
        import torch
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(
            tiny_folder, dtype=torch.float32, attn_implementation=attention
        ).eval()


def alone(model: Any, ids: list[int]) -> "torch.Tensor":
    """Logits after the last id, by the model itself and without any cache."""
    import torch

    with torch.inference_mode():
        logits: torch.Tensor = model(torch.tensor([ids])).logits[0, -1]
    return logits


def close(one: "torch.Tensor", other: "torch.Tensor") -> bool:
    import torch

    return torch.allclose(one, other, atol=1e-3)


def slots_of(model: Any, rows: int, length: int) -> "Slots":
    from model.slots import Slots

    return Slots(copy.deepcopy(model), rows, length)  # it may take the weights out of the model


def fill(slots: "Slots", row: int, ids: list[int]) -> None:
    slots.read(ids, 0, slots.reading_rows[0])
    slots.move(slots.reading_rows[0], row, len(ids))


def test_a_prompt_in_pieces_is_the_prompt(model: Any) -> None:
    ids = list(range(10, 90))
    slots = slots_of(model, 2, 128)
    slots.read(ids[:33], 0)
    slots.read(ids[33:34], 33)
    assert close(slots.read(ids[34:], 34), alone(model, ids))


def test_the_logits_behind_every_token_can_be_had(model: Any) -> None:
    ids = list(range(10, 50))
    slots = slots_of(model, 2, 128)
    slots.read(ids[:30], 0)
    logits = slots.read(ids[30:], 30, every=True)
    assert len(logits) == 10
    assert all(close(logits[n], alone(model, ids[: 31 + n])) for n in range(10))


def test_rows_of_different_length_do_not_mix(model: Any) -> None:
    rows = [list(range(10, 80)), [5, 6, 7], list(range(300, 340))]
    slots = slots_of(model, 3, 128)
    for row, ids in enumerate(rows):
        fill(slots, row, ids)
    for token in (40, 41):
        logits = slots.decode([token] * 3, [len(ids) for ids in rows])
        rows = [[*ids, token] for ids in rows]
        assert all(close(logits[n], alone(model, ids)) for n, ids in enumerate(rows))


def test_a_used_row_can_be_taken_over_by_a_shorter_one(model: Any) -> None:
    slots = slots_of(model, 2, 64)
    fill(slots, 0, list(range(20, 80)))
    fill(slots, 1, [9, 8, 7])
    slots.move(1, 0, 3)
    assert close(slots.decode([30], [3])[0], alone(model, [9, 8, 7, 30]))


def test_the_last_position_can_be_written(model: Any) -> None:
    slots = slots_of(model, 1, 40)
    fill(slots, 0, list(range(20, 59)))
    assert close(slots.decode([30], [39])[0], alone(model, [*range(20, 59), 30]))
