"""What the tests of this folder share."""

import asyncio
from collections.abc import Iterator

import pytest

from infra.broker import LocalBroker
from tests.conftest import Kafka


@pytest.fixture
def bootstrap(kafka: Kafka) -> str:
    """The address of the shared broker."""
    return kafka.bootstrap_servers


@pytest.fixture(scope="module")
def own_broker() -> Iterator[str]:
    """The address of a Kafka of the file's own, for those who count everything on it."""
    broker = LocalBroker()
    asyncio.run(broker.start())
    try:
        yield broker.bootstrap_servers
    finally:
        asyncio.run(broker.stop())
