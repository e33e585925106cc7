"""The order in which a batch reads prompts and decodes, seen from the model's side."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pytest

from model.chat import HfChatTokenizer
from model.engine import GenerationRequest, Sampling
from model.reply import Reply
from tests.model.contract import prompt_of

if TYPE_CHECKING:  # the plain run leaves these tests out, and torch takes it seconds to import
    import torch

    from model.batch import Batch

pytestmark = pytest.mark.slow  # loads torch, which takes some seconds

END = 2


class RecordingSlots:
    """Stands in for ``model.slots.Slots``: says token 300 each time and notes what it was asked."""

    reading_row = 99

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.used: list[tuple[str | None, ...]] = []

    def read(
        self, token_ids: tuple[int, ...], start: int, *, every: bool = False
    ) -> "torch.Tensor":
        self.calls.append(("read", len(token_ids), start))
        return self._say(len(token_ids)) if every else self._say(1)[0]

    def decode(self, token_ids: list[int], positions: list[int]) -> "torch.Tensor":
        self.calls.append(("decode", tuple(positions)))
        return self._say(len(token_ids))

    def use(self, adapters: Sequence[str | None]) -> None:
        self.used.append(tuple(adapters))

    def move(self, source: int, target: int, length: int) -> None:
        self.calls.append(("move", source, target, length))

    def _say(self, rows: int) -> "torch.Tensor":
        import torch

        logits = torch.zeros(rows, 400)
        logits[:, 300] = 9.0
        return logits


@pytest.fixture
def slots() -> RecordingSlots:
    return RecordingSlots()


@pytest.fixture
def batch(slots: RecordingSlots) -> "Batch":
    from model.batch import Batch

    return Batch(slots, limit=2, end_ids=frozenset({END}), read_tokens=10)  # type: ignore[arg-type]


def reply(tokenizer: HfChatTokenizer, name: str, prompt: int, max_tokens: int = 5) -> Reply:
    request = GenerationRequest(name, prompt_of([3] * prompt), Sampling(max_tokens=max_tokens))
    return Reply(request, tokenizer.stream_decoder(), room=1000, streamed=False)


async def test_a_long_prompt_is_read_in_pieces_between_the_steps_of_others(
    batch: "Batch", slots: RecordingSlots, tiny_chat: HfChatTokenizer
) -> None:
    batch.waiting.extend([reply(tiny_chat, "short", 4), reply(tiny_chat, "long", 25)])
    for _ in range(3):
        batch.step()
    assert slots.calls == [
        ("read", 4, 0),
        ("move", 99, 0, 4),
        ("read", 6, 0),
        ("decode", (4,)),
        ("read", 10, 6),
        ("decode", (5,)),
        ("read", 9, 16),
        ("move", 99, 1, 25),
        ("decode", (6, 25)),
    ]


async def test_rows_stay_without_gaps_and_newcomers_wait_for_a_free_one(
    batch: "Batch", slots: RecordingSlots, tiny_chat: HfChatTokenizer
) -> None:
    first, second, third = (reply(tiny_chat, str(n), 3, max_tokens=3 + n) for n in range(3))
    batch.waiting.extend([first, second, third])
    batch.step()
    assert list(batch.waiting) == [third]
    first.wanted_end = True
    slots.calls.clear()
    batch.step()
    assert slots.calls == [
        ("move", 1, 0, 4),  # the second takes the place of the first
        ("read", 3, 0),
        ("move", 99, 1, 3),
        ("decode", (4, 3)),
    ]
    assert (await first.next_chunk()).generation is not None
    while batch:
        batch.step()
    ends = [(await r.next_chunk()).generation for r in (second, third)]
    assert [g and (len(g.token_ids), g.finish_reason) for g in ends] == [
        (4, "length"),
        (5, "length"),
    ]


async def test_a_cancel_works_wherever_the_request_is(
    batch: "Batch", tiny_chat: HfChatTokenizer
) -> None:
    decoding, reading, waiting = (
        reply(tiny_chat, name, size) for name, size in (("d", 2), ("r", 50), ("w", 2))
    )
    batch.waiting.extend([decoding, reading, waiting])
    batch.step()
    for one in (decoding, reading, waiting):
        one.wanted_end = True
    batch.step()
    assert not batch
    ends = [(await r.next_chunk()).generation for r in (decoding, reading, waiting)]
    assert [g and (len(g.token_ids), g.finish_reason) for g in ends] == [
        (2, "cancelled"),
        (0, "cancelled"),
        (0, "cancelled"),
    ]
