"""One run, told in ``run``: a stage, workers, a feed and faults, then the verdict.

In: a ``Setting``. Out: a ``Result`` with every violation that the checker found, how many
faults of each kind happened, and how long it took.
"""

import asyncio
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException

from tests.chaos import readers
from tests.chaos.attacks import KINDS, Planned, schedule
from tests.chaos.checker import Evidence, Violation, check, counts
from tests.chaos.facts import (
    FEED,
    INPUTS,
    OUTPUTS,
    READ,
    REFERENCES,
    REVIEWS,
    Commit,
    Decision,
    Fact,
    Input,
    Place,
    Told,
    input_fact,
    output_fact,
    told_facts,
)
from tests.chaos.facts import digest as digest_of
from tests.chaos.feed import BOT, Feed
from tests.chaos.fleet import Fleet, WorkerProcess
from tests.chaos.history import Written, forgotten
from tests.chaos.producing import Feeding
from tests.chaos.stage import GROUP, Setting, Stage, staged
from tests.chaos.wire import WireError

Say = Callable[[str], None]
DRAIN_S = 180.0
SETTLE_S = 60.0  # an orphaned transaction is aborted after 20 s
TELL_EVERY_S = 10.0
AMID_S = 0.8  # after the burst at the end of the feed


@dataclass
class Result:
    """What a run found."""

    setting: Setting
    fed: int = 0  # records of the feed
    inputs: int = 0  # those that ask for a decision, reviews among them
    aborted: int = 0
    outputs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)
    lost_commits: int = 0  # times that the broker lost what its group coordinator had
    seconds: float = 0.0

    @property
    def counts(self) -> Counter[str]:
        return counts(self.violations)


class Run:
    """The state of one run."""

    def __init__(self, stage: Stage, say: Say) -> None:
        self.stage = stage
        self.say = say
        self.result = Result(stage.setting)
        self.spoiled = 0
        self.running: Counter[str] = Counter()
        self.fed: dict[Place, int] = {}  # the last record of the feed
        stage.fleet.on_fired = self._fired
        setting = stage.setting
        self.feeding = Feeding(
            stage.servers,
            Feed(setting.seed, setting.partitions, changes=setting.changes),
            Feed(setting.seed, setting.partitions, "aborted", changes=setting.changes),
            setting.inputs,
            setting.seconds,
        )

    def _fired(self, worker: WorkerProcess, line: str) -> None:
        if line.split()[1] in ("hang", "raise", "garbage"):
            self.spoiled += 1

    async def under_fire(self) -> None:
        """The feed comes in and the faults happen."""
        self.feeding.start()
        setting = self.stage.setting
        plan = schedule(setting.seed, setting.faults, setting.seconds, setting.only)
        telling = asyncio.create_task(self._tell(), name="tell")
        try:
            await asyncio.gather(*(self._attack(i, one) for i, one in enumerate(plan)))
            await self._until(self._fed, setting.seconds + SETTLE_S)
        finally:
            telling.cancel()
        await asyncio.to_thread(self.feeding.stop)

    async def _fed(self) -> bool:
        return self.feeding.done.is_set() or not self.feeding.is_alive()

    async def _attack(self, number: int, planned: Planned) -> None:
        await asyncio.sleep(planned.at)
        dice = random.Random(1000 * self.stage.setting.seed + number)
        self.running[planned.kind] += 1
        happened = await KINDS[planned.kind](self.stage, dice)
        self.running -= Counter([planned.kind])
        (self.result.faults if happened else self.result.missed)[planned.kind] += 1

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(TELL_EVERY_S)
            done, fleet = self.result.faults.total(), self.stage.fleet
            seen = sum(map(len, self.stage.follower.seen.values()))
            self.say(
                f"{self.feeding.written} inputs written, {seen} outputs seen, {done} faults,"
                f" {len(fleet.alive)} workers of {fleet.wanted}; now: {', '.join(self.running)}"
            )

    async def checkpoint(self) -> None:
        """Everybody dies at once, in the middle of the last inputs; what then stands on the log
        must go together as it is."""
        await asyncio.sleep(AMID_S)
        await self.stage.fleet.kill_all()
        self.result.faults["kill all"] += 1
        await self.settle()
        await self.judge(drained=False)

    async def settle(self) -> None:
        """Until no transaction is open, or time is up."""
        await self._until(self._settled, SETTLE_S)

    async def _settled(self) -> bool:
        ends = await self._asked(readers.ends, OUTPUTS)
        return all(stable == high for stable, high in ends.values())

    async def drain(self) -> None:
        """Until the offsets are past everything that there is to read, or time is up."""
        self.fed = await self._asked(_last, FEED)
        await self._until(self._drained, DRAIN_S)

    async def _drained(self) -> bool:
        """What the platform wrote, and what the bot tells itself, which may lead to more."""
        if not await self._is_past(self.fed):
            return False
        return await self._is_past(await self._asked(_last, (REFERENCES, REVIEWS)))

    async def _is_past(self, last: dict[Place, int]) -> bool:
        commits = await asyncio.to_thread(
            readers.read_commits, self.stage.servers, GROUP, self.stage.setting.partitions
        )
        return all(commits.get(place, Commit(0)).offset > end for place, end in last.items())

    async def _until(self, condition: Callable[[], Any], seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with suppress(KafkaException, WireError):
                if await condition():
                    return True
            await asyncio.sleep(0.5)
        return False

    async def _asked(self, question: Callable[..., Any], topics: Iterable[str]) -> Any:
        return await asyncio.to_thread(
            question, self.stage.servers, topics, self.stage.setting.partitions
        )

    async def judge(self, *, drained: bool) -> None:
        """Feed the checker with all that stands on the log now."""
        inputs, told, self.result.fed = await self._asked(_inputs, (*FEED, REVIEWS))
        outputs, final = await self._asked(_outputs, OUTPUTS)
        ends = await self._asked(readers.ends, OUTPUTS)
        follower = self.stage.follower
        await self._until(lambda: _reached(follower.reached(), final), SETTLE_S)
        stage = self.stage
        evidence = Evidence(
            bot=BOT,
            cluster=stage.cluster,
            inputs=inputs,
            outputs=outputs,
            committed=await asyncio.to_thread(
                readers.read_commits, stage.servers, GROUP, stage.setting.partitions
            ),
            ends=ends,
            seen={place: list(seen) for place, seen in follower.seen.items()},
            final=final,
            samples=list(stage.commits.samples),
            told=told,
            spoiled=self.spoiled,
            drained=drained,
            lost_commits=await self._lost_commits(),
        )
        found = await asyncio.to_thread(check, evidence)
        known = set(self.result.violations)
        self.result.violations += [one for one in found if one not in known]
        self.result.lost_commits = evidence.lost_commits
        self.result.inputs, self.result.outputs = len(evidence.inputs), len(outputs)
        self.result.outcomes = Counter(d.outcome for d in outputs if isinstance(d, Decision))

    async def _lost_commits(self) -> int:
        """How often the broker forgot commits, by its own logs and by what it answered."""
        told = lost_commits(self.stage.broker.log.read_text(errors="replace"))
        written = await asyncio.to_thread(readers.commit_history, self.stage.servers, GROUP)
        samples = [Written(s.place, s.commit, s.at_ms) for s in self.stage.commits.samples]
        return told + await asyncio.to_thread(forgotten, samples, written)

    async def nothing_more(self) -> None:
        """A worker started on the drained log publishes nothing."""
        before = await self._asked(readers.ends, OUTPUTS)
        fleet = self.stage.fleet
        fleet.owners.clear()
        await fleet.start()
        places = len(READ) * self.stage.setting.partitions
        for _ in range(300):
            if len(fleet.owners) == places:
                break
            await asyncio.sleep(0.1)
        else:
            self._wrong("lost", f"a last worker opened {len(fleet.owners)} of {places} partitions")
        await asyncio.sleep(1)  # longer than it takes to answer something
        self.stop_badly(await fleet.stop_all())
        after = await self._asked(readers.ends, OUTPUTS)
        if before != after:
            self._wrong("twice", "a worker started on the drained log published something")

    async def views_agree(self) -> None:
        """Every file of views that was left on disk says what one says that is built anew."""
        stage = self.stage
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bot.cli", "views", "verify"),
            env={
                **os.environ,
                **stage.setting.environment(stage.folder),
                "TWITE_KAFKA__BOOTSTRAP_SERVERS": stage.servers,
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        told, _ = await process.communicate()
        (stage.folder / "verify.log").write_bytes(told)
        if process.returncode:
            self._wrong("views", told.decode()[-1000:])

    async def keep(self, folder: Path) -> None:
        """The broker's log, and every commit: as its log has them, and as a sample found them."""
        (folder / "kafka.log").write_bytes(self.stage.broker.log.read_bytes())
        written = await asyncio.to_thread(readers.commit_history, self.stage.servers, GROUP)
        told = [("written", w.at_ms, w.place, w.commit) for w in written]
        told += [("sampled", s.at_ms, s.place, s.commit) for s in self.stage.commits.samples]
        lines = (
            json.dumps([what, at_ms, *place, commit.offset, commit.metadata])
            for what, at_ms, place, commit in sorted(told, key=lambda one: one[1])
        )
        (folder / "commits.jsonl").write_text("\n".join(lines) + "\n")

    def stop_badly(self, names: Iterable[str]) -> None:
        for name in names:
            self._wrong("stop", f"{name} did not stop gently")

    def crashes(self) -> None:
        """Workers that ended by themselves; -15: before they could catch the signal."""
        for name, status in self.stage.fleet.exits:
            if status not in (0, -signal.SIGKILL, -signal.SIGTERM):
                self._wrong("crash", f"{name} ended with status {status}")

    def _wrong(self, kind: str, detail: str) -> None:
        self.result.violations.append(Violation(kind, "the run", detail))


async def run(setting: Setting, say: Say = print) -> Result:
    """Everything, and the verdict."""
    started = time.monotonic()
    async with staged(setting) as stage:
        play = Run(stage, say)
        async with _kept_up(stage.fleet):
            await play.under_fire()
        if not setting.quick:
            say("every worker dies; what stands on the log must go together")
            await play.checkpoint()
            say("workers start again and finish")
        stage.fleet.wanted = setting.workers
        async with _kept_up(stage.fleet):
            await play.drain()
        play.stop_badly(await stage.fleet.stop_all())
        await play.settle()
        await play.judge(drained=True)
        if not setting.quick:
            await play.nothing_more()
            await play.views_agree()
        play.crashes()
        if setting.logs:
            await play.keep(setting.logs)
    play.result.aborted = play.feeding.aborted
    play.result.seconds = time.monotonic() - started
    return play.result


@asynccontextmanager
async def _kept_up(fleet: Fleet) -> AsyncIterator[None]:
    """While this lasts, workers that are gone are started again."""
    keeping = asyncio.create_task(fleet.keep_up(), name="keep up")
    try:
        yield
    finally:
        keeping.cancel()


def lost_commits(log: str) -> int:
    """How often a broker says that its group coordinator is not what its log says.

    Kafka 4.4, killed while the coordinator reads a long log, comes back with offsets of long ago.
    """
    return log.count("is out of sync with the underlying log")


def _last(servers: str, topics: Iterable[str], partitions: int) -> dict[Place, int]:
    """The offset of the last record of each partition that has any."""
    committed = readers.read_committed(servers, list(topics), partitions)
    return {(one.topic, one.partition): one.offset for one in committed}


def _inputs(
    servers: str, topics: Iterable[str], partitions: int
) -> tuple[list[Input], list[Told], int]:
    """What asks for a decision, what the feed tells of posts, and how many records it has."""
    inputs: list[Input] = []
    told: list[Told] = []
    fed = 0
    for one in readers.read_committed(servers, list(topics), partitions):
        if one.topic in INPUTS:
            inputs.append(input_fact(one))
        if one.topic in FEED:
            fed += 1
            told.extend(told_facts(one))
    return inputs, told, fed


def _outputs(
    servers: str, topics: Iterable[str], partitions: int
) -> tuple[list[Fact], dict[Place, list[tuple[int, str]]]]:
    facts: list[Fact] = []
    final: dict[Place, list[tuple[int, str]]] = {}
    for one in readers.read_committed(servers, list(topics), partitions):
        facts.append(output_fact(one))
        final.setdefault((one.topic, one.partition), []).append((one.offset, digest_of(one)))
    return facts, final


async def _reached(reached: Any, final: Any) -> bool:
    return all(reached.get(place, 0) > seen[-1][0] for place, seen in final.items())
