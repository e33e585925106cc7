"""A worker in a process of its own that never outlives the demo, and is started again.

Settings come in; the process gets them through its environment. Its log (JSON lines) goes to a
file, which is read back here: progress while it starts, and the reason when it cannot. A guard
(``infra.guarded``) ends it with us, whatever ends us.
"""

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from bot.config import as_environment
from bot.errors import Trouble
from bot.settings import Settings
from infra.guarded import GuardedProcess

POLL_S = 0.1
MAX_RESTARTS = 5
COMMAND = (sys.executable, "-m", "bot.cli", "worker")


class WorkerProcess:
    """One worker. ``progress`` gets a line for people when something happens."""

    def __init__(self, settings: Settings, log: Path, progress: Callable[[str], None]) -> None:
        self._variables = as_environment(settings) | {"TWITE_LOGGING__FORMAT": "json"}
        self._grace_s = settings.worker.grace_s
        self._log = log
        self._read = 0
        self._progress = progress
        self._process: GuardedProcess | None = None
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """Process id of the worker; None while there is none."""
        process = self._process
        return process.pid if process and process.running else None

    async def start(self, patience_s: float = 600.0) -> None:
        """Start it and wait until it is ready. Raises ``Trouble`` with what it said."""
        self._log.touch()
        await self._launched()
        give_up_at = time.monotonic() + patience_s
        while not self._is_ready():
            if self.pid is None:
                raise self._ended("The worker ended while it started")
            if time.monotonic() > give_up_at:
                raise self._ended(f"The worker was not ready within {patience_s:g} s")
            await asyncio.sleep(POLL_S)

    async def keep_alive(self) -> None:
        """Start it again if it is gone, a bounded number of times. Raises ``Trouble``."""
        if self.pid is not None:
            return
        self.restarts += 1
        if self.restarts > MAX_RESTARTS:
            raise self._ended(f"The worker ended {self.restarts} times")
        status = self._process.status if self._process else None
        self._progress(f"the worker is gone (status {status}); starting another one")
        await self._launched()

    async def stop(self, patience_s: float | None = None) -> None:
        """SIGTERM, then SIGKILL after ``patience_s`` seconds, by default a bit more than the
        grace of its settings."""
        process, self._process = self._process, None
        if process is not None:
            patience = self._grace_s + 5 if patience_s is None else patience_s
            await asyncio.to_thread(_end, process, patience)

    async def _launched(self) -> None:
        """Start it; cancelled meanwhile, it is there all the same, to be stopped."""
        launching = asyncio.ensure_future(asyncio.to_thread(self._launch))
        try:
            await asyncio.shield(launching)
        except asyncio.CancelledError:
            await launching
            raise

    def _launch(self) -> None:
        if self._process is not None:
            self._process.close()
        with _environment(self._variables):
            self._process = GuardedProcess()
        self._process.start(COMMAND, self._log)

    def _is_ready(self) -> bool:
        for entry in self._news():
            if entry.get("event") == "worker ready":
                return True
            if line := _for_people(entry):
                self._progress(line)
        return False

    def _news(self) -> Iterator[Mapping[str, Any]]:
        """Whole lines that were written since the last call, those that are JSON objects."""
        with self._log.open("rb") as log:
            log.seek(self._read)
            for line in log:
                if not line.endswith(b"\n"):
                    return
                self._read += len(line)
                with contextlib.suppress(ValueError):
                    entry = json.loads(line)
                    if isinstance(entry, dict):
                        yield entry

    def _ended(self, what: str) -> Trouble:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        status = self._process.status if self._process else None
        if said:
            return Trouble(f"{what}: {said[-1]}")
        return Trouble(f"{what} (status {status}).", todo=f"Its log: {self._log}")


def _for_people(entry: Mapping[str, Any]) -> str:
    match entry.get("event"):
        case "loading the engine":
            return f"loading the model {entry.get('model')} (engine {entry.get('engine')})"
        case "engine ready":
            return f"the model is ready after {entry.get('seconds')} s"
        case "model progress":
            return str(entry.get("message"))
    return ""


def _end(process: GuardedProcess, grace_s: float) -> None:
    try:
        process.terminate(grace_s)
    finally:
        process.close()


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """The process that starts now inherits these; secrets stand on no command line."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
