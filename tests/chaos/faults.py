"""Faults inside a worker's process, put in by patching public methods; production knows nothing.

``install`` once at the start; ``arm`` at any time. Every named step of the way of a record
calls ``passing``, which dies, stops or misbehaves when the armed count is reached.
"""

import asyncio
import os
import signal
import time
from collections.abc import Sequence
from functools import wraps
from typing import Any, cast

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from bot.handler import BotHandler
from bot.posts import PostsHandler
from bot.references import ReferencesHandler
from bot.review_handler import ReviewsHandler
from consumers.group import Group
from consumers.handler import Job
from consumers.transactions import TransactionalPublisher
from consumers.views.store import Store
from consumers.views.views import Views
from consumers.worker import Worker
from schemas.record import Output
from tests.chaos.facts import AUDITS

# The way of a record through a worker, in order, then what happens around it.
RECORD_STEPS = (
    "after-getmany",
    "after-open",
    "in-handler",
    "before-begin",
    "after-begin",
    "after-first-send",
    "after-all-sends",
    "after-offsets",
    "before-commit",
    "in-commit",
    "after-commit",
)
# From a deletion to its retraction; and while a view is being written.
CHANGE_STEPS = ("in-change", "in-join", "in-review", "after-review", "in-view-write")
TAKEOVER_STEPS = (
    "before-views",
    "after-views",
    "after-producer-start",
    "after-read-back",
    "after-seek",
)
REVOCATION_STEPS = ("in-revocation", "after-revocation")
STOP_STEPS = ("in-stop", "after-stop")
STEPS = (*RECORD_STEPS, *CHANGE_STEPS, *TAKEOVER_STEPS, *REVOCATION_STEPS, *STOP_STEPS)
MISCHIEF = ("hang", "raise", "garbage", "block")

IN_HANDLER_S = 0.02  # the worker dies in the middle of an answer, not at its start
IN_COMMIT_S = 0.002  # the request is out, its answer is not back
BLOCK_S = 7.0  # longer than a session

_armed: dict[str, tuple[str, int]] = {}  # place: action and count


def arm(line: str) -> None:
    """``kill STEP N``, ``freeze STEP N``, ``hang N`` …, ``disarm``."""
    words = line.split()
    if words == ["disarm"]:
        _armed.clear()
    elif words and words[0] in ("kill", "freeze") and words[1] in STEPS:
        _armed[words[1]] = (words[0], int(words[2]))
    elif words and words[0] in MISCHIEF:
        _armed["handler"] = (words[0], int(words[1]))
    elif words:
        raise ValueError(f"no such fault: {line!r}")


def passing(step: str) -> None:
    """Here a worker dies or stops, if that is armed and its time has come."""
    action = _due(step)
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "freeze":
        os.kill(os.getpid(), signal.SIGSTOP)


def _due(place: str) -> str | None:
    if place not in _armed:
        return None
    action, count = _armed[place]
    if count > 1:
        _armed[place] = (action, count - 1)
        return None
    del _armed[place]
    os.write(1, f"fired {action} {place}\n".encode())
    return action


def install() -> None:
    """Patch this process."""
    _after(AIOKafkaConsumer, "getmany", "after-getmany", only_if=bool)
    _after_open()
    _handler()
    _deciding()
    _around(AIOKafkaProducer, "begin_transaction", "before-begin", "after-begin", if_deciding)
    _sends()
    _around(AIOKafkaProducer, "send_offsets_to_transaction", "", "after-offsets", if_deciding)
    _commit()
    _after(TransactionalPublisher, "start", "after-producer-start")
    _after(Group, "committed", "after-read-back")
    _after(Group, "seek", "after-seek")
    _after(PostsHandler, "handle", "in-change", only_if=bool)
    _after(ReferencesHandler, "handle", "in-join", only_if=bool)
    _around(ReviewsHandler, "handle", "in-review", "after-review")
    _view_write()
    _around(Views, "open", "before-views", "after-views")
    _around(Worker, "on_partitions_revoked", "in-revocation", "after-revocation", if_busy)
    _around(Group, "close", "in-stop", "after-stop")


def if_busy(arguments: Sequence[Any]) -> bool:
    """A revocation of something."""
    return bool(arguments[1])


def if_deciding(arguments: Sequence[Any]) -> bool:
    """A transaction with decisions: to double one of a silent topic would change nothing."""
    return bool(getattr(arguments[0], "chaos_decides", True))


def _deciding() -> None:
    original = TransactionalPublisher._transact

    async def patched(
        self: Any, producer: Any, outputs: Sequence[Output], offset: int, metadata: str
    ) -> None:
        producer.chaos_decides = any(output.topic in AUDITS for output in outputs)
        await original(self, producer, outputs, offset, metadata)

    TransactionalPublisher._transact = patched  # type: ignore[method-assign]


def _around(owner: type, name: str, before: str, after: str, only_if: Any = None) -> None:
    original = getattr(owner, name)

    @wraps(original)
    async def patched(*args: Any, **kwargs: Any) -> Any:
        counts = only_if is None or only_if(args)
        if counts:
            passing(before)
        result = await original(*args, **kwargs)
        if counts:
            passing(after)
        return result

    setattr(owner, name, patched)


def _after(owner: type, name: str, step: str, only_if: Any = None) -> None:
    original = getattr(owner, name)

    @wraps(original)
    async def patched(*args: Any, **kwargs: Any) -> Any:
        result = await original(*args, **kwargs)
        if only_if is None or only_if(result):
            passing(step)
        return result

    setattr(owner, name, patched)


def _after_open() -> None:
    original = BotHandler.open

    def patched(self: BotHandler, record: Any) -> Job:
        job = original(self, record)
        passing("after-open")
        return job

    BotHandler.open = patched  # type: ignore[method-assign]


def _view_write() -> None:
    """In the thread of the views: rows are written, their transaction is not through."""
    original = Store._apply

    def patched(self: Store, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        if self.view.name in _TORN:
            passing("in-view-write")
        return result

    Store._apply = patched  # type: ignore[method-assign]


_TORN = ("replies", "references")  # views that decide what is taken back, and how often


def _sends() -> None:
    """When the broker has acknowledged the first, and when all records of a transaction."""
    begin = AIOKafkaProducer.begin_transaction

    async def begun(self: Any) -> None:
        await begin(self)
        self.chaos_first, self.chaos_waiting = True, 0

    def acknowledged(producer: Any) -> None:
        if getattr(producer, "chaos_first", False):
            producer.chaos_first = False
            passing("after-first-send")
        producer.chaos_waiting -= 1
        if not producer.chaos_waiting:
            passing("after-all-sends")

    def counted(original: Any) -> Any:
        @wraps(original)
        async def sent(self: Any, *args: Any, **kwargs: Any) -> Any:
            future = await original(self, *args, **kwargs)
            self.chaos_waiting = getattr(self, "chaos_waiting", 0) + 1
            future.add_done_callback(lambda _: acknowledged(self))
            return future

        return sent

    AIOKafkaProducer.begin_transaction = begun
    AIOKafkaProducer.send = counted(AIOKafkaProducer.send)
    AIOKafkaProducer.send_batch = counted(AIOKafkaProducer.send_batch)


def _commit() -> None:
    original = AIOKafkaProducer.commit_transaction

    async def patched(self: Any) -> None:
        if not if_deciding((self,)):
            await original(self)
            return
        passing("before-commit")
        asyncio.get_running_loop().call_later(IN_COMMIT_S, passing, "in-commit")
        await original(self)
        passing("after-commit")

    AIOKafkaProducer.commit_transaction = patched


# A handler that misbehaves with one record for as long as this process lives.

_spoiled: dict[tuple[str, int, int], str] = {}


def _handler() -> None:
    original = BotHandler.handle

    async def patched(self: BotHandler, job: Job, *, attempt: int) -> Sequence[Output]:
        place = (job.record.topic, job.record.partition, job.record.offset)
        if action := _due("handler"):
            _spoiled[place] = action
        asyncio.get_running_loop().call_later(IN_HANDLER_S, passing, "in-handler")
        mischief = _spoiled.get(place)
        if mischief == "hang":
            await asyncio.Event().wait()
        if mischief == "raise":
            raise ZeroDivisionError("chaos")
        if mischief == "garbage":
            return cast("Sequence[Output]", _GARBAGE[job.record.offset % len(_GARBAGE)])
        if mischief == "block":
            del _spoiled[place]
            time.sleep(BLOCK_S)  # noqa: ASYNC251 - that is the fault
        return await original(self, job, attempt=attempt)

    BotHandler.handle = patched  # type: ignore[method-assign]


_GARBAGE: tuple[Any, ...] = (
    None,
    [1, 2, 3],
    "text",
    [Output(topic="bot.audit", key=None, value="text")],  # type: ignore[arg-type]
    [Output(topic="bot.nowhere", key=b"k", value=b"v")],
)
