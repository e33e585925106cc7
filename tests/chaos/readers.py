"""What the checker is fed with, taken with another client library than the project's own.

confluent-kafka (librdkafka) reads the topics during the run and at its end, samples the
group's commits, and asks for the ends of partitions under both isolation levels. Everything
here blocks or runs in threads of its own; nothing here judges.
"""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    Message,
    TopicPartition,
)

from tests.chaos import history
from tests.chaos.checker import Sample
from tests.chaos.facts import OUTPUTS, READ, Commit, Place, Raw, digest
from tests.chaos.history import Written
from tests.chaos.wire import WireError, fetch_commits

_QUIET = {"log_level": 0, "error_cb": lambda error: None}
_TIMEOUT_S = 5.0
_PATIENCE_S = 300.0  # to read a whole log
_SAMPLE_S = 0.25


def _consumer(bootstrap: str, isolation: str, **more: object) -> Any:
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "chaos-reader-without-a-group",
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "isolation.level": isolation,
            "enable.partition.eof": True,
            "reconnect.backoff.max.ms": 500,
            "message.max.bytes": 16 << 20,
            **_QUIET,
            **more,
        }
    )


def raw(message: Message) -> Raw:
    """A message as plain values."""
    return Raw(
        topic=message.topic(),
        partition=message.partition(),
        offset=message.offset(),
        key=message.key(),
        value=message.value(),
        headers=tuple(message.headers() or ()),
        timestamp_ms=message.timestamp()[1],
    )


def read_committed(bootstrap: str, topics: Sequence[str], partitions: int) -> Iterator[Raw]:
    """Everything committed on these topics now; each partition in order."""
    consumer = _consumer(bootstrap, "read_committed")
    left = {(topic, p) for topic in topics for p in range(partitions)}
    deadline = time.monotonic() + _PATIENCE_S
    try:
        consumer.assign([TopicPartition(t, p, OFFSET_BEGINNING) for t, p in left])
        while left:
            for message in consumer.consume(1000, 0.5):
                if message.error() is None:
                    yield raw(message)
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    left.discard((message.topic(), message.partition()))
            if time.monotonic() > deadline:
                raise TimeoutError(f"can't be read to their ends: {sorted(left)}")
    finally:
        consumer.close()


class Background(threading.Thread):
    """A thread that does ``step`` until ``stop``; its error is raised there."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._stopping = threading.Event()
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            while not self._stopping.is_set():
                self.step()
        except BaseException as error:
            self._error = error
        finally:
            self.close()

    def step(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Called once at the end, in the thread."""

    def end(self) -> None:
        """End it, whatever became of it."""
        self._stopping.set()
        if self.ident is not None:
            self.join()

    def stop(self) -> None:
        """End it; raises what it raised."""
        self.end()
        if self._error is not None:
            raise self._error


class Follower(Background):
    """Reads the outputs during the run, committed records only."""

    def __init__(self, bootstrap: str, partitions: int) -> None:
        super().__init__("chaos follower")
        self.seen: dict[Place, list[tuple[int, str]]] = {}
        self._consumer = _consumer(bootstrap, "read_committed")
        places = [(topic, p) for topic in OUTPUTS for p in range(partitions)]
        self._consumer.assign([TopicPartition(t, p, OFFSET_BEGINNING) for t, p in places])

    def step(self) -> None:
        for message in self._consumer.consume(500, 0.2):
            if message.error() is None:
                record = raw(message)
                place = (record.topic, record.partition)
                self.seen.setdefault(place, []).append((record.offset, digest(record)))

    def reached(self) -> Mapping[Place, int]:
        """Where it stands: the offset of the last record of each partition, and 1."""
        return {place: seen[-1][0] + 1 for place, seen in self.seen.items() if seen}

    def close(self) -> None:
        self._consumer.close()


class OpenTransactions(Background):
    """Sees outputs before they are committed and tells ``found`` at once."""

    def __init__(
        self, bootstrap: str, partitions: int, found: Callable[[str, int, int], None]
    ) -> None:
        super().__init__("chaos uncommitted reader")
        self._found = found
        self._consumer = _consumer(bootstrap, "read_uncommitted")
        places = [(topic, p) for topic in OUTPUTS for p in range(partitions)]
        self._consumer.assign([TopicPartition(t, p, OFFSET_END) for t, p in places])
        self.watching = threading.Event()

    def step(self) -> None:
        message = self._consumer.poll(0.2)
        if message is not None and message.error() is None and self.watching.is_set():
            self._found(message.topic(), message.partition(), message.offset())

    def close(self) -> None:
        self._consumer.close()


class Commits(Background):
    """Samples the committed offsets of a group; keeps what changed, in order of time."""

    def __init__(self, bootstrap: str, group: str, partitions: int) -> None:
        super().__init__("chaos commits")
        self.samples: list[Sample] = []
        self.last: dict[Place, Commit] = {}
        self.failures = 0
        self._question = (bootstrap, group, partitions)

    def step(self) -> None:
        try:
            now = read_commits(*self._question)
        except WireError:
            self.failures += 1  # the broker is away: that is part of the run
            now = {}
        for place, commit in now.items():
            if self.last.get(place) != commit:
                self.last[place] = commit
                self.samples.append(Sample(place, commit, int(1000 * time.time())))
        self._stopping.wait(_SAMPLE_S)


def read_commits(bootstrap: str, group: str, partitions: int) -> dict[Place, Commit]:
    """What the group has committed for all that it reads. Raises ``WireError``."""
    places = [(topic, p) for topic in READ for p in range(partitions)]
    return fetch_commits(bootstrap, group, places)


def commit_history(bootstrap: str, group: str) -> list[Written]:
    """Every commit of the group whose transaction is through, as the broker's log has them."""
    consumer = _consumer(bootstrap, "read_committed")
    try:
        found = consumer.list_topics(history.TOPIC, timeout=_TIMEOUT_S).topics[history.TOPIC]
    finally:
        consumer.close()
    records = read_committed(bootstrap, [history.TOPIC], len(found.partitions))
    return list(history.commits(records, group))


def ends(bootstrap: str, topics: Sequence[str], partitions: int) -> dict[Place, tuple[int, int]]:
    """Last stable offset and high watermark of each partition."""
    places = [(topic, p) for topic in topics for p in range(partitions)]
    stable = _ends(bootstrap, places, "read_committed")
    high = _ends(bootstrap, places, "read_uncommitted")
    return {place: (stable[place], high[place]) for place in places}


def stable_end(bootstrap: str, topic: str, partition: int) -> int:
    """The last stable offset: where the first open transaction begins, else the end."""
    return _ends(bootstrap, [(topic, partition)], "read_committed")[(topic, partition)]


def _ends(bootstrap: str, places: Sequence[Place], isolation: str) -> dict[Place, int]:
    """What a reader under this isolation calls the end: librdkafka asks with its own level."""
    consumer = _consumer(bootstrap, isolation)
    try:
        return {
            place: consumer.get_watermark_offsets(TopicPartition(*place), timeout=_TIMEOUT_S)[1]
            for place in places
        }
    finally:
        consumer.close()
