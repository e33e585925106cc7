"""``twite model`` over small folders made by hand, and over the echo engine."""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from bot import cli
from bot.checks import check_models
from bot.cli import console
from bot.config import load
from bot.guards import Check, Level
from bot.settings import known_fields
from model import converted
from model.digests import weights_digest, write_sidecar
from tests.model.files import safetensors


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.delenv("TWITE_CONFIG", raising=False)
    for known in known_fields():
        monkeypatch.delenv(known.variable, raising=False)
    monkeypatch.setenv("TWITE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.utils._cache_manager.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(console.out, "_width", 250)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache" / "models"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path / "mine")


def make(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (folder / "model.safetensors").write_bytes(safetensors(w=[5]))
    return folder


def run(arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """As the shell would: the exit status of ``twite model``."""
    monkeypatch.setattr(sys, "argv", ["twite", "model", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    assert run(["list", "--json"], monkeypatch) == 0
    return {one["name"]: one["state"] for one in json.loads(capsys.readouterr().out)["models"]}


def test_the_default_is_listed_before_it_is_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert listed(monkeypatch, capsys) == {"SmolLM2-135M-Instruct": "not here"}
    assert run(["list"], monkeypatch) == 0
    assert "not here" in capsys.readouterr().out


def test_conversions_and_the_hubs_cache_are_listed(
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make(converted.default_folder(cache))
    broken = make(cache / f"other-{'a' * 12}-1")
    (broken / "model.safetensors").write_bytes(b"half")
    (cache / f"other-{'a' * 12}-1.lock").touch()
    hub = tmp_path / "hub" / "models--org--chat"
    make(hub / "snapshots" / ("b" * 40))
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text("b" * 40)
    found = listed(monkeypatch, capsys)
    assert found == {
        "SmolLM2-135M-Instruct": "ready", "other": "unusable", "org/chat": "ready",
    }  # fmt: skip
    assert run(["list"], monkeypatch) == 0
    assert "not a whole safetensors file" in capsys.readouterr().err


def test_fetching_what_is_here_says_where_and_what(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["fetch", str(folder)], monkeypatch) == 0
    told = capsys.readouterr().out
    assert str(folder) in told
    assert weights_digest(folder) in told


def test_fetching_converts_and_tells_its_stages(
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "small.gguf"
    file.write_bytes(b"GGUF and so on")
    monkeypatch.setattr(converted, "convert", lambda source, target: make(target))
    assert run(["fetch", str(file)], monkeypatch) == 0
    said = capsys.readouterr()
    assert "Converting small" in said.err
    assert "small.gguf gguf:" in said.out
    assert [found.name for found in cache.glob("small-*-1")] != []


@pytest.mark.parametrize("wrong", ["no-such-folder", "config.toml"])
def test_what_cannot_be_fetched_says_what_to_do(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.toml").write_text("")
    assert run(["fetch", wrong], monkeypatch) == 1
    assert "Set the model's name to a folder" in capsys.readouterr().err


def test_a_gguf_that_is_none_is_not_half_converted(
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(source: Path, target: Path) -> None:
        target.mkdir()
        raise ValueError("unknown architecture")

    file = tmp_path / "odd.gguf"
    file.write_bytes(b"GGUF")
    monkeypatch.setattr(converted, "convert", fail)
    assert run(["fetch", str(file)], monkeypatch) == 1
    assert "cannot be converted (ValueError: unknown architecture)" in capsys.readouterr().err
    assert [place for place in cache.iterdir() if place.is_dir()] == []


def test_verify_tells_the_file_that_differs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["verify", str(folder)], monkeypatch) == 0
    assert "there is no note" in capsys.readouterr().out
    write_sidecar(folder)
    assert run(["verify", str(folder)], monkeypatch) == 0
    assert "as noted" in capsys.readouterr().out
    (folder / "model.safetensors").write_bytes(safetensors(w=[6]))
    assert run(["verify", str(folder)], monkeypatch) == 1
    assert "model.safetensors differs" in capsys.readouterr().err


def test_verify_tells_a_broken_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "model.safetensors").write_bytes(safetensors(w=[5])[:-1])
    assert run(["verify", str(folder)], monkeypatch) == 1
    assert "is cut short" in capsys.readouterr().err


def test_the_pin_of_the_settings_is_for_their_own_model(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TWITE_MODEL__NAME", str(folder))
    monkeypatch.setenv("TWITE_MODEL__WEIGHTS_DIGEST", weights_digest(folder))
    assert run(["verify"], monkeypatch) == 0
    assert "as pinned" in capsys.readouterr().out
    monkeypatch.setenv("TWITE_MODEL__WEIGHTS_DIGEST", f"sha256:{'0' * 64}")
    assert run(["verify"], monkeypatch) == 1
    assert "model.weights_digest says" in capsys.readouterr().err
    assert run(["fetch"], monkeypatch) == 1
    assert "not those that are pinned" in capsys.readouterr().err
    assert run(["verify", str(make(tmp_path / "other"))], monkeypatch) == 0


def test_verify_of_what_is_not_here_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["verify"], monkeypatch) == 1
    assert "has not been loaded on this machine yet" in capsys.readouterr().err


def test_bench_measures_each_number_in_flight(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TWITE_MODEL__ENGINE", "echo")
    assert run(["bench", "--in-flight", "1,3", "--tokens", "5", "--json"], monkeypatch) == 0
    found = json.loads(capsys.readouterr().out)["speeds"]
    assert [(one["in_flight"], one["tokens"]) for one in found] == [(1, 5), (3, 15)]
    assert all(one["tokens_per_s"] > 0 for one in found)
    assert run(["bench", "--in-flight", "2"], monkeypatch) == 0
    assert "tokens/s" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "0", "a", "1,,2", "5000"])
def test_bench_refuses_what_is_no_list(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bench", "--in-flight", text], monkeypatch) == 1
    assert "Write it as 1,4,16" in capsys.readouterr().err


def looked_at() -> Check:
    """What ``twite config check`` says of the model of the environment."""

    async def first() -> Check:
        return await anext(check_models(load().settings.model))

    return asyncio.run(first())


def test_config_check_looks_at_the_model_and_changes_nothing(
    folder: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWITE_MODEL__NAME", str(folder))
    assert looked_at().level is Level.GREEN
    monkeypatch.setenv("TWITE_MODEL__ADAPTERS", json.dumps({"polite": str(tmp_path)}))
    assert "peft saved" in looked_at().todo
    monkeypatch.delenv("TWITE_MODEL__ADAPTERS")
    monkeypatch.setenv("TWITE_MODEL__WEIGHTS_DIGEST", f"sha256:{'0' * 64}")
    assert "not those that are pinned" in looked_at().todo
    monkeypatch.delenv("TWITE_MODEL__WEIGHTS_DIGEST")
    (folder / "model.safetensors").write_bytes(b"half")
    assert looked_at().level is Level.RED
    (tmp_path / "small.gguf").write_bytes(b"GGUF and so on")
    monkeypatch.setenv("TWITE_MODEL__NAME", "small.gguf")
    assert "converted when the worker starts" in looked_at().found
    assert not cache.exists()
