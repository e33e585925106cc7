"""Worker processes of a run: started, armed, killed, stopped, continued, and started again.

In: an environment for all of them. Each has a number for its life; what it logs goes to a file,
and its JSON lines are read as they come: which partitions it opened, and which fault fired.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.facts import Place

_STOP_PATIENCE_S = 45.0  # for a gentle stop: grace, a commit, and what a busy machine adds


@dataclass
class WorkerProcess:
    """One life of one worker."""

    name: str
    process: asyncio.subprocess.Process
    tasks: list[asyncio.Task[None]]
    address: str = ""
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    fired: list[str] = field(default_factory=list)
    frozen: asyncio.Event = field(default_factory=asyncio.Event)
    busy: bool = False  # a fault has it in its hands

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    def send(self, number: signal.Signals) -> None:
        """A signal, unless it is gone."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def kill_now(self) -> None:
        """kill -9 from any thread."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, signal.SIGKILL)

    def arm(self, line: str) -> None:
        """Order a fault from inside."""
        if self.process.stdin is not None and self.alive:
            self.process.stdin.write(line.encode() + b"\n")

    async def gone(self, timeout_s: float) -> bool:
        """Did it end within that time?"""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.process.wait(), timeout_s)
        return not self.alive


class Fleet:
    """All workers of a run. ``environment`` holds their ``TWITE_*`` and ``CHAOS_*`` settings;
    they take turns with the ``addresses`` of the broker."""

    def __init__(
        self,
        environment: Mapping[str, str],
        addresses: Sequence[str],
        folder: Path,
        wanted: int,
        seed: int = 0,
    ) -> None:
        self._environment = dict(environment)
        self._addresses = addresses
        self._folder = folder
        self._seed = seed
        self._born = 0
        self.wanted = wanted
        self.workers: list[WorkerProcess] = []
        self.owners: dict[Place, WorkerProcess] = {}
        self.takeovers: dict[Place, list[int]] = {}
        self.exits: list[tuple[str, int]] = []
        self.paused = asyncio.Event()  # one with a planted pause stands in it
        self.on_fired: Callable[[WorkerProcess, str], None] = lambda worker, line: None

    async def start(self, *armed: str) -> WorkerProcess:
        """One more worker, with faults armed from its first step on."""
        self._born += 1
        name = f"worker-{self._born}"
        address = self._addresses[self._born % len(self._addresses)]
        environment = {**os.environ, **self._environment}
        environment |= {
            "CHAOS_SEED": str(1000 * self._seed + self._born),
            "CHAOS_ARM": ";".join(armed),
            "TWITE_KAFKA__BOOTSTRAP_SERVERS": address,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.chaos.workers",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
            limit=1 << 20,
        )
        worker = WorkerProcess(name, process, [], address)
        worker.tasks += [
            asyncio.create_task(self._read_log(worker), name=f"log of {name}"),
            asyncio.create_task(self._read_faults(worker), name=f"faults of {name}"),
            asyncio.create_task(self._note_exit(worker), name=f"exit of {name}"),
        ]
        self.workers.append(worker)
        return worker

    @property
    def alive(self) -> list[WorkerProcess]:
        return [worker for worker in self.workers if worker.alive]

    @property
    def free(self) -> list[WorkerProcess]:
        """Alive, ready, and in no fault's hands."""
        return [w for w in self.alive if w.ready.is_set() and not w.busy]

    @property
    def proxied(self) -> list[WorkerProcess]:
        """Alive, and behind the proxy."""
        return [w for w in self.alive if w.address == self._addresses[-1]]

    async def keep_up(self) -> None:
        """Start what is missing, until cancelled."""
        while True:
            for _ in range(self.wanted - len(self.alive)):
                await self.start()
            await asyncio.sleep(0.2)

    async def kill_all(self) -> None:
        """kill -9, stopped ones too."""
        for worker in self.alive:
            worker.send(signal.SIGKILL)
        await asyncio.gather(*(worker.process.wait() for worker in self.workers))

    async def stop_all(self) -> list[str]:
        """SIGTERM; the names of those that did not end well (one that just starts may just die)."""
        leaving = self.alive
        for worker in leaving:
            worker.send(signal.SIGCONT)
            worker.send(signal.SIGTERM)
        ended = await asyncio.gather(*(worker.gone(_STOP_PATIENCE_S) for worker in leaving))
        bad = [
            f"{worker.name}: {'status ' + str(worker.process.returncode) if done else 'hangs'}"
            for worker, done in zip(leaving, ended, strict=True)
            if not done or (worker.process.returncode != 0 and worker.ready.is_set())
        ]
        await self.kill_all()
        return bad

    async def close(self) -> None:
        """Leave nothing behind."""
        await self.kill_all()
        await asyncio.gather(*(t for w in self.workers for t in w.tasks), return_exceptions=True)

    async def _read_log(self, worker: WorkerProcess) -> None:
        stream = worker.process.stderr
        assert stream is not None
        with (self._folder / f"{worker.name}.log").open("ab") as log:
            while line := await stream.readline():
                log.write(line)
                log.flush()
                if line.startswith(b"{"):
                    with contextlib.suppress(ValueError):
                        self._note(worker, json.loads(line))

    def _note(self, worker: WorkerProcess, entry: Mapping[str, object]) -> None:
        if entry.get("event") == "worker ready":
            worker.ready.set()
        if entry.get("event") == "partition open":
            place = _place(str(entry["partition"]))
            self.owners[place] = worker
            self.takeovers.setdefault(place, []).append(round(time.time() * 1000))

    async def _read_faults(self, worker: WorkerProcess) -> None:
        stream = worker.process.stdout
        assert stream is not None
        while line := await stream.readline():
            text = line.decode().strip()
            if text.startswith("fired "):
                worker.fired.append(text)
                if text.startswith("fired freeze"):
                    worker.frozen.set()
                self.on_fired(worker, text)
            elif text == "paused":
                self.paused.set()

    async def _note_exit(self, worker: WorkerProcess) -> None:
        self.exits.append((worker.name, await worker.process.wait()))


def _place(text: str) -> Place:
    """``TopicPartition(topic='feed.mentions', partition=3)`` as the log has it."""
    topic = text.partition("topic='")[2].partition("'")[0]
    return topic, int(text.partition("partition=")[2].rstrip(")"))
