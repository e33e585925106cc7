"""The engine's metrics: every one of the table is on the page, with the engine's own figures."""

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from bot.engine_metrics import TABLE, EngineCollector
from bot.pages import pages
from model.engine import EngineUnavailable, Generation, Timings
from model.stats import EngineStats
from model.tally import Tally


def counted() -> EngineStats:
    tally = Tally()
    spent = Timings(
        queued_s=0.3, first_token_s=0.7, total_s=1.7, prompt_tokens=40, cached_tokens=30
    )
    tally.ended(Generation("hi", (1, 2, 3), (0.0,) * 3, "stop", spent))
    tally.ended(Generation("", (), (), "cancelled", Timings(prompt_tokens=5)))
    for _ in range(2):
        tally.failed(EngineUnavailable.code)
    tally.restarts = 2
    return tally.now(state="failing", running=3, waiting=4, cache_use=0.25, steps=9)


def page(stats: EngineStats | None) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(EngineCollector(lambda: stats))
    text = generate_latest(registry).decode()
    return {
        sample.name + "".join(f" {value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_what_was_counted_is_on_the_page() -> None:
    found = page(counted())
    wanted = {
        "twite_engine_requests_total stop": 1,
        "twite_engine_requests_total cancelled": 1,
        "twite_engine_requests_total engine-unavailable": 2,
        "twite_engine_prompt_tokens_total": 45,
        "twite_engine_generation_tokens_total": 3,
        "twite_engine_prefix_cache_hits_total": 30,
        "twite_engine_steps_total": 9,
        "twite_engine_num_requests_running": 3,
        "twite_engine_num_requests_waiting": 4,
        "twite_engine_kv_cache_usage_ratio": 0.25,
        "twite_engine_restarts_total": 2,
        "twite_engine_state failing": 1,
        "twite_engine_state up": 0,
        "gen_ai_server_request_duration_seconds_count": 2,
        "gen_ai_server_request_duration_seconds_sum": 1.7,
        "gen_ai_server_time_to_first_token_seconds_count": 1,
        "gen_ai_server_time_to_first_token_seconds_bucket 0.5": 0,
        "gen_ai_server_time_to_first_token_seconds_bucket 0.75": 1,
        "gen_ai_server_time_to_first_token_seconds_bucket +Inf": 1,
        "gen_ai_server_time_per_output_token_seconds_sum": 0.5,
        "twite_engine_request_queue_time_seconds_bucket 0.25": 1,
        "twite_engine_request_queue_time_seconds_bucket 0.5": 2,
    }
    assert {name: found.get(name) for name in wanted} == wanted


def test_every_metric_of_the_table_is_there_and_in_the_docs() -> None:
    found = page(counted())
    for definition in TABLE:
        assert any(name.startswith(definition.name) for name in found), definition.name
        assert f"`{definition.name}`" in pages()["metrics.md"]
    kinds = {definition.name: definition.kind for definition in TABLE}
    assert all(name.endswith("_total") == (kind == "counter") for name, kind in kinds.items())


def test_without_an_engine_there_is_nothing() -> None:
    assert page(None) == {}
    steps = {name for name in page(Tally().now(state="up")) if "steps" in name}
    assert not steps  # an engine that knows of no steps has not made none
