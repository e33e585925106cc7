"""``bot.http``: alive, ready, metrics, and a port of one's own."""

import asyncio
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bot.errors import Trouble
from bot.http import STALLED_S, Status, application, serving
from bot.settings import HttpSettings
from consumers.metrics import (
    TABLE,
    Metrics,
    PartitionState,
    ViewState,
    WorkerState,
    as_markdown,
)
from model.stats import EngineStats

ANY = HttpSettings(port=0)


def worker_state(**changes: Any) -> WorkerState:
    given: dict[str, Any] = {
        "in_flight": 3,
        "slots": 16,
        "waiting_lane": 1,
        "waiting_slot": 2,
        "waiting_retry": 0,
        "waiting_commit": 4,
        "waiting_bytes": 5,
        "lanes": 2,
        "lane_depth_max": 2,
        "loop_lag_seconds": 0.1,
        "partitions": (partition(),),
    }
    return WorkerState(**(given | changes))


def partition(**changes: Any) -> PartitionState:
    given: dict[str, Any] = {
        "topic": "feed.mentions",
        "partition": 2,
        "state": "open",
        "lag_records": 7,
        "lag_seconds": 1.5,
        "commit_age_seconds": 0.25,
        "map_fill_ratio": 0.125,
    }
    return PartitionState(**(given | changes))


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def asked(
    path: str, state: Callable[[], WorkerState | None], *, is_ready: bool = True
) -> tuple[int, Any]:
    with serving(ANY, application(state, lambda: is_ready, Metrics())) as port:
        status, body = get(port, path)
    return status, json.loads(body)


def stuck() -> WorkerState | None:
    raise TimeoutError


def test_alive_while_the_loop_turns() -> None:
    assert asked("/livez", worker_state) == (200, {"alive": True})
    assert asked("/livez", lambda: None) == (200, {"alive": True})
    stalled = worker_state(loop_lag_seconds=STALLED_S + 1)
    assert asked("/livez", lambda: stalled)[0] == 503
    assert asked("/livez", stuck) == (503, {"alive": False, "why": "the event loop is stuck"})


def test_ready_once_everything_assigned_is_read() -> None:
    status, body = asked("/readyz", worker_state)
    assert (status, body["partitions"]) == (200, {"feed.mentions/2": "open"})
    assert asked("/readyz", worker_state, is_ready=False)[0] == 503
    assert asked("/readyz", lambda: None)[0] == 503
    assert asked("/readyz", stuck)[0] == 503
    opening = worker_state(partitions=(partition(), partition(state="opening")))
    assert asked("/readyz", lambda: opening)[0] == 503
    blocked = worker_state(partitions=(partition(state="blocked"),))
    assert asked("/readyz", lambda: blocked)[0] == 200


def test_metrics_are_those_of_the_table() -> None:
    metrics = Metrics()
    metrics.dead_letters.add("not-json")
    with serving(ANY, application(worker_state, lambda: True, metrics)) as port:
        status, body = get(port, "/metrics")
    assert status == 200
    families = {family.name: family for family in text_string_to_metric_families(body)}
    assert set(families) == {d.name.removesuffix("_total") for d in TABLE}
    samples = {(s.name, *s.labels.values()): s.value for f in families.values() for s in f.samples}
    assert samples["twite_lag_records", "2", "feed.mentions"] == 7
    assert samples["twite_waiting", "commit"] == 4
    assert samples["twite_partitions", "open"] == 1
    assert samples["twite_dead_letters_total", "not-json"] == 1


def test_metrics_answer_also_when_the_loop_does_not() -> None:
    with serving(ANY, application(stuck, lambda: True, Metrics())) as port:
        status, body = get(port, "/metrics")
    assert status == 200
    assert "twite_transactions_total" in body
    assert "twite_lag_records" not in body


def test_unknown_pages_name_the_known_ones() -> None:
    assert asked("/", worker_state)[0] == 404


def test_several_workers_find_ports_of_their_own() -> None:
    app = application(worker_state, lambda: True, Metrics())
    other = application(worker_state, lambda: True, Metrics())
    with serving(HttpSettings(), app) as first, serving(HttpSettings(), other) as second:
        assert first != second
        assert get(first, "/livez")[0] == get(second, "/livez")[0] == 200


def test_a_port_that_is_taken_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        app = application(worker_state, lambda: True, Metrics())
        with (
            pytest.raises(Trouble, match=f"127.0.0.1:{port}.*TWITE_HTTP__PORT"),
            serving(HttpSettings(port=port), app),
        ):
            pass


async def test_the_state_is_read_in_the_event_loop() -> None:
    loop = asyncio.get_running_loop()
    seen: list[bool] = []

    def state() -> WorkerState:
        seen.append(asyncio.get_running_loop() is loop)
        return worker_state()

    found = await asyncio.to_thread(Status(loop, state))
    assert found == worker_state()
    assert seen == [True]


def test_the_docs_list_every_metric() -> None:
    assert all(f"`{definition.name}`" in as_markdown() for definition in TABLE)


def view(*, ready: bool) -> ViewState:
    return ViewState("conversation", "3", ready, 7, 1.5, 4096)


def test_a_view_that_is_read_anew_is_not_ready() -> None:
    assert asked("/readyz", lambda: worker_state(views=(view(ready=True),)))[0] == 200
    status, body = asked(
        "/readyz", lambda: worker_state(views=(view(ready=True), view(ready=False)))
    )
    assert (status, body["why"]) == (503, "views are being read")


def test_an_engine_that_keeps_failing_is_told_and_one_that_is_just_away_is_not() -> None:
    for state, wanted in (("up", 200), ("restarting", 200), ("failing", 503)):
        stats = EngineStats(state=state, restarts=7)  # type: ignore[arg-type]
        pages = application(worker_state, lambda: True, Metrics(), lambda stats=stats: stats)  # type: ignore[misc]
        with serving(ANY, pages) as port:
            status, body = get(port, "/readyz")
            _, metrics = get(port, "/metrics")
        assert status == wanted
        assert ("keeps failing" in body) == (wanted == 503)
        assert f'twite_engine_state{{state="{state}"}} 1.0' in metrics


def test_an_engine_that_has_given_up_needs_a_new_worker() -> None:
    given_up = EngineStats(state="stopped")
    for state, wanted in (
        (worker_state(), 503),
        (None, 200),
    ):  # before there is a worker, it starts
        pages = application(lambda state=state: state, lambda: True, Metrics(), lambda: given_up)  # type: ignore[misc]
        with serving(ANY, pages) as port:
            status, body = get(port, "/livez")
            assert (status, "given up" in body) == (wanted, wanted == 503)
            assert get(port, "/readyz")[0] == 503


def test_views_are_in_the_metrics() -> None:
    pages = application(lambda: worker_state(views=(view(ready=True),)), lambda: True, Metrics())
    with serving(ANY, pages) as port:
        _, text = get(port, "/metrics")
    labels = '{partition="3",view="conversation"}'
    for name, value in [
        ("twite_view_lag_records", 7.0),
        ("twite_view_lag_seconds", 1.5),
        ("twite_view_bytes", 4096.0),
        ("twite_view_ready", 1.0),
    ]:
        assert f"{name}{labels} {value}" in text
