"""Puts the feed on the topics, also in transactions that are aborted, with confluent-kafka."""

import threading
from collections.abc import Iterable
from typing import Any

from confluent_kafka import Producer

from tests.chaos.feed import Feed, Item
from tests.chaos.readers import Background

_QUIET = {"log_level": 0, "error_cb": lambda error: None}
_TICK_S = 0.1
_ABORTED_EVERY = 50  # ticks
_ABORTED = 5  # records
BURST = 400


class Writer:
    """An idempotent producer that counts what the broker has taken."""

    def __init__(self, bootstrap: str) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "linger.ms": 5,
                "delivery.timeout.ms": 120_000,
                "reconnect.backoff.max.ms": 500,
                **_QUIET,
            }
        )
        self.written = 0
        self.errors: list[str] = []

    def write(self, items: Iterable[Item]) -> None:
        for item in items:
            self._producer.produce(**_record(item), on_delivery=self._delivered)
        self._producer.poll(0)

    def flush(self) -> None:
        """Everything is on the log, or an error is raised."""
        left = self._producer.flush(120)
        if left or self.errors:
            raise RuntimeError(f"{left} inputs not written; {self.errors[:3]}")

    def _delivered(self, error: Any, _: Any) -> None:
        if error is None:
            self.written += 1
        else:
            self.errors.append(str(error))


def _record(item: Item) -> dict[str, Any]:
    return {
        "topic": item.topic,
        "partition": item.partition,
        "key": item.key,
        "value": item.value,
        "headers": list(item.headers),
    }


def write_and_abort(bootstrap: str, items: Iterable[Item], name: str) -> int:
    """Inputs that nobody may ever see; how many. Raises where the broker is away."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "transactional.id": name,
            "transaction.timeout.ms": 10_000,
            **_QUIET,
        }
    )
    producer.init_transactions(20)
    producer.begin_transaction()
    count = 0
    for item in items:
        producer.produce(**_record(item))
        count += 1
    producer.flush(20)
    producer.abort_transaction(20)
    return count


class Feeding(Background):
    """Writes ``inputs`` records at an even pace and the last of them, a few seconds' worth, at
    once; ``done`` is set at the end."""

    def __init__(
        self, bootstrap: str, feed: Feed, aborted: Feed, inputs: int, seconds: float
    ) -> None:
        super().__init__("chaos feed")
        self._servers = bootstrap
        self._feed, self._aborted_feed = feed, aborted
        self._left = inputs
        self._burst = min(inputs // 10, BURST)
        self._per_tick = inputs * _TICK_S / seconds
        self._owed = 0.0
        self._ticks = 0
        self._writer = Writer(bootstrap)
        self.aborted = 0
        self.done = threading.Event()

    @property
    def written(self) -> int:
        return self._writer.written

    def step(self) -> None:
        self._ticks += 1
        self._owed += self._per_tick
        count = min(self._left, int(self._owed))
        if self._left - count <= self._burst:
            count = self._left
        self._owed -= count
        self._left -= count
        self._writer.write(self._feed.items(count))
        if self._ticks % _ABORTED_EVERY == 1:
            self._abort_some()
        if not self._left:
            self._writer.flush()
            self.done.set()
            self._stopping.wait()
        self._stopping.wait(_TICK_S)

    def _abort_some(self) -> None:
        from confluent_kafka import KafkaException

        items = self._aborted_feed.items(_ABORTED)
        try:
            self.aborted += write_and_abort(self._servers, items, f"chaos-abort-{self._ticks}")
        except KafkaException:
            return  # the broker is away; what was written is aborted by its timeout
