"""Engines by name, and which of them need torch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import model
from model.echo import EchoEngine
from model.engine import ChatMessage, EngineError, ModelNotFound, Part
from model.loader import ENGINES, build_engine, build_tokenizer
from model.threads import ENVIRONMENT, configure_environment, thread_counts
from model.transformers_engine import TransformersEngine
from model.weights import DEFAULT_MODEL


def test_an_engine_is_built_by_its_name() -> None:
    assert isinstance(build_engine("echo", latency_ms=2, slots=3), EchoEngine)
    assert isinstance(build_engine("transformers", slots=2), TransformersEngine)
    assert ENGINES == ("echo", "openai", "transformers")


def test_another_name_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(EngineError, match="echo, openai, transformers"):
        build_engine("parrot")


@pytest.mark.slow  # loads torch, which takes some seconds
def test_a_tokenizer_is_there_without_the_weights(tiny_folder: Path, tmp_path: Path) -> None:
    tokenizer, length = build_tokenizer("transformers", str(tiny_folder), None, print)
    chat = [ChatMessage("user", (Part("hello there"),))]
    prompt = tokenizer.encode_chat(chat)
    spelled = "".join(
        tokenizer.spell(prompt.token_ids[part.start : part.end]) for part in prompt.segments
    )
    assert "hello there" in spelled
    assert len(spelled) > len(tokenizer.decode(prompt.token_ids))
    assert length > 0
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(EngineError, match=r"has no config\.json"):
        build_tokenizer("transformers", str(tmp_path), None, print)


@pytest.mark.slow  # loads transformers, which takes some seconds
def test_a_tokenizer_that_is_here_is_loaded_without_fetching(tiny_folder: Path) -> None:
    tokenizer, length = build_tokenizer("transformers", str(tiny_folder), None, None)
    assert tokenizer.count("hello there") > 0
    assert length > 0


@pytest.mark.parametrize("name", [DEFAULT_MODEL, "owner/never-fetched", "no-such-folder"])
def test_a_model_that_is_not_here_is_not_fetched_for_its_tokenizer(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWITE_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelNotFound, match="not been loaded on this machine"):
        build_tokenizer("transformers", name, None, None)
    assert not (tmp_path / "models").exists()


def test_the_echo_engine_has_a_tokenizer_as_well() -> None:
    echo, room = build_tokenizer("echo", "", None, print)
    assert room == 32768
    ids = echo.encode_chat([ChatMessage("user", (Part("hello there"),))]).token_ids
    assert echo.spell(ids) == "<user>hello there<end><assistant>"


def test_torch_loads_only_when_a_model_starts() -> None:
    code = (
        "import sys, model.threads, model.loader as l; l.build_engine('echo');"
        "l.build_engine('transformers'); assert 'torch' not in sys.modules"
    )
    root = Path(next(iter(model.__path__))).parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, check=False)
    assert done.returncode == 0


def test_threads_of_libraries_are_bounded_unless_somebody_chose(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "environ", {"OPENBLAS_NUM_THREADS": "4"})
    assert thread_counts(3) == {"OMP_NUM_THREADS": "3"}


def test_the_environment_is_set_but_never_overridden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"OMP_WAIT_POLICY": "ACTIVE"})
    configure_environment()
    assert os.environ == {**ENVIRONMENT, "OMP_WAIT_POLICY": "ACTIVE"}
