"""Quotas and the bot's echo in the handler: retries, and a storage that is away."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import pytest

from bot.echoes import Echoes
from bot.handler import BotHandler
from bot.limits_file import LimitsInForce
from bot.quota_memory import BoundedMemory
from bot.quotas import Claim, Correction, CountedQuotas, NoQuotas, QuotasUnavailable, Taken
from bot.rates import LiveLimits
from consumers.handler import RetryLater
from model.echo import EchoEngine
from model.engine import EngineUnavailable, Generation, GenerationRequest
from schemas import names
from schemas.codes import Outcome
from schemas.record import Output, Record
from tests.bot.make import BOB, NOW, mention, record, setup
from tests.bot.test_handler import decision_of, read, run


class Moody(EchoEngine):
    """Fails so many times first."""

    failures = 0

    async def generate(self, request: GenerationRequest) -> Generation:
        if self.failures:
            self.failures -= 1
            raise EngineUnavailable("not now")
        return await super().generate(request)


@pytest.fixture
async def engine() -> AsyncIterator[Moody]:
    one = Moody()
    await one.start()
    yield one
    await one.stop()


def handler_with(engine: EchoEngine, **limits: str) -> BotHandler:
    in_force = LimitsInForce(LiveLimits.model_validate(limits))
    quotas = CountedQuotas(in_force, BoundedMemory(1000))
    return BotHandler(
        setup(), engine, quotas=quotas, echoes=Echoes(), now=lambda: NOW, counter=lambda: 0.0
    )


def another(text: str = "@twite how are you?", *, number: int, **fields: Any) -> Record:
    """A mention of its own: another post, event and place."""
    told = mention(text, **fields)
    post = told.post.model_copy(update={"uri": f"at://p/{number}"})
    one = told.model_copy(update={"post": post})
    return record(one, offset=number, event_id=f"event-{number}")


async def test_one_too_many_is_a_skip_that_says_which_quota(engine: Moody) -> None:
    handler = handler_with(engine, per_author="1 per hour")
    first, second = [await run(handler, another(number=n)) for n in range(2)]
    assert decision_of(first).outcome is Outcome.REPLIED
    assert [output.topic for output in second] == [names.BOT_AUDIT]
    decision = decision_of(second)
    assert decision.reason == "quota"
    assert (decision.rules[-1].name, decision.rules[-1].detail) == ("quota", "author, 1 per 1 hour")


async def test_a_retry_takes_no_second_share(engine: Moody) -> None:
    handler = handler_with(engine, per_author="1 per hour")
    engine.failures = 3
    job = handler.open(record(mention()))
    for attempt in range(1, 4):
        with pytest.raises(RetryLater):
            await handler.handle(job, attempt=attempt)
    assert decision_of(list(await handler.handle(job, attempt=4))).outcome is Outcome.REPLIED


async def test_a_skip_before_the_quotas_takes_no_share(engine: Moody) -> None:
    handler = handler_with(engine, per_author="1 per hour")
    for n in range(3):
        one = another("not for the bot", number=n)
        assert decision_of(await run(handler, one)).outcome is Outcome.SKIPPED
    last = await run(handler, another(number=4))
    assert decision_of(last).outcome is Outcome.REPLIED


class Away(NoQuotas):
    """The storage is away, and the settings say to wait."""

    async def take(self, claim: Claim | Correction, limits: LiveLimits, now: datetime) -> Taken:
        raise QuotasUnavailable


async def test_a_storage_that_is_waited_for_means_try_again_later(engine: Moody) -> None:
    handler = BotHandler(setup(), engine, quotas=Away(), now=lambda: NOW)
    with pytest.raises(RetryLater, match="QuotasUnavailable"):
        await handler.handle(handler.open(record(mention())), attempt=1)


def text_of(outputs: list[Output]) -> str:
    return str(read(outputs[0]).data.text)


async def test_the_bots_own_words_come_back_as_a_loop(engine: Moody) -> None:
    handler = handler_with(engine)
    words = text_of(await run(handler, record(mention("@twite how far away is the moon?"))))
    back = another(f"@twite {words}", number=8, author=BOB)
    decision = decision_of(await run(handler, back))
    assert (decision.reason, decision.rules[-1].name) == ("loop", "echo")
