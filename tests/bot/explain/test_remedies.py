"""``bot.explain.remedies``: what fits a case, in commands that there are."""

import shlex
from typing import Any

import pytest
import typer.main

from bot.cli import app
from bot.explain.explanation import explain
from bot.explain.find import Subject, find
from bot.explain.gather import gather
from bot.explain.remedies import Remedy
from schemas import names
from schemas.codes import Outcome
from schemas.control import Moderation, ModerationCommanded
from schemas.record import Record
from tests.bot.explain.log import PARTITION, Log, told
from tests.bot.make import ALICE, BOB, direct, mention, post, record, run_of

THREAD = run_of(post("at://p/1", "Hello.", author=BOB))
INPUTS = [
    record(mention(ancestors=THREAD, parent=THREAD[-1].ref)),
    record(direct("Hello")),
    record(mention("hello", facets=())),
    Record(topic="feed.mentions", partition=2, offset=0, timestamp_ms=0, key=b"k", value=b"{"),
]


async def told_of(asked: Record) -> tuple[Remedy, ...]:
    log = Log()
    await log.answer(asked)
    place = Subject.of(f"{asked.topic}/{PARTITION}/0")
    decided = await find(log, place, private=True)
    return explain(await gather(log, decided, private=True)).remedies


@pytest.mark.parametrize("asked", INPUTS)
async def test_every_command_that_is_named_is_there(asked: Record) -> None:
    named = [remedy.how for remedy in await told_of(asked) if remedy.how.startswith("twite ")]
    assert named
    for words in map(shlex.split, named):
        command: Any = typer.main.get_command(app)
        rest = words[1:]
        while hasattr(command, "commands"):
            command = command.commands[rest.pop(0)]
        options = {option for param in command.params for option in param.opts}
        assert {word for word in rest if word.startswith("--")} <= options, words


async def test_what_can_be_done_fits_what_happened() -> None:
    thread, talk, skip, letter = [[r.what for r in await told_of(one)] for one in INPUTS]
    assert any("edit or delete a post that was seen" in what for what in thread)
    assert not any("post that was seen" in what for what in talk)
    assert "have the bot forget this talk" in talk
    assert not any("delete the question" in what for what in skip)
    assert letter[0] == "look at the record"


async def test_of_a_repeat_the_first_decision_is_named() -> None:
    log = Log()
    await log.answer(record(mention()))
    decided = await find(log, Subject.of("at://p/asking"))
    again = decided.data.model_copy(
        update={"outcome": Outcome.SKIPPED, "reason": "duplicate", "duplicate_of": "first-id"}
    )
    case = await gather(log, type(decided)(decided.record, decided.envelope, again))
    assert explain(case).remedies[0].how == "twite explain first-id"


async def test_moderators_get_commands_that_can_be_typed() -> None:
    log = Log()
    await log.answer(record(mention()))
    decided = await find(log, Subject.of("at://p/asking"))
    asker, reply = f"account:{ALICE.id}", decided.data.reply_ids[0]
    end = "--reason WHY --as MODERATOR"
    hows = {one.how for one in explain(await gather(log, decided)).remedies}
    assert {
        f"twite moderate retract {shlex.quote(reply)} {end}",
        f"twite moderate correct {shlex.quote(reply)} --text TEXT {end}",
        f"twite moderate block {asker} {end}",
        f"twite moderate stop everything {end}",
    } <= hows
    block = ModerationCommanded(command="block", subject=asker, reason="rude", moderator="mod-1")
    log.put(told(names.BOT_MODERATION, names.MODERATION_COMMANDED, block, asker), 0)
    hows = {one.how for one in explain(await gather(log, decided)).remedies}
    assert f"twite moderate unblock {asker} {end}" in hows
    assert f"twite moderate block {asker} {end}" not in hows


async def test_what_a_command_stopped_is_ended_by_its_opposite() -> None:
    log = Log()
    await log.answer(record(mention()))
    decided = await find(log, Subject.of("at://p/asking"))
    cause = Moderation(id="c", command="stop", subject="mentions", moderator="m", reason="r")
    skipped = decided.data.model_copy(
        update={"outcome": Outcome.SKIPPED, "reason": "stopped", "moderation": cause}
    )
    case = await gather(log, type(decided)(decided.record, decided.envelope, skipped))
    how = "twite moderate resume mentions --reason WHY --as MODERATOR"
    assert how in [one.how for one in explain(case).remedies]
