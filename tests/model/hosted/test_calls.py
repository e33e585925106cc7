"""Calls go over at once, but for those that may be what kills the process: these go alone."""

import asyncio

import pytest

from model.engine import DeadlineExceeded, EngineUnavailable, Generation, RequestRefused, Score
from model.hosted.calls import Call, Calls
from model.hosted.suspects import REMEMBERED, TIMES, Suspects

GONE = EngineUnavailable("gone")
REPLY = Generation("hi", (1,), (0.0,), "stop")


class Wire:
    """Stands in for the process: notes which calls were sent."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.calls = Calls(lambda data: self.sent.append(data.decode()))
        self.calls.opened()

    def ask(self, name: str, deadline: float | None = None) -> Call:
        call = Call(self.calls.next_number(), name.encode(), name, len(name), deadline)
        self.calls.add(call, name)
        return call

    def die(self) -> None:
        self.calls.died(GONE)

    def answer(self, call: Call) -> None:
        ended = self.calls.end(call.number)
        assert ended is call
        call.done(REPLY)

    def retry(self, *names: str) -> list[Call]:
        """A new process, and the same requests again."""
        self.sent.clear()
        self.calls.opened()
        return [self.ask(name) for name in names]


async def ended(call: Call) -> object:
    try:
        return (await call.next_chunk()).generation
    except EngineUnavailable as error:
        return error


async def test_calls_are_sent_at_once_and_in_their_order() -> None:
    wire = Wire()
    for name in "abc":
        wire.ask(name)
    assert wire.sent == ["a", "b", "c"]
    assert wire.calls.at_work
    assert wire.calls.requests == 3
    with pytest.raises(RequestRefused, match="in flight"):
        wire.ask("a")


async def test_who_was_there_twice_goes_alone_and_hurts_nobody_else() -> None:
    wire = Wire()
    for _ in range(TIMES):
        calls = wire.retry("poison", "good")
        wire.die()
        assert [await ended(call) for call in calls] == [GONE, GONE]
        for call, name in zip(calls, ("poison", "good"), strict=True):
            assert not wire.calls.leave(call, name)
    poison, good, other = wire.retry("poison", "good", "other")
    assert wire.sent == ["poison"]  # alone; the others wait behind it
    wire.die()
    assert await ended(poison) is GONE
    wire.calls.leave(poison, "poison")
    wire.calls.opened()
    assert wire.sent == ["poison", "good"]  # a suspect as well, so also alone
    wire.answer(good)
    assert wire.sent == ["poison", "good", "other"]
    wire.calls.leave(good, "good")
    again = wire.ask("good")  # answered once, it is none any more
    assert wire.sent[-1] == "good"
    wire.answer(other)
    wire.answer(again)


async def test_who_was_in_two_steps_that_failed_goes_alone() -> None:
    wire = Wire()
    for _ in range(TIMES):
        calls = wire.retry("poison", "good")
        for call, name in zip(calls, ("poison", "good"), strict=True):
            assert wire.calls.broke(call.number) is call
            wire.calls.leave(call, name)
    poison, good = wire.retry("poison", "good")
    assert wire.sent == ["poison"]
    wire.calls.broke(poison.number)
    assert wire.sent == ["poison", "good"]
    wire.answer(good)
    assert wire.calls.broke(good.number) is None


async def test_a_suspect_waits_until_the_others_are_through() -> None:
    wire = Wire()
    for _ in range(TIMES):
        (call,) = wire.retry("poison")
        wire.die()
        wire.calls.leave(call, "poison")
    other, _poison = wire.retry("other", "poison")
    assert wire.sent == ["other"]
    assert wire.calls.leave(other, "other")  # its caller went away: the other side is to be told
    assert wire.sent == ["other", "poison"]


async def test_what_was_not_sent_can_be_cancelled_expire_and_be_given_up() -> None:
    wire = Wire()
    wire.die()  # there is no process now
    cancelled, late, left = wire.ask("c"), wire.ask("l", 0.0), wire.ask("x")
    assert wire.sent == []
    assert wire.calls.cancelled("c") is None
    whole = (await cancelled.next_chunk()).generation
    assert whole is not None
    assert whole.finish_reason == "cancelled"
    with pytest.raises(DeadlineExceeded):
        await late.next_chunk()
    wire.calls.give_up(GONE)
    assert await ended(left) is GONE
    assert not wire.calls.leave(left, "x")
    wire.calls.opened()
    assert wire.sent == []


async def test_a_cancel_of_what_was_sent_names_its_number() -> None:
    wire = Wire()
    call = wire.ask("a")
    assert wire.calls.cancelled("a") == call.number
    assert wire.calls.cancelled("nobody") is None
    wire.answer(call)
    assert wire.calls.cancelled("a") is None


async def test_tokens_beyond_the_slots_are_counted() -> None:
    wire = Wire()
    for name in ("a", "bb", "ccc"):
        wire.ask(name)
    assert [wire.calls.tokens_beyond(n) for n in range(4)] == [6, 5, 3, 0]


async def test_times_are_counted_from_our_side() -> None:
    call = Call(1, b"", "k", 3)
    await asyncio.sleep(0)
    call.done(REPLY)
    whole = (await call.next_chunk()).generation
    assert whole is not None
    assert whole.timings.total_s == whole.timings.queued_s == whole.timings.first_token_s > 0
    call.judged(Score((), "identical"))
    assert (await call.score()).verdict == "identical"


def test_memory_of_suspects_is_bounded() -> None:
    suspects = Suspects()
    for _ in range(TIMES):
        suspects.died(range(2 * REMEMBERED))
    known = [key for key in range(2 * REMEMBERED) if key in suspects]
    assert known == list(range(REMEMBERED, 2 * REMEMBERED))  # the latest
    suspects.cleared(known[0])
    assert known[0] not in suspects
