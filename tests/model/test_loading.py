"""Folders of real models that are damaged, odd or too large: each loads right or says why not."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from model.engine import EngineError
from model.loading import Loaded, load_model
from model.placing import Placing, input_device
from model.weights import resolve
from tests.model.contract import ask
from tests.model.test_transformers_engine import tiny_engine

if TYPE_CHECKING:
    import torch

pytestmark = pytest.mark.slow  # loads torch, which takes some seconds

EVIL = "open({!r}, 'w')\nclass Evil: pass\nclass EvilConfig: pass\n"


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_folder, tmp_path / "model")


def load(folder: Path, **options: Any) -> Loaded:
    files = resolve(str(folder))
    return load_model(files, **{"device": "cpu", "dtype": "fp32", "context_length": 64, **options})


def configure(folder: Path, changes: Mapping[str, Any]) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def weights(folder: Path) -> "dict[str, torch.Tensor]":
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def save(folder: Path, tensors: "dict[str, torch.Tensor]") -> None:
    from safetensors.torch import save_file

    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_whole_folder_loads(folder: Path) -> None:
    loaded = load(folder)
    assert (loaded.precision, loaded.context_length, loaded.attention) == ("fp32", 64, "sdpa")
    assert load(folder, dtype="float32").precision == "fp32"


def test_weights_that_are_missing_are_never_made_up(folder: Path) -> None:
    save(folder, {name: t for name, t in weights(folder).items() if "layers.1" not in name})
    with pytest.raises(EngineError, match=r"lack 9 of the model's weights .*layers\.1"):
        load(folder)


def test_weights_of_another_model_are_told(folder: Path) -> None:
    save(folder, {f"other.{name}": t for name, t in weights(folder).items()})
    with pytest.raises(EngineError, match="not those of this config"):
        load(folder)


def test_weights_of_another_size_are_told(folder: Path) -> None:
    configure(folder, {"hidden_size": 64, "head_dim": 16})
    with pytest.raises(EngineError, match="cannot be loaded"):
        load(folder)


@pytest.mark.parametrize("known", [True, False])
def test_code_in_a_folder_never_runs(folder: Path, known: bool) -> None:
    bang = folder / "bang"
    (folder / "evil.py").write_text(EVIL.format(str(bang)))
    auto = {"AutoModelForCausalLM": "evil.Evil", "AutoConfig": "evil.EvilConfig"}
    configure(folder, {"auto_map": auto, **({} if known else {"model_type": "evil"})})
    if known:  # then the library's own class is taken
        assert load(folder).precision == "fp32"
    else:
        with pytest.raises(EngineError, match="code of its own, which Twite never runs"):
            load(folder)
    assert not bang.exists()


def test_code_for_a_tokenizer_never_runs(folder: Path) -> None:
    bang = folder / "bang"
    (folder / "evil.py").write_text(EVIL.format(str(bang)))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}, "tokenizer_class": "Evil"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(EngineError):
        load(folder)
    assert not bang.exists()


@pytest.mark.parametrize("kind", ["evil", "t5"])
def test_a_kind_of_model_that_is_not_for_this_says_so(folder: Path, kind: str) -> None:
    configure(folder, {"model_type": kind})
    with pytest.raises(EngineError):
        load(folder)


def test_a_model_that_cannot_fit_is_refused_before_it_is_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.loading.available", lambda: 100_000_000)
    monkeypatch.setattr("model.loading._model", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(EngineError, match="does not fit into memory"):
        load(folder)


@pytest.mark.parametrize("most", [10, 80_000, 10_000_000])
def test_a_model_larger_than_memory_answers_from_the_disk(
    folder: Path, tmp_path: Path, most: int
) -> None:
    """accelerate's offload, with a limit on the processor's memory in place of a GPU's."""
    import torch

    from model.slots import Slots

    spread = load(folder, placing=Placing(tmp_path / "disk", {"cpu": most}))
    whole = load(folder)
    assert input_device(spread.model) == torch.device("cpu")
    on_disk = any(p.device.type == "meta" for p in spread.model.parameters())
    assert on_disk == (most < 100_000)
    ids = list(range(10, 40))
    slots, plain = (Slots(loaded.model, 2, 64) for loaded in (spread, whole))
    assert torch.allclose(slots.read(ids, 0), plain.read(ids, 0), atol=1e-4)
    assert torch.allclose(slots.decode([7], [0]), plain.decode([7], [0]), atol=1e-4)


def test_a_device_map_over_two_places_gives_the_same(folder: Path, tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    places = {"model.embed_tokens": "cpu", "model.rotary_emb": "cpu", "model.layers.0": "cpu"}
    places |= dict.fromkeys(("model.layers.1", "model.norm", "lm_head"), "disk")
    spread = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, device_map=places, offload_folder=str(tmp_path / "disk")
    )
    from model.slots import Slots

    slots, plain = Slots(spread, 2, 64), Slots(load(folder).model, 2, 64)
    assert torch.allclose(slots.read([5, 6, 7], 0), plain.read([5, 6, 7], 0), atol=1e-4)


async def test_an_engine_with_layers_on_the_disk_answers_the_same(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    wanted = await answered(folder)
    assert "offloaded" not in caplog.text
    monkeypatch.setattr("model.memory.available", lambda: 90_000)  # bytes: some of its layers
    assert await answered(folder, offload=str(tmp_path / "disk")) == wanted
    assert "offloaded to the disk" in caplog.text  # accelerate's own words


async def answered(folder: Path, **options: Any) -> tuple[int, ...]:
    engine = tiny_engine(folder, **options)
    await engine.start()
    try:
        return (await engine.generate(ask(engine, "r"))).token_ids
    finally:
        await engine.stop()
