"""An engine by its name, as the settings say it. Torch loads only for those that need it."""

from typing import Any

from model.engine import Engine, EngineError

ENGINES = ("echo", "transformers")


def build_engine(engine: str, **settings: Any) -> Engine:
    """Make the engine called ``engine``; ``settings`` are its constructor's arguments.

    The engine is not started. Raises ``EngineError`` for a name that is not in ``ENGINES``.
    """
    if engine == "echo":
        from model.echo import EchoEngine

        return EchoEngine(**settings)
    if engine == "transformers":
        from model.transformers_engine import TransformersEngine

        return TransformersEngine(**settings)
    raise EngineError(f"There is no engine called {engine!r}; choose one of {', '.join(ENGINES)}.")
