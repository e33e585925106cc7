"""Models for the tests: the tiny one, made once per run, and the default one (slow tests)."""

from pathlib import Path
from typing import Any

import pytest

from model.chat import HfChatTokenizer
from model.libraries import quiet_libraries
from tests.model.tiny import save_tiny_model, tiny_tokenizer


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with quiet_libraries():
        return save_tiny_model(tmp_path_factory.mktemp("tiny-model"))


@pytest.fixture(scope="session")
def tiny_hf() -> Any:
    """The tiny model's own transformers tokenizer."""
    with quiet_libraries():
        return tiny_tokenizer()


@pytest.fixture(scope="session")
def tiny_chat(tiny_hf: Any) -> HfChatTokenizer:
    return HfChatTokenizer(tiny_hf)


@pytest.fixture(scope="session")
def default_hf() -> Any:
    """The default model's own transformers tokenizer; only for tests marked ``slow``."""
    from model.weights import resolve

    files = resolve()
    with quiet_libraries():
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(files.path, local_files_only=True)


@pytest.fixture(scope="session")
def default_chat(default_hf: Any) -> HfChatTokenizer:
    return HfChatTokenizer(default_hf)
