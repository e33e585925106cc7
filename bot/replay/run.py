"""A replay from its plan to its last result.

In: the plan, a way to decide again (``Frozen`` or ``Rebuilt``), a folder and a door. Out: every
entry of the plan has one result, published and kept. Guaranteed: at most ``in_flight`` decisions
are made at once; what is done when it is cancelled is kept, and the same replay goes on from
there; an engine that is away is waited for a bounded time. Next: ``bot/replay/report.py``.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from bot.errors import Trouble
from bot.replay.compare import Again, Naming, compared, not_replayed
from bot.replay.door import Door
from bot.replay.folder import Folder, key_of, utc_now
from bot.replay.frozen import CannotReplay
from bot.replay.loaded import Loaded, load
from bot.replay.log import Held, Log
from bot.replay.plan import Plan, Planned, chunks
from consumers.backoff import full_jitter
from model.engine import EngineUnavailable
from schemas.replays import NotReplayed, ReplayCompared

CHUNK = 250  # decisions that are read together
SPAN = 20_000  # records of the views between the first and the last of them
KEEP = 100  # results that are published and kept together
KEEP_S = 1.0  # and after so many seconds at the latest
TRIES = 8  # of a decision, where the engine is away
BACKOFF_S = 0.5, 15.0


class Case(Protocol):
    """One decision that stands ready to be made again."""

    async def run(self) -> Again: ...

    def close(self) -> None: ...


class Way(Protocol):
    """How decisions are made again. ``prepare`` and ``begin`` are asked in the order of the plan,
    the cases then run side by side. All may raise ``CannotReplay``, but ``prepare`` and ``end``."""

    async def prepare(self, chunk: Sequence[Loaded]) -> None: ...

    async def begin(self, loaded: Loaded) -> Case: ...

    async def end(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Progress:
    """Results so far, those of an earlier run among them, and how many there will be."""

    done: int
    total: int
    before: int


class Replay:
    """One replay. ``bot_id`` and ``cluster_id``: part of the id of every decision."""

    def __init__(
        self,
        log: Log,
        way: Way,
        door: Door,
        folder: Folder,
        naming: Naming,
        *,
        bot_id: str,
        cluster_id: str,
        in_flight: int,
        tell: Callable[[Progress], None] = lambda progress: None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._log = log
        self._held = Held(log)
        self._way = way
        self._door = door
        self._folder = folder
        self._naming = naming
        self._ids = bot_id, cluster_id
        self._places = asyncio.Semaphore(in_flight)
        self._tell = tell
        self._now = now
        self._fresh: list[ReplayCompared] = []
        self._kept_at = 0.0

    async def run(self, plan: Plan) -> None:
        """Until every entry has its result. Raises ``Trouble``, and what the log raises; may be
        cancelled at any time."""
        done = self._folder.done
        todo = [one for one in plan.entries if _key(one) not in done]
        self._total, self._before = len(plan.entries), len(plan.entries) - len(todo)
        self._count = self._before
        self._told()
        try:
            for chunk in chunks(todo, CHUNK, SPAN):
                await self._chunk(chunk)
        finally:
            await asyncio.shield(self._flush())
            await self._way.end()

    async def _chunk(self, chunk: Sequence[Planned]) -> None:
        loaded = await load(self._log, self._held, chunk, *self._ids)
        await self._way.prepare(loaded)
        running: set[asyncio.Task[None]] = set()
        try:
            for one in loaded:
                await self._places.acquire()
                _raise_first(running)
                await self._start(one, running)
                await self._keep_some()
            while running:
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                _raise_first(running)
                await self._keep_some()
        finally:
            await _cancel(running)

    async def _start(self, loaded: Loaded, running: set[asyncio.Task[None]]) -> None:
        """Begins one decision in the place that was taken for it."""
        try:
            case = await self._way.begin(loaded)
        except CannotReplay as error:
            self._places.release()
            self._take(self._not_replayed(loaded, error))
            return
        except BaseException:
            self._places.release()
            raise
        running.add(asyncio.create_task(self._finish(loaded, case), name="replay a decision"))

    async def _finish(self, loaded: Loaded, case: Case) -> None:
        try:
            self._take(await self._result(loaded, case))
        finally:
            case.close()
            self._places.release()

    async def _result(self, loaded: Loaded, case: Case) -> ReplayCompared:
        decision = loaded.decision
        assert decision is not None  # noqa: S101 - no way begins without one
        try:
            again = await self._patiently(case)
        except CannotReplay as error:
            return self._not_replayed(loaded, error)
        return compared(self._naming, loaded.planned, decision, again, self._now())

    async def _patiently(self, case: Case) -> Again:
        """Raises ``Trouble`` where the engine stays away."""
        for attempt in range(1, TRIES):
            with contextlib.suppress(EngineUnavailable):
                return await case.run()
            await asyncio.sleep(full_jitter(attempt, *BACKOFF_S))
        try:
            return await case.run()
        except EngineUnavailable as error:
            raise Trouble(
                f"the model does not answer ({error.code}).",
                where="replay",
                todo="What is done is kept: go on with the same command and --resume.",
            ) from error

    def _not_replayed(self, loaded: Loaded, error: CannotReplay) -> ReplayCompared:
        notes = [error.note] if error.note else []
        return not_replayed(
            self._naming,
            loaded.planned,
            error.why,
            self._now(),
            decision=None if error.why is NotReplayed.EDITED_RECORD else loaded.decision,
            notes=notes,
        )

    def _take(self, result: ReplayCompared) -> None:
        self._fresh.append(result)
        self._count += 1
        self._told()

    def _told(self) -> None:
        self._tell(Progress(self._count, self._total, self._before))

    async def _keep_some(self) -> None:
        now = asyncio.get_running_loop().time()
        if len(self._fresh) >= KEEP or (self._fresh and now - self._kept_at >= KEEP_S):
            await self._flush()
            self._kept_at = now

    async def _flush(self) -> None:
        """Published first: what is kept is never published again."""
        results, self._fresh = self._fresh, []
        if results:
            await self._door.publish(results)
            self._folder.keep(results)


def _key(planned: Planned) -> str:
    return key_of(planned.decision_id, str(planned.at) if planned.at else None)


def _raise_first(running: set[asyncio.Task[None]]) -> None:
    """Forgets what is done; raises what one of them raised."""
    for task in [task for task in running if task.done()]:
        running.discard(task)
        task.result()


async def _cancel(running: set[asyncio.Task[None]]) -> None:
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
