"""Stopping a client of Kafka, which can hang for ever where its broker is gone.

In: the coroutine of a stop or close. Out: nothing, after a few seconds at the latest. Used by
everything that opens a client, readers that never write among them.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from consumers.errors import told

log = structlog.get_logger(__name__)

_STOP_TIMEOUT_S = 5.0


async def bounded(closing: Coroutine[Any, Any, object]) -> None:
    """Await a stop that may hang or fail; never longer than a few seconds."""
    task = asyncio.ensure_future(closing)
    done, _ = await asyncio.wait([task], timeout=_STOP_TIMEOUT_S)
    if not done:
        task.cancel()
    elif not task.cancelled() and (error := task.exception()) is not None:
        log.debug("stop failed", error=told(error))
