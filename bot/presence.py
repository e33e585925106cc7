"""Typing and partial text of private talks, on ``bot.direct-activity``.

In: an input whose answer begins; out: records that a producer of its own writes outside of any
transaction. Guaranteed: no handler ever waits for it; what waits is bounded, and the oldest goes
first; one talk gets a partial text every ``PER_TALK_S`` seconds at most, all of them together
``PER_SECOND`` records a second (ends apart, of which each answer has one). Losing any of it loses
nothing: the reply is published as if nobody watched.
"""

import asyncio
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import structlog

from bot.live import Watcher
from bot.publishing import Place, Publishing, Send
from bot.values import Asked, Question, post_of
from schemas import names
from schemas.feed import Message
from schemas.record import Output
from schemas.replies import ActivityState, DirectActivity

log = structlog.get_logger(__name__)

PER_TALK_S = 0.5
PER_SECOND = 50.0
QUEUE = 256
SEND_S = 5.0  # for one record; then it is lost
PAUSE_S = 5.0  # before a producer that failed is made anew


class Presence:
    """For one worker. ``texts``: partial text as well, and not typing alone; ``clock``: seconds
    that only go up."""

    def __init__(
        self,
        publishing: Publishing,
        *,
        texts: bool,
        per_talk_s: float = PER_TALK_S,
        per_second: float = PER_SECOND,
        queue: int = QUEUE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.texts, self.per_talk_s, self.clock = texts, per_talk_s, clock
        self._publishing = publishing
        self._per_second = self._tokens = per_second
        self._filled = clock()
        self._size = queue
        self._waiting: deque[tuple[ActivityState, Output]] = deque()
        self._some = asyncio.Event()
        self.sent: Counter[str] = Counter()  # by state
        self.dropped: Counter[str] = Counter()  # by why
        self._told = False

    def watch(self, asked: Asked, decision_id: str) -> Watcher | None:
        """Who watches the answer to ``asked``; nobody where that is no private message."""
        if not isinstance(asked.data, Question) or not isinstance(post_of(asked.data), Message):
            return None
        return _Watching(self, asked, post_of(asked.data).conversation_id, decision_id)

    def tell(self, asked: Asked, activity: DirectActivity) -> bool:
        """Queue a record; returns whether it was taken."""
        if activity.state is not ActivityState.DONE and not self._has_token():
            self.dropped["rate"] += 1
            return False
        place = Place(names.BOT_DIRECT_ACTIVITY, activity.conversation_id, asked.partition)
        cause, number = asked.envelope, str(uuid.uuid4())
        made = self._publishing.output(place, names.DIRECT_ACTIVITY, number, activity, cause)
        if len(self._waiting) >= self._size:
            self._waiting.popleft()
            self.dropped["queue"] += 1
        self._waiting.append((activity.state, made))
        self._some.set()
        return True

    async def run(self, opened: Callable[[], AbstractAsyncContextManager[Send]]) -> None:
        """Write what waits, until cancelled. ``opened``: a producer."""
        while True:
            try:
                async with opened() as send:
                    await self._write(send)
            except Exception as error:
                self._failed(error)
            await asyncio.sleep(PAUSE_S)

    async def _write(self, send: Send) -> None:
        while True:
            await self._some.wait()
            while self._waiting:
                state, output = self._waiting.popleft()
                try:
                    async with asyncio.timeout(SEND_S):
                        await send(output)
                except Exception as error:
                    self._failed(error)
                else:
                    self.sent[state.value] += 1
                    self._told = False
            self._some.clear()

    def _failed(self, error: Exception) -> None:
        """Counted, and told once until it works again."""
        self.dropped["failed"] += 1
        if not self._told:
            log.warning(
                "private talks show no typing: bot.direct-activity cannot be written; replies go"
                " on. Check that the topic is there and may be written",
                error=type(error).__name__,
            )
        self._told = True

    def _has_token(self) -> bool:
        """A bucket that fills with ``per_second`` and holds as much."""
        now = self.clock()
        more = (now - self._filled) * self._per_second
        self._tokens, self._filled = min(self._per_second, self._tokens + more), now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class _Watching:
    """One answer, told to the topic."""

    def __init__(
        self, presence: Presence, asked: Asked, conversation_id: str, decision_id: str
    ) -> None:
        self._presence, self._asked = presence, asked
        self._conversation_id, self._decision_id = conversation_id, decision_id
        self._next = presence.clock()
        self._last = ""
        self._begun = False

    def typing(self) -> None:
        self._begun = True
        self._last = ""
        self._tell(ActivityState.TYPING)

    def wants_text(self) -> bool:
        return self._presence.texts and self._presence.clock() >= self._next

    def partial(self, text: str) -> None:
        if len(text) <= len(self._last) or not self.wants_text():
            return
        self._next = self._presence.clock() + self._presence.per_talk_s
        if self._tell(ActivityState.PARTIAL, text):
            self._last = text

    def done(self) -> None:
        if self._begun:
            self._begun = False
            self._tell(ActivityState.DONE)

    def _tell(self, state: ActivityState, text: str | None = None) -> bool:
        try:
            return self._presence.tell(
                self._asked,
                DirectActivity(
                    conversation_id=self._conversation_id,
                    decision_id=self._decision_id,
                    state=state,
                    text=text,
                ),
            )
        except ValueError as error:  # what cannot be written is not shown
            log.warning("activity_not_told", error=type(error).__name__)
            return False
