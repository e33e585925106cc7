"""The bench for GPUs: it refuses clearly where there is none, and its ways run on a CPU."""

import pytest

pytestmark = pytest.mark.slow  # loads torch, which takes some seconds

TINY = {
    "vocab_size": 2000,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
}


def test_without_a_gpu_it_says_so_and_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import torch

    from tests.bench import gpu

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main() == 2
    assert "Nothing was measured" in capsys.readouterr().out


def test_both_ways_and_the_roofline_give_figures() -> None:
    import torch

    from tests.bench import gpu

    found = gpu.measure(gpu.random_model(torch.device("cpu"), TINY), 2, prompt=10, tokens=6)
    assert found.rows == 2
    assert min(found.engine, found.bare, found.roofline) > 0
