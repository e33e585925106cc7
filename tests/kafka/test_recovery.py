"""A group whose offsets are gone resumes from the audit, and answers nothing again."""

import asyncio
import os
import signal
import urllib.error
import urllib.request
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from aiokafka import TopicPartition
from confluent_kafka import ConsumerGroupTopicPartitions
from confluent_kafka import TopicPartition as TopicPartitionOffset
from confluent_kafka.admin import AdminClient

from bot.app import run_worker
from bot.ask import Asker, open_asker, publish, to_output
from bot.clients import producer
from bot.events import Person, account_changed, mention_of, message_to
from bot.handlers import INPUT_TOPICS
from bot.observe import open_reader, read_all
from bot.recovery import finished_on_audit
from bot.settings import HttpSettings, KafkaSettings, LoggingSettings, ModelSettings, Settings
from consumers.offsets import Committed
from infra.broker import LocalBroker
from infra.ports import free_port
from schemas import names
from schemas.audit import DecisionRecorded, InputRef
from schemas.codec import encode
from schemas.codes import Outcome
from schemas.envelope import Envelope
from tests.kafka.brokers import running

pytestmark = pytest.mark.kafka

PATIENCE_S = 60.0
ENVELOPE = Envelope(
    id="d", source="test", type=names.DECISION_RECORDED, time=datetime(2026, 11, 24, tzinfo=UTC)
)
ALICE = Person("acct-alice", "alice", "Alice")


@pytest.fixture(scope="module")
def broker() -> Iterator[LocalBroker]:
    """One of its own: what is on the audit topics is counted."""
    with running(partitions=2) as local:
        yield local


def settings(broker: LocalBroker, group: str) -> Settings:
    return Settings(
        kafka=KafkaSettings(bootstrap_servers=broker.bootstrap_servers, group_id=group),
        model=ModelSettings(engine="echo"),
        http=HttpSettings(port=free_port()),
        logging=LoggingSettings(format="json"),
    )


def decided(source: TopicPartition, offset: int) -> DecisionRecorded:
    return DecisionRecorded(
        decision_id=str(uuid.uuid4()),
        outcome=Outcome.DEAD_LETTERED,
        reason="not-json",
        input=InputRef(topic=source.topic, partition=source.partition, offset=offset),
        code_version="test",
        settings_digest="test",
        recorded_at=ENVELOPE.time,
    )


@asynccontextmanager
async def working(chosen: Settings) -> AsyncIterator[Asker]:
    stop = asyncio.Event()
    worker = asyncio.create_task(run_worker(chosen, stop=stop))
    try:
        async with open_asker(chosen.kafka) as asker:
            yield asker
    finally:
        stop.set()
        await worker


async def asked(asker: Asker, chosen: Settings, count: int) -> None:
    for i in range(count):
        event = mention_of(chosen.bot, ALICE, f"Question {i}", conversation_id=f"thread {i}")
        assert await asker.ask(event, PATIENCE_S) is not None


def page(chosen: Settings, path: str) -> str:
    url = f"http://127.0.0.1:{chosen.http.port}{path}"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:  # 503: not ready
        return error.read().decode()


async def shows(chosen: Settings, path: str, text: str) -> None:
    """Waits until the page holds the text: a reader sees an outcome before it is counted."""
    seen = ""

    async def holds() -> bool:
        nonlocal seen
        seen = await asyncio.to_thread(page, chosen, path)
        return text in seen

    try:
        async with asyncio.timeout(PATIENCE_S):
            while not await holds():  # noqa: ASYNC110  # another thread's page has no event
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"{path} never held {text!r}: {seen}")


async def test_offsets_that_expired_are_read_off_the_audit(broker: LocalBroker) -> None:
    first, second = settings(broker, "first"), settings(broker, "second")
    async with open_reader(first.kafka) as reader:
        starts = reader.starts
    async with working(first) as asker:
        await asked(asker, first, 6)
        talk = message_to(first.bot, ALICE, "Hi", conversation_id="talk")
        assert await asker.ask(talk, PATIENCE_S) is not None
    found = [
        await finished_on_audit(first.kafka, TopicPartition(names.FEED_MENTIONS, partition))
        for partition in range(2)
    ]
    assert sum(committed.offset for committed in found if committed) == 6
    assert all(committed is None or not committed.ahead for committed in found)
    # Another group has no offsets, as ours would have none after a week away.
    async with working(second) as asker:
        event = mention_of(second.bot, ALICE, "A new one", conversation_id="thread 9")
        outcome = await asker.ask(event, PATIENCE_S)
        assert outcome is not None
        assert outcome.decision.outcome == "replied"
    everything = await read_all(first.kafka, starts)
    assert len(everything.decisions) == 8
    assert everything.doubles == []


async def test_offsets_that_went_back_answer_nothing_again(broker: LocalBroker) -> None:
    chosen = settings(broker, "back")
    async with open_reader(chosen.kafka) as reader:
        starts = reader.starts
    async with working(chosen) as asker:
        await asked(asker, chosen, 6)
    await asyncio.to_thread(move_back, broker.bootstrap_servers, "back")
    async with working(chosen) as asker:
        event = mention_of(chosen.bot, ALICE, "A new one", conversation_id="thread 9")
        outcome = await asker.ask(event, PATIENCE_S)
        assert outcome is not None
        assert outcome.decision.outcome == "replied"
    everything = await read_all(chosen.kafka, starts)
    assert len(everything.decisions) == 7
    assert everything.doubles == []


def move_back(servers: str, group: str) -> None:
    """What a broker does that lost commits: the group stands at the beginning again."""
    places = [
        TopicPartitionOffset(topic, partition, 0)
        for topic in (names.FEED_MENTIONS, names.FEED_DIRECT_MESSAGES)
        for partition in range(2)
    ]
    admin = AdminClient({"bootstrap.servers": servers})
    asked_for = [ConsumerGroupTopicPartitions(group, places)]
    for future in admin.alter_consumer_group_offsets(asked_for).values():
        assert all(place.error is None for place in future.result().topic_partitions)


async def test_an_unfinished_record_is_what_it_resumes_from(broker: LocalBroker) -> None:
    kafka = settings(broker, "first").kafka
    for partition in range(2):
        source = TopicPartition(names.FEED_DIRECT_MESSAGES, partition)
        if await finished_on_audit(kafka, source) is None:
            break
    async with producer(kafka) as writer:
        for _ in range(5):
            await writer.send_and_wait(source.topic, b"no event", partition=source.partition)
        for offset in (0, 1, 3):
            decision = encode(names.BOT_AUDIT_PRIVATE, None, ENVELOPE, decided(source, offset))
            await writer.send_and_wait(
                decision.topic,
                decision.value,
                partition=source.partition,
                headers=list(decision.headers),
            )
    assert await finished_on_audit(kafka, source) == Committed(2, frozenset({3}))


async def test_health_and_metrics_of_a_worker(broker: LocalBroker) -> None:
    chosen = settings(broker, "health")
    async with working(chosen) as asker:
        await asked(asker, chosen, 1)
        await shows(chosen, "/livez", '{"alive": true}')
        await shows(chosen, "/readyz", '"feed.mentions/1": "open"')
        for line in (
            'twite_outcomes_total{kind="done",topic="feed.mentions"} 1.0',
            f'twite_partitions{{state="open"}} {2 * len(INPUT_TOPICS)}.0',
            'twite_lag_records{partition="0",topic="feed.mentions"} 0.0',
        ):
            await shows(chosen, "/metrics", line)


async def test_a_broker_that_stands_still_makes_no_worker_answer_against_an_opt_out(
    broker: LocalBroker,
) -> None:
    """For so long that nobody can know what people want: not ready, and back when it is back."""
    chosen, nobody = settings(broker, "stands still"), Person("acct-nobody", "nobody")
    async with working(chosen) as asker:
        await asked(asker, chosen, 1)
        os.kill(broker.pid, signal.SIGSTOP)
        try:
            opting = to_output(account_changed(nobody, opted_out=True))
            telling = asyncio.create_task(publish(asker.writer, opting))
            await shows(chosen, "/readyz", "views are being read")
            await shows(chosen, "/livez", '{"alive": true}')
        finally:
            os.kill(broker.pid, signal.SIGCONT)
        await telling
        outcome = await asker.ask(mention_of(chosen.bot, nobody, "Still there?"), PATIENCE_S)
        assert outcome is not None
        assert outcome.decision.reason == "opted-out"
        await shows(chosen, "/readyz", '"ready": true')
