"""Messages survive their way over the wire, whatever pieces it comes in; nonsense is told."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.engine import (
    DeadlineExceeded,
    EngineError,
    EngineUnavailable,
    Generation,
    GenerationRequest,
    ModelNotFound,
    NotSupported,
    Prompt,
    RequestRefused,
    Sampling,
    Score,
    Segment,
    Timings,
)
from model.hosted.messages import (
    MAX_FRAME,
    Ask,
    BrokenFrame,
    Cancel,
    Done,
    Failed,
    Frames,
    FromEngine,
    Judged,
    Logged,
    Piece,
    Pulse,
    Start,
    ToEngine,
    error_of,
    frame,
    from_engine,
    plain,
    to_engine,
)

REQUEST = GenerationRequest(
    "1",
    Prompt((1, 2, 3), (Segment(0, 3, "untrusted"),)),
    Sampling(temperature=0.7, stop=("a", "é😀"), seed=2**53 - 1),
    priority=-3,
    deadline=math.inf,
    adapter="kind",
    cache_key="talk",
)
SPENT = Timings(queued_s=0.1, first_token_s=0.2, total_s=0.3, prompt_tokens=3, cached_tokens=1)
FROM: list[FromEngine] = [
    Piece(7, "Grüße 😀"),
    Done(7, Generation("hi", (5, 6), (-0.1234567890123456789, -math.inf), "stop", SPENT)),
    Judged(8, Score((-1.5,), "diverged", 0, math.inf)),
    Failed(0, "model-not-found", "It is nowhere."),
    Logged("error", "event", {"a": 1, "b": "x", "c": 0.5, "d": True, "e": None}),
    Pulse(8, 3, 2, 0.5, None, 0.25),
]
TO: list[ToEngine] = [
    Start("echo", {"slots": 3, "name": None}, 0.5),
    Ask(1, REQUEST, True),
    Cancel(1),
]


def read(data: bytes, decoder: Any, sizes: list[int]) -> list[Any]:
    """Feed the bytes in pieces of these sizes, over and over."""
    frames, at = Frames(), 0
    got: list[Any] = []
    while at < len(data):
        size = sizes[len(got) % len(sizes)]
        got += frames.feed(data[at : at + size], decoder)
        at += size
    return got


@given(st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_messages_arrive_whole_whatever_the_pieces(sizes: list[int]) -> None:
    assert read(b"".join(map(frame, FROM)), from_engine, sizes) == FROM
    assert read(b"".join(map(frame, TO)), to_engine, sizes) == TO


def test_what_a_reply_cost_arrives_as_well() -> None:
    (done,) = Frames().feed(frame(FROM[1]), from_engine)
    assert done.generation.timings == SPENT


@pytest.mark.parametrize(
    "data",
    [
        frame(TO[2]),  # the other direction's
        b"\x00\x00\x00\x01\xc1",  # a byte that MessagePack never uses
        frame(Piece(7, "x")).replace(b"\xa1x", b"\xa1\xff"),  # text that is no UTF-8
        (MAX_FRAME + 1).to_bytes(4, "big"),
        b"Traceback (most recent call last)",
    ],
)
def test_nonsense_is_told(data: bytes) -> None:
    with pytest.raises(BrokenFrame):
        list(Frames().feed(data, from_engine))


@pytest.mark.parametrize(
    "sampling", [Sampling(seed=2**64), Sampling(top_k=2**70), Sampling(stop=("\ud800",))]
)
def test_what_cannot_be_written_raises_value_error(sampling: Sampling) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the kind is all that is promised
        frame(Ask(1, GenerationRequest("1", REQUEST.prompt, sampling), False))


def test_errors_come_back_as_what_they_were() -> None:
    for kind in (
        DeadlineExceeded, EngineUnavailable, ModelNotFound, NotSupported, RequestRefused
    ):  # fmt: skip
        error = error_of(kind.code, "what to do")
        assert type(error) is kind
        assert str(error) == "what to do"
    assert type(error_of("of another version", "x")) is EngineError


def test_a_log_field_that_cannot_travel_gives_its_kind_only() -> None:
    assert [plain(value) for value in (1, "x", None, True, ["what Ada wrote"])] == [
        1, "x", None, True, "list"
    ]  # fmt: skip
