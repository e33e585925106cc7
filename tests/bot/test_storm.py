"""A storm of edits: a hundred of a post that twenty replies were built on, and somebody else who
wants a reply taken back meanwhile. One process, the worker's own slots and lanes, no Kafka."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from aiokafka import TopicPartition

from bot import corrections
from bot.handlers import INPUT_TOPICS, SILENT_TOPICS, WEIGHTS, Handlers
from bot.limits_file import LimitsInForce
from bot.quota_memory import BoundedMemory
from bot.quotas import CountedQuotas, Quotas
from bot.rates import LiveLimits
from consumers.config import WorkerConfig
from consumers.handler import GiveUp
from consumers.metrics import Metrics
from consumers.outbox import Kind
from consumers.slots import Slots, Work
from model.echo import EchoEngine
from model.engine import Generation, GenerationRequest
from schemas import names
from schemas.codes import Outcome
from schemas.feed import MentionCreated
from schemas.record import Output, Record
from tests.bot.make import BOT, NOW, mention_facet, post, setup
from tests.bot.test_taking_back import CALL, PLAIN, QUOTE, ROOT, World, settled
from tests.wait import wait_until

REPLIES, EDITS, SLOTS = 20, 100, 8
CONFIG = WorkerConfig(
    bootstrap_servers="none:1",
    group_id="g",
    topics=INPUT_TOPICS,
    silent_topics=SILENT_TOPICS,
    weights=WEIGHTS,
    retry_base_s=0.001,
    retry_cap_s=0.01,
)


class Counting(EchoEngine):
    """Counts how often it is asked, and answers when it may."""

    calls = 0

    def __init__(self) -> None:
        super().__init__(latency_ms=50, slots=SLOTS)
        self.may = asyncio.Event()
        self.may.set()

    async def generate(self, request: GenerationRequest) -> Generation:
        self.calls += 1
        await self.may.wait()
        return await super().generate(request)


class Stormy(World):
    """With quotas, an engine that takes 50 ms, and twenty who ask below one post and quote another,
    of a conversation in another partition."""

    def __init__(self, quotas: Quotas | None = None) -> None:
        self._quotas = quotas
        super().__init__()
        self.write(ROOT)
        for n in range(REPLIES):
            self._ask(f"at://ask/{n}")
        self.mention(PLAIN)

    def new_engine(self) -> EchoEngine:
        return Counting()

    def new_handlers(self) -> Handlers:
        return Handlers(
            setup(), self.engine, views=cast("Any", self), quotas=self._quotas, now=lambda: NOW
        )

    def is_here(self, record: Record) -> bool:
        return record.key != b"elsewhere"

    @property
    def counting(self) -> Counting:
        return cast("Counting", self.engine)

    @property
    def calls(self) -> int:
        return self.counting.calls

    def _ask(self, uri: str) -> None:
        root, quoted, text = self.posts[ROOT], self.posts[QUOTE], f"{CALL} what do you think?"
        facets = (mention_facet(text, CALL, BOT.id),)
        above = {"parent": root.ref, "root": root.ref, "quote": quoted.ref}
        one = post(uri, text, facets=facets, **above)
        self.posts[uri] = one
        self.asked.add(uri)
        data = MentionCreated(
            post=one,
            mentioned_account_id=BOT.id,
            ancestors=(root,),
            ancestors_complete=True,
            quoted=quoted,
        )
        self.tell(names.FEED_MENTIONS, names.MENTION_CREATED, data, one.conversation_id)

    def reviews(self) -> list[dict[str, Any]]:
        """The decisions on them."""
        told = [data for _, data in self.told(names.BOT_AUDIT)]
        return [data for data in told if data["input"]["topic"] == names.BOT_REVIEWS]

    def is_retracted(self) -> bool:
        return any(data["outcome"] == Outcome.RETRACTED for data in self.reviews())


class Partition:
    """One partition of a topic of that world: what is finished is committed at once."""

    def __init__(self, world: World, topic: str) -> None:
        self.source = TopicPartition(topic, 0)
        self.handler = world.handlers[topic]
        self.is_open = True
        self.taken = 0
        self._world = world

    def finish(self, offset: int, outputs: Sequence[Output], kind: Kind = "done") -> None:
        self._world.done[self.source.topic] += 1
        for output in outputs:
            self._world.append(output)

    def enter(self, task: object, work: object) -> None: ...

    def leave(self, task: object) -> None: ...

    def next(self) -> list[Record]:
        """Records that nobody has read."""
        records = self._world.topics.get(self.source.topic, [])[self.taken :]
        self.taken += len(records)
        return records


class Worker:
    """Reads whatever is there, and hands it to the slots."""

    def __init__(self, world: World) -> None:
        self._partitions: list[Any] = [Partition(world, topic) for topic in INPUT_TOPICS]
        self._world = world
        self.slots = Slots(CONFIG, Metrics(), lambda: SLOTS, lambda: None)

    def read(self) -> None:
        for partition in self._partitions:
            for record in partition.next():
                self._put(partition, record)
        self.slots.dispatch()

    def _put(self, partition: Any, record: Record) -> None:
        try:
            job = partition.handler.open(record)
        except GiveUp as error:  # nothing that is put here
            raise AssertionError from error
        if job.done and record.topic in SILENT_TOPICS:
            partition.finish(record.offset, ())
        else:
            self.slots.put((partition, job.lane), Work(partition, record, job), job)

    @property
    def is_quiet(self) -> bool:
        topics = self._world.topics
        return all(self._world.done[t] == len(topics.get(t, ())) for t in INPUT_TOPICS)

    @property
    def has_joined(self) -> bool:
        """Every change has met what was built on the post."""
        topics, done = self._world.topics, self._world.done
        return all(done[t] == len(topics.get(t, ())) for t in SILENT_TOPICS)

    @property
    def waiting(self) -> int:
        """Reviews without an outcome."""
        topic = names.BOT_REVIEWS
        return len(self._world.topics.get(topic, ())) - self._world.done[topic]

    async def run(self) -> None:
        while True:
            self.read()
            await asyncio.sleep(0.001)


@asynccontextmanager
async def working(world: Stormy) -> AsyncIterator[Worker]:
    """A worker that has answered everybody, and goes on working."""
    worker = Worker(world)
    await world.engine.start()
    task = asyncio.create_task(worker.run())
    try:
        await wait_until(lambda: worker.is_quiet)
        assert world.calls == REPLIES + 1
        yield worker
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def reasons(world: Stormy) -> list[str | None]:
    return [data["reason"] for data in world.reviews()]


async def test_of_a_hundred_edits_at_once_each_reply_answers_the_last() -> None:
    world = Stormy()
    async with working(world) as worker:
        before = world.calls
        for _ in range(EDITS):
            world.edit(QUOTE)
        await wait_until(lambda: worker.is_quiet)
        assert REPLIES <= world.calls - before <= 3 * REPLIES
        assert set(reasons(world)) <= {"edited", "overtaken", "kept"}
    await settled(world)


async def test_edits_that_never_end_ask_the_model_so_often_and_hold_up_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(corrections, "SHORTEST_S", 0.2)
    monkeypatch.setattr(corrections, "LONGEST_S", 0.2)
    now = [0.0]
    limits = LimitsInForce(LiveLimits(corrections_per_reply="3 per minute"), counter=lambda: 0.0)
    world = Stormy(CountedQuotas(limits, BoundedMemory(1000, lambda: now[0])))
    async with working(world) as worker:
        before = world.calls
        for _ in range(3):
            world.edit(ROOT)
            await wait_until(lambda: worker.is_quiet)
        assert world.calls - before == 3 * REPLIES
        for _ in range(10):  # each has asked for its reviews before the next one comes
            world.edit(ROOT)
            await wait_until(lambda: worker.has_joined)
        await wait_until(lambda: worker.waiting == REPLIES)
        assert world.calls - before == 3 * REPLIES
        now[0] += 121  # it is quiet
        await wait_until(lambda: worker.is_quiet)
        assert world.calls - before == 4 * REPLIES
        assert set(reasons(world)) <= {"edited", "overtaken", "deleted", "kept"}
    await settled(world)


async def test_a_deletion_waits_for_no_call_of_the_model() -> None:
    """Every slot is taken by a correction, and none of these comes to an end."""
    world = Stormy()
    async with working(world) as worker:
        world.counting.may.clear()
        world.edit(QUOTE)
        await wait_until(lambda: worker.slots.in_flight == SLOTS and worker.waiting == REPLIES)
        world.delete(PLAIN)
        await wait_until(world.is_retracted)
        assert worker.waiting == REPLIES
        world.delete("at://ask/0")
        world.counting.may.set()
        await wait_until(lambda: worker.is_quiet)
    await settled(world)
