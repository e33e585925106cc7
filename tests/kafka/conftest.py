"""What the tests of this folder share."""

from collections.abc import Iterator

import pytest

from tests.conftest import Kafka
from tests.kafka.brokers import running


@pytest.fixture
def bootstrap(kafka: Kafka) -> str:
    """The address of the shared broker."""
    return kafka.bootstrap_servers


@pytest.fixture(scope="module")
def own_broker() -> Iterator[str]:
    """The address of a Kafka of the file's own, for those who count everything on it."""
    with running() as broker:
        yield broker.bootstrap_servers


@pytest.fixture(scope="module")
def own_topics() -> Iterator[str]:
    """The same, with the topics of the contract, 4 partitions each."""
    with running(partitions=4) as broker:
        yield broker.bootstrap_servers
