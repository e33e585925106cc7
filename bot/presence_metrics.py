"""The metrics of what private talks are shown, in one table from which the docs are made."""

from collections.abc import Iterable, Iterator

from prometheus_client.metrics_core import Metric

from bot.presence import Presence
from consumers.metrics import Definition, counter

TABLE: tuple[Definition, ...] = (
    Definition(
        "twite_activity_sent_total",
        "counter",
        ("state",),
        "Records on bot.direct-activity: typing, partial, done.",
    ),
    Definition(
        "twite_activity_dropped_total",
        "counter",
        ("why",),
        "Of those, what was left out: rate (too many at once), queue (the broker is slow), failed.",
    ),
)


class PresenceCollector:
    """``presence`` None: it is switched off, or not there yet."""

    def __init__(self) -> None:
        self.presence: Presence | None = None

    def describe(self) -> Iterable[Metric]:
        return self._families({}, {})

    def collect(self) -> Iterator[Metric]:
        if self.presence is not None:
            yield from self._families(self.presence.sent, self.presence.dropped)

    @staticmethod
    def _families(*counted: dict[str, int]) -> list[Metric]:
        return [
            counter(definition, {(label,): count for label, count in counts.copy().items()})
            for definition, counts in zip(TABLE, counted, strict=True)
        ]
