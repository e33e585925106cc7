"""What the caller does beside each assignment: ``prepare`` before it opens, ``release`` after.

A view of what stands on the partition is the example: it is caught up once the partition is
fenced off from its owner before us, and closed when nothing is published any more. Each
``prepare`` that was begun is followed by one ``release``, also where it failed or was
cancelled, and before it is tried again.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable

import structlog
from aiokafka import TopicPartition

from consumers.errors import told
from consumers.transactions import asked_to_stop

log = structlog.get_logger(__name__)

Hook = Callable[[TopicPartition], Awaitable[None]]

RELEASE_TIMEOUT_S = 5.0


async def nothing(source: TopicPartition) -> None:
    """For callers who keep nothing beside a partition."""


class Hooks:
    """The two hooks of one assignment; ``pause`` waits before another attempt."""

    def __init__(
        self,
        source: TopicPartition,
        prepare: Hook,
        release: Hook,
        pause: Callable[[int], Awaitable[None]],
    ) -> None:
        self._source = source
        self._prepare = prepare
        self._release = release
        self._pause = pause
        self._begun = False
        self._releasing: asyncio.Task[None] | None = None

    async def prepare(self) -> None:
        """Returns when it worked: an error is told and tried again, with back-off."""
        for attempt in itertools.count(1):
            self._begun = True
            try:
                await self._prepare(self._source)
                return
            except BaseException as error:
                if asked_to_stop(error):
                    raise
                self._failed("preparing a partition failed, it stays closed", error, attempt)
            await self.release()
            await self._pause(attempt)

    async def release(self) -> None:
        """Returns when it is over; whoever calls it beside others waits for the same one.

        Never raises, but where the caller is cancelled; then it goes on by itself.
        """
        if self._begun:
            self._begun = False
            self._releasing = asyncio.create_task(self._let_go(), name=f"release {self._source}")
        if self._releasing is not None:
            await asyncio.shield(self._releasing)

    async def _let_go(self) -> None:
        try:
            async with asyncio.timeout(RELEASE_TIMEOUT_S):
                await self._release(self._source)
        except BaseException as error:
            if asked_to_stop(error):
                raise
            self._failed("releasing a partition failed", error, 1)

    def _failed(self, what: str, error: BaseException, attempt: int) -> None:
        log.error(what, partition=str(self._source), error=told(error), attempt=attempt)
