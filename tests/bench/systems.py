"""The systems that P2 compares, each with what it promises, and how it is started and killed.

``running(setting, system, spec)`` starts one on its topics; what it gives can be killed with
kill -9, started again, and asked for the processor time it has used.
"""

import asyncio
import json
import os
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from infra.ports import free_port
from tests.bench.peers.install import HERE, PeerMissing, peer_python, restate_server
from tests.bench.setting import ROOT, Child, Setting, start

SESSION_MS = 6_000
ANSWERS_S = 60.0


@dataclass(frozen=True, slots=True)
class System:
    """One way of answering: ``promises`` is what it says of itself at these settings."""

    name: str
    kind: str
    keeps_order: bool
    promises: str
    settings: str
    mode: str = ""


TWITE = System(
    name="Twite",
    kind="twite",
    keeps_order=True,
    promises="order per key, exactly once",
    settings="max_in_flight = slots, one process, asyncio",
)
PEERS = (
    System(
        name="Restate 1.7",
        kind="restate",
        keeps_order=True,
        promises="order per key; handlers at least once, so what they publish too",
        settings="virtual object per key, two service processes with uvloop, no journal step"
        " in the handler, slots / 8 on each of its 8 partitions, no journal kept",
    ),
    System(
        name="FastStream 0.7, concurrent",
        kind="faststream",
        keeps_order=False,
        promises="no order; offsets committed by a timer, handled or not: may lose and double",
        settings="max_workers = slots, ACK_FIRST (the only policy with concurrency), uvloop",
        mode="concurrent",
    ),
    System(
        name="FastStream 0.7, in order",
        kind="faststream",
        keeps_order=True,
        promises="order per partition, at least once",
        settings="max_workers = partitions, ACK, uvloop",
        mode="in-order",
    ),
    System(
        name="Faust 0.15, concurrent",
        kind="faust",
        keeps_order=False,
        promises="no order, at least once",
        settings="agent concurrency = slots, uvloop",
        mode="concurrent",
    ),
    System(
        name="Faust 0.15, in order",
        kind="faust",
        keeps_order=True,
        promises="order per partition, at least once",
        settings="isolated_partitions",
        mode="in-order",
    ),
    System(
        name="Quix Streams 3.28",
        kind="quix",
        keeps_order=True,
        promises="order per partition, exactly once",
        settings="processing_guarantee exactly-once, commit every second; one record at a time",
    ),
)


def install(system: System) -> None:
    """Get what the system needs. Raises ``PeerMissing``."""
    if system.kind == "twite":
        return
    peer_python(system.kind)
    if system.kind == "restate":
        restate_server()


class Running:
    """A started system. ``worker`` is what is killed; ``beside`` goes on (Restate's server)."""

    def __init__(
        self, setting: Setting, command: list[str], environment: Mapping[str, str], name: str
    ) -> None:
        self._setting = setting
        self._command = command
        self._environment = environment
        self._name = name
        self._gently = "-m" in command
        self._used = 0.0
        self._worker: Child | None = None
        self.beside: Child | None = None

    async def start(self) -> None:
        self._worker = await start(
            self._setting,
            self._command,
            name=self._name,
            environment=self._environment,
            cwd=ROOT if self._gently else HERE,
        )
        self._worker.drain_later()

    async def kill(self) -> None:
        """kill -9 of the worker and all its children."""
        if self._worker is not None:
            self._used += self._worker.processor_s()
            self._worker.signal(signal.SIGKILL)
            await self._worker.wait()

    async def stop(self) -> None:
        """Ours gently; peers at once, since all that they had to tell is in the log."""
        for child in (self._worker, self.beside):
            if child is not None and child.alive:
                if not self._gently:
                    child.signal(signal.SIGKILL)
                await child.stop()

    @property
    def alive(self) -> bool:
        return self._worker is not None and self._worker.alive

    def processor_s(self) -> float:
        """Used so far by all its processes."""
        children = [child for child in (self._worker, self.beside) if child and child.alive]
        return self._used + sum(child.processor_s() for child in children)

    def log_tail(self) -> str:
        """The last lines that it wrote about itself."""
        return self._worker.log.read_text(errors="replace")[-2000:] if self._worker else ""


@asynccontextmanager
async def running(
    setting: Setting, system: System, spec: Mapping[str, Any]
) -> AsyncIterator[Running]:
    """The system on its topics, stopped at the end. ``spec``: source, outputs, group, slots."""
    full = {
        "bootstrap": setting.bootstrap_servers,
        "folder": str(setting.folder),
        "session_timeout_ms": SESSION_MS,
        "mode": system.mode,
        **spec,
    }
    made = _made(setting, system, full)
    try:
        if system.kind == "restate":
            await _start_restate(setting, made, full)
        else:
            await made.start()
        yield made
    finally:
        await made.stop()


def _made(setting: Setting, system: System, spec: dict[str, Any]) -> Running:
    name = setting.name(system.kind)
    if system.kind == "twite":
        config = {"max_in_flight": spec["slots"], "session_timeout_ms": SESSION_MS}
        text = json.dumps({**spec, "config": config})
        command = [sys.executable, "-m", "tests.bench.programs.worker", text]
        return Running(setting, command, os.environ, name)
    python = str(peer_python(system.kind))
    if system.kind == "restate":
        spec["bind"] = f"127.0.0.1:{free_port()}"
        environment = {**os.environ, "BENCH_SPEC": json.dumps(spec), "PYTHONPATH": str(HERE)}
        return Running(setting, [python, "restate_app.py"], environment, name)
    return Running(setting, [python, f"{system.kind}_app.py", json.dumps(spec)], os.environ, name)


RESTATE_PARTITIONS = 8  # the best of 1, 2, 4 and 8
# The invoker's limit holds for each of Restate's partitions, so it gets its part of the slots.
_RESTATE_CONFIG = """
bind-address = "127.0.0.1:{node}"
base-dir = "{folder}"
disable-telemetry = true
default-num-partitions = {partitions}
default-journal-retention = "0s"
log-filter = "error"
[worker.invoker]
concurrent-invocations-limit = {slots}
[admin]
bind-address = "127.0.0.1:{admin}"
disable-web-ui = true
[ingress]
bind-address = "127.0.0.1:{ingress}"
[[ingress.kafka-clusters]]
name = "bench"
brokers = ["PLAINTEXT://{bootstrap}"]
"""


async def _start_restate(setting: Setting, made: Running, spec: dict[str, Any]) -> None:
    """Server, services, their registration, and the subscription to the topic."""
    folder = setting.folder / setting.name("restate-data")
    folder.mkdir()
    ports = {name: free_port() for name in ("node", "admin", "ingress")}
    config = folder / "restate.toml"
    config.write_text(
        _RESTATE_CONFIG.format(
            folder=folder,
            slots=spec["slots"] // RESTATE_PARTITIONS,
            partitions=RESTATE_PARTITIONS,
            bootstrap=setting.bootstrap_servers,
            **ports,
        )
    )
    server = str(restate_server())
    made.beside = await start(
        setting, [server, "--no-logo", "-c", str(config)], name=setting.name("restate-server")
    )
    made.beside.drain_later()
    await made.start()
    admin = f"http://127.0.0.1:{ports['admin']}"
    await _post(made.beside, f"{admin}/deployments", {"uri": f"http://{spec['bind']}"})
    options = {"auto.offset.reset": "earliest", "group.id": spec["group"]}
    subscription = {"source": f"kafka://bench/{spec['source']}", "sink": "service://Lane/answer"}
    await _post(made.beside, f"{admin}/subscriptions", {**subscription, "options": options})


async def _post(server: Child, url: str, body: dict[str, Any]) -> None:
    """Until the server answers. Raises ``PeerMissing`` where it refuses."""
    deadline = asyncio.get_running_loop().time() + ANSWERS_S
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)  # noqa: S310
    while True:
        try:
            await asyncio.to_thread(urllib.request.urlopen, request, timeout=10)
            return
        except (urllib.error.URLError, OSError) as error:
            told = error.read().decode() if isinstance(error, urllib.error.HTTPError) else error
            if asyncio.get_running_loop().time() > deadline:
                tail = server.log.read_text(errors="replace")[-500:]
                raise PeerMissing(f"its server refused {url}: {told}\n{tail}") from error
        await asyncio.sleep(0.25)
