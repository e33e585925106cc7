"""LoRA adapters: chosen request by request, together in one batch, the base as it was."""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model.adapters import adapter_digest, require_adapter
from model.engine import EngineError, GenerationRequest, RequestRefused
from model.libraries import quiet_libraries
from model.transformers_engine import TransformersEngine
from tests.model.contract import QUESTIONS, ask
from tests.model.files import safetensors
from tests.model.test_transformers_engine import tiny_engine


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """An adapter's folder, made by hand."""
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4}')
    (tmp_path / "adapter_model.safetensors").write_bytes(safetensors(a=[3]))
    return tmp_path


def test_an_adapter_is_known_by_its_weights_and_its_configuration(plain: Path) -> None:
    first = adapter_digest("a", plain)
    assert first.startswith("sha256:")
    (plain / "README.md").write_text("anything")
    assert adapter_digest("b", plain) == first
    (plain / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 8}')
    assert adapter_digest("a", plain) != first


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"peft_type": "IA3"}, "is a IA3"),
        ({"peft_type": "LORA", "use_dora": True}, "uses use_dora"),
        ({"peft_type": "LORA", "bias": "all"}, "uses bias"),
        ({"peft_type": "LORA", "modules_to_save": ["lm_head"]}, "uses modules_to_save"),
    ],
)
def test_an_adapter_that_cannot_share_a_batch_is_refused(
    plain: Path, config: dict[str, Any], told: str
) -> None:
    (plain / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(EngineError, match=told):
        adapter_digest("a", plain)


def test_an_adapter_that_is_not_whole_is_refused(plain: Path) -> None:
    (plain / "adapter_model.safetensors").write_bytes(safetensors(a=[3])[:-1])
    with pytest.raises(EngineError, match="is cut short"):
        adapter_digest("a", plain)
    (plain / "adapter_model.safetensors").rename(plain / "adapter_model.bin")
    with pytest.raises(EngineError, match=r"no adapter_model\.safetensors.*never opened"):
        adapter_digest("a", plain)
    with pytest.raises(EngineError, match="peft saved"):
        adapter_digest("a", plain / "nowhere")
    for name in ("", "__base__", "a.b"):
        with pytest.raises(EngineError, match="cannot be called"):
            adapter_digest(name, plain)


def test_an_adapter_that_is_not_loaded_is_refused() -> None:
    require_adapter(None, {})
    require_adapter("a", {"a": "sha256:0"})
    with pytest.raises(RequestRefused, match="no adapter called b; loaded are: a"):
        require_adapter("b", {"a": "sha256:0"})


def test_peft_is_not_loaded_without_adapters() -> None:
    code = "import sys, model.loading, model.slots; assert 'peft' not in sys.modules"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


# --- with the tiny model ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def adapters(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two LoRAs with random weights, large enough that replies differ."""
    with quiet_libraries():
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        folders = {}
        for seed, name in enumerate(("polite", "pirate")):
            folder = tmp_path_factory.mktemp(name)
            base = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                config = LoraConfig(
                    r=4, lora_alpha=32, target_modules=["q_proj", "v_proj", "down_proj"],
                    init_lora_weights=False, task_type="CAUSAL_LM",
                )  # fmt: skip
                get_peft_model(base, config).save_pretrained(str(folder))
            folders[name] = str(folder)
    return folders


@pytest.fixture
async def engine(tiny_folder: Path, adapters: dict[str, str]) -> AsyncIterator[TransformersEngine]:
    engine = tiny_engine(tiny_folder, adapters=adapters)
    await engine.start()
    yield engine
    await engine.stop()


def requests_of(engine: TransformersEngine) -> list[GenerationRequest]:
    """The same questions for each adapter and for the base, mixed."""
    names = (None, "polite", "pirate")
    return [
        replace(ask(engine, f"r{n}", QUESTIONS[n // 3]), adapter=names[n % 3]) for n in range(12)
    ]


@pytest.mark.slow
async def test_adapters_share_a_batch_and_each_answers_as_alone(
    engine: TransformersEngine,
) -> None:
    requests = requests_of(engine)
    alone = [await engine.generate(request) for request in requests]
    together = await asyncio.gather(*(engine.generate(request) for request in requests))
    assert [one.token_ids for one in together] == [one.token_ids for one in alone]
    for n in range(0, 12, 3):
        assert len({made.token_ids for made in alone[n : n + 3]}) == 3


@pytest.mark.slow
async def test_the_base_answers_as_without_any_adapter(
    engine: TransformersEngine, tiny_folder: Path
) -> None:
    requests = [r for r in requests_of(engine) if r.adapter is None]
    got = await asyncio.gather(*(engine.generate(r) for r in requests_of(engine)))
    other = tiny_engine(tiny_folder)
    await other.start()
    try:
        wanted = [await other.generate(request) for request in requests]
    finally:
        await other.stop()
    assert [made.token_ids for made in got[::3]] == [made.token_ids for made in wanted]
    assert engine.describe().weights_digest == other.describe().weights_digest


@pytest.mark.slow
async def test_an_adapter_is_what_merging_it_would_give(
    engine: TransformersEngine, tiny_folder: Path, adapters: dict[str, str]
) -> None:
    request = replace(ask(engine, "r"), adapter="polite")
    made = await engine.generate(request)
    with quiet_libraries():
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        base = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
        merged = PeftModel.from_pretrained(base, adapters["polite"]).merge_and_unload()
        ids = torch.tensor([request.prompt.token_ids])
        whole = merged.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False
        )
    assert list(made.token_ids) == whole[0, ids.shape[1] :].tolist()


@pytest.mark.slow
async def test_a_reply_scores_as_identical_with_its_own_adapter_only(
    engine: TransformersEngine,
) -> None:
    request = replace(ask(engine, "r"), adapter="pirate")
    made = await engine.generate(request)

    async def verdict(adapter: str | None) -> str:
        score = await engine.score(request.prompt, made.token_ids, request.sampling, adapter)
        return score.verdict

    assert await verdict("pirate") == "identical"
    assert await verdict("polite") == "diverged"
    assert await verdict(None) == "diverged"
    with pytest.raises(RequestRefused, match="no adapter called parrot"):
        await verdict("parrot")


@pytest.mark.slow
async def test_adapters_are_described_and_others_refused(
    engine: TransformersEngine, adapters: dict[str, str]
) -> None:
    digests = {name: adapter_digest(name, Path(folder)) for name, folder in adapters.items()}
    assert engine.describe().adapters == digests
    with pytest.raises(RequestRefused, match="loaded are: pirate, polite"):
        await engine.generate(replace(ask(engine, "r"), adapter="parrot"))


@pytest.mark.slow
async def test_an_adapter_of_another_model_is_told_at_the_start(
    tiny_folder: Path, tmp_path: Path, adapters: dict[str, str]
) -> None:
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(adapters["polite"], tmp_path / "wide")
    tensors = load_file(folder / "adapter_model.safetensors")
    wide = {name: t.repeat(1, 2) if "lora_A" in name else t for name, t in tensors.items()}
    save_file(wide, folder / "adapter_model.safetensors")
    with pytest.raises(EngineError, match="wide does not fit onto the model"):
        await tiny_engine(tiny_folder, adapters={"wide": str(folder)}).start()
