"""What a plan finds on the audit, and in which order."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.errors import Trouble
from bot.observe import Position
from bot.replay.log import Held, fetch, runs
from bot.replay.plan import Planned, chunks
from bot.replay.wanted import Stretch, Wanted
from consumers.errors import RangeGone
from consumers.reader import Range
from schemas import names
from schemas.codes import SkipReason
from schemas.replays import NotReplayed
from tests.bot.make import ALICE, BOB, BOT, direct, mention, record
from tests.bot.replay.world import PARTITION, World, planned


async def three() -> World:
    """Two mentions by two people, and a message."""
    world = await World().start()
    await world.take(record(mention(), event_id="1"))
    other = mention(author=BOB)
    other = other.model_copy(update={"post": other.post.model_copy(update={"uri": "at://p/b"})})
    await world.take(record(other, event_id="2"))
    await world.take(record(direct(), event_id="3"))
    return world


async def test_everything_is_found_in_the_order_of_the_views() -> None:
    world = await three()
    plan = await planned(world)
    assert [one.decision_id for one in plan.entries] == [d.decision_id for d in world.decisions]
    assert plan.entries[2].at == Position(names.BOT_AUDIT_PRIVATE, PARTITION, 0)
    assert plan.entries[2].origin == Position(names.FEED_DIRECT_MESSAGES, PARTITION, 0)


async def test_an_author_is_looked_up_where_the_record_does_not_tell() -> None:
    world = await World().start()
    skipped = await world.take(record(mention(author=BOT)))
    assert skipped.reason == SkipReason.OWN_POST
    assert skipped.context == ()
    found = await planned(world, Wanted(authors=frozenset({BOT.id})))
    assert [one.decision_id for one in found.entries] == [skipped.decision_id]
    assert (await planned(world, Wanted(authors=frozenset({ALICE.id})))).entries == []


async def test_ids_that_nobody_knows_are_told() -> None:
    world = await three()
    known = world.decisions[0].decision_id
    plan = await planned(world, Wanted(ids=frozenset({known, "nowhere"})))
    assert [(one.decision_id, one.why) for one in plan.entries] == [
        (known, None),
        ("nowhere", NotReplayed.UNKNOWN_ID),
    ]


async def test_records_that_cannot_be_read_are_in_it_where_they_are_meant() -> None:
    world = await three()
    audit = world.audit()
    audit[0] = replace(audit[0], value=b"{torn")
    old = b"twite.bot.decision.recorded.v0"
    audit[1] = replace(
        audit[1],
        headers=tuple((n, old if n == "ce_type" else value) for n, value in audit[1].headers),
    )
    plan = await planned(world)
    whys = {one.at.offset: one.why for one in plan.entries if one.at and one.why}
    assert whys == {0: NotReplayed.TORN_RECORD, 1: NotReplayed.OLDER_SCHEMA}
    by_author = await planned(world, Wanted(authors=frozenset({ALICE.id})))
    assert (len(by_author.entries), by_author.unread) == (1, 2)
    torn = world.decisions[0].decision_id
    (by_id,) = (await planned(world, Wanted(ids=frozenset({torn})))).entries
    assert (by_id.decision_id, by_id.why) == (torn, NotReplayed.TORN_RECORD)


async def test_a_range_that_is_not_there_is_told_with_what_is() -> None:
    world = await three()
    with pytest.raises(Trouble, match="it holds 0 to 1 now"):
        await planned(world, Wanted(stretches=(Stretch.parse("feed.mentions/2/7-9"),)))
    with pytest.raises(Trouble, match="it holds nothing"):
        await planned(world, Wanted(stretches=(Stretch.parse("bot.audit/9/0"),)))


async def test_decisions_are_found_by_inputs_that_are_gone() -> None:
    world = await three()
    world.log.firsts[names.FEED_MENTIONS, PARTITION] = 2
    assert await world.log.bounds(Range(names.FEED_MENTIONS)) == {}
    plan = await planned(world, Wanted(stretches=(Stretch.parse("feed.mentions/2/1"),)))
    assert [one.decision_id for one in plan.entries] == [world.decisions[1].decision_id]


async def test_a_range_of_the_audit_that_is_gone_is_refused() -> None:
    world = await three()
    world.log.firsts[names.BOT_AUDIT, PARTITION] = 1
    for last in (0, 1):
        with pytest.raises(RangeGone):
            await planned(world, Wanted(stretches=(Stretch(names.BOT_AUDIT, PARTITION, 0, last),)))
    rest = await planned(world, Wanted(stretches=(Stretch(names.BOT_AUDIT, PARTITION),)))
    assert [one.decision_id for one in rest.entries] == [world.decisions[1].decision_id]


async def test_of_a_range_of_the_audit_nothing_else_is_read() -> None:
    world = await three()
    world.log.reads.clear()
    plan = await planned(world, Wanted(stretches=(Stretch(names.BOT_AUDIT, PARTITION, 1, 1),)))
    assert [one.decision_id for one in plan.entries] == [world.decisions[1].decision_id]
    assert {span.topic for span in world.log.reads} == {names.BOT_AUDIT}


async def test_times_bound_what_is_read() -> None:
    world = await three()
    since = world.audit()[1].timestamp_ms
    plan = await planned(world, Wanted(since_ms=since))
    assert len(plan.entries) == 2
    plan = await planned(world, Wanted(until_ms=since))
    assert [one.decision_id for one in plan.entries] == [world.decisions[0].decision_id]


def test_a_plan_is_the_same_from_its_lines() -> None:
    one = Planned("d", Position("bot.audit", 1, 2), Position("feed.mentions", 1, 3), 9)
    two = Planned("e", None, why=NotReplayed.UNKNOWN_ID)
    assert [Planned.from_json(p.to_json()) for p in (one, two)] == [one, two]


def test_chunks_hold_neighbours_of_one_partition() -> None:
    entries = [Planned(str(n), Position("bot.audit", n // 5, n), order=n * 10) for n in range(10)]
    made = list(chunks(entries, 3, 1000))
    assert [len(chunk) for chunk in made] == [3, 2, 3, 2]
    assert [one for chunk in made for one in chunk] == entries
    assert [len(chunk) for chunk in chunks(entries[:5], 100, 15)] == [2, 2, 1]


@given(st.sets(st.integers(0, 300)), st.integers(1, 20))
def test_runs_cover_every_offset_and_skip_long_gaps(offsets: set[int], gap: int) -> None:
    found = list(runs(offsets, gap))
    assert all(any(a <= offset <= b for a, b in found) for offset in offsets)
    assert all(a in offsets and b in offsets for a, b in found)
    for (_, end), (start, _) in pairwise(found):
        assert start - end > gap


async def test_places_that_are_gone_are_left_out_and_why_is_told() -> None:
    world = await three()
    world.log.firsts[names.FEED_MENTIONS, PARTITION] = 1
    held = Held(world.log)
    gone, there, beyond = (Position(names.FEED_MENTIONS, PARTITION, n) for n in (0, 1, 7))
    assert set(await fetch(world.log, held, [gone, there, beyond])) == {there}
    assert await held.why_gone(gone) is NotReplayed.BEYOND_RETENTION
    assert await held.why_gone(beyond) is NotReplayed.ORIGINAL_GONE


async def test_what_is_removed_while_it_is_read_is_gone_and_no_error() -> None:
    world = await three()
    held = Held(world.log)
    await held.bounds(names.FEED_MENTIONS)
    world.log.firsts[names.FEED_MENTIONS, PARTITION] = 1
    gone, there = (Position(names.FEED_MENTIONS, PARTITION, n) for n in (0, 1))
    assert set(await fetch(world.log, held, [gone, there])) == {there}
    assert await held.why_gone(gone) is NotReplayed.BEYOND_RETENTION
