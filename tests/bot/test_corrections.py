"""How often the model is asked for corrections, and what never waits."""

import itertools
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from bot import policy
from bot.corrections import LONGEST_S, SHORTEST_S, author_of, decide, is_limited
from bot.knowledge import Stored
from bot.limits_file import LimitsInForce
from bot.memory import NoKnowledge
from bot.quota_memory import BoundedMemory
from bot.quotas import Correction, CountedQuotas, Quotas
from bot.rates import LiveLimits
from bot.values import Asked
from consumers.handler import NotYet
from schemas.codes import SkipReason
from schemas.feed import Visibility
from schemas.reviews import PostChanged
from tests.bot.make import ALICE, BOB, NOW, asked, mention, message, post, setup
from tests.bot.test_reviews import part, standing

SETTINGS = policy.Settings.of(setup().bot, setup().limits)
_numbers = itertools.count()


def edited(**fields: Any) -> PostChanged:
    new = post("at://p/quoted", "new", author=BOB, **fields)
    return PostChanged(uri=new.uri, revision="r2", version=2, post=new, at=NOW)


@pytest.mark.parametrize(
    ("change", "limited"),
    [
        (edited(), True),
        (edited(visibility="unlisted"), False),
        (edited(visibility="followers"), False),
        (edited(visibility="nobody knows"), False),
        (PostChanged(uri="at://p/quoted", deleted=True, at=NOW), False),
        (PostChanged(uri="at://p/quoted", version=2, at=NOW), True),
    ],
)
def test_only_what_has_no_words_to_take_back_is_limited(change: PostChanged, limited: bool) -> None:
    assert is_limited(change, standing(), NoKnowledge()) is limited


class Large(NoKnowledge):
    """Knows the newest of one post."""

    def __init__(self, newest: Stored) -> None:
        super().__init__()
        self._newest = newest

    def latest(self, uri: str) -> Stored | None:
        return self._newest


@pytest.mark.parametrize(
    ("visibility", "limited"), [("public", True), ("unlisted", False), ("followers", False)]
)
def test_who_may_see_a_post_that_does_not_travel_with_its_edit_is_looked_up(
    visibility: str, limited: bool
) -> None:
    change = PostChanged(uri="at://p/quoted", version=2, at=NOW)
    new = post("at://p/quoted", "new", author=BOB, visibility=visibility)
    assert is_limited(change, standing(), Large(Stored(new, "r2", False))) is limited
    assert not is_limited(change, standing(), Large(Stored(None, None, True)))


def test_a_private_reply_is_as_narrow_as_the_message_it_answers() -> None:
    reply = standing(part(visibility=Visibility.DIRECT), private=True)
    change = PostChanged(uri="at://m/1", version=2, message=message(), at=NOW)
    assert is_limited(change, reply, NoKnowledge())
    assert author_of(change) == ALICE.id


def test_an_edit_whose_author_is_not_told_counts_for_its_post() -> None:
    assert author_of(edited()) == BOB.id
    assert author_of(PostChanged(uri="at://p/quoted", version=2, at=NOW)) == "at://p/quoted"


def quotas(**limits: Any) -> tuple[CountedQuotas, Callable[[float], None]]:
    """And how to let time pass, in seconds."""
    now = [0.0]

    def passed(seconds: float) -> None:
        now[0] += seconds

    in_force = LimitsInForce(LiveLimits(**limits), counter=lambda: 0.0)
    return CountedQuotas(in_force, BoundedMemory(1000, lambda: now[0])), passed


def correction(reply: str = "at://p/asking", author: str = BOB.id) -> Correction:
    return Correction(decision_id=f"d{next(_numbers)}", reply=reply, author=author, since=NOW)


async def verdict(
    counted: Quotas | None,
    claim: Correction | None,
    *,
    one: Asked | None = None,
    now: datetime = NOW,
) -> policy.Verdict:
    question = one or asked(mention())
    return await decide(question, SETTINGS, NoKnowledge(), counted, claim, lambda: now)


async def is_asked(counted: Quotas, claim: Correction) -> bool:
    try:
        found, rules = await verdict(counted, claim)
    except NotYet:
        return False
    assert isinstance(found, policy.Answer)
    assert rules[-1].name == "corrections"
    return True


async def test_a_reply_is_corrected_so_often_and_then_again_when_it_was_quiet() -> None:
    counted, passed = quotas(corrections_per_reply="2 per minute")
    assert [await is_asked(counted, correction()) for _ in range(3)] == [True, True, False]
    assert await is_asked(counted, correction("at://p/another"))
    passed(121)
    assert await is_asked(counted, correction())


async def test_one_author_has_so_many_replies_corrected() -> None:
    counted, _ = quotas(corrections_per_author="2 per minute")
    found = [await is_asked(counted, correction(f"at://p/{n}")) for n in range(3)]
    assert found == [True, True, False]
    assert await is_asked(counted, correction("at://p/9", ALICE.id))


async def test_a_review_that_is_tried_again_counts_once() -> None:
    counted, _ = quotas(corrections_per_reply="1 per minute")
    claim = correction()
    assert [await is_asked(counted, claim) for _ in range(3)] == [True] * 3


async def test_what_waited_long_enough_is_skipped_and_says_for_which_limit() -> None:
    counted, _ = quotas(corrections_per_reply="0 per minute", correction_wait_minutes=5)
    claim = correction()
    with pytest.raises(NotYet):
        await verdict(counted, claim, now=NOW + timedelta(minutes=4))
    found, rules = await verdict(counted, claim, now=NOW + timedelta(minutes=5))
    assert found == policy.Skip(SkipReason.QUOTA, "corrections-of-reply, 0 per 1 minute")
    assert rules[-1].detail == "corrections-of-reply, 0 per 1 minute"


@pytest.mark.parametrize(
    ("rate", "waited_s", "seconds"),
    [
        ("0 per second", 0, SHORTEST_S),
        ("0 per minute", 0, 6.0),
        ("0 per minute", 60, 15.0),
        ("0 per minute", 600, LONGEST_S),
        ("0 per day", 0, LONGEST_S),
    ],
)
async def test_it_is_looked_at_again_in_a_tenth_of_the_time_of_the_limit_and_ever_less_often(
    rate: str, waited_s: float, seconds: float
) -> None:
    counted, _ = quotas(corrections_per_author=rate)
    with pytest.raises(NotYet) as caught:
        await verdict(counted, correction(), now=NOW + timedelta(seconds=waited_s))
    assert caught.value.seconds == seconds


async def test_nothing_is_counted_for_what_may_not_wait_or_where_limits_are_off() -> None:
    nothing, _ = quotas(corrections_per_reply="0 per minute")
    assert isinstance((await verdict(nothing, None))[0], policy.Answer)
    assert isinstance((await verdict(None, correction()))[0], policy.Answer)
    off, _ = quotas(enabled=False, corrections_per_reply="0 per minute")
    assert isinstance((await verdict(off, correction()))[0], policy.Answer)


async def test_whoever_must_not_be_answered_any_more_does_not_wait_for_that() -> None:
    nothing, _ = quotas(corrections_per_reply="0 per minute")
    elsewhere = asked(mention("no more"))
    found, _ = await verdict(nothing, correction(), one=elsewhere)
    assert isinstance(found, policy.Skip)
    assert found.reason is SkipReason.NOT_ADDRESSED


async def test_whoever_waits_is_told_when_there_is_a_share_and_keeps_it() -> None:
    counted, passed = quotas(corrections_per_reply="1 per minute", correction_wait_minutes=5)
    assert await is_asked(counted, correction())
    claim, now = correction(), [NOW]
    with pytest.raises(NotYet) as caught:
        await decide(asked(mention()), SETTINGS, NoKnowledge(), counted, claim, lambda: now[0])
    assert caught.value.look is not None
    assert await caught.value.look() == caught.value.seconds
    passed(121)
    assert await caught.value.look() == 0
    assert not await is_asked(counted, correction()), "its share is taken"
    assert await is_asked(counted, claim)


async def test_whoever_waited_long_enough_waits_no_more() -> None:
    counted, _ = quotas(corrections_per_reply="0 per minute", correction_wait_minutes=5)
    claim, now = correction(), [NOW]
    with pytest.raises(NotYet) as caught:
        await decide(asked(mention()), SETTINGS, NoKnowledge(), counted, claim, lambda: now[0])
    now[0] += timedelta(minutes=5)
    assert caught.value.look is not None
    assert await caught.value.look() == 0
