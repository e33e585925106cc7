"""Which replies wait for a moderator, told on ``bot.held``.

In: ``ReplyHeld`` records, of each decision the last. Out: they are written by a producer of its
own, beside all transactions and in order for each decision, again and again until Kafka has them.
Guaranteed: no handler waits for it; what waits is bounded by the replies that do. Where it can't be
written the replies wait all the same, and are skipped when their time is over.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import structlog

from bot.publishing import Send
from schemas.record import Output

log = structlog.get_logger(__name__)

QUEUE = 10_000  # decisions; then the oldest are not told any more
SEND_S = 10.0  # for one record; then it is sent again
PAUSE_S = 1.0  # before a producer that failed is made anew


class HeldLog:
    """For one worker."""

    def __init__(self, *, pause_s: float = PAUSE_S) -> None:
        self._waiting: OrderedDict[str, Output] = OrderedDict()  # by decision
        self._some = asyncio.Event()
        self._pause_s = pause_s
        self._told = False

    def tell(self, decision_id: str, output: Output) -> None:
        """Have it written; what was to be written of that decision before need not be."""
        self._waiting[decision_id] = output
        if len(self._waiting) > QUEUE:
            self._waiting.popitem(last=False)
        self._some.set()

    async def run(self, opened: Callable[[], AbstractAsyncContextManager[Send]]) -> None:
        """Write what waits, until cancelled. ``opened``: a producer."""
        while True:
            await self._some.wait()
            try:
                async with opened() as send:
                    await self._write(send)
            except Exception as error:
                self._failed(error)
            await asyncio.sleep(self._pause_s)

    async def _write(self, send: Send) -> None:
        while True:
            await self._some.wait()
            while self._waiting:
                decision_id, output = next(iter(self._waiting.items()))
                async with asyncio.timeout(SEND_S):
                    await send(output)
                self._told = False
                if self._waiting.get(decision_id) is output:
                    del self._waiting[decision_id]
            self._some.clear()

    def _failed(self, error: Exception) -> None:
        """Told once until it works again."""
        if not self._told:
            log.warning(
                "replies wait for approval, but moderators can't see them: bot.held cannot be"
                " written. Check that the topic is there and may be written",
                error=type(error).__name__,
            )
        self._told = True
