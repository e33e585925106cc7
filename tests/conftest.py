"""The Kafka that tests share: Apache Kafka in a container, else as a local process.

A container where a Docker engine answers and has the image or can pull it, else the same
jars as a local process. ``TWITE_TEST_KAFKA=container`` or ``process`` asks for one of
them, and fails where it can't be had: Kafka tests are never skipped. The report says
which it was, and why.
"""

import asyncio
import gc
import os
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from tests.examples import load_profile

load_profile()

MakeTopics = Callable[..., Awaitable[tuple[str, ...]]]
_CHOICE = "TWITE_TEST_KAFKA"


class Broker(Protocol):
    """What a test may ask of the shared broker; nobody but its own tests may kill it."""

    @property
    def kind(self) -> Literal["container", "process"]: ...

    @property
    def bootstrap_servers(self) -> str: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Kafka:
    """The shared broker: its address, and whether it is a container or a process."""

    bootstrap_servers: str
    kind: Literal["container", "process"]


_used = pytest.StashKey[str]()


def choose_broker() -> tuple[Broker, str]:
    """The broker to start, not started yet, and why it is that one.

    Raises ``EngineMissing`` where a container was asked for and can't be had.
    """
    from infra.broker import LocalBroker

    wish = os.environ.get(_CHOICE, "")
    if wish not in ("", "container", "process"):
        raise pytest.UsageError(f"{_CHOICE} must be `container` or `process`, not {wish!r}")
    if wish == "process":
        return LocalBroker(), f"{_CHOICE}=process"
    from infra.container import ContainerBroker, why_no_container

    if wish == "container":
        return ContainerBroker(), f"{_CHOICE}=container"
    if why := why_no_container():
        return LocalBroker(), why
    return ContainerBroker(), "a Docker engine answers and has the image"


def pytest_collection_finish() -> None:
    """Thousands of collected tests are no garbage: looking through them is a fifth of the time."""
    gc.set_threshold(100_000, 50, 50)
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_settings_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have set TWITE_* for a worker; no test may depend on it."""
    for name in os.environ:
        if name.upper().startswith("TWITE_") and name not in (_CHOICE, "TWITE_CACHE"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest) -> Iterator[Kafka]:
    """Apache Kafka for the whole session. Make topics of your own with ``kafka_topics``."""
    broker, why = choose_broker()
    asyncio.run(broker.start())
    try:
        request.config.stash[_used] = f"{broker.kind} at {broker.bootstrap_servers}: {why}"
        yield Kafka(broker.bootstrap_servers, broker.kind)
    finally:
        asyncio.run(broker.stop())


@pytest.fixture
def unique() -> Callable[[str], str]:
    """Makes names for groups, topics and transactional ids that no other test has."""
    return lambda name: f"{name}-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def kafka_topics(kafka: Kafka, unique: Callable[[str], str]) -> MakeTopics:
    """``one, two = await kafka_topics("one", "two", partitions=3)``: new topics, their names
    made unique; further keywords of ``aiokafka.admin.NewTopic`` such as ``topic_configs``."""

    async def make(*names: str, partitions: int = 1, **options: object) -> tuple[str, ...]:
        made = tuple(unique(name) for name in names)
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
        await admin.start()
        try:
            answer = await admin.create_topics(
                [NewTopic(name, partitions, 1, **options) for name in made]
            )
            assert all(code == 0 for _, code, _ in answer.topic_errors), answer
        finally:
            await admin.close()
        return made

    return make


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Says which Kafka the tests ran against."""
    if _used in config.stash:
        terminalreporter.write_line(f"Kafka: {config.stash[_used]}")
