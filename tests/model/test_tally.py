"""What becomes of requests is counted once each, however they end."""

import asyncio
from collections.abc import Iterator

import pytest

from model.engine import DeadlineExceeded, Generation, RequestRefused, Timings
from model.tally import Tally

REPLY = Generation("hi", (1, 2), (0.0, 0.0), "stop")


def test_each_end_is_counted_once() -> None:
    tally = Tally()
    with tally.request() as finish:
        finish(REPLY)
    for error in (RequestRefused("no"), DeadlineExceeded("late"), asyncio.CancelledError()):
        with pytest.raises(type(error)), tally.request():
            raise error
    _leave_after_the_last_piece(tally)
    assert tally.now(state="up").requests == {
        "stop": 2, "request-refused": 1, "deadline": 1, "abandoned": 1
    }  # fmt: skip


def _leave_after_the_last_piece(tally: Tally) -> None:
    def stream() -> Iterator[None]:
        with tally.request() as finish:
            finish(REPLY)
            yield

    pieces = stream()
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]


def test_the_time_per_token_is_that_of_those_after_the_first() -> None:
    tally = Tally()
    spent = Timings(queued_s=0.5, first_token_s=1.0, total_s=3.0)
    tally.ended(Generation("", tuple(range(5)), (0.0,) * 5, "length", spent))
    tally.ended(Generation("", (1,), (0.0,), "length", spent))
    tally.ended(Generation("", (), (), "cancelled", Timings(total_s=0.1)))
    now = tally.now(state="up")
    assert (sum(now.per_token_s.counts), now.per_token_s.total) == (1, 0.5)
    assert (sum(now.first_token_s.counts), now.first_token_s.total) == (2, 2.0)
    assert sum(now.total_s.counts) == 3
    assert now.total_s.total == pytest.approx(6.1)
