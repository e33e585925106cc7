"""An engine by its name, as the settings say it. Torch loads only for those that need it."""

from collections.abc import Callable
from typing import Any

from model.engine import ChatTokenizer, Engine, EngineError

ENGINES = ("echo", "openai", "transformers")


def build_engine(engine: str, **settings: Any) -> Engine:
    """Make the engine called ``engine``; ``settings`` are its constructor's arguments.

    The engine is not started. Raises ``EngineError`` for a name that is not in ``ENGINES``.
    """
    if engine == "echo":
        from model.echo import EchoEngine

        return EchoEngine(**settings)
    if engine == "openai":
        from model.openai.engine import OpenAIEngine

        return OpenAIEngine(**settings)
    if engine == "transformers":
        from model.transformers_engine import TransformersEngine

        return TransformersEngine(**settings)
    raise EngineError(f"There is no engine called {engine!r}; choose one of {', '.join(ENGINES)}.")


def host_engine(
    engine: str, *, hang_s: float = 60.0, progress: Callable[[str], None], **settings: Any
) -> Engine:
    """The engine called ``engine`` in a process of its own, which is looked after; no torch is
    loaded here. ``settings`` are plain values; ``hang_s``: see ``model.hosted.keeper``. Not
    started; a name that is not known is told by the start."""
    from model.hosted.engine import HostedEngine
    from model.hosted.keeper import Care
    from model.threads import thread_counts

    care = Care(hang_s=hang_s, environment=thread_counts(settings.get("threads", 1)))
    return HostedEngine(engine, settings, care=care, progress=progress)


def build_tokenizer(
    engine: str, name: str, revision: str | None, progress: Callable[[str], None] | None
) -> tuple[ChatTokenizer, int]:
    """The tokenizer that the engine called ``engine`` would use, and its context length in
    tokens, without loading any weights. ``progress`` None: nothing is fetched or converted, and
    a model that needs it is ``ModelNotFound``. Raises ``EngineError``."""
    if engine == "echo":
        from model.echo import EchoEngine

        echo = EchoEngine()
        return echo.tokenizer, echo.describe().context_length
    if engine == "openai":
        from model.openai.tokens import read_here

        return read_here(name, revision, fetch=progress is not None)
    from model.loading import load_tokenizer
    from model.weights import folder_here, resolve

    if progress is None:
        return load_tokenizer(folder_here(name, revision))
    return load_tokenizer(resolve(name, revision, progress=progress).path)
