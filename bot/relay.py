"""Commands about replies that another tool wrote on ``bot.moderation`` alone: asked for as reviews.

In: the view of commands, and the views of replies of the partitions that this worker holds. Out:
for each such command about a reply that is known there the ``ReviewAsked`` that has it obeyed, on
``bot.reviews`` in the partition of the reply. Its id follows from that of the command, so however
often it is written, by whichever worker, it is obeyed once: a double is skipped, ``duplicate``.
``twite moderate`` writes command and review at once and names the review, so nothing is done here.
Next: ``bot/review_handler.py``.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime

import structlog

from bot.handler import utc_now
from bot.handlers import Handlers
from bot.known import OpenView
from bot.publishing import Place, Publishing, Send
from bot.views import said
from bot.views.moderation import ModerationView, unasked
from bot.views.replies import RepliesView
from consumers.views.views import ViewLost, Views
from schemas import names
from schemas.control import Moderation
from schemas.ids import follow_up_id
from schemas.record import Output
from schemas.reviews import ReviewAsked

log = structlog.get_logger(__name__)

Relayed = tuple[tuple[str, int], Output]  # a command and the partition of its reply, and the review

REPLY = "reply:"
SEND_S = 10.0  # for one record; then it is written again
PAUSE_S = 1.0  # before a producer that failed is made anew
LOOK_S = 1.0  # until a young command about an unknown reply is looked at again
YOUNG_MS = 600_000  # a view may still be behind the reply that it is about


class Relay:
    """For one worker. ``partitions`` are those that it holds, ``open_views`` gives the views of
    one, by name."""

    def __init__(
        self,
        publishing: Publishing,
        partitions: Callable[[], Iterable[int]],
        open_views: Callable[[int], Mapping[str, OpenView]],
        *,
        pause_s: float = PAUSE_S,
    ) -> None:
        self._publishing = publishing
        self._partitions = partitions
        self._open_views = open_views
        self._pause_s = pause_s
        self._some = asyncio.Event()
        self._sent: set[tuple[str, int]] = set()  # commands, and where they were relayed

    def changed(self) -> None:
        """There are new commands, or new partitions."""
        self._some.set()

    async def run(self, opened: Callable[[], AbstractAsyncContextManager[Send]]) -> None:
        """Relay until cancelled. ``opened``: a producer, made when there is something to say."""
        while True:
            try:
                outputs = await self._wait()
                async with opened() as send:
                    await self._relay(send, outputs)
                continue
            except ViewLost:
                pass  # it comes back
            except Exception as error:
                log.warning("a command about a reply waits", error=type(error).__name__)
            self._some.set()
            await asyncio.sleep(self._pause_s)

    async def _wait(self) -> list[Relayed]:
        """What there is to relay, once there is something."""
        while True:
            self._some.clear()
            outputs, young = self._outputs()
            if outputs:
                return outputs
            try:
                async with asyncio.timeout(LOOK_S if young else None):
                    await self._some.wait()
            except TimeoutError:
                continue

    async def _relay(self, send: Send, outputs: list[Relayed]) -> None:
        for key, output in outputs:
            async with asyncio.timeout(SEND_S):
                await send(output)
            self._sent.add(key)

    def _outputs(self) -> tuple[list[Relayed], bool]:
        """What is to be relayed, and whether there are young commands about unknown replies.
        Raises ``ViewLost`` and ``sqlite3.Error``."""
        found: list[Relayed] = []
        young = False
        for partition in tuple(self._partitions()):
            views = self._open_views(partition)
            if not {ModerationView.name, RepliesView.name} <= views.keys():
                young = True
                continue
            replies = views[RepliesView.name].db
            for command, text, at_ms in unasked(views[ModerationView.name].db):
                if (command.id, partition) in self._sent:
                    continue
                made = self._review(replies, partition, command, text)
                if made is not None:
                    found.append(((command.id, partition), made))
                young = young or at_ms > self._now_ms() - YOUNG_MS
        return found, young

    def _review(
        self, db: sqlite3.Connection, partition: int, command: Moderation, text: str | None
    ) -> Output | None:
        """None where the reply is none of this partition."""
        about = said.part_of(db, command.subject.removeprefix(REPLY))
        if about is None:
            return None
        source, conversation_id, decision_id, private = about
        review = ReviewAsked.commanded(
            command,
            text if command.command == "correct" else None,
            source=source,
            conversation_id=conversation_id,
            decision_id=decision_id,
            private=private,
            at=self._now(),
        )
        event = follow_up_id(command.id, "review", source.uri)
        place = Place(names.BOT_REVIEWS, conversation_id, partition)
        return self._publishing.output(place, names.REVIEW_ASKED, event, review, None)

    def _now(self) -> datetime:
        return self._publishing.now()

    def _now_ms(self) -> int:
        return round(self._now().timestamp() * 1000)


def relay_of(
    bot_id: str, handlers: Handlers, views: Views, look_again: Callable[[], None]
) -> Relay:
    """A relay that hears of commands and partitions at once; ``look_again`` wakes the inputs that
    wait for a moderator."""
    relay = Relay(Publishing(bot_id, utc_now), lambda: handlers.partitions, views.of)

    def commanded() -> None:
        look_again()
        relay.changed()

    views.on_change(ModerationView.name, commanded)
    handlers.on_open = relay.changed
    return relay
