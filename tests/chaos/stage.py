"""The stage of a run: a broker with a listener behind a proxy, topics, workers and readers.

``Stage`` is entered and left with ``async with``; nothing outlives it. Faults (``attacks``) act
on it, the verdict (``run``) reads it.
"""

import asyncio
import contextlib
import tempfile
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient

from infra.broker import LocalBroker
from infra.ports import free_port
from infra.topics import create_topics
from tests.chaos.facts import REFERENCES, REVIEWS
from tests.chaos.fleet import Fleet
from tests.chaos.proxy import HOST, Proxy, Rule
from tests.chaos.readers import Commits, Follower, OpenTransactions

GROUP = "chaos"
SESSION_S = 4.0


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a run is told."""

    seed: int = 1
    inputs: int = 5000
    faults: int = 40
    seconds: float = 150.0
    workers: int = 3
    partitions: int = 6
    latency_ms: float = 150.0
    deadline_s: float = 20.0
    flaw: str = ""
    changes: float = 0.2  # the share of edits and deletions in the feed
    only: tuple[str, ...] = ()  # kinds of faults; all where empty
    quick: bool = False  # no checkpoint in the middle, no last worker: for controls
    logs: Path | None = None

    def environment(self, folder: Path) -> dict[str, str]:
        """Of every worker, but for the address of its broker."""
        return {
            "TWITE_KAFKA__GROUP_ID": GROUP,
            "TWITE_KAFKA__SESSION_TIMEOUT_MS": str(round(SESSION_S * 1000)),
            "TWITE_MODEL__ENGINE": "echo",
            "TWITE_MODEL__SLOTS": "16",
            "TWITE_MODEL__ECHO__LATENCY_MS": str(self.latency_ms),
            "TWITE_WORKER__DEADLINE_S": str(self.deadline_s),
            # Of all workers: on one machine they share the folder, and lock their files.
            "TWITE_VIEWS__DIRECTORY": str(folder / "views"),
            "TWITE_LIMITS__ENABLED": "false",  # a few people ask thousands of times
            "TWITE_LOGGING__FORMAT": "json",
            "CHAOS_FLAW": self.flaw,
        }


@dataclass
class Stage:
    """Everything that runs."""

    setting: Setting
    folder: Path
    broker: LocalBroker
    proxy: Proxy
    fleet: Fleet
    follower: Follower
    commits: Commits
    watcher: OpenTransactions
    cluster: str
    hits: list[Rule] = field(default_factory=list)
    broker_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    aim: "Aim" = field(default_factory=lambda: Aim())

    @property
    def servers(self) -> str:
        """The broker's own address."""
        return self.broker.bootstrap_servers


class Aim:
    """A kill that waits for an open transaction: ordered here, done in the reader's thread."""

    def __init__(self) -> None:
        self._fleet: Fleet | None = None
        self._lock = threading.Lock()
        self._topics: Sequence[str] = ()
        self._shot: tuple[str, int, int] | None = None

    @property
    def hit(self) -> bool:
        """Was a worker killed?"""
        return self._shot is not None

    def take(self, fleet: Fleet, topics: Sequence[str]) -> None:
        """Kill the first of these whose uncommitted record shows up on one of the topics."""
        with self._lock:
            self._shot, self._fleet, self._topics = None, fleet, topics

    def let_go(self) -> tuple[str, int, int] | None:
        """Kill nobody any more; topic, partition and offset of the record, if one was hit."""
        with self._lock:
            self._fleet = None
            return self._shot

    def found(self, topic: str, partition: int, offset: int) -> None:
        """A record that is perhaps not committed yet: its worker dies now."""
        with self._lock:
            if self._fleet is None or topic not in self._topics:
                return
            owner = self._fleet.owners.get((_input_of(topic), partition))
            if owner is not None and owner.alive and not owner.busy:
                owner.kill_now()
                self._fleet, self._shot = None, (topic, partition, offset)


def _input_of(topic: str) -> str:
    """The input that an output most likely comes from."""
    if topic in (REFERENCES, REVIEWS):
        return topic
    return "feed.direct-messages" if topic == "bot.direct-replies" else "feed.mentions"


@asynccontextmanager
async def staged(setting: Setting) -> AsyncIterator[Stage]:
    """A stage with its curtain up: workers are started by whoever runs it."""
    async with contextlib.AsyncExitStack() as stack:
        folder = setting.logs or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="twite-chaos-"))
        )
        folder.mkdir(parents=True, exist_ok=True)
        port, inner, outer = free_port(), free_port(), free_port()
        properties = _listeners(port, inner, outer)
        broker = await stack.enter_async_context(LocalBroker(port=port, properties=properties))
        await create_topics(broker.bootstrap_servers, partitions=setting.partitions)
        hits: list[Rule] = []
        proxy = Proxy(inner, hits.append)
        await proxy.start(outer)
        stack.push_async_callback(proxy.stop)
        addresses = (broker.bootstrap_servers, f"{HOST}:{outer}")
        fleet = Fleet(setting.environment(folder), addresses, folder, setting.workers, setting.seed)
        stack.push_async_callback(fleet.close)
        aim = Aim()
        stage = Stage(
            setting=setting,
            folder=folder,
            broker=broker,
            proxy=proxy,
            fleet=fleet,
            follower=Follower(broker.bootstrap_servers, setting.partitions),
            commits=Commits(broker.bootstrap_servers, GROUP, setting.partitions),
            watcher=OpenTransactions(broker.bootstrap_servers, setting.partitions, aim.found),
            cluster=await _cluster_id(broker.bootstrap_servers),
            hits=hits,
            aim=aim,
        )
        for reader in (stage.follower, stage.commits, stage.watcher):
            reader.start()
            stack.callback(reader.end)
        yield stage


def _listeners(port: int, inner: int, outer: int) -> dict[str, str]:
    """A second listener at ``inner`` that sends its clients to ``outer``."""
    controller = free_port()
    own = f"BROKER://{HOST}:{port}"
    return {
        "listeners": f"{own},PROXIED://{HOST}:{inner},CONTROLLER://{HOST}:{controller}",
        "advertised.listeners": f"{own},PROXIED://{HOST}:{outer}",
        "controller.quorum.voters": f"1@{HOST}:{controller}",
        "listener.security.protocol.map": (
            "CONTROLLER:PLAINTEXT,BROKER:PLAINTEXT,PROXIED:PLAINTEXT"
        ),
    }


async def _cluster_id(servers: str) -> str:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        return str((await admin.describe_cluster())["cluster_id"])
    finally:
        await admin.close()


__all__ = ["GROUP", "SESSION_S", "Aim", "Setting", "Stage", "staged"]
