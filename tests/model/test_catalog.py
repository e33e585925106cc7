"""What is on this machine, looked at without being changed."""

from pathlib import Path

import pytest

from model.catalog import growing, look_at, size_of
from tests.model.files import safetensors


def test_a_folder_that_somebody_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(safetensors(w=[2]))
    found = look_at("mine", tmp_path)
    assert (found.state, found.kind, found.why) == ("ready", "folder", "")
    assert found.size == size_of(tmp_path) == sum(f.stat().st_size for f in tmp_path.iterdir())
    (tmp_path / "config.json").unlink()
    broken = look_at("mine", tmp_path)
    assert broken.state == "unusable"
    assert "has no config.json" in broken.why


def test_what_is_on_its_way_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert growing("org/chat", tmp_path / "cache") == 0
    for place in (tmp_path / "cache" / "x.partial-7", tmp_path / "hub/models--org--chat/blobs"):
        place.mkdir(parents=True)
        (place / "part").write_bytes(bytes(100))
    assert growing("org/chat", tmp_path / "cache") == 200
    assert growing("org/other", tmp_path / "cache") == 100
