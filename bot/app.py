"""A worker, wired by hand: settings → engine → handler → ``consumers.Worker``.

Settings come in; the worker runs until SIGTERM, SIGINT or ``stop``. A cluster on which it could
not work is refused before the model is loaded, which takes longer; a broker that is away is
waited for afterwards. The model is there before a worker joins its group, so that it holds
partitions only when it can answer. Every part can be replaced by an argument, which is what
tests do. The lines that it logs are read by ``bot/worker_process.py``:
``engine ready``, ``worker ready``, ``worker stopped``.
"""

import asyncio
import contextlib
import functools
import itertools
import math
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import structlog

from bot import interpreter
from bot.activity import Activity, tell
from bot.clients import cluster_id, lossy_sender, options, require_topics, sure_sender
from bot.guards import require_fit
from bot.handler import utc_now
from bot.handlers import (
    INPUT_TOPICS,
    OUTPUT_TOPICS,
    QUICK_TOPICS,
    SILENT_TOPICS,
    WEIGHTS,
    Handlers,
)
from bot.held import HeldLog
from bot.http import Status, application, serving
from bot.known import CURRENT_S, WISHES
from bot.language import detector
from bot.logs import configure_logging
from bot.pins import Pins, pinnable
from bot.presence import Presence
from bot.presence_metrics import PresenceCollector
from bot.prompt_room import require_room
from bot.publishing import Publishing
from bot.quotas import quotas_of
from bot.recovery import finished_on_audit
from bot.relay import relay_of
from bot.remembering import views_of
from bot.settings import Settings
from bot.templates import chosen, load_prompts
from bot.version import code_version
from bot.wiring import engine_of, setup_of
from consumers.backoff import full_jitter
from consumers.config import WorkerConfig
from consumers.errors import BrokerUnreachable, TopicMissing
from consumers.metrics import Metrics, ViewState, WorkerState
from consumers.views.views import Views
from consumers.worker import Worker
from model.engine import Capacity, Engine
from model.stats import EngineStats
from schemas import names

log = structlog.get_logger(__name__)
T = TypeVar("T")

TOPIC_TRIES = 8  # a topic that was just created is not known to every broker at once
TOPIC_PAUSE_S = 0.25
_CANCEL_AGAIN_S = 1.0


async def run_worker(
    settings: Settings,
    *,
    engine: Engine | None = None,
    stop: asyncio.Event | None = None,
) -> None:
    """Answer until ``stop`` is set or a signal asks to stop.

    Waits for a broker that is away. Raises ``EngineError`` for a model that cannot be loaded,
    ``ConsumersError`` for topics that are missing, ``PromptError`` for a prompt file that is faulty
    or too long for the model.
    """
    configure_logging(settings.logging)
    load_prompts(settings.prompts)  # a faulty file is told before the model is loaded
    stopping = stop or asyncio.Event()
    running = Running()
    status = Status(asyncio.get_running_loop(), running.state)
    stats = Status(asyncio.get_running_loop(), running.engine_stats)
    others = (running.shown, running.pins)
    pages = application(status, running.is_ready, running.metrics, stats, others)
    with _signals(stopping.set), serving(settings.http, pages):
        try:
            cluster = await _unless(stopping, _try_cluster(settings, attempt=1))
            if not stopping.is_set():
                await _with_engine(settings, engine, stopping, running, cluster)
        finally:
            log.info("worker stopped")


async def _with_engine(
    settings: Settings,
    engine: Engine | None,
    stopping: asyncio.Event,
    running: "Running",
    cluster: str | None,
) -> None:
    engine = running.engine = engine or engine_of(settings.model)
    try:
        if await _unless(stopping, _start(engine, settings)):
            with interpreter.tuned():
                await _answer(settings, engine, stopping, running, cluster)
    finally:
        await engine.stop()


@dataclass
class Running:
    """What the health pages look at: nothing before the engine is up."""

    metrics: Metrics = field(default_factory=Metrics)
    activity: Activity = field(default_factory=Activity)
    shown: PresenceCollector = field(default_factory=PresenceCollector)
    pins: Pins = field(default_factory=Pins)
    worker: Worker | None = None
    views: Views | None = None
    engine: Engine | None = None

    def state(self) -> WorkerState | None:
        if self.worker is None:
            return None
        views = self.views.states() if self.views is not None else ()
        return replace(self.worker.state(), views=tuple(map(_usable, views)))

    def engine_stats(self) -> EngineStats | None:
        return self.engine.stats() if self.engine is not None else None

    def is_ready(self) -> bool:
        return self.worker is not None and self.worker.is_assigned


def _usable(view: ViewState) -> ViewState:
    """One of those that must be current is not ready where it is too far behind."""
    behind = view.view in WISHES and view.lag_seconds > CURRENT_S
    return replace(view, ready=False) if behind else view


def worker_config(settings: Settings) -> WorkerConfig:
    """What the runtime needs to know."""
    kafka, worker = settings.kafka, settings.worker
    return WorkerConfig(
        bootstrap_servers=kafka.bootstrap_servers,
        group_id=kafka.group_id,
        group_instance_id=kafka.group_instance_id,
        session_timeout_ms=kafka.session_timeout_ms,
        topics=INPUT_TOPICS,
        output_topics=OUTPUT_TOPICS,
        silent_topics=SILENT_TOPICS,
        quick_topics=QUICK_TOPICS,
        weights=WEIGHTS,
        client=options(kafka),
        max_in_flight=worker.max_in_flight,
        max_attempts=worker.max_attempts,
        deadline_s=worker.deadline_s,
        grace_s=worker.grace_s,
    )


def places(capacity: Capacity) -> int:
    """How many records the engine keeps busy with: its slots, and a few that stand ready.

    A record needs a moment before and after the model, in which its slot must not stand empty.
    """
    return capacity.slots + math.ceil(capacity.slots / 4)


async def _start(engine: Engine, settings: Settings) -> bool:
    started = time.monotonic()
    names = {"echo": "none", "openai": settings.model.openai.model or "the one that is served"}
    model = names.get(settings.model.engine, settings.model.name)
    log.info("loading the engine", engine=settings.model.engine, model=model)
    await asyncio.to_thread(detector)
    await engine.start()
    # Only now is it known how many tokens the prompt files have.
    length = engine.describe().context_length
    require_room(chosen(settings.prompts), setup_of(settings, ""), engine.tokenizer, length)
    log.info(
        "engine ready",
        model=engine.describe().model,
        seconds=round(time.monotonic() - started, 1),
    )
    return True


async def _answer(
    settings: Settings,
    engine: Engine,
    stopping: asyncio.Event,
    running: Running,
    cluster: str | None,
) -> None:
    """``cluster`` is None where the broker was away before the model was loaded."""
    cluster = cluster or await _unless(stopping, _cluster(settings))
    if cluster is None:
        return
    async with _remembering(settings, cluster, stopping, running) as views:
        if not stopping.is_set():
            await _work(settings, engine, stopping, running, cluster, views)


async def _work(
    settings: Settings,
    engine: Engine,
    stopping: asyncio.Event,
    running: Running,
    cluster: str,
    views: Views | None,
) -> None:
    """The worker, until it is asked to stop. ``views`` None: they are switched off."""
    partitions = await _unless(stopping, _partitions(settings))
    if partitions is None:
        return
    group = f"{settings.kafka.group_id}/{settings.bot.account_id}"
    quotas = quotas_of(settings.limits, group)
    presence, held = presence_of(settings), HeldLog()
    running.shown.presence = presence
    setup = setup_of(settings, cluster)
    running.pins.templates = tuple(pinnable(settings.prompts, setup, engine))
    handlers = Handlers(
        setup,
        engine,
        views=views,
        wait_s=settings.views.wait_ms / 1000,
        partitions=partitions,
        max_attempts=settings.worker.max_attempts,
        quotas=quotas,
        activity=running.activity,
        presence=presence,
        held=held,
        pins=running.pins,
    )
    worker = Worker(
        worker_config(settings),
        handlers.make,
        slots=lambda: places(engine.capacity()),
        recover=functools.partial(finished_on_audit, settings.kafka),
        published=handlers.published,
        prepare=handlers.open,
        release=handlers.release,
        metrics=running.metrics,
    )
    running.worker = worker
    writer = functools.partial(sure_sender, settings.kafka)
    tasks = [
        asyncio.create_task(_stop_when(stopping, worker), name="stop the worker"),
        asyncio.create_task(_tell_when_ready(worker), name="tell when ready"),
        asyncio.create_task(held.run(writer), name="tell what is held"),
        asyncio.create_task(tell(running.activity, worker.state), name="tell what is going on"),
    ]
    if presence is not None:
        opened = functools.partial(lossy_sender, settings.kafka)
        tasks.append(asyncio.create_task(presence.run(opened), name="show private talks typing"))
    if views is not None:
        relay = relay_of(settings.bot.account_id, handlers, views, worker.look_again)
        tasks.append(asyncio.create_task(relay.run(writer), name="relay commands"))
    try:
        await worker.run()
    finally:
        running.worker = None
        for task in tasks:
            task.cancel()
        await quotas.close()


def presence_of(settings: Settings) -> Presence | None:
    """What private talks are shown; None where that is switched off."""
    if settings.bot.activity == "off":
        return None
    publishing = Publishing(settings.bot.account_id, utc_now)
    return Presence(publishing, texts=settings.bot.activity == "text")


async def _partitions(settings: Settings) -> int:
    """How many the topics of a conversation have; a broker that is away is waited for.

    Raises ``TopicMissing``.
    """
    for attempt in itertools.count(1):
        try:
            counts = await _topics(settings, [names.BOT_REFERENCES])
            return counts[names.BOT_REFERENCES]
        except BrokerUnreachable as error:
            log.warning(str(error), attempt=attempt)
            await asyncio.sleep(full_jitter(attempt, 0.5, 10.0))
    raise AssertionError("unreachable")


async def _topics(settings: Settings, wanted: Sequence[str]) -> dict[str, int]:
    """Partition counts of topics, with patience for new ones. Raises ``TopicMissing`` and
    ``BrokerUnreachable``."""
    for _ in range(TOPIC_TRIES - 1):
        try:
            return await require_topics(settings.kafka, wanted)
        except TopicMissing:
            await asyncio.sleep(TOPIC_PAUSE_S)
    return await require_topics(settings.kafka, wanted)


@contextlib.asynccontextmanager
async def _remembering(
    settings: Settings, cluster: str, stopping: asyncio.Event, running: Running
) -> AsyncIterator[Views | None]:
    """The views that belong to no single partition are caught up; closed at the end."""
    views = views_of(settings, cluster, running.metrics)
    if views is None:
        yield None
        return
    try:
        await _unless(stopping, views.start())
        running.views = views
        yield views
    finally:
        running.views = None
        await views.close()


async def _cluster(settings: Settings) -> str:
    """The cluster's id; a broker that is away is waited for. Raises ``Trouble`` as below."""
    for attempt in itertools.count(1):
        if cluster := await _try_cluster(settings, attempt=attempt):
            return cluster
        await asyncio.sleep(full_jitter(attempt, 0.5, 10.0))
    raise AssertionError("unreachable")


async def _try_cluster(settings: Settings, *, attempt: int) -> str | None:
    """The cluster's id; None and a line where no broker answers.

    Raises ``Trouble`` where a worker could not work on that cluster, and ``TopicMissing``.
    """
    config = worker_config(settings)
    try:
        await require_fit(config, settings.kafka)
        await _topics(settings, [*config.topics, *config.output_topics])
        return await cluster_id(settings.kafka)
    except BrokerUnreachable as error:
        log.warning(str(error), attempt=attempt)
        return None


async def _stop_when(stopping: asyncio.Event, worker: Worker) -> None:
    await stopping.wait()
    log.info("stopping: what is in flight is finished first")
    worker.stop()


async def _tell_when_ready(worker: Worker) -> None:
    while not worker.open_partitions:  # noqa: ASYNC110 - the worker has no event for it
        await asyncio.sleep(0.05)
    log.info("worker ready", partitions=len(worker.open_partitions), code=code_version())


async def _unless(stopping: asyncio.Event, work: Awaitable[T]) -> T | None:
    """The result of ``work``, or None if ``stopping`` was set first (it is then cancelled)."""
    task = asyncio.ensure_future(work)
    waiter = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait((task, waiter), return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        while not (task.done() and waiter.done()):
            for pending in (task, waiter):
                pending.cancel()
            # wait_for of Python 3.11 may lose a cancel where what it waits for ends just then
            await asyncio.wait((task, waiter), timeout=_CANCEL_AGAIN_S)
        await asyncio.gather(task, waiter, return_exceptions=True)


@contextlib.contextmanager
def _signals(stop: Callable[[], None]) -> Any:
    """SIGTERM and SIGINT call ``stop`` while this lasts (in the main thread only). SIGINT once
    more ends the process at once, which loses nothing: another worker goes on from the log."""
    loop = asyncio.get_running_loop()
    caught = []
    stopping = False

    def on_signal(number: int) -> None:
        nonlocal stopping
        if stopping and number == signal.SIGINT:
            os._exit(128 + number)
        if not stopping:
            log.info("stopping, SIGINT once more stops at once")
        stopping = True
        stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, on_signal, number)
            caught.append(number)
    try:
        yield
    finally:
        for number in caught:
            loop.remove_signal_handler(number)
