"""Apache Kafka itself as a local process, for the demo, the tests and ``twite broker``.

In come a port and a data folder, or neither; out comes an address that answers. One JVM
in KRaft mode that only this machine can reach, from jars and a Java runtime that need no
more than pip. Whatever ends the owner - Ctrl-C, a crash, kill -9 - ends the JVM and
removes temporary data (``infra.guard``).

    async with LocalBroker() as broker:
        AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers)
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from infra.errors import BrokerFailed
from infra.guarded import GuardedProcess
from infra.jars import KAFKA_VERSION, Progress, kafka_jars
from infra.kafka_config import (
    FORMAT_CLASS,
    MAIN_CLASS,
    java_command,
    local_properties,
    logging_text,
    new_cluster_id,
    properties_text,
)
from infra.ports import free_port, is_free
from infra.probe import answers

_STOP_GRACE = 20.0  # seconds for Kafka to close its files
_FORMAT_PATIENCE = 60.0  # seconds for the storage tool
_PORT_TRIES = 3
_TAIL = 30  # lines of the log in an error
_POLL = 0.05  # seconds between two looks at a starting broker


class LocalBroker:
    """One Kafka broker in a JVM of its own.

    ``port``: where it listens on 127.0.0.1; a free one by default. ``data_dir``: where it
    keeps its data, cluster id and log; a temporary folder by default. ``properties``: server
    properties on top of ours. ``progress`` gets one line for people per stage.
    ``ready_timeout``: seconds until it must answer.
    """

    kind: Literal["process"] = "process"

    def __init__(
        self,
        *,
        port: int | None = None,
        data_dir: Path | None = None,
        properties: Mapping[str, str] | None = None,
        progress: Progress = lambda line: None,
        ready_timeout: float = 60.0,
    ) -> None:
        self._wanted_port = port
        self._wanted_dir = data_dir
        self._extra = dict(properties or {})
        self._progress = progress
        self._ready_timeout = ready_timeout
        self._cancelled = threading.Event()
        self._process: GuardedProcess | None = None
        self._folder: Path | None = None
        self._jars = Path()
        self._ports = (0, 0)

    @property
    def bootstrap_servers(self) -> str:
        """``host:port`` for clients; known once started and the same after a restart."""
        if not self._ports[0]:
            raise BrokerFailed("the local Kafka was not started; use `async with LocalBroker()`")
        return f"127.0.0.1:{self._ports[0]}"

    @property
    def pid(self) -> int:
        """Process id of the JVM. Raises ``BrokerFailed`` while there is none."""
        process = self._process
        if process is None or process.pid is None or not process.running:
            raise BrokerFailed("the local Kafka is not running")
        return process.pid

    @property
    def running(self) -> bool:
        """Whether the JVM runs at this moment."""
        return self._process is not None and self._process.running

    @property
    def folder(self) -> Path:
        """Where data, properties and log are."""
        if self._folder is None:
            raise BrokerFailed("the local Kafka was not started; use `async with LocalBroker()`")
        return self._folder

    @property
    def log(self) -> Path:
        return self.folder / "kafka.log"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Returns when the broker answers. Raises an ``InfraError`` that says what to do."""
        try:
            self._jars = await asyncio.to_thread(
                kafka_jars, self._progress, cancelled=self._cancelled
            )
            await asyncio.to_thread(self._prepare)
            await self._start_on_free_ports()
        except BaseException:
            self._cancelled.set()
            await asyncio.shield(self.stop())
            raise

    async def stop(self) -> None:
        """Ends the JVM, gently where its data stays, and removes temporary data."""
        process, self._process = self._process, None
        if process is not None:
            await asyncio.to_thread(_end, process, gently=self._wanted_dir is not None)

    async def kill(self) -> None:
        """kill -9 of the JVM; the data stays for ``restart``."""
        await asyncio.to_thread(self._running_process().kill)

    async def restart(self) -> None:
        """Starts the JVM on the same port and data; kills it first where it still runs."""
        await self.kill()
        await self._run()

    def _prepare(self) -> None:
        """The guard, the folder, and in it everything but the ports."""
        prefix = "" if self._wanted_dir else "twite-kafka-"
        self._process = GuardedProcess(prefix)
        folder = self._wanted_dir or self._process.folder or Path()
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder.resolve()
        (self._folder / "log4j2.properties").write_text(logging_text())
        self.log.write_bytes(b"")

    async def _start_on_free_ports(self) -> None:
        for attempt in range(1, _PORT_TRIES + 1):
            self._choose_ports()
            try:
                await asyncio.to_thread(self._format)
                await self._run()
                return
            except BrokerFailed:
                # Somebody may take a free port between our look and Kafka's start.
                if self._wanted_port or attempt == _PORT_TRIES or not self._port_was_taken():
                    raise

    def _choose_ports(self) -> None:
        if self._wanted_port and not is_free(self._wanted_port):
            raise BrokerFailed(
                f"port {self._wanted_port} on 127.0.0.1 is taken by another program; "
                "choose another port, or stop that program"
            )
        self._ports = (self._wanted_port or free_port(), free_port())
        settings = local_properties(
            port=self._ports[0],
            controller_port=self._ports[1],
            data=self.folder / "data",
            extra=self._extra,
        )
        (self.folder / "server.properties").write_text(properties_text(settings))

    def _format(self) -> None:
        """Gives the data folder its cluster id; one that has it keeps it."""
        if (self.folder / "data" / "meta.properties").exists():
            return
        self._progress("preparing Kafka's data folder")
        config = str(self.folder / "server.properties")
        process = self._running_process()
        process.start(
            self._java(
                FORMAT_CLASS, "format", "--cluster-id", new_cluster_id(), "--config", config
            ),
            self.log,
        )
        if not process.wait(_FORMAT_PATIENCE):
            process.kill()
        if process.status != 0:
            raise self._failed("could not prepare its data folder")

    async def _run(self) -> None:
        self._progress(f"starting Apache Kafka {KAFKA_VERSION} at {self.bootstrap_servers}")
        started = time.monotonic()
        process = self._running_process()
        command = self._java(MAIN_CLASS, str(self.folder / "server.properties"))
        await asyncio.to_thread(process.start, command, self.log)
        while not await answers(self.bootstrap_servers):
            if not process.running:
                raise self._failed(f"ended while it started (status {process.status})")
            if time.monotonic() - started > self._ready_timeout:
                raise self._failed(f"did not answer within {self._ready_timeout:.0f} s")
            await asyncio.sleep(_POLL)
        self._progress(f"Apache Kafka answers after {time.monotonic() - started:.1f} s")

    def _java(self, main_class: str, *arguments: str) -> list[str]:
        return java_command(self._jars, self.folder, main_class, *arguments)

    def _running_process(self) -> GuardedProcess:
        if self._process is None:
            raise BrokerFailed("the local Kafka was not started; use `async with LocalBroker()`")
        return self._process

    def _port_was_taken(self) -> bool:
        return "Address already in use" in self.log.read_text(errors="replace")

    def _failed(self, what: str) -> BrokerFailed:
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-_TAIL:])
        return BrokerFailed(
            f"the local Kafka at {self.bootstrap_servers} {what}. The end of its log "
            f"({self.log}):\n{tail or '(empty)'}"
        )


async def run_broker_forever(
    *,
    port: int | None = None,
    data_dir: Path | None = None,
    progress: Progress = print,
    stop: asyncio.Event | None = None,
) -> None:
    """What ``twite broker`` runs: a broker until ``stop`` is set or the task is cancelled.

    Raises ``BrokerFailed`` if the broker ends by itself.
    """
    stopping = stop or asyncio.Event()
    async with LocalBroker(port=port, data_dir=data_dir, progress=progress) as broker:
        progress(f"ready: TWITE_KAFKA__BOOTSTRAP_SERVERS={broker.bootstrap_servers}")
        while not stopping.is_set():
            if not broker.running:
                raise BrokerFailed(f"the local Kafka ended by itself; its log: {broker.log}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), 0.5)


def _end(process: GuardedProcess, *, gently: bool) -> None:
    try:
        if gently:
            process.terminate(_STOP_GRACE)
    finally:
        process.close()
