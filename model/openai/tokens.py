"""The tokenizer of a served model, from its own files, without torch in this process.

In comes a folder or a Hugging Face name, of which only the tokenizer's files are fetched, never
weights. transformers reads them in a process of its own, which ends at once: what comes back is a
value (``model.portable``).
"""

import asyncio
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from model.chat import HfChatTokenizer
from model.engine import ChatMessage, ChatTokenizer, EngineError, ModelNotFound, Prompt
from model.openai.estimate import EstimatingTokenizer
from model.portable import PortableTokenizer
from model.weights import DEFAULT_MODEL, folder_here, resolve

DEFAULT_CONTEXT = 4096  # tokens, where neither the server nor the tokenizer tells
LONGEST_CONTEXT = 2**31  # the server knows how much of the model's own it takes
FILES = ["*.json", "*.jinja", "*.model", "*.txt"]


class WithMessages:
    """A ``ChatTokenizer`` whose prompts carry their messages as well."""

    def __init__(self, inner: ChatTokenizer) -> None:
        self._inner = inner

    @property
    def control_ids(self) -> frozenset[int]:
        return self._inner.control_ids

    def encode_chat(self, messages: Sequence[ChatMessage]) -> Prompt:
        prompt = self._inner.encode_chat(messages)
        return Prompt(prompt.token_ids, prompt.segments, tuple(messages))

    def count(self, text: str) -> int:
        return self._inner.count(text)

    def decode(self, token_ids: Sequence[int]) -> str:
        return self._inner.decode(token_ids)

    def spell(self, token_ids: Sequence[int]) -> str:
        return self._inner.spell(token_ids)


def texts_of_controls(tokenizer: ChatTokenizer) -> set[str]:
    """The control tokens of a tokenizer, by their text."""
    return {tokenizer.spell([i]) for i in tokenizer.control_ids}


async def load(name: str, revision: str | None) -> tuple[HfChatTokenizer, int]:
    """The tokenizer and the context length in tokens that the model was made for.

    Raises ``ModelNotFound``, or ``EngineError`` for files that are no chat tokenizer.
    """
    portable, length = await asyncio.to_thread(_in_another_process, name, revision)
    return HfChatTokenizer(portable), length


def read_here(name: str, revision: str | None, *, fetch: bool) -> tuple[ChatTokenizer, int]:
    """In this process, for commands: the tokenizer and the context that its model was made for; an
    empty name is an estimate. Raises ``ModelNotFound`` or ``EngineError``."""
    if not name:
        return EstimatingTokenizer(), DEFAULT_CONTEXT
    from model.loading import load_tokenizer

    folder = folder_of(name, revision) if fetch else folder_here(name, revision)
    return load_tokenizer(folder, context_length=LONGEST_CONTEXT)


def _in_another_process(name: str, revision: str | None) -> tuple[PortableTokenizer, int]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            found = pool.submit(_read, name, revision).result()
        except BrokenProcessPool as error:
            raise EngineError(f"The tokenizer {name} could not be read: {error}") from error
    if isinstance(found, str):
        raise (ModelNotFound if found.startswith("There is no") else EngineError)(found)
    return found


def _read(name: str, revision: str | None) -> tuple[PortableTokenizer, int] | str:
    """In the other process; errors travel back as their words."""
    from model.loading import load_tokenizer

    try:
        tokenizer, length = load_tokenizer(
            folder_of(name, revision), context_length=LONGEST_CONTEXT
        )
    except EngineError as error:
        return str(error)
    return PortableTokenizer.of(tokenizer.source), length


def folder_of(name: str, revision: str | None) -> Path:
    """Where the tokenizer's files are; they are fetched where they are not here. Raises
    ``ModelNotFound``."""
    if Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    if name == DEFAULT_MODEL:
        return resolve(name).path
    try:
        return Path(_snapshot(name, revision))
    except Exception as error:  # the hub raises errors of half a dozen libraries
        raise ModelNotFound(
            f"There is no tokenizer {name!r} ({type(error).__name__}). Set model.openai.tokenizer "
            "to the folder or the Hugging Face name of the served model, or unset it: then "
            "prompts go out as chat messages."
        ) from error


def _snapshot(name: str, revision: str | None) -> Any:
    from huggingface_hub import snapshot_download

    options: dict[str, Any] = {"allow_patterns": FILES, "ignore_patterns": ["*/*"]}
    try:
        return snapshot_download(name, revision=revision, local_files_only=True, **options)
    except Exception:
        return snapshot_download(name, revision=revision, **options)
