"""What a model takes is told from headers and configuration, and compared with what there is."""

from pathlib import Path

import pytest

from model import memory
from model.engine import EngineError
from model.folder import Tensor
from model.memory import RESERVE, Need, available, need_of, per_token, require_room

SMALL = {  # SmolLM2-135M
    "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 576,
}  # fmt: skip
GIB = 1024**3


def test_keys_and_values_of_a_token() -> None:
    assert per_token(SMALL, 2) == 2 * 30 * 3 * 64 * 2
    assert per_token({**SMALL, "head_dim": 128}, 2) == 2 * 30 * 3 * 128 * 2
    assert per_token({**SMALL, "num_key_value_heads": None}, 4) == 2 * 30 * 9 * 64 * 4
    assert per_token({"text_config": SMALL}, 2) == per_token(SMALL, 2)
    assert per_token({}, 2) == 0


def test_weights_count_at_the_precision_they_will_have() -> None:
    tensors = {"w": Tensor("F32", 1000), "packed": Tensor("U8", 300)}
    need = need_of(tensors, SMALL, width=2, slots=8, context_length=100)
    assert need.weights == 2300
    assert (need.row, need.rows) == (23_040 * 100, 11 * 23_040 * 100)
    assert need.total == need.weights + need.rows + RESERVE
    assert need.least == need.weights + need.row + RESERVE


def test_what_fits_is_let_through() -> None:
    need = Need(weights=2 * GIB, row=GIB, rows=11 * GIB)
    require_room(need, need.total, name="m", slots=8, at_once=True)
    require_room(need, need.least, name="m", slots=8, at_once=False)


@pytest.mark.parametrize(
    ("there", "at_once", "todo"),
    [
        (8 * GIB, True, "Set model.slots and model.kept_prompts to 2 together or less"),
        (4 * GIB, True, "shorter model.context_length"),
        (3 * GIB, False, "shorter model.context_length"),
        (GIB, False, "Choose a smaller model"),
    ],
)
def test_what_does_not_fit_tells_numbers_and_a_way_out(
    there: int, at_once: bool, todo: str
) -> None:
    need = Need(weights=2 * GIB, row=GIB, rows=11 * GIB)
    with pytest.raises(EngineError, match="The model m does not fit into memory") as raised:
        require_room(need, there, name="m", slots=8, at_once=at_once)
    told = str(raised.value)
    assert todo in told
    assert "2.15 GB for its weights" in told
    assert f"{there / 1e9:.2f} GB are free" in told


def test_a_container_has_less_than_its_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    whole = available()
    assert whole > 0
    (tmp_path / "memory.max").write_text("5000000\n")
    (tmp_path / "memory.current").write_text("3000000\n")
    (tmp_path / "memory.stat").write_text("anon 1\ninactive_file 1000000\nactive_file 5\n")
    assert available() == 3_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert available() > 3_000_000
