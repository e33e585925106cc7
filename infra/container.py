"""Apache Kafka in a container, for the tests, with the interface of ``LocalBroker``.

testcontainers starts the official image ``apache/kafka:4.4.0``, or the stand-in that
``infra/image`` makes under the same name; one command serves both. The port on the host
is chosen before, so that it stays the same when the broker is killed and started again.
A container whose owner died is removed by the next start, by its label.
"""

import asyncio
import contextlib
import io
import socket
import tarfile
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal, Self

import docker  # type: ignore[import-untyped]
import psutil
from docker.errors import (  # type: ignore[import-untyped]
    DockerException,
    ImageNotFound,
    NotFound,
)
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer

from infra.errors import BrokerFailed, EngineMissing
from infra.jars import KAFKA_VERSION, Progress
from infra.kafka_config import (
    container_properties,
    logging_text,
    new_cluster_id,
    properties_text,
)
from infra.ports import free_port
from infra.probe import answers

IMAGE = f"apache/kafka:{KAFKA_VERSION}"
OWNER_LABEL = "twite.owner"
_CLIENT_PORT = 9092
_FOLDER = "/tmp"  # noqa: S108 - inside the container, where every user may write
_CONFIGURED = "configured"
_ENGINE_PATIENCE = 60  # seconds for one answer of the Docker engine
_POLL = 0.05  # seconds between two looks at a starting broker
_TAIL = 30  # lines of the log in an error

# The advertised port is known only once the container has it, so the command waits for it.
_COMMAND = f"""
while [ ! -e {_FOLDER}/{_CONFIGURED} ]; do sleep 0.1; done
/opt/kafka/bin/kafka-storage.sh format --ignore-formatted \
    --cluster-id $CLUSTER_ID --config {_FOLDER}/server.properties &&
exec /opt/kafka/bin/kafka-server-start.sh {_FOLDER}/server.properties
"""

_ENVIRONMENT = {
    "KAFKA_HEAP_OPTS": "-Xmx512m",
    "KAFKA_JVM_PERFORMANCE_OPTS": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
    "KAFKA_LOG4J_OPTS": f"-Dlog4j2.configurationFile={_FOLDER}/log4j2.properties",
}


class ContainerBroker:
    """One Kafka broker in a container of its own; parameters as for ``LocalBroker``."""

    kind: Literal["container"] = "container"

    def __init__(
        self,
        *,
        properties: Mapping[str, str] | None = None,
        progress: Progress = lambda line: None,
        ready_timeout: float = 120.0,
    ) -> None:
        self._extra = dict(properties or {})
        self._progress = progress
        self._ready_timeout = ready_timeout
        self._container: DockerContainer | None = None
        self._address: str | None = None

    @property
    def bootstrap_servers(self) -> str:
        """``host:port`` for clients; known once started and the same after a restart."""
        if self._address is None:
            raise BrokerFailed("the Kafka container was not started")
        return self._address

    @property
    def pid(self) -> int:
        """Process id, as the Docker engine's machine sees it. Raises ``BrokerFailed``."""
        wrapped = self._wrapped()
        wrapped.reload()
        if not (pid := int(wrapped.attrs["State"]["Pid"])):
            raise BrokerFailed("the Kafka container is not running")
        return pid

    @property
    def container_id(self) -> str:
        return str(self._wrapped().id)

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
        """Returns when the broker answers. Raises ``EngineMissing`` or ``BrokerFailed``."""
        try:
            await asyncio.to_thread(self._create)
            await self._until_ready()
        except BaseException:
            await asyncio.shield(self.stop())
            raise

    async def stop(self) -> None:
        """Removes the container and its data."""
        container, self._container = self._container, None
        if container is not None:
            await asyncio.to_thread(container.stop)

    async def kill(self) -> None:
        """kill -9 of the broker; the data stays for ``restart``."""
        await asyncio.to_thread(self._kill)

    async def restart(self) -> None:
        """Starts the broker on the same port and data; kills it first where it still runs."""
        await self.kill()
        await asyncio.to_thread(self._wrapped().start)
        await self._until_ready()

    def _create(self) -> None:
        if why := why_no_container():
            raise EngineMissing(why)
        remove_stale_containers()
        testcontainers_config.ryuk_disabled = not _has_image(testcontainers_config.ryuk_image)
        self._progress(f"starting a container of {IMAGE}")
        container = (
            DockerContainer(IMAGE)
            .with_bind_ports(_CLIENT_PORT, free_port())
            .with_command(["sh", "-c", _COMMAND])
            .with_envs(**_ENVIRONMENT, CLUSTER_ID=new_cluster_id())
            .with_kwargs(labels={OWNER_LABEL: _owner_label()})
        )
        self._container = container.start()
        self._configure(container)

    def _configure(self, container: DockerContainer) -> None:
        self._address = _reachable_address(container)
        settings = container_properties(advertised=self._address, extra=self._extra)
        files = {
            "log4j2.properties": logging_text(),
            "server.properties": properties_text(settings),
            _CONFIGURED: "",  # last: the command waits for it
        }
        self._wrapped().put_archive(_FOLDER, _tar(files))

    async def _until_ready(self) -> None:
        started = time.monotonic()
        while not await answers(self.bootstrap_servers):
            if not await asyncio.to_thread(self._is_running):
                raise await asyncio.to_thread(self._failed, "ended while it started")
            if time.monotonic() - started > self._ready_timeout:
                what = f"did not answer within {self._ready_timeout:.0f} s"
                raise await asyncio.to_thread(self._failed, what)
            await asyncio.sleep(_POLL)
        self._progress(f"Apache Kafka answers after {time.monotonic() - started:.1f} s")

    def _kill(self) -> None:
        if self._is_running():
            wrapped = self._wrapped()
            wrapped.kill()
            wrapped.wait(timeout=_ENGINE_PATIENCE)

    def _is_running(self) -> bool:
        wrapped = self._wrapped()
        wrapped.reload()
        return bool(wrapped.attrs["State"]["Running"])

    def _wrapped(self) -> Any:
        if self._container is None:
            raise BrokerFailed("the Kafka container was not started")
        return self._container.get_wrapped_container()

    def _failed(self, what: str) -> BrokerFailed:
        tail = self._wrapped().logs(tail=_TAIL).decode(errors="replace")
        return BrokerFailed(
            f"the Kafka container at {self.bootstrap_servers} {what}. The end of its log:\n"
            f"{tail or '(empty)'}"
        )


def why_no_container() -> str | None:
    """Why Kafka cannot run in a container here, in one line; None where it can."""
    try:
        with contextlib.closing(docker.from_env(timeout=_ENGINE_PATIENCE)) as client:
            client.ping()
    except DockerException as error:
        return f"no Docker engine answers ({_first_line(error)})"
    return None if _has_image(IMAGE) else _why_not_pulled()


def remove_stale_containers() -> list[str]:
    """Removes containers of owners on this machine that are gone; returns their ids."""
    removed = []
    with contextlib.closing(docker.from_env(timeout=_ENGINE_PATIENCE)) as client:
        for container in client.containers.list(all=True, filters={"label": OWNER_LABEL}):
            if _owner_is_gone(container.labels[OWNER_LABEL]):
                with contextlib.suppress(NotFound):  # somebody else was quicker
                    container.remove(force=True, v=True)
                removed.append(str(container.id))
    return removed


def _why_not_pulled() -> str | None:
    try:
        with contextlib.closing(docker.from_env(timeout=_ENGINE_PATIENCE)) as client:
            client.images.pull(IMAGE)
    except (DockerException, OSError) as error:
        return f"the Docker engine has no image {IMAGE} and cannot pull it ({_first_line(error)})"
    return None


def _has_image(name: str) -> bool:
    with contextlib.closing(docker.from_env(timeout=_ENGINE_PATIENCE)) as client:
        try:
            client.images.get(name)
        except ImageNotFound:
            return False
        return True


def _reachable_address(container: DockerContainer) -> str:
    """On this machine where the engine is on this machine, else what testcontainers says."""
    port = container.get_exposed_port(_CLIENT_PORT)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return f"127.0.0.1:{port}"
    except OSError:
        return f"{container.get_container_host_ip()}:{port}"


def _owner_label() -> str:
    me = psutil.Process()
    return f"{socket.gethostname()}/{me.pid}/{me.create_time():.0f}"


def _owner_is_gone(label: str) -> bool:
    host, pid, started = label.rsplit("/", 2)
    if host != socket.gethostname():
        return False
    try:
        return abs(psutil.Process(int(pid)).create_time() - int(started)) > 1
    except psutil.NoSuchProcess:
        return True


def _tar(files: Mapping[str, str]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(text.encode()), 0o644, int(time.time())
            tar.addfile(entry, io.BytesIO(text.encode()))
    return archive.getvalue()


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
