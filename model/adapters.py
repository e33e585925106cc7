"""LoRA adapters: small weights over a base model that stays as it is, chosen row by row.

In come a loaded model and folders by name (as ``peft`` saves them, safetensors only); out comes a
model of the same kind of which each row of a batch may take another adapter, or none. Rows of
different adapters share a step: the base's products are made once for all of them, and each layer
adds what is each adapter's to its own rows (Hu et al. 2021; mixed batches as in ``peft``).
``peft`` loads when there are adapters, and not before.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from model.digests import joined_digest, sha256
from model.engine import EngineError, RequestRefused
from model.folder import ADAPTER, PICKLES, header_of, read_json

BASE = "__base__"  # what peft calls a row without an adapter
WEIGHTS = "adapter_model.safetensors"


def adapter_digest(name: str, folder: Path) -> str:
    """SHA-256 of an adapter's weights and configuration, as ``sha256:…``.

    Raises ``EngineError`` for a folder that is no LoRA adapter, or of a kind that can't be chosen
    row by row.
    """
    if not name or name == BASE or "." in name:
        raise EngineError(f"An adapter cannot be called {name!r}: choose letters, digits and -.")
    if not (folder / ADAPTER).is_file():
        raise EngineError(
            f"The adapter {name} in {folder} has no {ADAPTER}. Name a folder that peft saved."
        )
    _require_plain(name, folder, read_json(folder / ADAPTER))
    if not (folder / WEIGHTS).is_file():
        pickled = any(file for kind in PICKLES for file in folder.glob(kind))
        why = "Files of other kinds can run code and are never opened. " if pickled else ""
        raise EngineError(f"The adapter {name} in {folder} has no {WEIGHTS}. {why}Save it as such.")
    header_of(folder / WEIGHTS)
    return joined_digest({file: sha256(folder / file) for file in (ADAPTER, WEIGHTS)})


def _require_plain(name: str, folder: Path, config: Mapping[str, Any]) -> None:
    odd = [key for key in ("use_dora", "modules_to_save", "alora_invocation_tokens",
                           "trainable_token_indices", "target_parameters")
           if config.get(key)]  # fmt: skip
    if config.get("bias", "none") != "none":
        odd.append("bias")
    if config.get("peft_type") != "LORA":
        raise EngineError(
            f"The adapter {name} in {folder} is a {config.get('peft_type')}, and only LORA can be "
            "used."
        )
    if odd:
        raise EngineError(
            f"The adapter {name} in {folder} uses {', '.join(odd)}, which changes the base as "
            "well: such adapters cannot share a batch. Merge it into its base instead."
        )


def require_adapter(name: str | None, known: Mapping[str, str]) -> None:
    """Raise ``RequestRefused`` for an adapter that is not loaded; None is the base."""
    if name is not None and name not in known:
        there = ", ".join(sorted(known)) or "none"
        raise RequestRefused(
            f"There is no adapter called {name}; loaded are: {there}. Add it to model.adapters."
        )


class AdaptedModel:
    """A causal language model with adapters. Called like the stock one; ``rows`` says which
    adapter each row of the next call takes (empty: none of them any)."""

    def __init__(self, model: Any, folders: Mapping[str, Path]) -> None:
        """Raises ``EngineError`` for an adapter that does not fit onto the model."""
        from peft import PeftModel

        self.rows: Sequence[str | None] = ()
        self._model: Any = None
        for name, folder in folders.items():
            with _told(name, folder):
                if self._model is None:
                    self._model = PeftModel.from_pretrained(model, str(folder), adapter_name=name)
                else:
                    self._model.load_adapter(str(folder), adapter_name=name)
        self._model.eval()

    def __call__(self, **arguments: Any) -> Any:
        rows = self.rows or [None] * len(arguments["input_ids"])
        return self._model(adapter_names=[name or BASE for name in rows], **arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


@contextmanager
def _told(name: str, folder: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever a folder that does not fit makes the library raise
        first = f"{type(error).__name__}: {error}".splitlines()[0]
        raise EngineError(
            f"The adapter {name} in {folder} does not fit onto the model ({first}). Name the base "
            "that it was made for, or leave it out of model.adapters."
        ) from error
