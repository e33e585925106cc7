"""Publish one event and wait for what becomes of it.

The reader stands at the ends of the outcome topics before the event is published, and the
answer to the produce request says where the event stands: the decision that names that
topic, partition and offset is the one outcome, whoever else is talking at the same time.
Of an edit or a deletion come reviews (``bot/chain.py``), with an outcome each, or nothing.
"""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import DefaultPartitioner

from bot.chain import TOPICS, Following, open_chain
from bot.clients import producer, require_topics
from bot.events import topic_and_key
from bot.observe import Outcome, OutcomeReader, Outcomes, Position, open_reader, wait_for
from bot.settings import KafkaSettings
from consumers.batches import RawBatch
from schemas.codec import encode
from schemas.envelope import Event
from schemas.names import FEED_DIRECT_MESSAGES, FEED_MENTIONS
from schemas.record import Output


@dataclass(frozen=True, slots=True)
class Asker:
    """A reader and a producer that stay open from one question to the next."""

    kafka: KafkaSettings
    reader: OutcomeReader
    writer: AIOKafkaProducer
    outcomes: Outcomes

    async def ask(self, event: Event[Any], timeout_s: float) -> Outcome | None:
        """Publish ``event``; its outcome, or None if none came within ``timeout_s`` seconds."""
        origin = await publish(self.writer, to_output(event))
        return await wait_for(self.reader, self.outcomes, origin, timeout_s)

    async def change(self, event: Event[Any], timeout_s: float) -> list[Outcome] | None:
        """Publish an edit or a deletion, or what an account wants; the outcomes of the reviews
        that come of it, or None if it took longer than ``timeout_s`` seconds."""
        async with (
            open_reader(self.kafka, topics=TOPICS) as reader,
            open_chain(self.kafka, reader) as chain,
        ):
            origin = await publish(self.writer, to_output(event))
            following = Following(chain, event.envelope.id, time.monotonic() + timeout_s)
            return await following.outcomes_of(origin)


@asynccontextmanager
async def open_asker(kafka: KafkaSettings) -> AsyncIterator[Asker]:
    """Raises ``BrokerUnreachable`` and ``TopicMissing``."""
    await require_topics(kafka, [FEED_MENTIONS, FEED_DIRECT_MESSAGES])
    async with open_reader(kafka) as reader, producer(kafka) as writer:
        yield Asker(kafka, reader, writer, Outcomes())


async def ask(kafka: KafkaSettings, event: Event[Any], *, timeout_s: float) -> Outcome | None:
    """Ask once. Raises ``BrokerUnreachable`` and ``TopicMissing``."""
    async with open_asker(kafka) as asker:
        return await asker.ask(event, timeout_s)


def to_output(event: Event[Any]) -> Output:
    """The event as the record to produce."""
    topic, key = topic_and_key(event)
    return encode(topic, key, event.envelope, event.data)


async def publish(writer: AIOKafkaProducer, record: Output) -> Position:
    """Produce one record and wait until the broker has it; where it stands."""
    if _sendable(record):
        headers = list(record.headers)
        sending = await writer.send(record.topic, record.value, record.key, headers=headers)
    else:
        partitions = sorted(await writer.partitions_for(record.topic))
        partition = DefaultPartitioner()(record.key, partitions, partitions)
        batch = RawBatch(record, transactional=False)
        sending = await writer.send_batch(batch, record.topic, partition=partition)
    sent = await sending
    return Position(sent.topic, sent.partition, sent.offset)


def _sendable(record: Output) -> bool:
    """Whether ``send`` takes the record: not without key and value, nor with a header name that
    is no text."""
    names = [name for name, _ in record.headers]
    plain = all(name == name.encode("utf-8", "replace").decode() for name in names)
    return plain and not (record.key is None and record.value is None)
