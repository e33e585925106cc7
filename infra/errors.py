"""What can go wrong in this room. Each message says what happened, where, what to do."""

from aiokafka.errors import KafkaConnectionError

# That nobody listens; other causes say more than the address does.
_SILENT = (ConnectionError, TimeoutError, KafkaConnectionError)


class InfraError(Exception):
    """Base of everything this room raises on purpose."""


class JarsUnavailable(InfraError):
    """A jar of Kafka could not be downloaded."""


class DigestMismatch(InfraError):
    """A file is not the one whose digest is pinned in this project."""


class BrokerFailed(InfraError):
    """A broker that we start ended, or did not answer in time."""


class BrokerUnreachable(InfraError):
    """No broker answers at the address given; the words are those of ``consumers.errors``."""

    def __init__(self, bootstrap_servers: str, cause: BaseException | None = None) -> None:
        self.bootstrap_servers = bootstrap_servers
        silent = cause is None or isinstance(cause, _SILENT)
        reason = "" if silent else f" ({type(cause).__name__}: {cause})"
        super().__init__(
            f"No Kafka broker answers at {bootstrap_servers}{reason}. Start one with"
            " 'twite broker', or set TWITE_KAFKA__BOOTSTRAP_SERVERS to the address of yours."
        )


class TopicsRefused(InfraError):
    """A broker answers but does not make, or does not have, a topic as we need it."""


class EngineMissing(InfraError):
    """No Docker engine answers, or it has no image of Kafka."""
