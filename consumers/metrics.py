"""Every metric of the runtime, in one table from which the docs are made.

``Metrics`` holds the counters that the runtime moves as things happen; what can be read off
the worker at any moment (lag, depth, fill) is a gauge that ``WorkerCollector`` fills at each
scrape. Names follow Prometheus: base units, ``_total`` for counters.
"""

import itertools
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

Kind = Literal["counter", "gauge", "histogram"]
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
RECORDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric: what it counts, in words for whoever is woken up by it."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    meaning: str


_BY_PARTITION = ("topic", "partition")
_BY_VIEW = ("view", "partition")

TABLE: tuple[Definition, ...] = (
    # How far behind, and since when.
    Definition("twite_lag_records", "gauge", _BY_PARTITION, "Records on the log not taken in yet."),
    Definition(
        "twite_lag_seconds",
        "gauge",
        _BY_PARTITION,
        "Age of the oldest record taken in and not committed; 0 where there is none.",
    ),
    # What is in hand, and what it waits for.
    Definition("twite_in_flight", "gauge", (), "Records in the handler's hands."),
    Definition("twite_slots", "gauge", (), "How many records the handler's side takes now."),
    Definition(
        "twite_waiting",
        "gauge",
        ("for",),
        "Records waiting for their own lane, for a slot, for a retry, or for the commit.",
    ),
    Definition("twite_waiting_bytes", "gauge", (), "Memory that waiting records hold."),
    Definition("twite_lanes", "gauge", (), "Lanes with something waiting."),
    Definition("twite_lane_depth_max", "gauge", (), "Records waiting in the deepest lane."),
    Definition(
        "twite_stage_seconds",
        "histogram",
        ("stage",),
        "Time of a record behind its own lane, for a slot, in the handler, for the commit.",
    ),
    # What became of it.
    Definition("twite_records_total", "counter", ("topic",), "Records taken in."),
    Definition(
        "twite_outcomes_total",
        "counter",
        ("topic", "kind"),
        "Records published: done, given_up.",
    ),
    Definition("twite_retries_total", "counter", ("topic",), "Attempts that are to be made again."),
    Definition("twite_dead_letters_total", "counter", ("code",), "Records given up, by code."),
    Definition(
        "twite_handler_lost_seconds_total",
        "counter",
        ("why",),
        "Handler time whose result was thrown away: cancelled, deadline, error.",
    ),
    # Transactions.
    Definition(
        "twite_transactions_total",
        "counter",
        ("result",),
        "By result: committed, failed, fenced.",
    ),
    Definition("twite_transaction_seconds", "histogram", (), "Duration of committed transactions."),
    Definition("twite_transaction_records", "histogram", (), "Inputs per committed transaction."),
    Definition(
        "twite_commit_age_seconds",
        "gauge",
        _BY_PARTITION,
        "How long the oldest finished record has waited for its commit.",
    ),
    Definition(
        "twite_map_fill_ratio",
        "gauge",
        _BY_PARTITION,
        "Share of the commit metadata that the map may need; reading stops at 0.75.",
    ),
    # The group.
    Definition(
        "twite_partitions",
        "gauge",
        ("state",),
        "Assigned partitions: opening, open, blocked (before what can't be read or given up).",
    ),
    Definition("twite_rebalances_total", "counter", (), "Assignments received."),
    Definition("twite_loop_lag_seconds", "gauge", (), "Time since the reading loop last turned."),
    # The views, each a file of what is remembered (partition "all": of all of them).
    Definition(
        "twite_view_lag_records", "gauge", _BY_VIEW, "Records on the log that a view has not yet."
    ),
    Definition(
        "twite_view_lag_seconds",
        "gauge",
        _BY_VIEW,
        "Time since a view was last known to have everything that was on the log.",
    ),
    Definition("twite_view_bytes", "gauge", _BY_VIEW, "What a view's rows take on disk."),
    Definition(
        "twite_view_ready", "gauge", _BY_VIEW, "1 once a view is caught up; its worker waits."
    ),
    Definition("twite_view_records_total", "counter", ("view",), "Records applied to a view."),
    Definition(
        "twite_view_bad_records_total",
        "counter",
        ("view", "topic", "code"),
        "Records that a view could make nothing of, by error code; they are skipped.",
    ),
    Definition(
        "twite_view_rebuilds_total",
        "counter",
        ("view", "why"),
        "Views begun anew: missing, damaged, layout (another one), log (recreated, or trimmed"
        " past the view), asked.",
    ),
)

_DEFINITIONS = {definition.name: definition for definition in TABLE}


class Tally:
    """A counter by labels, in plain numbers: it moves several times per record."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._counts: dict[tuple[str, ...], float] = {}

    def add(self, *labels: str, by: float = 1.0) -> None:
        """Count ``by`` for these labels, in the order of the table."""
        self._counts[labels] = self._counts.get(labels, 0.0) + by

    @property
    def total(self) -> float:
        """Over all labels."""
        return sum(self._counts.values())

    def family(self) -> Metric:
        return counter(_DEFINITIONS[self.name], self._counts)


class Distribution:
    """A histogram in plain numbers."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        """Count one value into the first bucket whose bound it does not exceed."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def add_to(self, family: HistogramMetricFamily, *labels: str) -> None:
        """Write the buckets, which Prometheus wants cumulative."""
        cumulative = list(itertools.accumulate(self._counts))
        bounds = [*(f"{bound:g}" for bound in self._bounds), "+Inf"]
        family.add_metric(labels, list(zip(bounds, cumulative, strict=True)), self._sum)


def counter(definition: Definition, counts: Mapping[tuple[str, ...], float]) -> Metric:
    """A counter for a scrape; ``counts`` by labels, which may grow meanwhile."""
    family = CounterMetricFamily(definition.name, definition.meaning, labels=definition.labels)
    for labels, count in list(counts.items()) or _zero(definition):
        family.add_metric(labels, count)
    return family


def _zero(definition: Definition) -> list[tuple[tuple[str, ...], float]]:
    """A counter without labels is there from the beginning."""
    return [] if definition.labels else [((), 0.0)]


class Metrics:
    """What one worker counts as things happen; only its event loop writes here."""

    def __init__(self) -> None:
        self.records = Tally("twite_records_total")
        self.outcomes = Tally("twite_outcomes_total")
        self.retries = Tally("twite_retries_total")
        self.dead_letters = Tally("twite_dead_letters_total")
        self.lost_seconds = Tally("twite_handler_lost_seconds_total")
        self.transactions = Tally("twite_transactions_total")
        self.rebalances = Tally("twite_rebalances_total")
        # Only the thread that follows the views writes these three.
        self.view_records = Tally("twite_view_records_total")
        self.view_bad = Tally("twite_view_bad_records_total")
        self.view_rebuilds = Tally("twite_view_rebuilds_total")
        self.lane_seconds = Distribution(SECONDS)
        self.slot_seconds = Distribution(SECONDS)
        self.handler_seconds = Distribution(SECONDS)
        self.commit_seconds = Distribution(SECONDS)
        self.transaction_seconds = Distribution(SECONDS)
        self.transaction_records = Distribution(RECORDS)

    def collect(self) -> Iterator[Metric]:
        """Everything counted so far."""
        for tally in vars(self).values():
            if isinstance(tally, Tally):
                yield tally.family()
        stages = _histogram("twite_stage_seconds")
        for stage in ("lane", "slot", "handler", "commit"):
            getattr(self, f"{stage}_seconds").add_to(stages, stage)
        yield stages
        for name in ("transaction_seconds", "transaction_records"):
            family = _histogram(f"twite_{name}")
            getattr(self, name).add_to(family)
            yield family


@dataclass(frozen=True, slots=True)
class PartitionState:
    """What can be read off one assigned partition now. Times in seconds."""

    topic: str
    partition: int
    state: Literal["opening", "open", "blocked"]
    lag_records: int
    lag_seconds: float
    commit_age_seconds: float
    map_fill_ratio: float


@dataclass(frozen=True, slots=True)
class ViewState:
    """What can be read off one open view now. ``partition``: a number, or ``all``."""

    view: str
    partition: str
    ready: bool
    lag_records: int
    lag_seconds: float
    used_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerState:
    """What can be read off a worker now."""

    in_flight: int
    slots: int
    waiting_lane: int
    waiting_slot: int
    waiting_retry: int
    waiting_commit: int
    waiting_bytes: int
    lanes: int
    lane_depth_max: int
    loop_lag_seconds: float
    partitions: tuple[PartitionState, ...] = field(default=())
    views: tuple[ViewState, ...] = ()

    @property
    def is_ready(self) -> bool:
        """Every assigned partition is being read (a blocked one is as ready as it gets), and
        no view is being read anew."""
        opening = any(partition.state == "opening" for partition in self.partitions)
        return not opening and all(view.ready for view in self.views)


class WorkerCollector:
    """Everything of a worker for a scrape: what it counted, and the gauges read off ``state``,
    which may answer None for "not now"."""

    def __init__(self, metrics: Metrics, state: Callable[[], WorkerState | None]) -> None:
        self._metrics = metrics
        self._state = state

    def describe(self) -> Iterable[Metric]:
        """Known beforehand, so that registering asks no worker."""
        return [_gauge(d.name) for d in TABLE if d.kind == "gauge"]

    def collect(self) -> Iterator[Metric]:
        yield from self._metrics.collect()
        state = self._state()
        if state is None:
            return
        values: dict[str, list[tuple[tuple[str, ...], float]]] = {
            "twite_in_flight": [((), state.in_flight)],
            "twite_slots": [((), state.slots)],
            "twite_waiting": [
                (("lane",), state.waiting_lane),
                (("slot",), state.waiting_slot),
                (("retry",), state.waiting_retry),
                (("commit",), state.waiting_commit),
            ],
            "twite_waiting_bytes": [((), state.waiting_bytes)],
            "twite_lanes": [((), state.lanes)],
            "twite_lane_depth_max": [((), state.lane_depth_max)],
            "twite_loop_lag_seconds": [((), state.loop_lag_seconds)],
            "twite_partitions": [
                ((name,), sum(p.state == name for p in state.partitions))
                for name in ("opening", "open", "blocked")
            ],
        }
        for name in ("lag_records", "lag_seconds", "commit_age_seconds", "map_fill_ratio"):
            values[f"twite_{name}"] = [
                ((p.topic, str(p.partition)), getattr(p, name)) for p in state.partitions
            ]
        values |= _of_views(state.views)
        for name, samples in values.items():
            gauge = _gauge(name)
            for labels, value in samples:
                gauge.add_metric(labels, value)
            yield gauge


def _of_views(views: Iterable[ViewState]) -> dict[str, list[tuple[tuple[str, ...], float]]]:
    """The gauges of the views; none where there are no views."""
    read: dict[str, Callable[[ViewState], float]] = {
        "twite_view_lag_records": lambda view: view.lag_records,
        "twite_view_lag_seconds": lambda view: view.lag_seconds,
        "twite_view_bytes": lambda view: view.used_bytes,
        "twite_view_ready": lambda view: float(view.ready),
    }
    return {
        name: [((view.view, view.partition), value(view)) for view in views]
        for name, value in read.items()
    }


def _gauge(name: str) -> GaugeMetricFamily:
    definition = _DEFINITIONS[name]
    return GaugeMetricFamily(name, definition.meaning, labels=definition.labels)


def _histogram(name: str) -> HistogramMetricFamily:
    definition = _DEFINITIONS[name]
    return HistogramMetricFamily(name, definition.meaning, labels=definition.labels)


def as_markdown(table: Iterable[Definition] = TABLE) -> str:
    """A table of metrics for the docs."""
    rows = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for definition in table:
        labels = ", ".join(f"`{label}`" for label in definition.labels)
        rows.append(
            f"| `{definition.name}` | {definition.kind} | {labels} | {definition.meaning} |"
        )
    return "\n".join(rows) + "\n"
