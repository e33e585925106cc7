"""The wiring: settings reach every part, and a worker can be stopped at any moment."""

import asyncio
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

from bot.app import (
    TOPIC_TRIES,
    Running,
    _unless,
    places,
    run_worker,
    worker_config,
)
from bot.errors import Trouble
from bot.handlers import INPUT_TOPICS, OUTPUT_TOPICS, SILENT_TOPICS, Handlers
from bot.logs import configure_logging
from bot.settings import (
    BotSettings,
    EchoSettings,
    KafkaSettings,
    LoggingSettings,
    ModelSettings,
    OpenAISettings,
    Settings,
    WorkerSettings,
)
from bot.wiring import engine_of, openai_options, setup_of
from consumers.errors import TopicMissing
from consumers.metrics import ViewState, WorkerState
from model.echo import EchoEngine
from model.engine import Capacity
from model.hosted.engine import HostedEngine
from model.openai.engine import OpenAIEngine
from model.openai.options import Options
from model.transformers_engine import TransformersEngine
from schemas.topics import TOPICS

NOBODY = KafkaSettings(bootstrap_servers="127.0.0.1:1")
COUNTS = (
    "in_flight",
    "slots",
    "waiting_lane",
    "waiting_slot",
    "waiting_retry",
    "waiting_commit",
    "waiting_bytes",
    "lanes",
    "lane_depth_max",
)
ECHO = ModelSettings(engine="echo", slots=3, echo=EchoSettings(latency_ms=7))


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    yield
    root.handlers, root.level = before
    structlog.reset_defaults()


async def test_the_echo_engine_is_built_without_a_model() -> None:
    engine = engine_of(ECHO)
    assert isinstance(engine, EchoEngine)
    await engine.start()
    assert engine.capacity().slots == 3


def test_servers_of_a_model_are_asked_as_the_settings_say() -> None:
    openai = OpenAISettings(
        endpoints="http://gpu-1:8000, https://gpu-2/v1", api_key=SecretStr("sk-1"), total_s=50
    )
    settings = ModelSettings(engine="openai", slots=99, openai=openai)
    assert isinstance(engine_of(settings), OpenAIEngine)
    options = openai_options(settings)
    assert options.endpoints == ("http://gpu-1:8000", "https://gpu-2/v1")
    assert (options.api_key, options.slots, options.total) == ("sk-1", 99, 50)
    # Whoever gives up last must be the worker, which tries again.
    assert openai_options(ModelSettings()).total < WorkerSettings().deadline_s
    made = {field.name for field in fields(Options)} - {"max_queued"}
    assert made <= {name.removesuffix("_s") for name in (*OpenAISettings.model_fields, "slots")}


def test_a_real_model_gets_a_process_of_its_own_unless_that_is_switched_off() -> None:
    assert isinstance(engine_of(ModelSettings(slots=2)), HostedEngine)
    assert isinstance(engine_of(ModelSettings(own_process=False)), TransformersEngine)


def test_an_engine_that_is_down_is_handed_nothing() -> None:
    assert places(Capacity(0, 0)) == 0
    assert places(Capacity(8, 0)) == 10  # its slots, and a few that stand ready


def test_settings_reach_the_runtime() -> None:
    config = worker_config(
        Settings(
            kafka=KafkaSettings(bootstrap_servers="k:1", group_id="g", group_instance_id="w1"),
            worker=WorkerSettings(max_in_flight=5, grace_s=1, max_attempts=2, deadline_s=3),
        )
    )
    assert config.bootstrap_servers == "k:1"
    assert (config.group_id, config.group_instance_id) == ("g", "w1")
    assert (config.max_in_flight, config.grace_s) == (5, 1)
    assert (config.max_attempts, config.deadline_s) == (2, 3)
    assert dict(config.client) == {"security_protocol": "PLAINTEXT"}
    assert set(config.topics) | set(config.output_topics) <= set(TOPICS)
    assert (config.topics, config.output_topics) == (INPUT_TOPICS, OUTPUT_TOPICS)
    assert config.silent_topics == SILENT_TOPICS
    assert set(config.weights) <= set(INPUT_TOPICS)


@pytest.mark.parametrize(
    ("view", "lag_s", "ready"),
    [("accounts", 11.0, False), ("moderation", 9.0, True), ("conversation", 99.0, True)],
)
def test_a_worker_that_does_not_know_what_people_want_is_not_ready(
    view: str, lag_s: float, ready: bool
) -> None:
    class Here:
        def state(self) -> WorkerState:
            counts: Any = dict.fromkeys(COUNTS, 0)
            return WorkerState(**counts, loop_lag_seconds=0.0)

        def states(self) -> tuple[ViewState, ...]:
            return (ViewState(view, "all", True, 0, lag_s, 0),)

    here: Any = Here()
    state = Running(worker=here, views=here).state()
    assert state is not None
    assert state.is_ready == ready


def test_settings_reach_the_bot() -> None:
    settings = Settings(
        bot=BotSettings(account_id="b", handle="owl", max_graphemes=9, post_tokens=77),
        model=ModelSettings(max_new_tokens=11, temperature=0.5, top_k=4),
    )
    setup = setup_of(settings, "cluster-1")
    assert (setup.bot.id, setup.bot.account.handle, setup.bot.account.bot) == ("b", "owl", True)
    assert setup.bot.cluster_id == "cluster-1"
    assert (setup.limits.max_graphemes, setup.limits.post_tokens) == (9, 77)
    assert (setup.sampling.max_tokens, setup.sampling.temperature) == (11, 0.5)
    assert setup.settings_digest == settings.digest


def test_each_assignment_has_a_handler_of_its_own() -> None:
    make = Handlers(setup_of(Settings(), "c"), engine_of(ECHO)).make
    assert make("feed.mentions", 0) is not make("feed.mentions", 0)
    assert len({type(make(topic, 0)) for topic in INPUT_TOPICS}) == 4


async def test_a_worker_waits_for_its_broker_until_it_is_stopped(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stop = asyncio.Event()
    settings = Settings(kafka=NOBODY, model=ECHO, logging=LoggingSettings(format="json"))
    running = asyncio.create_task(run_worker(settings, stop=stop))
    said = ""
    async with asyncio.timeout(20):
        while "No Kafka broker answers at 127.0.0.1:1" not in said or "engine ready" not in said:
            await asyncio.sleep(0.02)
            said += capsys.readouterr().err
        assert not running.done()
        stop.set()
        await running
    events = [json.loads(line) for line in (said + capsys.readouterr().err).splitlines()]
    assert events[0]["event"] == "health and metrics"
    waited = [entry for entry in events if entry["event"].startswith("No Kafka broker answers")]
    assert len(waited) >= 1
    loading = [e["event"] for e in events if "engine" in e["event"]]
    assert loading == ["loading the engine", "engine ready"]
    assert events[-1]["event"] == "worker stopped"
    ours = [entry for entry in events if not entry["logger"].startswith("aiokafka")]
    assert {entry["level"] for entry in ours} == {"info", "warning"}


async def test_what_loses_a_cancel_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.app._CANCEL_AGAIN_S", 0.01)
    stop, lost = asyncio.Event(), 0

    async def deaf() -> str:
        nonlocal lost
        stop.set()
        for _ in range(3):  # as asyncio.wait_for of Python 3.11 may do
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost += 1
        await asyncio.Event().wait()
        return "never"

    async with asyncio.timeout(20):
        assert await _unless(stop, deaf()) is None
    assert lost == 3


async def test_a_cluster_that_is_not_fit_is_told_before_the_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Watched(EchoEngine):
        started = False

        async def start(self) -> None:
            self.started = True

    async def unfit(config: object, kafka: object) -> None:
        raise Trouble("topics are missing.")

    monkeypatch.setattr("bot.app.require_fit", unfit)
    engine = Watched()
    with pytest.raises(Trouble, match="topics are missing"):
        await run_worker(Settings(kafka=NOBODY), engine=engine, stop=asyncio.Event())
    assert not engine.started


async def test_topics_that_are_missing_are_told_before_the_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Watched(EchoEngine):
        started = False

        async def start(self) -> None:
            self.started = True

    async def fit(config: object, kafka: object) -> None:
        return None

    asked: list[Sequence[str]] = []

    async def without(kafka: KafkaSettings, wanted: Sequence[str]) -> dict[str, int]:
        asked.append(wanted)
        raise TopicMissing(["feed.mentions"], kafka.bootstrap_servers)

    monkeypatch.setattr("bot.app.require_fit", fit)
    monkeypatch.setattr("bot.app.require_topics", without)
    monkeypatch.setattr("bot.app.TOPIC_PAUSE_S", 0.0)
    engine = Watched()
    with pytest.raises(TopicMissing, match="Create the topics with 'twite topics create'"):
        await run_worker(Settings(kafka=NOBODY), engine=engine, stop=asyncio.Event())
    assert not engine.started
    assert len(asked) == TOPIC_TRIES  # new topics are not known to every broker at once
    assert set(INPUT_TOPICS) | set(OUTPUT_TOPICS) == set(asked[0])


async def test_an_engine_that_cannot_start_is_told_and_stopped() -> None:
    from model.engine import ModelNotFound

    class Broken(EchoEngine):
        stopped = False

        async def start(self) -> None:
            raise ModelNotFound("There is no such model. Set its name.")

        async def stop(self) -> None:
            self.stopped = True

    engine = Broken()
    with pytest.raises(ModelNotFound, match="no such model"):
        await run_worker(Settings(kafka=NOBODY), engine=engine, stop=asyncio.Event())
    assert engine.stopped


def test_logs_are_json_lines_also_those_of_libraries(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LoggingSettings(format="json", level="info"))
    structlog.get_logger("bot.test").info("hello", offset=5)
    structlog.get_logger("bot.test").debug("too quiet")
    logging.getLogger("aiokafka").warning("lost %s", "it")
    logging.getLogger("aiokafka").info("chatter")
    ours, theirs = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert (ours["event"], ours["offset"], ours["level"]) == ("hello", 5, "info")
    assert (theirs["event"], theirs["logger"]) == ("lost it", "aiokafka")
    assert ours["timestamp"].endswith("Z")


def test_logs_at_a_terminal_are_pretty(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LoggingSettings(format="console"))
    structlog.get_logger("bot.test").warning("hello", offset=5)
    shown = capsys.readouterr().err
    assert "hello" in shown
    assert not shown.startswith("{")
