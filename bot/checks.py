"""``twite config check``: is everything there that a worker needs?

Settings come in; one ``Check`` per thing goes out, a failed one with what to do. Nothing is
changed. More guards (sizes, rights, retention) belong here when the runtime needs them.
"""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from bot.clients import topic_partitions
from bot.config import Loaded
from bot.errors import Trouble
from bot.settings import KafkaSettings, ModelSettings
from consumers.errors import ConsumersError
from model.engine import EngineError
from schemas.topics import MEETING, TOPICS

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")  # owner/model


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at; ``todo`` is empty where it is in order."""

    name: str
    ok: bool
    found: str
    todo: str = ""


async def check_all(loaded: Loaded) -> list[Check]:
    """Settings, broker, topics and model, in this order."""
    settings = loaded.settings
    return [
        _settings(loaded),
        *[check async for check in _kafka(settings.kafka)],
        _model(settings.model),
    ]


def _settings(loaded: Loaded) -> Check:
    set_here = sum(origin != "default" for origin in loaded.origins.values())
    return Check("settings", True, f"{set_here} set, the others default; file: {loaded.file}")


async def _kafka(kafka: KafkaSettings) -> AsyncIterator[Check]:
    try:
        counts = await topic_partitions(kafka)
    except (ConsumersError, Trouble) as error:
        yield Check("broker", False, f"{kafka.bootstrap_servers} does not answer", str(error))
        return
    yield Check("broker", True, f"{kafka.bootstrap_servers} answers")
    yield _topics(counts)
    if all(name in counts for name in MEETING):
        yield _partitions(counts)


def _topics(counts: dict[str, int]) -> Check:
    missing = [name for name in TOPICS if name not in counts]
    if missing:
        what = f"missing: {', '.join(missing)}"
        return Check("topics", False, what, "Create them with `twite topics create`.")
    return Check("topics", True, f"all {len(TOPICS)} are there")


def _partitions(counts: dict[str, int]) -> Check:
    differ = {counts[name] for name in MEETING}
    if len(differ) > 1:
        listed = ", ".join(f"{name}: {counts[name]}" for name in MEETING)
        todo = (
            "Topics that meet in a conversation need the same number of partitions: recreate"
            " the smaller ones with `twite topics create`."
        )
        return Check("partitions", False, listed, todo)
    return Check("partitions", True, f"{differ.pop()} for every topic of a conversation")


def _model(model: ModelSettings) -> Check:
    if model.engine == "echo":
        return Check("model", True, "engine echo needs none")
    try:
        return Check("model", True, _find_model(model))
    except EngineError as error:
        return Check("model", False, f"{model.name} is not there", str(error))


def _find_model(model: ModelSettings) -> str:
    """Where the model is, without loading or fetching it. Raises ``EngineError``."""
    from model.weights import DEFAULT_MODEL, find_gguf, resolve

    if model.name == DEFAULT_MODEL:
        find_gguf()
        return f"{model.name}, installed"
    if HUB_NAME.fullmatch(model.name) and not Path(model.name).is_dir():
        return f"{model.name}, from Hugging Face when the worker starts"
    return f"{resolve(model.name, model.revision).path}"
