"""What a bench is given, and the children it starts.

A ``Setting`` names the broker and says whether the quick form is wanted. ``child`` starts a
program in a process of its own that dies with us; it tells news as JSON lines on its standard
output, which ``Child.news`` hands out.
"""

import asyncio
import ctypes
import json
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
_PR_SET_PDEATHSIG = 1
_STOP_S = 20.0


@dataclass(frozen=True, slots=True)
class Setting:
    """One run of one bench."""

    bootstrap_servers: str
    quick: bool
    folder: Path
    say: Callable[[str], None]

    def name(self, what: str) -> str:
        """A name for topics and groups that nothing else has."""
        return f"{what}-{uuid.uuid4().hex[:8]}"


class Child:
    """A running program."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self.log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    async def news(
        self, event: str, timeout_s: float, having: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The next news of that name with those fields.

        Raises ``RuntimeError`` if the program ends before, ``TimeoutError`` if none comes.
        """
        wanted = {"event": event, **(having or {})}
        if self._process.stdout is None:
            raise RuntimeError("the child has no output")
        async with asyncio.timeout(timeout_s):
            async for line in self._process.stdout:
                if line.startswith(b"{"):
                    news: dict[str, Any] = json.loads(line)
                    if all(news.get(name) == value for name, value in wanted.items()):
                        return news
        tail = self.log.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"the program ended before it told {event!r}:\n{tail}")

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def tell(self, **order: Any) -> None:
        """One line to a program that reads its standard input; it needs ``orders``."""
        if self._process.stdin is None:
            raise RuntimeError("the child takes no orders")
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        await self._process.stdin.drain()

    async def drain(self) -> None:
        """Read what it prints and forget it, so that it never waits for us."""
        if self._process.stdout is not None:
            async for _ in self._process.stdout:
                pass

    def drain_later(self) -> None:
        """The same, beside everything else."""
        self._draining = asyncio.create_task(self.drain(), name="drain")

    def processor_s(self) -> float:
        """Seconds of processor time used so far, children included."""
        return processor_s(self.pid)

    def signal(self, number: int) -> None:
        """To the program and all that it started."""
        found = psutil.Process(self.pid)
        for process in (*found.children(recursive=True), found):
            process.send_signal(number)

    async def wait(self, timeout_s: float = _STOP_S) -> int:
        """Its exit status."""
        return await asyncio.wait_for(self._process.wait(), timeout_s)

    async def stop(self) -> None:
        """SIGTERM, after a while SIGKILL."""
        try:
            family = psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            await self._process.wait()
            return
        self._process.terminate()
        try:
            await self.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        for process in family:
            if process.is_running():
                process.kill()


def processor_s(pid: int) -> float:
    """Processor time of a process and its children, living and reaped."""
    process = psutil.Process(pid)
    total = 0.0
    for each in (process, *process.children(recursive=True)):
        used = each.cpu_times()
        total += used.user + used.system
    return total


class Others:
    """How much of the machine programs that are not ours use, since this was made."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._busy, self._ours = _busy_s(), _family_s()

    def cores(self) -> float:
        """Cores on average: 0 on a quiet machine, and a figure to distrust above a half."""
        elapsed = max(1e-3, time.monotonic() - self._since)
        return max(0.0, (_busy_s() - self._busy - (_family_s() - self._ours)) / elapsed)


def _busy_s() -> float:
    times = psutil.cpu_times()
    waiting = getattr(times, "iowait", 0.0) + getattr(times, "guest", 0.0)
    return float(sum(times) - times.idle - waiting)


def _family_s() -> float:
    """Our own processor time, with that of all children, living and gone."""
    me = psutil.Process()
    return sum(sum(process.cpu_times()[:4]) for process in (me, *me.children(recursive=True)))


async def start(
    setting: Setting,
    command: Sequence[str],
    *,
    name: str,
    environment: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    orders: bool = False,
) -> Child:
    """A child whose errors go to ``<name>.log`` of the setting's folder. ``orders``: it is told
    things on its standard input."""
    log = setting.folder / f"{name}.log"
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE if orders else None,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            cwd=cwd,
            env=environment,
            preexec_fn=_die_with_parent,
            limit=1 << 24,
        )
    return Child(process, log)


@asynccontextmanager
async def child(
    setting: Setting, program: str, spec: Mapping[str, Any], *, name: str | None = None
) -> AsyncIterator[Child]:
    """``tests.bench.programs.<program>`` with ``spec`` as its argument, stopped at the end."""
    spec = {"bootstrap": setting.bootstrap_servers, **spec}
    command = [sys.executable, "-m", f"tests.bench.programs.{program}", json.dumps(spec)]
    started = await start(setting, command, name=name or program)
    try:
        yield started
    finally:
        await started.stop()


async def outcome(
    setting: Setting, program: str, spec: Mapping[str, Any], timeout_s: float
) -> dict[str, Any]:
    """What such a program tells when it is ``done``, once it has ended by itself."""
    async with child(setting, program, spec) as started:
        done = await started.news("done", timeout_s)
        await started.wait()
    return done


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
