"""The feed asks for what it says: the real handler makes of each record what ``x-expect`` says."""

import time
from collections import Counter

from bot.handler import BotHandler
from bot.values import BotIdentity
from consumers.handler import GiveUp
from model.echo import EchoEngine
from schemas.record import Record
from tests.bot import make
from tests.chaos.attacks import KINDS, schedule
from tests.chaos.facts import Decision, Raw, input_fact, output_fact
from tests.chaos.feed import BOT, Feed, Item


async def outcomes(items: list[Item]) -> list[tuple[str, str | None]]:
    """What one handler makes of them, one after another, as if in one partition."""
    engine = EchoEngine()
    await engine.start()
    account = make.BOT.model_copy(update={"id": BOT})
    identity = BotIdentity(account=account, cluster_id="cluster")
    handler = BotHandler(make.setup(bot=identity), engine)
    found = []
    for offset, item in enumerate(items):
        record = Record(
            topic=item.topic,
            partition=0,
            offset=offset,
            timestamp_ms=round(time.time() * 1000),
            key=item.key,
            value=item.value,
            headers=item.headers,
        )
        try:
            outputs = await handler.handle(handler.open(record), attempt=1)
        except GiveUp as error:
            outputs = handler.give_up(record, error, attempts=1)
        last = outputs[-1]
        decision = output_fact(Raw(last.topic, 0, 0, last.key, last.value, last.headers))
        assert isinstance(decision, Decision)
        found.append((decision.outcome, decision.reason))
    await engine.stop()
    return found


async def test_the_bot_makes_of_it_what_it_expects() -> None:
    items = list(Feed(7, 1).items(400))
    kinds: Counter[str] = Counter()
    for item, (outcome, reason) in zip(items, await outcomes(items), strict=True):
        expect = input_fact(Raw(item.topic, 0, 0, item.key, item.value, item.headers)).expect
        got = outcome if ":" not in expect else f"{outcome}:{reason}"
        kinds["repeat" if reason == "duplicate" else expect] += 1
        assert reason == "duplicate" or got == expect
    assert kinds["dead_lettered"] > 20
    assert kinds["repeat"] > 10
    assert len(kinds) == 7, "every kind of input comes up"


def test_a_feed_is_the_same_for_the_same_seed() -> None:
    assert list(Feed(1, 3).items(50)) == list(Feed(1, 3).items(50))
    assert list(Feed(1, 3).items(50)) != list(Feed(2, 3).items(50))


def test_a_schedule_has_every_kind_before_any_comes_twice() -> None:
    plan = schedule(1, 2 * len(KINDS), 100.0)
    half = [one.kind for one in plan[: len(KINDS)]]
    assert sorted(half) == sorted(KINDS)
    assert schedule(1, 5, 10.0) == schedule(1, 5, 10.0)
    assert {one.kind for one in schedule(1, 5, 10.0, ("kill blind",))} == {"kill blind"}
