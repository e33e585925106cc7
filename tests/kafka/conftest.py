"""What the tests of this folder share."""

import pytest

from tests.conftest import Kafka


@pytest.fixture
def bootstrap(kafka: Kafka) -> str:
    """The address of the shared broker."""
    return kafka.bootstrap_servers
