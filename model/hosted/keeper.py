"""Keeps an engine's process alive: starts it, watches it, starts it again, ends it for sure.

In comes what is to be started; out go, in the event loop, what the process says of requests
(``hear``) and two turns of its life: ``up`` before anybody may use it, ``down`` at once when it
has died, was killed for standing still, or was stopped. Nobody else touches the process.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from model.engine import EngineError
from model.hosted.child import COMMAND, Child, launch
from model.hosted.messages import (
    Failed,
    FromEngine,
    Logged,
    Progress,
    Pulse,
    Ready,
    Start,
    error_of,
)
from model.hosted.restarts import RestartPolicy, Restarts
from model.hosted.watch import Watch
from model.stats import EngineState

log = structlog.get_logger(__name__)

# The first start may have fetched gigabytes for an hour; to load them again takes minutes.
LONGEST_RESTART_S = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Care:
    """How the process is looked after. ``hang_s``: seconds without a sign of life, or with work
    and without a step of the model, after which it is killed (more where the model's own steps
    are slow); ``restart_s``: those that it may take to be there again, or twice as long as the
    first start took, up to ``LONGEST_RESTART_S``. ``environment``: variables for it."""

    hang_s: float = 60.0
    restart_s: float = 120.0
    restarts: RestartPolicy = field(default_factory=RestartPolicy)
    environment: Mapping[str, str] | None = None
    command: Sequence[str] = COMMAND


class Keeper:
    """One process at a time. ``at_work``: whether it has something to do now."""

    def __init__(
        self,
        start: Start,
        care: Care,
        *,
        hear: Callable[[FromEngine], None],
        up: Callable[[Ready], Awaitable[None]],
        down: Callable[[], None],
        at_work: Callable[[], bool],
        progress: Callable[[str], None],
    ) -> None:
        self._start, self._care = start, care
        self._hear_more, self._up, self._down = hear, up, down
        self._at_work, self._progress = at_work, progress
        self._restarts = Restarts(care.restarts)
        self._watch = Watch(care.hang_s)
        self._took_s = 0.0
        self._lived_s, self._came_up = 0.0, 0.0
        self._starts = asyncio.Lock()
        self._starting: asyncio.Future[Ready] | None = None
        self._keeping: asyncio.Task[None] | None = None
        self.child: Child | None = None
        self.state: EngineState = "stopped"
        self.why = "it has not been started"
        self.pulse: Pulse | None = None
        self.restarts = 0

    async def start(self) -> None:
        """Start the process and wait until it answers; nothing where it does. Raises
        ``EngineError``."""
        async with self._starts:
            if self._keeping is None or self._keeping.done():
                await self._launch()
                self._keeping = asyncio.create_task(self._keep(), name="keep the engine's process")

    async def stop(self) -> None:
        """End the process for sure."""
        self._fall("stopped", "it was stopped")
        keeping, self._keeping = self._keeping, None
        if keeping:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
        await self._end_child()

    # --- what the process says --------------------------------------------------------------------

    def _hear(self, message: FromEngine) -> None:
        match message:
            case Pulse():
                self.pulse = message
                self._watch.pulse(message.steps, message.slowest_s)
            case Ready():
                if self._starting and not self._starting.done():
                    self._starting.set_result(message)
            case Failed(0, code, text):
                if self._starting and not self._starting.done():
                    self._starting.set_exception(error_of(code, text))
            case Progress(line):
                self._progress(line)
            case Logged(level, event, fields):
                getattr(log, level, log.warning)(event, **fields)
            case _:
                self._hear_more(message)

    # --- its life -----------------------------------------------------------------------------

    async def _launch(self) -> None:
        """A process that can answer, or none. Raises ``EngineError``."""
        self._starting = asyncio.get_running_loop().create_future()
        self.pulse, self._watch = None, Watch(self._care.hang_s)
        try:
            child = self.child = await launch(
                self._hear, command=self._care.command, environment=self._care.environment
            )
            child.say(self._start)
            began = time.monotonic()
            ready = await self._ready(child, self._starting)
            self._took_s = self._took_s or time.monotonic() - began
            await self._up(ready)
            self.state, self.why, self._came_up = "up", "", time.monotonic()
        except OSError as error:
            await self._end_child()
            raise EngineError(f"The engine's process cannot be started: {error}.") from error
        except BaseException:
            await self._end_child()
            raise

    async def _ready(self, child: Child, starting: "asyncio.Future[Ready]") -> Ready:
        """What it says when it can answer. The first start may have gigabytes to fetch, so it may
        take as long as it will; the others have nothing to fetch."""
        patience = self._patience_s
        first = asyncio.FIRST_COMPLETED
        await asyncio.wait((child.ended, starting), timeout=patience, return_when=first)
        if starting.done():
            return starting.result()
        if child.ended.done():
            why = child.ended.result()
            raise EngineError(f"The engine's process ended while it started: {why}.")
        raise EngineError(f"The engine was not ready again after {patience:.0f} s.")

    @property
    def _patience_s(self) -> float | None:
        """Seconds for the start that is going on; None for the first one: as long as it takes."""
        if not self._took_s:
            return None
        return max(self._care.restart_s, min(2 * self._took_s, LONGEST_RESTART_S))

    async def _keep(self) -> None:
        """As long as the engine runs: wait for the end of its process, start it again. A fault of
        ours in that leaves nobody without a keeper: it is one more end of the process."""
        while True:
            try:
                why = await self._end_of(self.child) if self.child else self.why
            except Exception as error:
                why = _told(error)
            self.restarts += 1
            log.error("engine_process_ended", why=why)
            try:
                await self._replace(why)
            except Exception as error:
                log.error("engine_process_not_replaced", why=_told(error))
                await asyncio.sleep(self._care.restarts.slow_s)

    async def _replace(self, why: str) -> None:
        """A process that can answer, in place of one that has ended or is to end."""
        if self.state == "up":
            self._lived_s += time.monotonic() - self._came_up
        # Before it is buried: that may take long, and nobody is to come meanwhile.
        self._fall("restarting", why)
        await self._end_child()
        await self._start_again(why)

    async def _end_of(self, child: Child) -> str:
        """Wait until it dies by itself or stands still, and is killed for that."""
        while True:
            await asyncio.wait((child.ended,), timeout=self._watch.interval_s)
            if child.ended.done():
                return child.ended.result()
            if fault := self._watch.look(at_work=self._at_work()):
                child.kill(fault)
                return fault

    async def _start_again(self, why: str) -> None:
        """Try until it is there; the more it failed lately, the less often."""
        while True:
            pause = self._restarts.after(self._lived_s, random.random())  # noqa: S311
            self._fall("failing" if pause.keeps_failing else "restarting", why)
            await asyncio.sleep(pause.seconds)
            try:
                await self._launch()
            except Exception as error:
                why = _told(error)
                log.error("engine_process_failed_to_start", why=why)
                continue
            log.info("engine_process_started_again", pid=self.child.pid if self.child else None)
            return

    def _fall(self, state: EngineState, why: str) -> None:
        self.state, self.why = state, why.rstrip(".")
        self._down()

    async def _end_child(self) -> None:
        child, self.child = self.child, None
        if child:
            await child.gone()


def _told(error: Exception) -> str:
    """For people: errors of ours may quote what they were raised about, so only their kind."""
    return str(error) if isinstance(error, EngineError) else f"a {type(error).__name__} here"
