"""``twite config check``: is everything there that a worker needs?

Settings come in; one ``Check`` per thing goes out, a red or yellow one with what to do. Nothing
is changed, but that the cluster remembers a transactional id of the check for a week.
The guards themselves stand in ``bot/guards.py``; the model is looked for, not loaded.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

from bot import hosts
from bot.app import worker_config
from bot.cluster import look
from bot.config import Loaded
from bot.errors import Trouble
from bot.guards import Check, green, judge, red, yellow
from bot.limits_file import BrokenFile, read
from bot.prompt_room import require_room, surely_fits
from bot.quotas import quotas_of
from bot.settings import LimitsSettings, ModelSettings, Settings
from bot.templates import PromptError, chosen
from bot.wiring import openai_options, sampling_of, setup_of
from consumers.errors import ConsumersError
from model.engine import ChatTokenizer, EngineError, ModelNotFound
from model.loader import build_tokenizer

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")  # owner/model


async def check_all(loaded: Loaded) -> list[Check]:
    """Settings, prompts, broker, the guards of the cluster, model and limits, in this order."""
    settings = loaded.settings
    return [
        _settings(loaded),
        check_prompts(settings),
        *[check async for check in _kafka(settings)],
        *[check async for check in check_models(settings.model)],
        await check_limits(settings.limits),
    ]


def _settings(loaded: Loaded) -> Check:
    set_here = sum(origin != "default" for origin in loaded.origins.values())
    return green("settings", f"{set_here} set, the others default; file: {loaded.file or 'none'}")


def check_prompts(settings: Settings) -> Check:
    """Whether the prompt files that are chosen can be used, and leave room for a question."""
    try:
        files = chosen(settings.prompts)
        told = ", ".join(f"{file.template.name} {file.template.hash[:12]}" for file in files)
        setup = setup_of(settings, "")
        if surely_fits(files, setup):
            return green("prompts", told)
        require_room(files, setup, *_tokenizer(settings.model))
    except PromptError as error:
        return red("prompts", f"{error.where}: {error.what}", error.todo)
    except EngineError as error:
        todo = f"A worker looks when it has loaded the model. {error}"
        return yellow("prompts", f"{told}; they are long, and how long can't be told here", todo)
    return green("prompts", told)


def _tokenizer(model: ModelSettings) -> tuple[ChatTokenizer, int]:
    """The model's, where it is here; nothing is fetched. Raises ``EngineError``."""
    return build_tokenizer(model.engine, *model.tokenizer_source, None)


async def _kafka(settings: Settings) -> AsyncIterator[Check]:
    kafka, config = settings.kafka, worker_config(settings)
    address = kafka.bootstrap_servers
    try:
        cluster = await look(config, kafka)
    except (ConsumersError, Trouble) as error:
        what = f"{address} does not answer"
        yield red("broker", what, " ".join(filter(None, (hosts.told(address), str(error)))))
        return
    yield green("broker", f"{address} answers, {cluster.brokers} in all")
    for check in judge(cluster, config):
        yield check


async def check_models(model: ModelSettings) -> AsyncIterator[Check]:
    """The model here, or one check per server that has it."""
    if model.engine != "openai":
        yield _model(model)
        return
    from model.openai.examine import examine

    try:
        tokenizer, _ = await asyncio.to_thread(_tokenizer, model)
    except EngineError as error:
        what = f"the tokenizer {model.openai.tokenizer} is not here"
        yield yellow("model", what, f"A worker looks for it when it starts. {error}")
        return
    options, sampling = openai_options(model), sampling_of(model)
    for finding in await examine(options, tokenizer, sampling, model.adapter):
        name = f"model at {finding.address}"
        yield (
            red(name, finding.found, finding.error) if finding.error else green(name, finding.found)
        )


def _model(model: ModelSettings) -> Check:
    if model.engine == "echo":
        return green("model", "engine echo needs none")
    try:
        return green("model", _find_model(model))
    except EngineError as error:
        there = Path(model.name).expanduser().exists()
        what = (
            "is not there" if isinstance(error, ModelNotFound) and not there else "cannot be used"
        )
        return red("model", f"{model.name} {what}", str(error))


def _find_model(model: ModelSettings) -> str:
    """Where the model is, without loading or fetching it. Raises ``EngineError``."""
    from model.adapters import adapter_digest
    from model.weights import DEFAULT_MODEL, find_gguf, resolve

    for name, folder in model.adapters.items():
        adapter_digest(name, Path(folder))
    if model.name == DEFAULT_MODEL:
        find_gguf()
        return f"{model.name}, installed"
    if HUB_NAME.fullmatch(model.name) and not Path(model.name).is_dir():
        return f"{model.name}, from Hugging Face when the worker starts"
    if Path(model.name).expanduser().is_file():
        return f"{model.name}, converted when the worker starts, if it is a GGUF file"
    return f"{resolve(model.name, model.revision, pinned=model.weights_digest).path}"


async def check_limits(limits: LimitsSettings) -> Check:
    """The limits file, and the storage of the quotas: a worker works without either."""
    try:
        in_force = read(limits.file, limits) if limits.file else limits
    except BrokenFile as error:
        todo = "Mend the file; until then the limits of the settings are in force."
        return red("limits", str(error), todo)
    if not in_force.enabled:
        return yellow("limits", "quotas are off", "Set limits.enabled to count answers.")
    quotas = quotas_of(limits, "check")
    try:
        if await quotas.is_there():
            return green("limits", "counted in a shared storage" if quotas.shared else "in memory")
    finally:
        await quotas.close()
    what = "counts in its memory" if limits.storage_away == "memory" else "answers nothing"
    return yellow(
        "limits", "limits.storage_uri does not answer", f"Until it does, a worker {what}."
    )
