"""The faults of a run, each a function that acts on the stage and says whether it happened.

``KINDS`` names them all; ``schedule`` draws a seeded plan in which every kind comes once before
any comes twice.
"""

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from confluent_kafka import KafkaException

from tests.chaos import readers
from tests.chaos.facts import AUDITS, REPLIES
from tests.chaos.faults import (
    CHANGE_STEPS,
    MISCHIEF,
    RECORD_STEPS,
    REVOCATION_STEPS,
    STOP_STEPS,
    TAKEOVER_STEPS,
)
from tests.chaos.fleet import Fleet, WorkerProcess
from tests.chaos.proxy import API_KEYS, Rule
from tests.chaos.stage import SESSION_S, Stage

PATIENCE_S = 20.0  # until an armed fault fires
LEAVING_S = 45.0  # for a gentle stop
MOST_WORKERS = 5
AIMED_TRIES = 4
FAULTS_END = 0.9  # of the time: the last ones need traffic too

FREEZES = ("in-handler", "before-begin", "after-all-sends", "after-offsets", "before-commit")
PAUSES = frozenset({"offset-before-start"})  # flaws that plant a pause, for others to act in
PAUSE_BEGINS_S = 1.0  # until all partitions of a worker stand in it
TRANSACTION_S = 17.0  # a little less than the broker gives a transaction
Attack = Callable[[Stage, random.Random], Awaitable[bool]]


@dataclass(frozen=True, slots=True)
class Planned:
    """A fault at its time, in seconds from the start."""

    at: float
    kind: str


def schedule(seed: int, faults: int, seconds: float, only: Sequence[str] = ()) -> list[Planned]:
    """Evenly spread, a little early or late; all kinds (or ``only`` these) in seeded order."""
    dice = random.Random(seed)
    kinds: list[str] = []
    while len(kinds) < faults:
        kinds += dice.sample(only or list(KINDS), len(only or KINDS))
    step = FAULTS_END * seconds / max(1, faults)
    return [
        Planned(max(0.0, step * (i + dice.uniform(0, 0.8))), kind)
        for i, kind in enumerate(kinds[:faults])
    ]


async def _taken(stage: Stage, dice: random.Random) -> WorkerProcess | None:
    """A worker that is ready and in nobody's hands; waits for one."""
    await _within(PATIENCE_S, lambda: bool(stage.fleet.free))
    free = stage.fleet.free
    return dice.choice(free) if free else None


@contextmanager
def _holding(worker: WorkerProcess) -> Iterator[None]:
    worker.busy = True
    try:
        yield
    finally:
        worker.busy = False


# Faults from inside a worker.


async def kill_at(step: str, stage: Stage, dice: random.Random) -> bool:
    """kill -9 of itself at a step of the way of a record."""
    worker = await _taken(stage, dice)
    if worker is None:
        return False
    with _holding(worker):
        worker.arm(f"kill {step} {dice.randint(1, 5)}")
        if await worker.gone(PATIENCE_S):
            return bool(worker.fired)
        worker.arm("disarm")
        return False


async def kill_in_takeover(step: str, stage: Stage, dice: random.Random) -> bool:
    """A newcomer dies while it takes its partitions over."""
    worker = await stage.fleet.start(f"kill {step} {dice.randint(1, 3)}")
    with _holding(worker):
        if await worker.gone(PATIENCE_S):
            return bool(worker.fired)
        worker.arm("disarm")
        worker.send(signal.SIGTERM)
        await worker.gone(LEAVING_S)
        return False


async def kill_in_revocation(step: str, stage: Stage, dice: random.Random) -> bool:
    """A member dies while it hands over to a newcomer."""
    worker = await _taken(stage, dice)
    if worker is None:
        return False
    with _holding(worker):
        worker.arm(f"kill {step} 1")
        await stage.fleet.start()
        if await worker.gone(PATIENCE_S):
            return bool(worker.fired)
        worker.arm("disarm")
        worker.send(signal.SIGTERM)
        await worker.gone(LEAVING_S)
        return False


async def kill_in_stop(step: str, stage: Stage, dice: random.Random) -> bool:
    """A worker dies while it stops gently."""
    worker = await _taken(stage, dice)
    if worker is None:
        return False
    with _holding(worker):
        worker.arm(f"kill {step} 1")
        await asyncio.sleep(0.05)
        worker.send(signal.SIGTERM)
        return await worker.gone(LEAVING_S) and bool(worker.fired)


async def freeze_at(step: str, stage: Stage, dice: random.Random) -> bool:
    """A zombie: stopped with a finished batch in its hands, woken when others have taken over."""
    worker = await _taken(stage, dice)
    if worker is None:
        return False
    with _holding(worker):
        worker.arm(f"freeze {step} {dice.randint(1, 3)}")
        try:
            await asyncio.wait_for(worker.frozen.wait(), PATIENCE_S)
        except TimeoutError:
            worker.arm("disarm")
            return False
        if dice.random() < 0.5:
            await _within(4 * SESSION_S, lambda: not _own(stage.fleet, [worker]))
            await asyncio.sleep(2)
        else:
            await _sleep_beyond_the_session(dice)
        worker.frozen.clear()
        worker.send(signal.SIGCONT)
        await asyncio.sleep(2)
        return True


async def commit_outlives_its_worker(stage: Stage, dice: random.Random) -> bool:
    """A commit is on its way when its worker dies, and arrives while another takes over, or when
    it has begun to work."""
    # Named by its transactional id: to double one of a silent topic would change nothing.
    held = Rule("EndTxn", "hold", about=b".feed.mentions.")
    stage.proxy.add(held)
    fleet = stage.fleet
    try:
        if not await _within(PATIENCE_S, lambda: held.left <= 0):
            return False
        fleet.paused.clear()
        killed = fleet.proxied
        for worker in killed:
            worker.send(signal.SIGKILL)
        if stage.setting.flaw in PAUSES:
            await _within(4 * SESSION_S, fleet.paused.is_set)
        elif dice.random() < 0.7:
            await _within(TRANSACTION_S, lambda: not _own(fleet, killed))
        else:
            await asyncio.sleep(SESSION_S)
        await asyncio.sleep(PAUSE_BEGINS_S)
        return True
    finally:
        stage.proxy.remove(held)
        held.released.set()


def _own(fleet: Fleet, workers: Sequence[WorkerProcess]) -> bool:
    """Whether mentions are still theirs, as far as others have told."""
    return any(w in workers for (topic, _), w in fleet.owners.items() if topic == "feed.mentions")


async def _within(seconds: float, condition: Callable[[], bool]) -> bool:
    """Whether it came true in that time."""
    for _ in range(round(seconds / 0.05)):
        if condition():
            return True
        await asyncio.sleep(0.05)
    return condition()


async def misbehave(how: str, stage: Stage, dice: random.Random) -> bool:
    """A handler that hangs, raises, returns garbage, or holds the whole process up."""
    worker = await _taken(stage, dice)
    if worker is None:
        return False
    with _holding(worker):
        before = len(worker.fired)
        worker.arm(f"{how} {dice.randint(1, 5)}")
        if not await _within(PATIENCE_S, lambda: len(worker.fired) > before or not worker.alive):
            worker.arm("disarm")
        return len(worker.fired) > before


# Faults from outside.


async def kill(stage: Stage, dice: random.Random) -> bool:
    """kill -9, blind."""
    worker = await _taken(stage, dice)
    if worker is None:
        return False
    worker.send(signal.SIGKILL)
    return await worker.gone(PATIENCE_S)


async def kill_in_open_transaction(stage: Stage, dice: random.Random) -> bool:
    """kill -9 as soon as an uncommitted record shows up; True only if it was still open then."""
    for _try in range(AIMED_TRIES):
        slow = Rule("AddOffsetsToTxn", "delay", 0.2, left=100)
        stage.proxy.add(slow)
        shot = await _shoot(stage, dice.choice((AUDITS, REPLIES)))
        stage.proxy.remove(slow)
        if shot is not None and await asyncio.to_thread(_is_open, stage.servers, *shot):
            return True
    return False


async def _shoot(stage: Stage, topics: Sequence[str]) -> tuple[str, int, int] | None:
    """The uncommitted record whose worker was killed."""
    stage.aim.take(stage.fleet, topics)
    stage.watcher.watching.set()
    for _ in range(round(PATIENCE_S / 0.02)):
        if stage.aim.hit:
            break
        await asyncio.sleep(0.02)
    stage.watcher.watching.clear()
    return stage.aim.let_go()


def _is_open(servers: str, topic: str, partition: int, offset: int) -> bool:
    try:
        return readers.stable_end(servers, topic, partition) <= offset
    except KafkaException:
        return False


async def zombie(stage: Stage, dice: random.Random) -> bool:
    """SIGSTOP beyond the session timeout, then SIGCONT."""
    worker = await _taken(stage, dice)
    if worker is None:
        return False
    with _holding(worker):
        worker.send(signal.SIGSTOP)
        await _sleep_beyond_the_session(dice)
        worker.send(signal.SIGCONT)
        await asyncio.sleep(2)
        return worker.alive


async def _sleep_beyond_the_session(dice: random.Random) -> None:
    """Around the moment when others take over, or well after it."""
    await asyncio.sleep(SESSION_S + dice.choice((1.0, 2.0, 4.0, 6.0, 8.0)))


async def term(stage: Stage, dice: random.Random) -> bool:
    """SIGTERM, and another one starts."""
    worker = await _taken(stage, dice)
    return worker is not None and await _leave(worker)


async def _leave(worker: WorkerProcess) -> bool:
    with _holding(worker):
        worker.send(signal.SIGTERM)
        return await worker.gone(LEAVING_S)


async def scale_up(stage: Stage, _: random.Random) -> bool:
    """One more."""
    if stage.fleet.wanted >= MOST_WORKERS:
        return await scale_down(stage, _)
    stage.fleet.wanted += 1
    return True


async def scale_down(stage: Stage, dice: random.Random) -> bool:
    """One less."""
    if stage.fleet.wanted <= 2:
        return await scale_up(stage, dice)
    worker = await _taken(stage, dice)
    if worker is None:
        return False
    stage.fleet.wanted -= 1
    return await _leave(worker)


async def storm(stage: Stage, dice: random.Random) -> bool:
    """Workers come and go faster than the group can settle."""
    newcomers = []
    for _ in range(3):
        newcomers.append(await stage.fleet.start())
        await asyncio.sleep(dice.uniform(0.2, 1.5))
    for worker in newcomers[:2]:
        worker.send(dice.choice((signal.SIGTERM, signal.SIGKILL)))
        await asyncio.sleep(dice.uniform(0.1, 1.0))
    return await _leave(newcomers[2])


async def kill_broker(stage: Stage, _: random.Random) -> bool:
    """kill -9 of the broker, and a start on its data."""
    async with stage.broker_lock:
        await stage.broker.restart()
        return True


async def stop_broker(stage: Stage, dice: random.Random) -> bool:
    """SIGSTOP and SIGCONT of the broker."""
    async with stage.broker_lock:
        process = stage.broker.pid
        os.kill(process, signal.SIGSTOP)
        await asyncio.sleep(dice.uniform(1.0, 6.0))
        os.kill(process, signal.SIGCONT)
        return True


async def on_the_wire(action: str, kind: str, stage: Stage, dice: random.Random) -> bool:
    """An answer of the broker that comes late, never, or not before the connection breaks."""
    seconds = dice.choice((0.3, 2.0, 6.0, 12.0)) if action == "delay" else 0.0
    rule = Rule(kind, action, seconds, left=1)  # type: ignore[arg-type]
    stage.proxy.add(rule)
    happened = await _within(PATIENCE_S, lambda: rule.left <= 0)
    stage.proxy.remove(rule)
    return happened


async def on_any_wire(stage: Stage, dice: random.Random) -> bool:
    """The same for a kind of request that is drawn."""
    action = dice.choice(("delay", "drop", "cut"))
    return await on_the_wire(action, dice.choice(list(API_KEYS)), stage, dice)


KINDS: dict[str, Attack] = {
    **{f"kill {step}": partial(kill_at, step) for step in RECORD_STEPS},
    **{f"kill {step}": partial(kill_at, step) for step in CHANGE_STEPS},
    **{f"kill {step}": partial(kill_in_takeover, step) for step in TAKEOVER_STEPS},
    **{f"kill {step}": partial(kill_in_revocation, step) for step in REVOCATION_STEPS},
    **{f"kill {step}": partial(kill_in_stop, step) for step in STOP_STEPS},
    **{f"freeze {step}": partial(freeze_at, step) for step in FREEZES},
    **{f"handler {how}": partial(misbehave, how) for how in MISCHIEF},
    "kill blind": kill,
    "kill in open transaction": kill_in_open_transaction,
    "stop and continue": zombie,
    "SIGTERM": term,
    "scale up": scale_up,
    "scale down": scale_down,
    "rebalance storm": storm,
    "broker killed": kill_broker,
    "commit outlives its worker": commit_outlives_its_worker,
    "broker stopped": stop_broker,
    "EndTxn delayed": partial(on_the_wire, "delay", "EndTxn"),
    "EndTxn dropped": partial(on_the_wire, "drop", "EndTxn"),
    "EndTxn cut": partial(on_the_wire, "cut", "EndTxn"),
    "TxnOffsetCommit dropped": partial(on_the_wire, "drop", "TxnOffsetCommit"),
    "some answer lost": on_any_wire,
}
