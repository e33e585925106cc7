"""Inputs sent through today's pipeline, with the views as they were at each decision."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from bot.preview import with_prompt
from bot.replay import snapshots as snapshots_module
from bot.replay.log import Held
from bot.replay.rebuilt import NO_POSITIONS, Rebuilt
from bot.replay.report import changed_context
from bot.replay.snapshots import Snapshots
from bot.values import Limits, Setup, Template
from schemas import names
from schemas.audit import DecisionRecorded
from schemas.codec import encode
from schemas.codes import Outcome, SkipReason
from schemas.envelope import Envelope
from schemas.feed import AccountChanged, DeletedBy, PostCreated, PostDeleted, PostEdited
from schemas.record import Record
from schemas.replays import Change, NotReplayed, ReplayCompared
from tests.bot.make import ALICE, BOB, NOW, direct, mention, post, record
from tests.bot.replay.world import PARTITION, World, results_of


def told(topic: str, kind: str, key: str, data: object, event_id: str) -> Record:
    """Something that is not an input: the record of another event."""
    envelope = Envelope(id=event_id, source="/platform", type=kind, time=NOW)
    output = encode(topic, key, envelope, data)  # type: ignore[arg-type]
    return Record(
        topic=topic, partition=PARTITION, offset=0, timestamp_ms=0,
        key=output.key, value=output.value, headers=output.headers,
    )  # fmt: skip


ROOT = post("at://p/root", "What is a log?", author=BOB)
EDITED = ROOT.model_copy(update={"text": "What is a dog?", "revision": "r2", "version": 2})


def created(number: int = 0) -> Record:
    return told(
        names.FEED_POSTS, names.POST_CREATED, "conv-1", PostCreated(post=ROOT), f"p{number}"
    )


def edited() -> Record:
    data = PostEdited(post=EDITED, previous_revision="r1")
    return told(names.FEED_POSTS, names.POST_EDITED, "conv-1", data, "edit")


def asking(number: int, text: str = "@twite explain", **fields: object) -> Record:
    data = mention(text, parent=ROOT.ref, **fields)
    one = data.post.model_copy(update={"uri": f"at://p/{number}"})
    return record(data.model_copy(update={"post": one}), event_id=f"event-{number}")


async def rebuilt(world: World, root: Path, setup: Setup | None = None) -> list[ReplayCompared]:
    way = Rebuilt(world.log, setup or world.setup, world.engine, root / "views")
    return await results_of(world, way, root, mode="rebuilt")


def changes(results: Iterable[ReplayCompared]) -> list[Change]:
    return [one.change for one in results]


async def test_a_thread_edited_since_is_seen_as_it_was(tmp_path: Path) -> None:
    world = await World().start()
    world.put(created())
    first = await world.take(asking(1))
    world.put(edited())
    second = await world.take(asking(2))
    assert (first.context[0].ref.revision, second.context[0].ref.revision) == ("r1", "r2")

    results = await rebuilt(world, tmp_path)
    assert changes(results) == [Change.IDENTICAL, Change.IDENTICAL]
    for result, then in zip(results, (first, second), strict=True):
        assert result.after is not None
        assert result.after.context == then.context


async def test_views_that_are_ahead_would_be_told_from_those_of_then(tmp_path: Path) -> None:
    """The test above can fail: with the positions of now the first decision is another."""
    world = await World().start()
    world.put(created())
    first = await world.take(asking(1))
    world.put(edited())
    world.catch_up()
    ahead = {"conversation/feed.posts/2": 2, "conversation/feed.mentions/2": 1}
    audit = world.audit()
    forged = first.model_copy(update={"positions": dict(first.positions) | ahead})
    audit[0] = replace(audit[0], value=forged.model_dump_json().encode())
    (result,) = await rebuilt(world, tmp_path)
    assert result.change is Change.TEXT
    assert result.before is not None
    assert result.after is not None
    assert [one.name for one in changed_context(result.before, result.after)] == [ROOT.uri]


async def test_decisions_are_made_again_whatever_order_they_were_recorded_in(
    tmp_path: Path,
) -> None:
    """A long answer is recorded after a short one that was begun later."""
    world = await World().start()
    world.put(created())
    await world.take(asking(1))
    world.put(edited())
    await world.take(asking(2))
    audit = world.audit()
    swapped = [replace(audit[1], offset=0), replace(audit[0], offset=1)]
    audit[:] = swapped
    results = await rebuilt(world, tmp_path)
    assert changes(results) == [Change.IDENTICAL, Change.IDENTICAL]


async def test_who_opted_out_later_is_answered_as_then(tmp_path: Path) -> None:
    world = await World().start()
    await world.take(asking(1))
    account = AccountChanged(account_id=ALICE.id, opted_out=True)
    world.put(told(names.FEED_ACCOUNTS, names.ACCOUNT_CHANGED, ALICE.id, account, "account"))
    skipped = await world.take(asking(2))
    assert skipped.reason == SkipReason.OPTED_OUT
    results = await rebuilt(world, tmp_path)
    assert changes(results) == [Change.IDENTICAL, Change.IDENTICAL]


async def test_a_talk_is_remembered_also_where_no_view_had_read_it_back(tmp_path: Path) -> None:
    world = await World().start()
    await world.take(record(direct("My name is Ann.", "at://m/1"), event_id="m1"))
    talk = record(direct("What is my name?", "at://m/2", created_at=NOW), event_id="m2")
    second = await world.take(talk, read_back=False)
    world.catch_up()
    results = await rebuilt(world, tmp_path)
    assert [item.why for item in second.context] == ["turn", "own-reply", "asking"]
    assert not any(place.startswith("replies/") for place in second.positions)
    assert changes(results) == [Change.IDENTICAL, Change.IDENTICAL]
    assert all(one.hidden for one in results)


async def test_a_repeat_is_a_repeat(tmp_path: Path) -> None:
    world = await World().start()
    first = await world.take(asking(1))
    again = await world.take(asking(1), read_back=False)
    assert again.duplicate_of == first.decision_id
    results = await rebuilt(world, tmp_path)
    assert changes(results) == [Change.IDENTICAL, Change.IDENTICAL]
    assert {one.after.reason for one in results if one.after} == {None, SkipReason.DUPLICATE}


async def test_another_prompt_changes_the_text(tmp_path: Path) -> None:
    world = await World().start()
    await world.take(asking(1))
    other = with_prompt(world.setup, Template("other", "You are {bot}, a parrot.", "ff"))
    (result,) = await rebuilt(world, tmp_path, other)
    assert result.change is Change.TEXT
    assert result.after is not None
    assert (result.after.template, result.after.template_hash) == ("other", "ff")


async def test_another_policy_changes_the_action(tmp_path: Path) -> None:
    world = await World().start()
    robot = BOB.model_copy(update={"bot": True})
    await world.take(asking(1, author=robot, hops=2))
    strict = replace(world.setup, limits=Limits(hop_limit=1))
    (result,) = await rebuilt(world, tmp_path, strict)
    assert result.change is Change.ACTION
    assert result.after is not None
    assert (result.after.outcome, result.after.reason) == (Outcome.SKIPPED, SkipReason.LOOP)


async def test_a_record_that_was_no_event_stays_a_dead_letter(tmp_path: Path) -> None:
    world = await World().start()
    broken = replace(asking(1), value=b"{")
    decision = await world.take(broken)
    assert decision.outcome is Outcome.DEAD_LETTERED
    (result,) = await rebuilt(world, tmp_path)
    assert result.change is Change.IDENTICAL
    assert result.after is not None
    assert result.after.reason == "not-json"
    assert NO_POSITIONS not in result.notes


async def test_what_the_log_no_longer_holds_is_told(tmp_path: Path) -> None:
    world = await World().start()
    world.put(created())
    await world.take(asking(1))
    await world.take(asking(2))
    world.log.firsts[names.FEED_MENTIONS, PARTITION] = 1
    world.log.firsts[names.FEED_POSTS, PARTITION] = 1
    first, second = await rebuilt(world, tmp_path)
    assert first.why is NotReplayed.BEYOND_RETENTION
    assert second.change is Change.TEXT
    assert "feed.posts/2 begins at 1" in second.notes


async def test_nothing_of_the_views_is_left_on_the_disk(tmp_path: Path) -> None:
    world = await World().start()
    await world.take(record(direct("a secret", "at://m/1"), event_id="m1"))
    await rebuilt(world, tmp_path)
    assert not (tmp_path / "views").exists()


async def test_what_was_deleted_while_it_was_answered_is_not_answered_now(tmp_path: Path) -> None:
    world = await World().start()
    then = await world.take(asking(1))
    rules = tuple(
        one.model_copy(update={"verdict": "skip"}) if one.name == "second-look" else one
        for one in then.rules
    )
    skipped: DecisionRecorded = then.model_copy(
        update={"outcome": Outcome.SKIPPED, "reason": "deleted", "rules": rules, "reply_ids": ()}
    )
    audit = world.audit()
    audit[0] = replace(audit[0], value=skipped.model_dump_json().encode())
    (result,) = await rebuilt(world, tmp_path)
    assert result.change is Change.IDENTICAL
    assert any("meanwhile" in note for note in result.notes)


@pytest.mark.parametrize("in_flight", [1, 8])
async def test_each_sees_its_own_moment_however_many_are_made_at_once(
    tmp_path: Path, in_flight: int
) -> None:
    world = await World().start()
    world.put(created())
    for number in range(1, 9):
        await world.take(asking(number))
        data = PostEdited(
            post=EDITED.model_copy(
                update={"revision": f"r{number + 1}", "version": number + 1, "text": f"{number}"}
            ),
            previous_revision=f"r{number}",
        )
        world.put(told(names.FEED_POSTS, names.POST_EDITED, "conv-1", data, f"edit-{number}"))
    way = Rebuilt(world.log, world.setup, world.engine, tmp_path / "views")
    results = await results_of(world, way, tmp_path, mode="rebuilt", in_flight=in_flight)
    assert changes(results) == [Change.IDENTICAL] * 8


async def test_a_deleted_thread_does_not_come_back(tmp_path: Path) -> None:
    world = await World().start()
    world.put(created())
    data = PostDeleted(
        ref=ROOT.ref, conversation_id="conv-1", deleted_by=DeletedBy.AUTHOR, deleted_at=NOW
    )
    world.put(told(names.FEED_POSTS, names.POST_DELETED, "conv-1", data, "gone"))
    await world.take(asking(1))
    (result,) = await rebuilt(world, tmp_path)
    assert result.change is Change.IDENTICAL
    assert result.after is not None
    assert [item.why for item in result.after.context if item.included] == ["asking"]


async def test_what_is_read_ahead_stays_little(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the log is and however often it is prepared for."""
    monkeypatch.setattr(snapshots_module, "AHEAD", 5)
    world = await World().start()
    for number in range(1, 40):
        await world.take(asking(number))
    snapshots = Snapshots(world.log, Held(world.log), world.setup.bot.id, tmp_path / "views")
    for decision in world.decisions:
        await snapshots.prepare(PARTITION, [decision.positions])
        (await snapshots.pin(decision.positions)).close()
        ahead = [r for waiting in snapshots._waiting.values() for r in waiting]
        assert len(ahead) <= 5
    snapshots.close()
