"""What can go wrong in this room. Each message says what happened, where, what to do."""


class InfraError(Exception):
    """Base of everything this room raises on purpose."""


class JarsUnavailable(InfraError):
    """A jar of Kafka could not be downloaded."""


class DigestMismatch(InfraError):
    """A file is not the one whose digest is pinned in this project."""


class BrokerFailed(InfraError):
    """A broker that we start ended, or did not answer in time."""


class BrokerUnreachable(InfraError):
    """No broker answers at the address given."""


class TopicsRefused(InfraError):
    """A broker answers but does not make, or does not have, a topic as we need it."""


class EngineMissing(InfraError):
    """No Docker engine answers, or it has no image of Kafka."""
