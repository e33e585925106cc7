"""``bot.waiting``: what waits for a moderator now."""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest

from bot.errors import Trouble
from bot.publishing import Place, Publishing
from bot.waiting import digest_to_approve, waiting
from consumers.reader import Progress, Range
from schemas import names
from schemas.held import ReplyHeld
from schemas.record import Record
from tests.bot.make import BOT, NOW

PUBLISHING = Publishing(BOT.id, lambda: NOW)


class Topic:
    """What stands on ``bot.held``."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def add(self, decision_id: str, digest: str, **changed: Any) -> None:
        given: dict[str, Any] = {
            "decision_id": decision_id,
            "conversation_id": "conv-1",
            "source_uri": "post-1",
            "author_id": "acc-1",
            "private": False,
            "texts": ("hello",),
            "text_digest": digest,
            "held_until": NOW + timedelta(hours=1),
        }
        data = ReplyHeld(**given | changed)
        place, offset = Place(names.BOT_HELD, data.conversation_id), len(self.records)
        made = PUBLISHING.output(place, names.REPLY_HELD, f"event-{offset}", data, None)
        stamp = round(NOW.timestamp() * 1000) + offset
        self.records.append(
            Record(names.BOT_HELD, 0, offset, stamp, made.key, made.value, made.headers)
        )

    async def bounds(self, span: Range) -> dict[int, tuple[int, int]]:
        return {0: (0, len(self.records))}

    async def read(
        self, span: Range, progress: Callable[[Progress], None] = lambda _: None
    ) -> AsyncIterator[Record]:
        for record in self.records:
            yield record


async def test_only_what_waits_still_is_there_with_its_last_text() -> None:
    topic = Topic()
    topic.add("d-1", "a1")
    topic.add("d-2", "b1")
    topic.add("d-1", "a2", texts=("hullo",))
    topic.add("d-2", "b1", waiting=False, texts=())
    topic.add("d-3", "c1", held_until=NOW)
    (one,) = await waiting(topic, NOW)
    assert (one.data.texts, one.digests) == (("hullo",), ("a1", "a2"))


async def test_records_that_can_not_be_read_are_passed_over() -> None:
    topic = Topic()
    topic.add("d-1", "a1")
    topic.records.insert(0, Record(names.BOT_HELD, 0, 9, 0, b"k", b"{", ()))
    assert len(await waiting(topic, NOW)) == 1


async def test_an_approval_is_of_the_text_that_was_seen() -> None:
    topic = Topic()
    topic.add("d-1", "a1")
    shown = await waiting(topic, NOW)
    assert digest_to_approve(shown, "d-1", None).data.text_digest == "a1"
    topic.add("d-1", "a2")
    shown = await waiting(topic, NOW)
    assert digest_to_approve(shown, "d-1", "a2").data.text_digest == "a2"
    for named in (None, "a1", ""):
        with pytest.raises(Trouble, match="text"):
            digest_to_approve(shown, "d-1", named)
    with pytest.raises(Trouble, match="no reply of that decision"):
        digest_to_approve(shown, "d-9", None)
