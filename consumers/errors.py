"""What can go wrong around Kafka, each error with the message a user should read."""

from collections.abc import Iterable

from aiokafka.errors import KafkaConnectionError, KafkaError

# That nobody listens; other causes say more than the address does.
_SILENT = (ConnectionError, TimeoutError, KafkaConnectionError)


class ConsumersError(Exception):
    """Base of the errors that this room shows to people."""


class BrokerUnreachable(ConsumersError):
    """Nobody answers at the address of the brokers. ``cause`` is told where it says more."""

    def __init__(self, bootstrap_servers: str, cause: BaseException | None = None) -> None:
        self.bootstrap_servers = bootstrap_servers
        silent = cause is None or isinstance(cause, _SILENT)
        reason = "" if silent else f" ({type(cause).__name__}: {cause})"
        super().__init__(
            f"No Kafka broker answers at {bootstrap_servers}{reason}. Start one with"
            " 'twite broker', or set TWITE_KAFKA__BOOTSTRAP_SERVERS to the address of yours."
        )


class TopicMissing(ConsumersError):
    """Topics that the worker reads or writes do not exist."""

    def __init__(self, topics: Iterable[str], bootstrap_servers: str) -> None:
        names = ", ".join(sorted(topics))
        super().__init__(
            f"The broker at {bootstrap_servers} has no topic {names}."
            " Create the topics with 'twite topics create'."
        )


class PartitionsDiffer(ConsumersError):
    """An output topic lacks partitions that an input topic has."""

    def __init__(self, counts: dict[str, int]) -> None:
        listed = ", ".join(f"{topic}: {count}" for topic, count in sorted(counts.items()))
        super().__init__(
            "Topics that meet in one conversation need the same number of partitions, since"
            f" outputs go to the partition of their input. Found {listed}. Recreate the"
            " topics, or add partitions to the smaller ones."
        )


class RangeGone(ConsumersError):
    """A range begins before what the log still holds."""

    def __init__(self, topic: str, partition: int, wanted: int, first: int) -> None:
        super().__init__(
            f"{topic}/{partition} begins at offset {first} now, {wanted} is gone: records are"
            f" kept for the topic's retention.ms. Ask from {first} on."
        )


class OffsetBeyondEnd(ConsumersError):
    """The group's offset lies behind the end of the log: this is not the log it was made on."""

    def __init__(self, source: str, offset: int, end: int, group_id: str) -> None:
        super().__init__(
            f"The group {group_id} has offset {offset} for {source}, but the log ends at {end}:"
            " the topic was recreated, or lost records, or the offset was set by hand. Nothing"
            " is read until somebody decides, since records could be missed or answered twice:"
            f" stop the workers and set the offset (kafka-consumer-groups.sh --group {group_id}"
            " --reset-offsets), to the earliest to read all that is there."
        )


class NoSuchPartition(ConsumersError):
    """An output names a partition that its topic does not have."""

    def __init__(self, topic: str, partition: int) -> None:
        super().__init__(f"{topic} has no partition {partition}, which an output is for.")


class FaultyOutputs(ConsumersError):
    """What a handler returned can't be published; a fault in its code, not in the record."""


class Fenced(Exception):
    """Another worker owns this partition now (or our transaction timed out)."""


def told(error: BaseException) -> str:
    """An exception for a log line: never with what people wrote, as some of Python's carry it."""
    safe = isinstance(error, KafkaError | ConsumersError | OSError | TimeoutError)
    return repr(error) if safe else type(error).__name__
