"""What the settings mean to the engine and to the steps of the bot.

In: ``Settings``. Out: values and an engine that is not started. Nothing here reads or publishes,
so that a replay, which may not, is wired by the same functions as a worker. Next: ``bot/app.py``.
"""

import functools
import os

import structlog

from bot.settings import ModelSettings, Settings
from bot.templates import load_prompts
from bot.values import BotIdentity, Limits, Setup
from bot.version import code_version
from model.engine import Engine, Sampling
from model.loader import build_engine, host_engine
from model.openai.options import Options
from schemas.feed import Account

log = structlog.get_logger(__name__)


def engine_of(settings: ModelSettings) -> Engine:
    """The engine of the settings, not started. Raises ``EngineError``."""
    if settings.engine == "echo":
        return build_engine("echo", latency_ms=settings.echo.latency_ms, slots=settings.slots)
    if settings.engine == "openai":
        servers, sampling = openai_options(settings), sampling_of(settings)
        return build_engine("openai", options=servers, sampling=sampling)
    build = functools.partial(host_engine, hang_s=settings.hang_s)
    return (build if settings.own_process else build_engine)(
        settings.engine,
        name=settings.name,
        revision=settings.revision,
        device=settings.device,
        dtype=settings.dtype,
        context_length=settings.context_length,
        pinned=settings.weights_digest,
        offload=settings.offload,
        adapters=settings.adapters,
        quantization=settings.quantization,
        kept_prompts=settings.kept_prompts,
        slots=settings.slots,
        threads=settings.threads or max(1, _cores() - 1),
        progress=lambda line: log.info("model progress", message=line),
    )


def openai_options(settings: ModelSettings) -> Options:
    """What the ``openai`` engine needs to know."""
    set_here = settings.openai
    return Options(
        endpoints=tuple(set_here.endpoints.split(",")),
        api_key=set_here.api_key.get_secret_value() if set_here.api_key else None,
        ca_file=set_here.ca_file,
        model=set_here.model,
        tokenizer=set_here.tokenizer,
        tokenizer_revision=set_here.tokenizer_revision,
        way=set_here.way,
        kind=set_here.kind,
        context_length=set_here.context_length,
        slots=settings.slots,
        start=set_here.start_s,
        connect=set_here.connect_s,
        first_token=set_here.first_token_s,
        between_tokens=set_here.between_tokens_s,
        total=set_here.total_s,
        retry_share=set_here.retry_share,
        poll=set_here.poll_s,
    )


def sampling_of(model: ModelSettings) -> Sampling:
    """How tokens are drawn at the first try."""
    return Sampling(
        max_tokens=model.max_new_tokens,
        temperature=model.temperature,
        top_k=model.top_k,
        top_p=model.top_p,
        min_p=model.min_p,
        repetition_penalty=model.repetition_penalty,
    )


def _cores() -> int:
    """Cores that this process may use; a container often gives it fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def setup_of(settings: Settings, cluster: str) -> Setup:
    """What the steps of the bot need to know, the same for every record."""
    bot, model = settings.bot, settings.model
    account = Account(id=bot.account_id, handle=bot.handle, display_name=bot.display_name, bot=True)
    return Setup(
        bot=BotIdentity(account=account, cluster_id=cluster),
        prompts=load_prompts(settings.prompts),
        code_version=code_version(),
        settings_digest=settings.digest,
        limits=Limits(
            hop_limit=bot.hop_limit,
            max_graphemes=bot.max_graphemes,
            max_bytes=bot.max_bytes,
            max_parts=bot.max_parts,
            markdown=bot.markdown,
            prompt_tokens=bot.prompt_tokens,
            post_tokens=bot.post_tokens,
            talk_turns=bot.talk_turns,
            talk_hours=bot.talk_hours,
            approval_hours=bot.approval_hours,
        ),
        sampling=sampling_of(model),
        retry_temperature=model.retry_temperature,
        adapter=model.adapter,
    )
