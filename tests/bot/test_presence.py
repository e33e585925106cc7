"""What goes out of an answer on its way: how often, in which order, and what is left out."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from structlog.testing import capture_logs

from bot import presence as module
from bot.handler import BotHandler, utc_now
from bot.live import Watcher
from bot.presence import Presence
from bot.presence_metrics import TABLE, PresenceCollector
from bot.publishing import Publishing, Send
from consumers.handler import RetryLater
from model.echo import EchoEngine
from schemas import names
from schemas.record import Output
from tests.bot.make import BOT, asked, direct, mention, record, setup
from tests.wait import wait_until


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def presence(clock: Clock, *, texts: bool = True, **limits: float) -> Presence:
    publishing = Publishing(BOT.id, utc_now)
    return Presence(publishing, texts=texts, clock=clock, **limits)  # type: ignore[arg-type]


def watcher(of: Presence, name: str = "d1") -> Watcher:
    found = of.watch(asked(direct()), name)
    assert found is not None
    return found


def waiting(of: Presence) -> list[tuple[str, str | None]]:
    return [told(output) for _, output in of._waiting]


def told(output: Output) -> tuple[str, str | None]:
    data = json.loads(output.value or b"")
    return data["state"], data.get("text")


@contextlib.asynccontextmanager
async def running(of: Presence, send: Send) -> AsyncIterator[None]:
    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[Send]:
        yield send

    task = asyncio.create_task(of.run(opened))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_a_talk_gets_a_text_now_and_then_and_only_one_that_has_grown(clock: Clock) -> None:
    shown = presence(clock, per_talk_s=0.5)
    one = watcher(shown)
    one.typing()
    for n in range(1, 11):
        if one.wants_text():
            one.partial("x" * n)
        clock.now += 0.2
    one.partial("x")  # shorter than what stands there
    one.done()
    one.done()
    texts = [text for state, text in waiting(shown) if state == "partial"]
    assert texts == ["x", "xxxx", "xxxxxxx", "xxxxxxxxxx"]
    assert [state for state, _ in waiting(shown)] == ["typing", *["partial"] * 4, "done"]


def test_all_talks_together_are_bounded_but_each_hears_of_its_end(clock: Clock) -> None:
    shown = presence(clock, per_second=5.0)
    for n in range(20):
        one = watcher(shown, f"d{n}")
        one.typing()
        one.done()
    states = [state for state, _ in waiting(shown)]
    assert (states.count("typing"), states.count("done")) == (5, 20)
    assert shown.dropped == {"rate": 15}
    clock.now += 1.0
    watcher(shown).typing()
    assert shown.dropped == {"rate": 15}


def test_the_oldest_goes_first_where_the_broker_is_slow(clock: Clock) -> None:
    shown = presence(clock, queue=3)
    for n in range(5):
        one = watcher(shown, f"d{n}")
        one.typing()
    ids = [json.loads(output.value or b"")["decision_id"] for _, output in shown._waiting]
    assert ids == ["d2", "d3", "d4"]
    assert shown.dropped == {"queue": 2}


def test_mentions_are_never_shown(clock: Clock) -> None:
    assert presence(clock).watch(asked(mention()), "d1") is None


def test_who_never_began_has_no_end(clock: Clock) -> None:
    shown = presence(clock)
    watcher(shown).done()
    assert waiting(shown) == []


def test_typing_alone(clock: Clock) -> None:
    one = watcher(presence(clock, texts=False))
    assert not one.wants_text()


async def test_records_go_out_in_their_order_to_the_partition_of_the_talk(clock: Clock) -> None:
    shown, sent = presence(clock), list[Output]()

    async def send(output: Output) -> None:
        sent.append(output)

    async with running(shown, send):
        one = watcher(shown)
        one.typing()
        one.partial("A log")
        one.done()
        await wait_until(lambda: len(sent) == 3)
    assert [told(o) for o in sent] == [("typing", None), ("partial", "A log"), ("done", None)]
    assert {(o.topic, o.partition) for o in sent} == {(names.BOT_DIRECT_ACTIVITY, 2)}
    assert shown.sent == {"typing": 1, "partial": 1, "done": 1}


async def test_a_topic_that_refuses_is_counted_and_told_once(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    shown = presence(clock)

    async def refuse(output: Output) -> None:
        raise OSError("full of what Ada wrote")

    with capture_logs() as logs:
        async with running(shown, refuse):
            one = watcher(shown)
            one.typing()
            one.done()
            await wait_until(lambda: shown.dropped["failed"] == 2)
    assert len(logs) == 1
    assert "Ada" not in str(logs)


async def test_a_broker_that_is_away_is_tried_again(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    shown, tries, sent = presence(clock), list[int](), list[Output]()

    async def send(output: Output) -> None:
        sent.append(output)

    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[Send]:
        tries.append(1)
        if len(tries) < 3:
            raise OSError
        yield send

    task = asyncio.create_task(shown.run(opened))
    watcher(shown).typing()
    await wait_until(lambda: len(sent) == 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert shown.dropped == {"failed": 2}


async def test_a_handler_shows_private_talks_alone_and_their_end_in_any_case(clock: Clock) -> None:
    shown = presence(clock)
    engine = EchoEngine()
    await engine.start()
    handler = BotHandler(setup(), engine, presence=shown)
    await handler.handle(handler.open(record(mention())), attempt=1)
    assert waiting(shown) == []
    question = record(direct("What is a log?"), event_id="event-2")
    outputs = await handler.handle(handler.open(question), attempt=1)
    assert names.BOT_DIRECT_REPLIES in {output.topic for output in outputs}
    states = [state for state, _ in waiting(shown)]
    assert (states[0], states[-1]) == ("typing", "done")
    await engine.stop()
    late = record(direct("And now?", "at://m/2"), event_id="event-3", offset=9)
    with pytest.raises(RetryLater):
        await handler.handle(handler.open(late), attempt=1)
    assert [state for state, _ in waiting(shown)][-1] == "done"


def test_every_metric_of_the_table_is_on_the_page(clock: Clock) -> None:
    collector, registry = PresenceCollector(), CollectorRegistry()
    registry.register(collector)
    assert b"} " not in generate_latest(registry)
    collector.presence = presence(clock, per_second=0.0)
    watcher(collector.presence).typing()
    collector.presence.sent["done"] += 2
    page = generate_latest(registry).decode()
    assert 'twite_activity_dropped_total{why="rate"} 1.0' in page
    assert 'twite_activity_sent_total{state="done"} 2.0' in page
    assert all(definition.name in page for definition in TABLE)
