"""The file that has changed is named."""

import hashlib
import json
from pathlib import Path

import pytest

from model.digests import SIDECAR, differing, is_known, weights_digest, write_sidecar
from tests.model.files import safetensors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(safetensors(w=[3]))
    return folder


def test_a_folder_is_what_was_noted(folder: Path) -> None:
    assert write_sidecar(folder, converter=1) == weights_digest(folder)
    assert json.loads((folder / SIDECAR).read_text())["converter"] == 1
    assert is_known(folder)
    assert list(differing(folder)) == []


def test_what_differs_or_is_gone_is_named(folder: Path) -> None:
    write_sidecar(folder)
    (folder / "model.safetensors").write_bytes(safetensors(w=[4]))
    (folder / "tokenizer.json").unlink()
    assert list(differing(folder)) == [
        ("model.safetensors", "differs"),
        ("tokenizer.json", "is missing"),
    ]


def test_a_note_of_an_earlier_version_knows_the_weights_alone(folder: Path) -> None:
    (folder / SIDECAR).write_text(json.dumps({"digest": weights_digest(folder)}))
    assert list(differing(folder)) == []
    (folder / "model.safetensors").write_bytes(safetensors(w=[4]))
    assert list(differing(folder)) == [("the weights", "differ")]


def test_of_a_folder_without_a_note_nothing_is_known(folder: Path) -> None:
    assert not is_known(folder)
    assert list(differing(folder)) == []


def test_the_hubs_cache_calls_its_files_by_their_digests(folder: Path, tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    small = b"{}"
    git = hashlib.sha1(b"blob 2\0" + small).hexdigest()  # noqa: S324 - git's own
    large = hashlib.sha256(safetensors(w=[3])).hexdigest()
    for name, blob, content in (("config.json", git, small), ("tokenizer.json", git, small),
                                ("model.safetensors", large, safetensors(w=[3]))):  # fmt: skip
        (blobs / blob).write_bytes(content)
        (folder / name).unlink()
        (folder / name).symlink_to(f"../blobs/{blob}")
    assert is_known(folder)
    assert list(differing(folder)) == []
    (blobs / large).write_bytes(safetensors(w=[4]))
    (blobs / git).write_bytes(b"[]")
    assert dict(differing(folder)) == {
        "config.json": "differs", "model.safetensors": "differs", "tokenizer.json": "differs",
    }  # fmt: skip
    (blobs / large).unlink()
    assert ("model.safetensors", "is missing") in list(differing(folder))
