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

    length = 1000
    reading_rows = range(98, 100)
    kept_rows = range(200, 204)

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.used: list[tuple[str | None, ...]] = []

    def read(
        self, token_ids: tuple[int, ...], start: int, row: int = 0, *, every: bool = False
    ) -> "torch.Tensor":
        self.calls.append(("read", row, len(token_ids), start))
        return self._say(len(token_ids)) if every else self._say(1)[0]

    def decode(self, token_ids: list[int], positions: list[int]) -> "torch.Tensor":
        self.calls.append(("decode", tuple(positions)))
        return self._say(len(token_ids))

    def use(self, adapters: Sequence[str | None]) -> None:
        self.used.append(tuple(adapters))

    def move(self, source: int, target: int, length: int) -> None:
        self.calls.append(("move", source, target, length))

    def wipe(self, row: int, length: int) -> None:
        self.calls.append(("wipe", row, length))

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


def reply(
    tokenizer: HfChatTokenizer, name: str, prompt: int, max_tokens: int = 5, first: int = 3
) -> Reply:
    """``prompt``: how many tokens; ``first``: the id of the first, others share no prefix."""
    ids = [first, *[3] * (prompt - 1)]
    request = GenerationRequest(name, prompt_of(ids), Sampling(max_tokens=max_tokens))
    return Reply(request, tokenizer.stream_decoder(), room=1000, streamed=False)


def begin(batch: "Batch", *replies: Reply) -> None:
    for one in replies:
        batch.add(one)


async def test_a_long_prompt_is_read_in_pieces_between_the_steps_of_others(
    batch: "Batch", slots: RecordingSlots, tiny_chat: HfChatTokenizer
) -> None:
    begin(batch, reply(tiny_chat, "short", 4), reply(tiny_chat, "long", 25, first=5))
    for _ in range(3):
        batch.step()
    assert slots.calls == [
        ("read", 98, 4, 0),
        ("move", 98, 0, 4),
        ("read", 99, 6, 0),
        ("decode", (4,)),
        ("read", 99, 10, 6),
        ("decode", (5,)),
        ("read", 99, 9, 16),
        ("move", 99, 1, 25),
        ("decode", (6, 25)),
    ]


async def test_a_short_prompt_is_read_beside_a_long_one_which_goes_on(
    batch: "Batch", slots: RecordingSlots, tiny_chat: HfChatTokenizer
) -> None:
    begin(batch, reply(tiny_chat, "long", 500))
    batch.step()
    begin(batch, reply(tiny_chat, "short", 12, first=5))
    slots.calls.clear()
    batch.step()
    assert slots.calls == [("read", 98, 2, 10), ("read", 99, 8, 0)]
    batch.step()
    assert slots.calls[2:5] == [("read", 98, 6, 12), ("read", 99, 4, 8), ("move", 99, 0, 12)]


async def test_long_prompts_never_take_all_reading_rows(
    slots: RecordingSlots, tiny_chat: HfChatTokenizer
) -> None:
    """Two long ones are there first; the short one is read in the next step all the same."""
    from model.batch import Batch

    batch = Batch(slots, limit=4, end_ids=frozenset({END}), read_tokens=10)  # type: ignore[arg-type]
    begin(batch, reply(tiny_chat, "long", 40), reply(tiny_chat, "longer", 45, first=4))
    batch.step()
    begin(batch, reply(tiny_chat, "short", 6, first=5))
    slots.calls.clear()
    batch.step()
    assert slots.calls[:2] == [("read", 98, 4, 10), ("read", 99, 6, 0)]
    for _ in range(20):
        batch.step()
    assert not batch, "the other long one had its turn"


async def test_rows_stay_without_gaps_and_newcomers_wait_for_a_free_one(
    batch: "Batch", slots: RecordingSlots, tiny_chat: HfChatTokenizer
) -> None:
    first, second, third = (reply(tiny_chat, str(n), 3, max_tokens=3 + n) for n in range(3))
    begin(batch, first, second, third)
    batch.step()
    assert third.read == 0
    first.wanted_end = True
    slots.calls.clear()
    batch.step()
    assert slots.calls == [
        ("move", 1, 0, 4),  # the second takes the place of the first
        ("read", 98, 3, 0),
        ("move", 98, 1, 3),
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


async def test_what_a_row_holds_is_not_read_again(
    batch: "Batch", slots: RecordingSlots, tiny_chat: HfChatTokenizer
) -> None:
    first, second = (reply(tiny_chat, name, 9 + n, first=n) for n, name in enumerate("ab"))
    second.prompt_ids = (*first.prompt_ids, 7)
    begin(batch, first)
    batch.step()
    begin(batch, second)
    slots.calls.clear()
    batch.step()
    assert slots.calls[:2] == [("move", 0, 98, 9), ("read", 98, 1, 9)]
    assert (second.cached, first.cached) == (9, 0)


async def test_the_turns_of_a_talk_are_kept_with_the_reply_and_read_on(
    batch: "Batch", slots: RecordingSlots, tiny_chat: HfChatTokenizer
) -> None:
    first, second = reply(tiny_chat, "a", 9, max_tokens=3), reply(tiny_chat, "b", 20)
    second.prompt_ids = (*first.prompt_ids, 300, 300, *range(20, 29))
    begin(batch, first)
    while batch:
        batch.step()
    (kept,) = {call[2] for call in slots.calls if call[0] == "move"} & {*slots.kept_rows}
    slots.calls.clear()
    begin(batch, second)
    batch.step()
    assert slots.calls[:2] == [("move", kept, 98, 11), ("read", 98, 9, 11)]


async def test_after_a_failed_step_nothing_is_known_of_the_rows(
    batch: "Batch", slots: RecordingSlots, tiny_chat: HfChatTokenizer
) -> None:
    begin(batch, reply(tiny_chat, "a", 9, max_tokens=2))
    while batch:
        batch.step()
    assert batch.clear() == []
    again = reply(tiny_chat, "b", 9)
    begin(batch, again)
    batch.step()
    assert again.cached == 0


async def test_what_needs_more_room_than_there_is_waits(
    slots: RecordingSlots, tiny_chat: HfChatTokenizer
) -> None:
    from model.batch import Batch

    batch = Batch(slots, limit=9, end_ids=frozenset({END}), read_tokens=99, room=20)  # type: ignore[arg-type]
    first, second = (reply(tiny_chat, name, 6, max_tokens=5) for name in "ab")
    begin(batch, first, second)
    batch.step()
    assert (first.unread, second.unread) == (0, 6)
    while first.unread == 0 and second.unread:
        batch.step()
    assert (await first.next_chunk()).generation is not None


async def test_a_cancel_works_wherever_the_request_is(
    batch: "Batch", tiny_chat: HfChatTokenizer
) -> None:
    decoding, reading, waiting = (
        reply(tiny_chat, name, size) for name, size in (("d", 2), ("r", 50), ("w", 90))
    )
    begin(batch, decoding, reading, waiting)
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


async def test_a_row_that_led_the_model_astray_is_wiped_before_others_use_it(
    batch: "Batch", slots: RecordingSlots, tiny_chat: HfChatTokenizer
) -> None:
    first, second = reply(tiny_chat, "first", 3), reply(tiny_chat, "second", 3)
    begin(batch, first, second)
    batch.step()
    say = slots._say

    def astray(rows: int) -> "torch.Tensor":
        logits = say(rows)
        logits[0] = float("nan")
        return logits

    slots._say = astray  # type: ignore[method-assign]
    slots.calls.clear()
    batch.step()
    assert first.failed
    assert slots.calls == [("decode", (4, 4)), ("wipe", 0, 5), ("move", 1, 0, 5)]
    slots._say = say  # type: ignore[method-assign]
    while batch:
        batch.step()
    assert (await second.next_chunk()).generation is not None


@pytest.mark.parametrize("when", ["leaving", "beginning"])
async def test_whoever_is_there_when_a_move_fails_is_told(
    batch: "Batch", slots: RecordingSlots, tiny_chat: HfChatTokenizer, when: str
) -> None:
    first, second = reply(tiny_chat, "first", 3), reply(tiny_chat, "second", 3)
    begin(batch, first) if when == "beginning" else begin(batch, first, second)
    batch.step()

    def move(source: int, target: int, length: int) -> None:
        raise RuntimeError("no memory")

    slots.move = move  # type: ignore[method-assign]
    if when == "beginning":
        begin(batch, second)
    else:
        first.wanted_end = True
    with pytest.raises(RuntimeError):
        batch.step()
    assert second in batch.clear()
