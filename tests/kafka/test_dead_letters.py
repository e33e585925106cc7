"""Dead letters on real Kafka: found, shown, and published again exactly once."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from bot import redrive as redriving
from bot.app import run_worker
from bot.clients import producer
from bot.config import as_environment
from bot.dead_letters import Letter, Wanted, find_named
from bot.errors import Trouble
from bot.observe import OUTCOME_TOPICS, Position, read_all
from bot.redrive import plan, redrive
from bot.settings import BotSettings, KafkaSettings, LoggingSettings, ModelSettings, Settings
from consumers.batches import RawBatch, needs_raw_batch
from consumers.reader import Bound, Range, range_reader
from infra.topics import create_topics
from model.echo import EchoEngine
from model.engine import Generation, GenerationRequest, RequestRefused
from schemas import names
from schemas.codes import Outcome
from schemas.dead_letters import REDRIVE_OF, dead_letter
from schemas.record import Output, Record
from tests.bot.make import BOT, direct, mention, record
from tests.wait import wait_until

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]
ODD = Record(
    topic=names.FEED_MENTIONS,
    partition=1,
    offset=0,
    timestamp_ms=0,
    key=None,
    value=None,
    headers=(("n\udcffme", b"\x00"), ("ce_id", None), ("twite_origin", b"x/0/1")),
)


@pytest.fixture
async def kafka(own_broker: str) -> AsyncIterator[KafkaSettings]:
    """Topics as new."""
    await create_topics(own_broker, partitions=2)
    yield KafkaSettings(bootstrap_servers=own_broker, group_id="dead-letter-tests")
    admin = AIOKafkaAdminClient(bootstrap_servers=own_broker)
    await admin.start()
    try:
        await admin.delete_topics([t for t in await admin.list_topics() if t[0] != "_"])
        async with asyncio.timeout(30):
            while any(t[0] != "_" for t in await admin.list_topics()):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    finally:
        await admin.close()


async def publish(kafka: KafkaSettings, outputs: Sequence[tuple[Output, int]]) -> None:
    """Outputs with their partitions, outside transactions."""
    async with producer(kafka) as client:
        for output, partition in outputs:
            if needs_raw_batch(output):
                batch = RawBatch(output, transactional=False)
                await (await client.send_batch(batch, output.topic, partition=partition))
            else:
                await client.send_and_wait(
                    output.topic,
                    output.value,
                    output.key,
                    partition=partition,
                    headers=list(output.headers),
                )


async def letters_of(kafka: KafkaSettings, *records: Record, code: str = "deadline") -> None:
    """Dead letters as a worker would have written them."""
    letters = [dead_letter(one, names.BOT_DEAD_LETTERS, code, "x", 1) for one in records]
    placed = [(letter, one.partition) for letter, one in zip(letters, records, strict=True)]
    await publish(kafka, placed)


def records(count: int) -> list[Record]:
    return [
        Record(
            topic=names.FEED_MENTIONS,
            partition=n % 2,
            offset=n,
            timestamp_ms=0,
            key=b"k%d" % n,
            value=b"v%d" % n,
            headers=(("ce_id", b"%d" % n),),
        )
        for n in range(count)
    ]


async def chosen(
    kafka: KafkaSettings, wanted: Wanted | None = None, *, settle: bool = True
) -> list[Letter]:
    if settle:
        await settled(kafka, names.BOT_DEAD_LETTERS)
    async with range_reader(kafka.bootstrap_servers) as reader:
        return await find_named(reader, wanted or Wanted())


async def on(kafka: KafkaSettings, topic: str) -> list[Record]:
    await settled(kafka, topic)
    async with range_reader(kafka.bootstrap_servers) as reader:
        return [record async for record in reader.read(Range(topic))]


async def settled(kafka: KafkaSettings, topic: str) -> None:
    """What is committed is readable a moment later."""
    places = [TopicPartition(topic, n) for n in range(2)]
    options = {"bootstrap_servers": kafka.bootstrap_servers}
    async with (
        AIOKafkaConsumer(**options) as every,
        AIOKafkaConsumer(**options, isolation_level="read_committed") as committed,
        asyncio.timeout(60),
    ):
        while await every.end_offsets(places) != await committed.end_offsets(places):  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def redriven(kafka: KafkaSettings) -> list[str]:
    """What the input topic holds of re-driven records: their origins."""
    found = [dict(one.headers).get(REDRIVE_OF) for one in await on(kafka, names.FEED_MENTIONS)]
    return sorted(value.decode() for value in found if value)


async def test_originals_come_back_byte_for_byte(kafka: KafkaSettings) -> None:
    plain = records(2)[0]
    await letters_of(kafka, ODD, plain)
    told: list[int] = []
    result = await redrive(kafka, await chosen(kafka), lambda done: told.append(len(done)))
    assert told == [2]
    assert not result.refused
    back = {one.partition: one for one in await on(kafka, names.FEED_MENTIONS)}
    for one in (ODD, plain):
        again = back[one.partition]
        assert (again.key, again.value) == (one.key, one.value)
        origin = f"feed.mentions/{one.partition}/{one.offset}".encode()
        assert again.headers == (*one.headers, (REDRIVE_OF, origin))
    for letter in await chosen(kafka):
        assert letter.redriven == (str(result.done[letter.at]),)
        assert result.done[letter.at] == Position.of(back[letter.origin.partition])


async def test_nothing_is_redriven_twice_unless_again_is_asked_for(kafka: KafkaSettings) -> None:
    await letters_of(kafka, *records(3))
    before = await chosen(kafka)
    assert len((await redrive(kafka, before)).done) == 3
    stale = await redrive(kafka, before)  # an operator who looked before the first run
    assert not stale.done
    assert [refusal.settled for refusal in stale.refused] == [True] * 3
    assert len(await redriven(kafka)) == 3
    now = await chosen(kafka)
    nothing = plan(now, {names.FEED_MENTIONS: 2}, again=False)
    assert not nothing.letters
    assert all("already" in refusal.why for refusal in nothing.refused)
    anew = plan(now[:1], {names.FEED_MENTIONS: 2}, again=True)
    assert len((await redrive(kafka, anew.letters)).done) == 1
    assert len(await redriven(kafka)) == 4
    assert sorted(len(letter.redriven) for letter in await chosen(kafka)) == [1, 1, 2]


KILLED = """
import asyncio, os, signal, sys
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from bot.dead_letters import Wanted, find_named
from bot.redrive import redrive
from bot.settings import KafkaSettings
from consumers.reader import range_reader

commit = AIOKafkaProducer.commit_transaction

async def killed(self):
    if sys.argv[2] == "after":
        await commit(self)
    os.kill(os.getpid(), signal.SIGKILL)

AIOKafkaProducer.commit_transaction = killed

async def main():
    kafka = KafkaSettings(bootstrap_servers=sys.argv[1])
    async with range_reader(kafka.bootstrap_servers) as reader:
        letters = await find_named(reader, Wanted())
    await redrive(kafka, letters)

asyncio.run(main())
"""


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_kill_around_the_commit_leaves_both_or_neither(
    kafka: KafkaSettings, when: str
) -> None:
    await letters_of(kafka, *records(4))
    stale = await chosen(kafka)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, kafka.bootstrap_servers, when, cwd=ROOT
    )
    assert await process.wait() == -signal.SIGKILL
    result = await redrive(kafka, stale)  # at once: the open transaction is still there
    assert len(result.done) == (4 if when == "before" else 0)
    assert len(result.refused) == 4 - len(result.done)
    assert await redriven(kafka) == [f"feed.mentions/{n % 2}/{n}" for n in (0, 2, 1, 3)]
    assert [len(letter.redriven) for letter in await chosen(kafka)] == [1] * 4


async def test_of_two_operators_at_once_one_is_fenced(
    kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await letters_of(kafka, *records(4))
    letters = await chosen(kafka)
    stopped, go_on = asyncio.Event(), asyncio.Event()
    commit = AIOKafkaProducer.commit_transaction

    async def late(self: AIOKafkaProducer) -> None:
        if not stopped.is_set():
            stopped.set()
            await go_on.wait()
        await commit(self)

    monkeypatch.setattr(AIOKafkaProducer, "commit_transaction", late)
    monkeypatch.setattr(redriving, "COMMIT_TIMEOUT_S", 60.0)
    first = asyncio.create_task(redrive(kafka, letters))
    await stopped.wait()
    second = await redrive(kafka, letters)
    assert len(second.done) == 4
    go_on.set()
    with pytest.raises(Trouble, match="another re-drive was started"):
        await first
    assert len(await redriven(kafka)) == 4


async def test_a_batch_of_the_loser_that_was_not_sent_yet_is_fenced_too(
    kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await letters_of(kafka, *records(4))
    letters = await chosen(kafka)
    stopped, go_on = asyncio.Event(), asyncio.Event()
    begin = AIOKafkaProducer.begin_transaction

    async def late(self: AIOKafkaProducer) -> None:
        if not stopped.is_set():
            stopped.set()
            await go_on.wait()
        await begin(self)

    monkeypatch.setattr(AIOKafkaProducer, "begin_transaction", late)
    monkeypatch.setattr(redriving, "COMMIT_TIMEOUT_S", 60.0)
    first = asyncio.create_task(redrive(kafka, letters))
    await stopped.wait()
    assert len((await redrive(kafka, letters)).done) == 4
    go_on.set()
    with pytest.raises(Trouble, match="another re-drive was started"):
        await first
    assert len(await redriven(kafka)) == 4


async def test_a_mark_behind_an_open_transaction_is_waited_for(
    kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``read_committed`` does not see it yet; whoever trusts that publishes twice."""
    await letters_of(kafka, *records(1))
    before = await chosen(kafka)
    looks: list[bool] = []
    reached = redriving._reached

    def look(*ends: Any) -> bool:
        looks.append(reached(*ends))
        return looks[-1]

    monkeypatch.setattr(redriving, "_reached", look)
    async with AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers, transactional_id="a-worker"
    ) as worker:

        async def open_transaction(*_: Any) -> Any:
            await worker.begin_transaction()
            await (await worker.send(names.BOT_DEAD_LETTERS, b"open", partition=0))
            return {}

        with monkeypatch.context() as patch:  # after the first run looked, before it marks
            patch.setattr(redriving, "_marks", open_transaction)
            assert len((await redrive(kafka, before)).done) == 1
        hidden = await chosen(kafka, settle=False)
        assert [letter.redriven for letter in hidden] == [()]
        second = asyncio.create_task(redrive(kafka, before))
        await wait_until(lambda: False in looks or second.done(), 60)
        await worker.abort_transaction()
    result = await second
    assert False in looks
    assert not result.done
    assert len(await redriven(kafka)) == 1


async def test_a_letter_from_elsewhere_can_not_make_the_bot_speak(kafka: KafkaSettings) -> None:
    forged = [
        Record(topic=topic, partition=partition, offset=1, timestamp_ms=0, key=b"k", value=b"v")
        for topic, partition in ((names.BOT_REPLIES, 0), (names.FEED_MENTIONS, 1))
    ]
    far = dead_letter(forged[1], names.BOT_DEAD_LETTERS, "c", "d", 0)
    far = Output(
        topic=far.topic,
        key=far.key,
        value=far.value,
        headers=(*far.headers[:-1], ("twite_origin", b"feed.mentions/99/1")),
    )
    await letters_of(kafka, forged[0])
    await publish(kafka, [(far, 1)])
    result = await redrive(kafka, await chosen(kafka))
    assert sorted(refusal.why for refusal in result.refused) == [
        "comes from bot.replies, which the bot does not answer",
        "feed.mentions has no partition 99 now",
    ]
    assert not result.done
    assert not await on(kafka, names.BOT_REPLIES)


async def test_what_would_not_fit_any_more_is_left_out(kafka: KafkaSettings) -> None:
    small, large = records(3)[0], records(3)[2]
    large = Record(
        topic=large.topic,
        partition=0,
        offset=2,
        timestamp_ms=0,
        key=b"k",
        value=b"x" * (2 * 1024 * 1024),
    )
    await letters_of(kafka, large, small)
    result = await redrive(kafka, await chosen(kafka))
    assert len(result.done) == 1
    assert "more than the 2097152 bytes" in result.refused[0].why


class Fickle(EchoEngine):
    """Refuses every prompt until it is told to work."""

    works = False

    async def generate(self, request: GenerationRequest) -> Generation:
        if not self.works:
            raise RequestRefused("prompt-too-long", "no")
        return await super().generate(request)


async def test_the_bot_answers_a_redriven_record_once(kafka: KafkaSettings) -> None:
    settings = Settings(
        kafka=kafka,
        model=ModelSettings(engine="echo"),
        logging=LoggingSettings(level="error"),
        bot=BotSettings(account_id=BOT.id, handle=BOT.handle),
    )
    asked = [(record(mention(), event_id="m1"), 0), (record(direct(), event_id="d1"), 1)]
    engine, stop = Fickle(), asyncio.Event()
    worker = asyncio.create_task(run_worker(settings, engine=engine, stop=stop))
    try:
        await publish(kafka, [(_output(one), partition) for one, partition in asked])
        await _until(kafka, names.BOT_DEAD_LETTERS, 1)
        await _until(kafka, names.BOT_DEAD_LETTERS_PRIVATE, 1)
        engine.works = True
        result = await redrive(kafka, await chosen(kafka))
        assert len(result.done) == 2
        await _until(kafka, names.BOT_REPLIES, 1)
        await _until(kafka, names.BOT_DIRECT_REPLIES, 1)
        again = plan(await chosen(kafka), {names.FEED_MENTIONS: 2}, again=True)
        await redrive(kafka, again.letters)
        await publish(kafka, [(_output(one), partition) for one, partition in asked])
        await _until(kafka, names.BOT_AUDIT, 4)
    finally:
        stop.set()
        await worker
    starts = {TopicPartition(topic, n): 0 for topic in OUTCOME_TOPICS for n in range(2)}
    outcomes = await read_all(kafka, starts)
    assert not outcomes.unreadable
    assert not outcomes.doubles
    assert not outcomes.torn
    assert len(outcomes.replies) == 2
    decisions = [json.loads(one.value or b"") for one in await on(kafka, names.BOT_AUDIT)]
    assert [(one["outcome"], one["reason"]) for one in decisions] == [
        (Outcome.DEAD_LETTERED, "handler-error"),
        (Outcome.REPLIED, None),
        (Outcome.SKIPPED, "duplicate"),
        (Outcome.SKIPPED, "duplicate"),
    ]
    assert [one["input"]["redrive_of"] for one in decisions] == [
        None,
        "feed.mentions/0/0",
        "feed.mentions/0/0",
        None,
    ]
    assert {one["duplicate_of"] for one in decisions[2:]} == {decisions[1]["decision_id"]}


def _output(one: Record) -> Output:
    return Output(topic=one.topic, key=one.key, value=one.value, headers=one.headers)


async def _until(kafka: KafkaSettings, topic: str, count: int) -> None:
    async with asyncio.timeout(60):
        while len(await on(kafka, topic)) < count:  # noqa: ASYNC110 - only reading tells
            await asyncio.sleep(0.05)


def twite(kafka: KafkaSettings, *arguments: str) -> "subprocess.CompletedProcess[str]":
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TWITE_")}
    return subprocess.run(
        [sys.executable, "-m", "bot.cli", "dead-letters", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
        env=clean | as_environment(Settings(kafka=kafka)) | {"COLUMNS": "200"},
    )


async def test_the_commands_of_an_operator(kafka: KafkaSettings) -> None:
    await letters_of(kafka, *records(3), code="deadline")
    secret = replace(record(direct("secret-canary"), event_id="d1"), partition=0)
    private = dead_letter(secret, names.BOT_DEAD_LETTERS_PRIVATE, "schema", "data: missing", 0)
    await publish(kafka, [(private, 0)])

    await settled(kafka, names.BOT_DEAD_LETTERS)
    listed = await asyncio.to_thread(twite, kafka, "list", "--json", "--since", "1h")
    assert json.loads(listed.stdout)["codes"] == {"deadline": 3, "schema": 1}
    table = await asyncio.to_thread(twite, kafka, "list", "--code", "deadline", "--limit", "2")
    assert "feed.mentions/0/0" not in table.stdout
    assert "3 dead letters (deadline: 3), 0 of them re-driven" in table.stdout

    masked = await asyncio.to_thread(twite, kafka, "show", "bot.dead-letters-private/0/0")
    assert masked.returncode == 0, masked.stderr
    assert "secret-canary" not in masked.stdout
    assert "conv-1" not in masked.stdout
    shown = await asyncio.to_thread(
        twite, kafka, "show", "feed.direct-messages/0/7", "--reveal", "--json"
    )
    assert "secret-canary" in shown.stdout

    dry = await asyncio.to_thread(twite, kafka, "redrive", "--code", "deadline", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "would publish again: 3 to feed.mentions" in dry.stdout
    assert not await redriven(kafka)
    unasked = await asyncio.to_thread(twite, kafka, "redrive", "feed.mentions/0/2")
    assert (unasked.returncode, await redriven(kafka)) == (2, [])
    assert "--yes" in unasked.stderr

    one = await asyncio.to_thread(twite, kafka, "redrive", "feed.mentions/0/2", "--yes", "--json")
    (done,) = json.loads(one.stdout)["redriven"]
    assert (done["origin"], done["redriven_as"]) == ("feed.mentions/0/2", "feed.mentions/0/0")
    rest = await asyncio.to_thread(twite, kafka, "redrive", "--code", "deadline", "-y")
    assert rest.returncode == 0, rest.stderr
    assert "left out: feed.mentions/0/2 was re-driven already" in rest.stdout
    assert len(await redriven(kafka)) == 3
    nowhere = await asyncio.to_thread(twite, kafka, "show", "feed.mentions/0/77")
    assert nowhere.returncode == 1
    assert "no dead letter stands or comes from there" in nowhere.stderr


async def test_a_range_is_chosen_by_time_and_partition(kafka: KafkaSettings) -> None:
    await letters_of(kafka, *records(4))
    letters = await chosen(kafka)
    assert len(await chosen(kafka, Wanted(partition=1))) == 2
    last = max(letter.timestamp_ms for letter in letters)
    late = await chosen(kafka, Wanted(since_ms=last))
    early = await chosen(kafka, Wanted(until_ms=last))
    assert {letter.at for letter in early} | {letter.at for letter in late} == {
        letter.at for letter in letters
    }
    assert not {letter.at for letter in early} & {letter.at for letter in late}
    with pytest.raises(Trouble, match="among those asked for"):
        await chosen(kafka, Wanted(places=frozenset({letters[0].at}), codes=frozenset({"schema"})))
    async with range_reader(kafka.bootstrap_servers) as reader:
        span = Range(names.BOT_DEAD_LETTERS, (0,), Bound({0: 0}), Bound({0: 1}))
        assert len([one async for one in reader.read(span)]) == 1
