"""A replay, wired by hand: settings → log, engine, way, folder, door → ``Replay``.

In: ``Order``, what a person asked for. Out: a folder with every result in it. The engine, which
takes the longest, is started when the plan says that there is something for it to do. Next:
``bot/cli/replay.py`` shows what the folder holds.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from bot.errors import Trouble
from bot.facts import DEFAULTS
from bot.rates import LiveLimits
from bot.replay.compare import Naming
from bot.replay.door import Door, NoDoor, results_door
from bot.replay.folder import Folder, utc_now
from bot.replay.frozen import Frozen
from bot.replay.log import Held, Log
from bot.replay.plan import Plan, Tell, make_plan
from bot.replay.rebuilt import Rebuilt
from bot.replay.run import Progress, Replay, Way
from bot.replay.wanted import Wanted
from bot.values import Setup
from consumers.reader import Range, range_reader
from model.engine import Engine
from schemas.names import BOT_REPLAYS
from schemas.replays import ReplayMode


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """``spec``: the command as a plain value, by which it is known again; ``engine`` makes the
    engine, not started; ``fit`` raises where the prompts do not fit the model."""

    wanted: Wanted
    mode: ReplayMode
    setup: Setup
    engine: Callable[[], Engine]
    spec: Mapping[str, Any]
    root: Path
    bootstrap_servers: str
    client: dict[str, Any] = field(default_factory=dict)
    limits: LiveLimits = DEFAULTS
    fit: Callable[[Engine], None] = lambda engine: None
    same_model: bool = True
    score: bool = True
    in_flight: int = 8
    publish: bool = True
    reveal: bool = False
    resume: bool = False


@dataclass(frozen=True, slots=True)
class Told:
    """Who hears how far it is: while the plan is made, once it stands, and with each result."""

    reading: Tell = lambda read: None
    planned: Callable[[Folder, Plan], None] = lambda folder, plan: None
    progress: Callable[[Progress], None] = lambda progress: None


async def replay(order: Order, told: Told, now: Callable[[], datetime] = utc_now) -> Folder:
    """Returns when every decision has a result; remove the folder when they were shown. Raises
    ``Trouble``, ``EngineError``, ``ConsumersError``; cancelled or not, what is done is kept."""
    folder = _folder(order, now())
    try:
        async with range_reader(order.bootstrap_servers, order.client) as log:
            if order.publish:  # a missing topic is told now
                await log.bounds(Range(BOT_REPLAYS))
            plan = await _plan(order, folder, log, told)
            await _run(order, folder, plan, log, told)
    except BaseException:
        folder.close()
        raise
    return folder


def _folder(order: Order, now: datetime) -> Folder:
    if order.resume:
        return Folder.resume(order.root, order.spec)
    return Folder.begin(order.root, order.spec, now)


async def _plan(order: Order, folder: Folder, log: Log, told: Told) -> Plan:
    """That of an earlier run, where it was finished. Raises ``Trouble`` where it is empty."""
    plan = folder.plan()
    if plan is None:
        plan = await make_plan(log, Held(log), order.wanted, told.reading)
        folder.keep_plan(plan)
    told.planned(folder, plan)
    if not plan.entries:
        folder.remove()
        more = f" {plan.unread} records of the audit can't be read." if plan.unread else ""
        raise Trouble(
            "no decision is like that." + more,
            where="bot.audit, bot.audit-private",
            todo="Widen it: a longer --since, fewer conditions.",
        )
    return plan


async def _run(order: Order, folder: Folder, plan: Plan, log: Log, told: Told) -> None:
    naming = Naming(replay_id=folder.id, mode=order.mode, reveal=order.reveal)
    async with _engine(order, folder, plan) as engine, _door(order) as door:
        bot = order.setup.bot
        replay = Replay(
            log,
            way_of(order, engine, log, folder.path / "views"),
            door,
            folder,
            naming,
            bot_id=bot.id,
            cluster_id=bot.cluster_id,
            in_flight=order.in_flight,
            tell=told.progress,
        )
        await replay.run(plan)


def way_of(order: Order, engine: Engine, log: Log, scratch: Path) -> Way:
    """How the decisions of this order are made again. ``scratch``: for the views."""
    if order.mode == "rebuilt":
        return Rebuilt(log, order.setup, engine, scratch, limits=order.limits)
    return Frozen(order.setup, engine, same_model=order.same_model, score=order.score)


@asynccontextmanager
async def _engine(order: Order, folder: Folder, plan: Plan) -> AsyncIterator[Engine]:
    """Started, where anything is left to do. Raises ``EngineError`` and what ``fit`` raises."""
    engine = order.engine()
    if len(folder.done) >= len(plan.entries):
        yield engine
        return
    try:
        await engine.start()
        order.fit(engine)
        yield engine
    finally:
        await engine.stop()


@asynccontextmanager
async def _door(order: Order) -> AsyncIterator[Door]:
    if not order.publish:
        yield NoDoor()
        return
    async with results_door(order.bootstrap_servers, order.client) as door:
        yield door
