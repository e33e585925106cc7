"""``bot.relay``: commands that another tool wrote are asked for as reviews, each under one id."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

from bot.publishing import Publishing, Send, source_of
from bot.relay import Relay
from bot.views.moderation import ModerationView
from bot.views.replies import RepliesView
from consumers.views.view import View
from schemas import names
from schemas.audit import DecisionRecorded
from schemas.codes import Outcome
from schemas.control import ModerationCommanded
from schemas.ids import follow_up_id
from schemas.record import Output
from tests.bot.make import BOT, NOW
from tests.bot.views.logs import Log, Opened
from tests.bot.views.test_replies import decision, reply
from tests.wait import wait_until

OPENED: Mapping[str, View] = {"replies": RepliesView(), "moderation": ModerationView()}


def command(word: str, reply_id: str = "reply-1", **fields: Any) -> ModerationCommanded:
    given = {"command": word, "subject": f"reply:{reply_id}", "reason": "rude", "moderator": "mod"}
    return ModerationCommanded(**given | fields)


class Worker:
    """Views of what is on the log, a relay, and what it writes."""

    def __init__(self, log: Log, partitions: tuple[int, ...] = (0,)) -> None:
        self.log, self.partitions = log, partitions
        self.sent: list[Output] = []
        self.failures = 0
        publishing = Publishing(BOT.id, lambda: NOW)
        self.relay = Relay(publishing, lambda: self.partitions, self.views, pause_s=0.0)

    def views(self, partition: int) -> Mapping[str, Opened]:
        """The replies of the log are those of partition 0."""
        logs = self.log if partition == 0 else Log([])
        found = {"replies": logs, "moderation": self.log}
        return {name: Opened(found[name].view(OPENED[name])) for name in found}

    async def send(self, output: Output) -> None:
        if self.failures:
            self.failures -= 1
            raise OSError("away")
        self.sent.append(output)

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[Send]:
        yield self.send

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.relay.run(self.opened))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def answered() -> Log:
    log = Log()
    log.add(decision("d-1"))
    log.add(reply())
    return log


async def test_a_command_of_another_tool_is_asked_for_where_the_reply_is() -> None:
    log = answered()
    log.add(command("correct", text="Sorry."), id="c-1")
    worker = Worker(log, (1, 0))
    worker.failures = 2
    async with worker.running():
        await wait_until(lambda: bool(worker.sent))
        worker.relay.changed()
        log.add(command("retract", "reply-1"), id="c-2")
        worker.relay.changed()
        await wait_until(lambda: len(worker.sent) == 2)
    first, second = (json.loads(one.value or b"") for one in worker.sent)
    assert {(one.topic, one.partition) for one in worker.sent} == {(names.BOT_REVIEWS, 0)}
    assert (first["text"], first["moderation"]["command"]) == ("Sorry.", "correct")
    assert (second["text"], second["moderation"]["id"]) == (None, "c-2")
    ids = [dict(one.headers)["ce_id"] for one in worker.sent]
    uri = first["source"]["uri"]
    assert ids == [follow_up_id(name, "review", uri).encode() for name in ("c-1", "c-2")]
    assert dict(worker.sent[0].headers)["ce_source"] == source_of(BOT.id).encode()


async def test_what_is_asked_for_already_is_left_alone_and_so_is_what_is_unknown() -> None:
    log = answered()
    log.add(command("retract", review_id="r-1"))
    log.add(command("retract", "reply-2"))
    log.add(command("dance", "reply-1x"))
    log.add(command("correct", "reply-1y"))
    worker = Worker(log)
    async with worker.running():
        log.add(command("retract", "reply-1"), id="last")
        worker.relay.changed()
        await wait_until(lambda: bool(worker.sent))
    (only,) = worker.sent
    assert json.loads(only.value or b"")["moderation"]["id"] == "last"


def test_the_views_know_which_reviews_were_decided() -> None:
    log = answered()
    told: DecisionRecorded = decision(
        "d-2", Outcome.RETRACTED, event="r-1", topic=names.BOT_REVIEWS
    )
    log.add(told)
    dead = decision("d-3", Outcome.DEAD_LETTERED, event="r-2", topic=names.BOT_REVIEWS)
    log.add(dead)
    knowledge = log.knowledge()
    assert knowledge.reviewed("/platform", "r-1", "d-9") == "d-2"
    assert knowledge.reviewed("/platform", "r-1", "d-2") is None
    assert knowledge.reviewed("/platform", "r-2", "d-9") is None
    assert knowledge.reviewed("/platform", "event-1", "d-9") is None
