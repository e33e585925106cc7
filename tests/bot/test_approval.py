"""``bot.approval``: a reply waits for a moderator, and ends in exactly one outcome."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from bot import approval as module
from bot.handler import BotHandler
from bot.held import HeldLog
from bot.knowledge import Standing, Stored
from bot.memory import NoKnowledge
from bot.presence import Presence
from bot.publishing import Publishing
from consumers.handler import NotYet
from model.echo import EchoEngine
from schemas import names
from schemas.codes import Outcome, SkipReason
from schemas.control import Moderation
from schemas.record import Output, Record
from tests.bot.make import BOT, NOW, direct, mention, record, setup
from tests.bot.test_handler import decision_of
from tests.wait import wait_until


class Commanded(NoKnowledge):
    """Knows what moderators command."""

    def __init__(self) -> None:
        super().__init__()
        self.commands: dict[str, Standing] = {}
        self.gone: set[str] = set()
        self.read = 0

    def say(self, word: str, subject: str, digest: str | None = None) -> None:
        told = Moderation(
            id=f"command-{self.read}", command=word, subject=subject, moderator="anna", reason="why"
        )
        self.commands[subject] = Standing(told, round(NOW.timestamp() * 1000), digest)
        self.read += 1

    def positions(self) -> dict[str, int]:
        return {"moderation/bot.moderation/0": self.read}

    def has_approvals(self) -> bool:
        return bool(self.commands)

    def standing(self, subjects: tuple[str, ...]) -> tuple[Standing, ...]:
        return tuple(self.commands[one] for one in subjects if one in self.commands)

    def cancelled_ms(self, conversation_id: str, account_id: str) -> int | None:
        found = self.commands.get(f"cancel:conversation:{conversation_id}")
        return found.at_ms if found else None

    def is_deleted(self, uri: str, kind: str) -> bool:
        return uri in self.gone

    def changed(self, post: Any) -> Stored | None:
        return None


class Bench:
    """One handler, its clock, and what moderators see of it."""

    def __init__(self, engine: EchoEngine) -> None:
        self.knowledge, self.held = Commanded(), HeldLog()
        self.now = NOW
        self.engine = engine
        self.handler = self.begun()

    def begun(self, **more: Any) -> BotHandler:
        return BotHandler(
            setup(),
            self.engine,
            self.knowledge,
            held=self.held,
            now=lambda: self.now,
            counter=lambda: 0.0,
            **more,
        )

    def shown(self) -> list[dict[str, Any]]:
        return [json.loads(one.value or b"") for one in self.held._waiting.values()]

    async def handle(self, one: Record) -> list[Output]:
        return list(await self.handler.handle(self.handler.open(one), attempt=1))

    async def waits(self, one: Record) -> tuple[dict[str, Any], NotYet]:
        """What is shown of a reply that is to wait."""
        with pytest.raises(NotYet) as waiting:
            await self.handle(one)
        (shown,) = self.shown()
        return shown, waiting.value


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    engine = EchoEngine()
    await engine.start()
    yield Bench(engine)
    await engine.stop()


def replies(outputs: list[Output]) -> list[str]:
    said = [o for o in outputs if o.topic in (names.BOT_REPLIES, names.BOT_DIRECT_REPLIES)]
    return [json.loads(one.value or b"")["text"] for one in said]


async def look(waiting: NotYet) -> float:
    assert waiting.look is not None
    return await waiting.look()


async def test_what_is_approved_is_published_as_it_was_shown(bench: Bench) -> None:
    one = record(mention())
    bench.knowledge.say("approve-first", "approval:mentions")
    shown, waiting = await bench.waits(one)
    assert (shown["waiting"], shown["private"]) == (True, False)
    assert await look(waiting) > 0
    bench.knowledge.say("approve", f"held:{shown['decision_id']}", shown["text_digest"])
    assert await look(waiting) == 0
    bench.now += timedelta(minutes=5)
    outputs = await bench.handle(one)
    told = decision_of(outputs)
    assert replies(outputs) == shown["texts"]
    assert (told.outcome, told.decision_id) == (Outcome.REPLIED, shown["decision_id"])
    assert told.moderation is not None
    assert (told.moderation.command, told.moderation.moderator) == ("approve", "anna")
    assert told.timings_ms["approval"] == 300_000
    (ended,) = bench.shown()
    assert (ended["waiting"], ended["texts"]) == (False, [])


@pytest.mark.parametrize(
    ("subject", "waits"),
    [
        ("approval:everything", True),
        ("approval:direct-messages", False),
        ("approval:conversation:conv-1", True),
        ("approval:account:alice", True),
        ("approval:account:bob", False),
    ],
)
async def test_only_replies_there_wait(bench: Bench, subject: str, waits: bool) -> None:
    one = mention()
    subject = subject.replace("conv-1", one.post.conversation_id)
    subject = subject.replace("alice", one.post.author.id)
    bench.knowledge.say("approve-first", subject)
    if waits:
        await bench.waits(record(one))
    else:
        assert decision_of(await bench.handle(record(one))).outcome is Outcome.REPLIED


async def test_a_rejected_reply_is_skipped_and_says_by_whom(bench: Bench) -> None:
    one = record(mention())
    bench.knowledge.say("approve-first", "approval:everything")
    shown, waiting = await bench.waits(one)
    bench.knowledge.say("reject", f"held:{shown['decision_id']}")
    assert await look(waiting) == 0
    outputs = await bench.handle(one)
    told = decision_of(outputs)
    assert (replies(outputs), told.reason) == ([], SkipReason.REJECTED)
    assert told.moderation is not None
    assert told.moderation.command == "reject"
    assert told.rules[-1].name == "approval"


async def test_what_nobody_approves_in_time_is_skipped(bench: Bench) -> None:
    one = record(mention())
    bench.knowledge.say("approve-first", "approval:everything")
    _, waiting = await bench.waits(one)
    bench.now += timedelta(hours=23.9)
    assert await look(waiting) > 0
    bench.now += timedelta(hours=0.2)
    assert await look(waiting) == 0
    told = decision_of(await bench.handle(one))
    assert told.reason == SkipReason.NOT_APPROVED
    assert told.moderation is not None
    assert told.moderation.command == "approve-first"


async def test_where_nobody_is_asked_any_more_it_is_published(bench: Bench) -> None:
    one = record(mention())
    bench.knowledge.say("approve-first", "approval:everything")
    shown, waiting = await bench.waits(one)
    bench.knowledge.say("publish-directly", "approval:everything")
    assert await look(waiting) == 0
    assert replies(await bench.handle(one)) == shown["texts"]


@pytest.mark.parametrize("kept", [0, 1])
async def test_another_text_than_was_approved_is_held_anew(
    bench: Bench, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is kept, or made again."""
    monkeypatch.setattr(module, "KEPT", kept)
    one = record(mention())
    bench.knowledge.say("approve-first", "approval:everything")
    shown, waiting = await bench.waits(one)
    bench.knowledge.say("approve", f"held:{shown['decision_id']}", "of another text")
    assert await look(waiting) > 0
    assert (await bench.waits(one))[0] == shown
    bench.knowledge.say("approve", f"held:{shown['decision_id']}", shown["text_digest"])
    assert replies(await bench.handle(one)) == shown["texts"]


async def test_another_worker_goes_by_what_was_approved(bench: Bench) -> None:
    one = record(mention())
    bench.knowledge.say("approve-first", "approval:everything")
    shown, _ = await bench.waits(one)
    bench.handler = bench.begun()
    again, _ = await bench.waits(one)
    assert again["text_digest"] == shown["text_digest"]
    bench.knowledge.say("approve", f"held:{shown['decision_id']}", shown["text_digest"])
    bench.handler = bench.begun()
    assert replies(await bench.handle(one)) == shown["texts"]


async def test_what_must_not_be_said_any_more_is_not_held_on(bench: Bench) -> None:
    asking = mention()
    bench.knowledge.say("approve-first", "approval:everything")
    shown, waiting = await bench.waits(record(asking))
    bench.knowledge.say("approve", f"held:{shown['decision_id']}", shown["text_digest"])
    bench.knowledge.gone.add(asking.post.uri)
    assert await look(waiting) == 0
    told = decision_of(await bench.handle(record(asking)))
    assert told.reason == SkipReason.DELETED


async def test_a_cancelled_reply_is_skipped_and_names_the_command(bench: Bench) -> None:
    asking = mention()
    bench.knowledge.say("approve-first", "approval:everything")
    _, waiting = await bench.waits(record(asking))
    bench.knowledge.say("cancel", f"cancel:conversation:{asking.post.conversation_id}")
    assert await look(waiting) == 0
    told = decision_of(await bench.handle(record(asking)))
    assert told.reason == SkipReason.CANCELLED
    assert told.moderation is not None
    assert (told.moderation.command, told.moderation.id) == ("cancel", "command-1")


async def test_nobody_sees_a_private_text_before_it_is_approved(bench: Bench) -> None:
    publishing = Publishing(BOT.id, lambda: NOW)
    presence = Presence(publishing, texts=True)
    bench.handler = bench.begun(presence=presence)
    bench.knowledge.say("approve-first", "approval:direct-messages")
    shown, _ = await bench.waits(record(direct()))
    assert (shown["private"], list(presence._waiting)) == (True, [])


async def test_what_is_held_is_told_until_kafka_has_it() -> None:
    sent: list[Output] = []
    failures = [OSError("away"), OSError("away")]

    async def send(output: Output) -> None:
        if failures:
            raise failures.pop()
        sent.append(output)

    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[Any]:
        yield send

    held = HeldLog(pause_s=0.0)
    first, second = (Output(names.BOT_HELD, b"k", value) for value in (b"1", b"2"))
    held.tell("d", first)
    held.tell("d", second)
    task = asyncio.create_task(held.run(opened))
    try:
        await wait_until(lambda: bool(sent))
        held.tell("d", first)
        await wait_until(lambda: len(sent) == 2)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert [one.value for one in sent] == [b"2", b"1"]
