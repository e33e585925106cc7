"""Loading torch and transformers without their noise, and saying which versions they are."""

import importlib.metadata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from model.threads import configure_environment

NAMED = ("torch", "transformers", "tokenizers", "accelerate", "safetensors")


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Inside, the libraries print no progress, no advice and no warnings.

    Warnings are filtered for the whole process meanwhile, so keep the block short.
    """
    configure_environment()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers.utils.logging as log

        log.set_verbosity_error()
        log.disable_progress_bar()
        yield


def library_versions() -> dict[str, str]:
    """Name to version of every library that has a say in what a model answers."""
    found: dict[str, str] = {}
    for name in NAMED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
