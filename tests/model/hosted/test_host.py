"""The engine's side, in our process: every message has its answer, whatever order they come in."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from model.echo import EchoEngine
from model.engine import ChatMessage, Generation, GenerationRequest, Part, Sampling
from model.host import Host
from model.hosted.messages import (
    Ask,
    Cancel,
    Done,
    Failed,
    Forget,
    Frames,
    Judge,
    Judged,
    Piece,
    Pulse,
    Ready,
    Start,
    ToEngine,
    frame,
    from_engine,
)
from tests.model.contract import until

PROMPT = EchoEngine().tokenizer.encode_chat([ChatMessage("user", (Part("Hello"),))])
HOUR_MS = 3_600_000


class Wire(asyncio.Transport):
    """Takes the place of the socket; keeps what the host says, pulses apart."""

    def __init__(self) -> None:
        super().__init__()
        self._frames = Frames()
        self.said: list[Any] = []
        self.pulses: list[Pulse] = []

    def write(self, data: Any) -> None:
        for message in self._frames.feed(data, from_engine):
            (self.pulses if isinstance(message, Pulse) else self.said).append(message)


class Talk:
    """A host and its wire."""

    def __init__(self) -> None:
        self.host, self.wire = Host(), Wire()
        self.host.connection_made(self.wire)

    def say(self, *messages: ToEngine) -> None:
        """All in one piece, as they may arrive."""
        self.host.data_received(b"".join(map(frame, messages)))

    async def answers(self, count: int) -> list[Any]:
        await until(lambda: len(self.wire.said) >= count)
        said, self.wire.said = self.wire.said, []
        assert len(said) == count
        return said

    async def started(self, **settings: Any) -> None:
        self.say(Start("echo", settings, 0.01))
        (ready,) = await self.answers(1)
        assert isinstance(ready, Ready)
        assert ready.tokenizer is None


@pytest.fixture
async def talk() -> AsyncIterator[Talk]:
    talk = Talk()
    yield talk
    for task in [*talk.host._tasks.values(), *filter(None, [talk.host._pulse])]:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def ask(number: int, *, streamed: bool = False, **sampling: Any) -> Ask:
    return Ask(number, GenerationRequest(str(number), PROMPT, Sampling(**sampling)), streamed)


async def test_requests_and_scores_are_answered(talk: Talk) -> None:
    await talk.started(slots=3)
    talk.say(ask(1), ask(2, streamed=True))
    one, *pieces, two = await talk.answers(2 + 3)
    assert isinstance(one, Done)
    assert all(isinstance(piece, Piece) for piece in pieces)
    assert "".join(piece.text for piece in pieces) == one.generation.text
    assert two == Done(2, one.generation)
    talk.say(Judge(3, PROMPT, one.generation.token_ids, Sampling()))
    (judged,) = await talk.answers(1)
    assert isinstance(judged, Judged)
    assert judged.score.verdict == "identical"
    await until(lambda: len(talk.wire.pulses) > 1)
    assert talk.wire.pulses[-1].slots == 3


async def test_what_comes_before_the_start_and_a_start_that_fails_are_told(talk: Talk) -> None:
    talk.say(ask(1))
    (failed,) = await talk.answers(1)
    assert (failed.number, failed.code) == (1, "engine-unavailable")
    talk.say(Start("parrot", {}, 1.0))
    (failed,) = await talk.answers(1)
    assert (failed.number, failed.code) == (0, "engine-error")
    talk.say(Start("echo", {"wings": 2}, 1.0))
    (failed,) = await talk.answers(1)
    assert failed == Failed(0, "engine-unavailable", "The engine's process failed: TypeError.")


async def test_cancels_and_leaves_in_the_same_breath_as_their_requests(talk: Talk) -> None:
    await talk.started(latency_ms=HOUR_MS)
    talk.say(ask(1), Cancel(1), Cancel(1), ask(2), Forget(2), Forget(2), Cancel(2), Cancel(99))
    (done,) = await talk.answers(1)
    assert done == Done(1, Generation("", (), (), "cancelled"))
    await until(lambda: not talk.host._tasks)


async def test_cancels_and_leaves_in_the_middle(talk: Talk) -> None:
    await talk.started(latency_ms=HOUR_MS, slots=4)
    talk.say(ask(1), ask(2, streamed=True), ask(3), Judge(4, PROMPT, (1,), Sampling()))
    await talk.answers(1)  # the score, for which nobody waits an hour
    await until(lambda: talk.wire.pulses[-1].running == 3)
    talk.say(Cancel(1), Cancel(1), Cancel(2), Forget(3))
    ends = await talk.answers(2)
    assert {(end.number, end.generation.finish_reason) for end in ends} == {
        (1, "cancelled"),
        (2, "cancelled"),
    }
    await until(lambda: talk.wire.pulses[-1].running == 0)


async def test_a_fault_of_ours_is_told_without_what_people_wrote(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*args: Any) -> None:
        raise ValueError("what Ada wrote")

    await talk.started()
    with monkeypatch.context() as broken:
        broken.setattr(EchoEngine, "generate", fail)
        talk.say(ask(1))
        (failed,) = await talk.answers(1)
    assert failed == Failed(1, "engine-unavailable", "The engine's process failed: ValueError.")
    talk.say(ask(2))
    (done,) = await talk.answers(1)
    assert isinstance(done, Done)
