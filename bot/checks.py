"""``twite config check``: is everything there that a worker needs?

Settings come in; one ``Check`` per thing goes out, a red or yellow one with what to do. Nothing
is changed, but that the cluster remembers a transactional id of the check for a week.
The guards themselves stand in ``bot/guards.py``; the model is looked for, not loaded.
"""

import re
from collections.abc import AsyncIterator
from pathlib import Path

from bot.app import worker_config
from bot.cluster import look
from bot.config import Loaded
from bot.errors import Trouble
from bot.guards import Check, green, judge, red
from bot.settings import ModelSettings, Settings
from consumers.errors import ConsumersError
from model.engine import EngineError

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")  # owner/model


async def check_all(loaded: Loaded) -> list[Check]:
    """Settings, broker, the guards of the cluster, and model, in this order."""
    settings = loaded.settings
    return [
        _settings(loaded),
        *[check async for check in _kafka(settings)],
        _model(settings.model),
    ]


def _settings(loaded: Loaded) -> Check:
    set_here = sum(origin != "default" for origin in loaded.origins.values())
    return green("settings", f"{set_here} set, the others default; file: {loaded.file or 'none'}")


async def _kafka(settings: Settings) -> AsyncIterator[Check]:
    kafka, config = settings.kafka, worker_config(settings)
    try:
        cluster = await look(config, kafka)
    except (ConsumersError, Trouble) as error:
        yield red("broker", f"{kafka.bootstrap_servers} does not answer", str(error))
        return
    yield green("broker", f"{kafka.bootstrap_servers} answers, {cluster.brokers} in all")
    for check in judge(cluster, config):
        yield check


def _model(model: ModelSettings) -> Check:
    if model.engine == "echo":
        return green("model", "engine echo needs none")
    try:
        return green("model", _find_model(model))
    except EngineError as error:
        return red("model", f"{model.name} is not there", str(error))


def _find_model(model: ModelSettings) -> str:
    """Where the model is, without loading or fetching it. Raises ``EngineError``."""
    from model.weights import DEFAULT_MODEL, find_gguf, resolve

    if model.name == DEFAULT_MODEL:
        find_gguf()
        return f"{model.name}, installed"
    if HUB_NAME.fullmatch(model.name) and not Path(model.name).is_dir():
        return f"{model.name}, from Hugging Face when the worker starts"
    return f"{resolve(model.name, model.revision).path}"
