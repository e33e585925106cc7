"""A replay from its plan to its last result: bounded, resumable, each decision once."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.errors import Trouble
from bot.replay import run as run_module
from bot.replay.compare import Again, Naming, side_of
from bot.replay.folder import ABOUT, PLAN, RESULTS, Folder, digest_of
from bot.replay.loaded import Loaded
from bot.replay.plan import Plan
from bot.replay.run import Progress, Replay
from model.engine import EngineUnavailable
from schemas.audit import DecisionRecorded
from schemas.replays import ReplayCompared
from tests.bot.make import NOW, mention, record
from tests.bot.replay.world import World, planned
from tests.wait import wait_until

SPEC = {"conditions": {"all": True}}


async def many(count: int) -> World:
    world = await World().start()
    for number in range(count):
        data = mention(f"@twite hello {number}")
        one = data.post.model_copy(update={"uri": f"at://p/{number}"})
        data = data.model_copy(update={"post": one})
        await world.take(record(data, event_id=f"event-{number}"))
    return world


class SlowWay:
    """Every case waits until it is let go; ``most`` is how many were at work at once."""

    def __init__(self, failures: int = 0) -> None:
        self.gate = asyncio.Event()
        self.working = self.most = self.begun = 0
        self.ended = False
        self.failures = failures

    async def prepare(self, chunk: Sequence[Loaded]) -> None:
        return

    async def begin(self, loaded: Loaded) -> "SlowCase":
        assert loaded.decision is not None
        self.begun += 1
        return SlowCase(self, loaded.decision)

    async def end(self) -> None:
        self.ended = True


class SlowCase:
    def __init__(self, way: SlowWay, decision: DecisionRecorded) -> None:
        self.way = way
        self.decision = decision

    async def run(self) -> Again:
        self.way.working += 1
        self.way.most = max(self.way.most, self.way.working)
        try:
            await self.way.gate.wait()
        finally:
            self.way.working -= 1
        if self.way.failures:
            self.way.failures -= 1
            raise EngineUnavailable("away")
        return Again(side=side_of(self.decision), asked_model=True)

    def close(self) -> None:
        return


class KeepingDoor:
    def __init__(self) -> None:
        self.published: list[ReplayCompared] = []

    async def publish(self, results: Sequence[ReplayCompared]) -> None:
        self.published += results


def replay_of(world: World, way: SlowWay, folder: Folder, **options: Any) -> Replay:
    bot = world.setup.bot
    given: dict[str, Any] = {"in_flight": 4} | options
    return Replay(
        world.log,
        way,
        given.pop("door", KeepingDoor()),
        folder,
        Naming(replay_id=folder.id, mode="frozen"),
        bot_id=bot.id,
        cluster_id=bot.cluster_id,
        **given,
    )


def ids(results: Sequence[ReplayCompared]) -> list[str]:
    return sorted(one.decision_id for one in results)


async def test_no_more_than_so_many_are_made_at_once(tmp_path: Path) -> None:
    world, way = await many(10), SlowWay()
    folder = Folder.begin(tmp_path, SPEC, NOW)
    running = asyncio.create_task(replay_of(world, way, folder).run(await planned(world)))
    await wait_until(lambda: way.working == 4)
    way.gate.set()
    await running
    assert (way.most, way.begun, way.ended) == (4, 10, True)
    assert ids(list(folder.results())) == sorted(d.decision_id for d in world.decisions)
    folder.close()


async def test_what_was_interrupted_goes_on_where_it_was(tmp_path: Path) -> None:
    world, way, door = await many(10), SlowWay(), KeepingDoor()
    folder = Folder.begin(tmp_path, SPEC, NOW)
    plan = await planned(world)
    folder.keep_plan(plan)
    told: list[Progress] = []
    way.gate.set()
    replay = replay_of(world, way, folder, in_flight=1, door=door, tell=told.append)
    running = asyncio.create_task(replay.run(plan))
    way_stops = asyncio.Event()

    def stop(progress: Progress) -> None:
        told.append(progress)
        if progress.done == 3:
            way.gate.clear()
            way_stops.set()

    replay._tell = stop
    await way_stops.wait()
    await wait_until(lambda: way.working == 1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    folder.close()
    first = ids(door.published)
    assert len(first) == 3

    again = Folder.resume(tmp_path, SPEC)
    assert again.id == folder.id
    kept = again.plan()
    assert kept == plan
    rest = SlowWay()
    rest.gate.set()
    later: list[Progress] = []
    assert kept is not None
    await replay_of(world, rest, again, door=door, tell=later.append).run(kept)
    assert rest.begun == 7
    assert (
        ids(door.published)
        == ids(list(again.results()))
        == sorted(d.decision_id for d in world.decisions)
    )
    assert (later[0], later[-1]) == (Progress(3, 10, 3), Progress(10, 10, 3))
    again.close()


async def test_an_engine_that_is_away_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "BACKOFF_S", (0.0, 0.0))
    world, way = await many(1), SlowWay(failures=3)
    way.gate.set()
    folder = Folder.begin(tmp_path, SPEC, NOW)
    await replay_of(world, way, folder).run(await planned(world))
    assert len(list(folder.results())) == 1
    folder.close()


async def test_one_that_stays_away_ends_it_and_it_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "BACKOFF_S", (0.0, 0.0))
    world, way = await many(2), SlowWay(failures=1000)
    way.gate.set()
    folder = Folder.begin(tmp_path, SPEC, NOW)
    with pytest.raises(Trouble, match="--resume"):
        await replay_of(world, way, folder).run(await planned(world))
    assert way.ended
    folder.close()
    Folder.resume(tmp_path, SPEC).close()


def test_two_replays_have_folders_of_their_own(tmp_path: Path) -> None:
    one, two = Folder.begin(tmp_path, SPEC, NOW), Folder.begin(tmp_path, SPEC, NOW)
    assert one.path != two.path
    assert (one.path.stat().st_mode & 0o777) == 0o700
    one.close()
    two.close()


def test_one_replay_is_worked_on_by_one_process(tmp_path: Path) -> None:
    folder = Folder.begin(tmp_path, SPEC, NOW)
    with pytest.raises(Trouble, match="another process works on this replay"):
        Folder.resume(tmp_path, SPEC)
    folder.close()
    Folder.resume(tmp_path, SPEC).close()


def test_another_command_or_one_that_was_shown_is_not_resumed(tmp_path: Path) -> None:
    folder = Folder.begin(tmp_path, SPEC, NOW)
    folder.close()
    assert json.loads((folder.path / ABOUT).read_text())["began_at"]
    with pytest.raises(Trouble, match="no replay of this command"):
        Folder.resume(tmp_path, {"conditions": {"all": False}})
    Folder.resume(tmp_path, SPEC).remove()
    with pytest.raises(Trouble, match="no replay of this command"):
        Folder.resume(tmp_path, SPEC)
    assert list(tmp_path.iterdir()) == []


def test_without_a_plan_it_is_made_anew(tmp_path: Path) -> None:
    folder = Folder.begin(tmp_path, SPEC, NOW)
    assert folder.plan() is None
    folder.keep_plan(Plan([], unread=3))
    assert folder.plan() == Plan([], unread=3)
    assert not (folder.path / PLAN).with_suffix(".new").exists()
    folder.close()


@given(cut=st.integers(1, 40))
def test_a_line_that_was_torn_is_made_again(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    root = tmp_path_factory.mktemp("torn")
    folder = Folder.begin(root, SPEC, NOW)
    file = folder.path / RESULTS
    folder.close()
    lines = [json.dumps({"decision_id": str(n), "decision": None}) + "\n" for n in range(3)]
    file.write_text("".join(lines)[:-cut])
    again = Folder.resume(root, SPEC)
    whole = file.read_text()
    assert whole == "".join(lines[: len(again.done)])
    assert len(again.done) == (2 if cut < len(lines[2]) + 1 else 1)
    again.close()


def test_the_same_words_in_another_order_are_the_same_command() -> None:
    assert digest_of({"a": 1, "b": [2]}) == digest_of({"b": [2], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})
