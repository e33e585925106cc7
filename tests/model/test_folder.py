"""Each folder that cannot work is told by name, with what to do, before anything is loaded."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from model.engine import EngineError
from model.folder import Tensor, header_of, require_model
from model.weights import resolve
from tests.model.files import safetensors

WHOLE = safetensors("BF16", embed=[10, 4], head=[10, 4])
LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    (tmp_path / "model.safetensors").write_bytes(WHOLE)
    return tmp_path


def test_a_whole_folder_tells_its_tensors(folder: Path) -> None:
    assert require_model(folder) == {"embed": Tensor("BF16", 40), "head": Tensor("BF16", 40)}
    assert Tensor("BF16", 40).size == 80
    assert Tensor("F8_E4M3", 3).size == 3
    assert [Tensor(dtype, 1).is_float for dtype in ("F32", "I8", "U32")] == [True, False, False]


def test_names_of_several_files_are_joined(folder: Path) -> None:
    (folder / "more.safetensors").write_bytes(safetensors("I8", norm=[5]))
    assert set(require_model(folder)) == {"embed", "head", "norm"}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "no whole header"),
        (b"\0" * 64, "no whole header"),
        (WHOLE[:40], "no whole header"),
        (WHOLE[:-1], "is cut short"),
        (WHOLE + b"x", "something behind its end"),
        (b"\xff" * 64, "no whole header"),
        ((8).to_bytes(8, "little") + b"no json!" + bytes(9), "does not begin as safetensors do"),
        ((2).to_bytes(8, "little") + b"[]" + bytes(9), "does not begin as safetensors do"),
        ((9).to_bytes(8, "little") + b'{"a":"b"}', "does not begin as safetensors do"),
        (b"<!DOCTYPE html><html>Sign in</html>" * 9, "no whole header"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "no whole header"),
    ],
)
def test_a_file_that_is_not_whole_is_named(folder: Path, content: bytes, told: str) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(EngineError, match=told) as raised:
        resolve(str(folder))
    assert str(file) in str(raised.value)
    assert "anew" in str(raised.value)


def test_a_file_that_cannot_be_read_is_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    with pytest.raises(EngineError, match=r"model\.safetensors cannot be read"):
        resolve(str(folder))


class Bomb:
    """Unpickling it leaves a file behind."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.file), "w")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.pth", "x.ckpt"])
def test_pickles_are_refused_and_never_opened(folder: Path, name: str) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(Bomb(folder / "bang")))
    with pytest.raises(EngineError, match=rf"only {name}.*never opens"):
        resolve(str(folder))
    assert not (folder / "bang").exists()


def test_a_folder_with_a_gguf_says_to_name_the_file(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(EngineError, match=r"Set the model's name to a GGUF file.*m\.gguf"):
        resolve(str(folder))


def test_an_empty_folder_says_what_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="Only safetensors are loaded"):
        resolve(str(tmp_path))


def test_an_adapter_is_no_model_and_names_its_base(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    (tmp_path / "adapter_model.safetensors").write_bytes(safetensors(a=[1]))
    with pytest.raises(EngineError, match=r"LoRA adapter.*org/base.*model\.adapters"):
        resolve(str(tmp_path))


@pytest.mark.parametrize(
    "architecture", ["BertForMaskedLM", "BertModel", "CLIPModel", "LlamaForSequenceClassification"]
)
def test_a_model_that_does_not_write_is_no_chat_model(folder: Path, architecture: str) -> None:
    (folder / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    with pytest.raises(EngineError, match=rf"is a {architecture}.*not a chat model"):
        resolve(str(folder))


@pytest.mark.parametrize(
    ("content", "told"),
    [(None, "has no config.json"), ("{", "it is no JSON"), ("[1]", "no JSON object")],
)
def test_a_config_that_cannot_be_read_is_named(
    folder: Path, content: str | None, told: str
) -> None:
    (folder / "config.json").unlink()
    if content is not None:
        (folder / "config.json").write_text(content)
    with pytest.raises(EngineError, match=told):
        resolve(str(folder))


def test_an_index_that_names_nothing_is_told(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(EngineError, match="does not say which file holds what"):
        resolve(str(folder))


def test_what_is_no_gguf_is_no_model(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"<html>")
    with pytest.raises(EngineError, match="is no GGUF file"):
        resolve(str(file), cache_dir=tmp_path)


def test_the_header_alone_is_read(folder: Path) -> None:
    big = folder / "model.safetensors"
    header = json.dumps({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}})
    with big.open("wb") as stream:  # a file with a hole: four terabytes that are not there
        stream.write(len(header).to_bytes(8, "little") + header.encode())
        stream.truncate(8 + len(header) + 2**42)
    assert header_of(big)["a"].size == 2**42
