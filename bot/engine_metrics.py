"""The metrics of the engine, in one table from which the docs are made.

In: what an engine says of itself (``model.stats``), asked at each scrape; out: families for the
metrics page. Where OpenTelemetry's conventions for generative models have a name, it is that, in
Prometheus' spelling; the others are vLLM's behind our prefix, so that dashboards made for it
need little change.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from consumers.metrics import Definition
from model.stats import Buckets, EngineState, EngineStats

TABLE: tuple[Definition, ...] = (
    Definition(
        "gen_ai_server_request_duration_seconds",
        "histogram",
        (),
        "Of requests that came to an end: from their submission to it.",
    ),
    Definition(
        "gen_ai_server_time_to_first_token_seconds",
        "histogram",
        (),
        "From the submission of a request to its first token, the time in the queue included.",
    ),
    Definition(
        "gen_ai_server_time_per_output_token_seconds",
        "histogram",
        (),
        "Of a reply, the mean time of its tokens after the first.",
    ),
    Definition(
        "twite_engine_request_queue_time_seconds",
        "histogram",
        (),
        "From the submission of a request until the model began to read it.",
    ),
    Definition(
        "twite_engine_requests_total",
        "counter",
        ("finished_reason",),
        "Requests by their end: stop, length, cancelled, abandoned (nobody waited any more), or the"
        " code of an error.",
    ),
    Definition("twite_engine_prompt_tokens_total", "counter", (), "Tokens of prompts answered."),
    Definition("twite_engine_generation_tokens_total", "counter", (), "Tokens of replies."),
    Definition(
        "twite_engine_prefix_cache_hits_total",
        "counter",
        (),
        "Tokens of prompts that were there from earlier ones and did not have to be read again.",
    ),
    Definition(
        "twite_engine_steps_total",
        "counter",
        (),
        "Passes of the model; tokens of replies per pass is how full its batch was.",
    ),
    Definition(
        "twite_engine_num_requests_running", "gauge", (), "Requests in the batch, its size now."
    ),
    Definition("twite_engine_num_requests_waiting", "gauge", (), "Requests without a slot."),
    Definition(
        "twite_engine_kv_cache_usage_ratio",
        "gauge",
        (),
        "Share of the memory for keys and values that is taken.",
    ),
    Definition(
        "twite_engine_restarts_total", "counter", (), "Times that the engine's process was gone."
    ),
    Definition(
        "twite_engine_state",
        "gauge",
        ("state",),
        "1 for the one it is in: up, restarting, failing (so often that somebody should look),"
        " stopped.",
    ),
)

_DEFINITIONS = {definition.name: definition for definition in TABLE}
_Samples = Iterable[tuple[tuple[str, ...], float]]


class EngineCollector:
    """The engine's metrics for a scrape. ``stats`` may answer None: there is no engine now."""

    def __init__(self, stats: Callable[[], EngineStats | None]) -> None:
        self._stats = stats

    def describe(self) -> Iterable[Metric]:
        """Known beforehand, so that registering asks no engine."""
        return [_empty(definition) for definition in TABLE]

    def collect(self) -> Iterator[Metric]:
        if stats := self._stats():
            for name, buckets in _histograms(stats).items():
                yield _filled(name, buckets)
            for name, samples in _numbers(stats).items():
                family = _empty(_DEFINITIONS[name])
                for labels, value in samples:
                    family.add_metric(labels, value)  # type: ignore[attr-defined]
                yield family


def _histograms(stats: EngineStats) -> Mapping[str, Buckets]:
    return {
        "gen_ai_server_request_duration_seconds": stats.total_s,
        "gen_ai_server_time_to_first_token_seconds": stats.first_token_s,
        "gen_ai_server_time_per_output_token_seconds": stats.per_token_s,
        "twite_engine_request_queue_time_seconds": stats.queue_s,
    }


def _numbers(stats: EngineStats) -> Mapping[str, _Samples]:
    states = get_args(EngineState)
    plain = {
        "twite_engine_prompt_tokens_total": stats.prompt_tokens,
        "twite_engine_generation_tokens_total": stats.output_tokens,
        "twite_engine_prefix_cache_hits_total": stats.cached_tokens,
        "twite_engine_num_requests_running": stats.running,
        "twite_engine_num_requests_waiting": stats.waiting,
        "twite_engine_kv_cache_usage_ratio": stats.cache_use,
        "twite_engine_restarts_total": stats.restarts,
    }
    if stats.steps is not None:
        plain["twite_engine_steps_total"] = stats.steps
    return {
        "twite_engine_requests_total": [((end,), n) for end, n in stats.requests.items()],
        "twite_engine_state": [((state,), float(state == stats.state)) for state in states],
        **{name: [((), value)] for name, value in plain.items()},
    }


def _filled(name: str, buckets: Buckets) -> HistogramMetricFamily:
    """With cumulative counts, as Prometheus wants them."""
    family = HistogramMetricFamily(name, _DEFINITIONS[name].meaning)
    bounds = [*(f"{bound:g}" for bound in buckets.bounds), "+Inf"]
    family.add_metric([], list(zip(bounds, accumulate(buckets.counts), strict=True)), buckets.total)
    return family


def _empty(definition: Definition) -> Metric:
    kinds: Mapping[str, Callable[..., Metric]] = {
        "counter": CounterMetricFamily,
        "gauge": GaugeMetricFamily,
        "histogram": HistogramMetricFamily,
    }
    return kinds[definition.kind](definition.name, definition.meaning, labels=definition.labels)
