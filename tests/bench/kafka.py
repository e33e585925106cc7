"""Topics, inputs and reading back, the same for every bench and every peer.

An input's value begins with the seconds that its handler takes, its key is its lane. Inputs are
dealt to partitions by lane, so a lane stands in one partition. Topics are stamped by the
broker (``LogAppendTime``), so that rates and delays are told by one clock, whoever writes.
"""

import asyncio
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from confluent_kafka import Consumer, KafkaException, TopicPartition

PARTITIONS = 4
INPUT_BYTES = 300
IDLE_S = 30.0  # reading back gives up after this long without a record


@dataclass(frozen=True, slots=True)
class Input:
    """What to append: ``seconds`` is how long its handler shall take."""

    lane: int
    seconds: float = 0.0
    tag: str = ""

    @property
    def key(self) -> bytes:
        return b"lane-%d" % self.lane

    @property
    def value(self) -> bytes:
        head = f"{self.seconds:g} {self.tag} ".encode()
        return head + b"x" * (INPUT_BYTES - len(head))


@dataclass(frozen=True, slots=True)
class Seen:
    """A record read back: where it stands, when the broker took it in, and what it names."""

    partition: int
    offset: int
    at_ms: int
    key: bytes
    value: bytes


async def make_topics(bootstrap_servers: str, *names: str, partitions: int = PARTITIONS) -> None:
    """Topics stamped by the broker."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        configs = {"message.timestamp.type": "LogAppendTime"}
        wanted = [NewTopic(name, partitions, 1, topic_configs=configs) for name in names]
        await admin.create_topics(wanted)
    finally:
        await admin.close()


async def preload(
    bootstrap_servers: str, topic: str, inputs: Iterable[Input], partitions: int = PARTITIONS
) -> None:
    """Append all inputs before anything reads them."""
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap_servers, linger_ms=5, max_batch_size=1 << 18
    )
    await producer.start()
    try:
        sent = [
            await producer.send(topic, i.value, i.key, partition=i.lane % partitions)
            for i in inputs
        ]
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


async def append_steadily(
    bootstrap_servers: str,
    topic: str,
    inputs: Iterable[Input],
    rate: float,
    partitions: int = PARTITIONS,
) -> None:
    """Append ``rate`` inputs a second, evenly; a late one does not delay the next."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, enable_idempotence=True)
    await producer.start()
    start = time.perf_counter()
    try:
        for number, item in enumerate(inputs):
            wait = start + number / rate - time.perf_counter()
            if wait > 0:
                await asyncio.sleep(wait)
            partition = item.lane % partitions
            await producer.send(topic, item.value, item.key, partition=partition)
    finally:
        await producer.stop()


def delays_ms(
    bootstrap_servers: str, source: str, out: str, partitions: int = PARTITIONS
) -> list[tuple[bytes, float]]:
    """(value of the input, ms until its reply was in the log), in the order of the replies."""
    inputs = {
        (seen.partition, seen.offset): seen
        for seen in read_back(bootstrap_servers, source, partitions)
    }
    replies = read_back(bootstrap_servers, out, partitions)
    found = []
    for reply in sorted(replies, key=lambda seen: seen.at_ms):
        asked = inputs[place_of(reply.value)]
        found.append((asked.value, float(reply.at_ms - asked.at_ms)))
    return found


def place_of(reply: bytes) -> tuple[int, int]:
    """The partition and offset of the input that a reply names."""
    partition, _, offset = reply.split(b" ", 1)[0].partition(b"/")
    return int(partition), int(offset)


def shuffled_lanes(count: int, lanes: int, seed: int = 4) -> Iterator[int]:
    """Lane numbers: all lanes once in a random order, again and again."""
    chance = random.Random(seed)
    order = list(range(lanes))
    for i in range(count):
        if i % lanes == 0:
            chance.shuffle(order)
        yield order[i % lanes]


def read_back(
    bootstrap_servers: str,
    topic: str,
    partitions: int = PARTITIONS,
    starts: Sequence[int] | None = None,
) -> list[Seen]:
    """All committed records to the present end, in offset order per partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "bench-reader",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    first = starts or [0] * partitions
    consumer.assign([TopicPartition(topic, p, first[p]) for p in range(partitions)])
    try:
        return list(_until_ends(consumer, partitions))
    finally:
        consumer.close()


def _until_ends(consumer: Consumer, partitions: int) -> Iterator[Seen]:
    ended: set[int] = set()
    patience = time.monotonic() + IDLE_S
    while len(ended) < partitions:
        for message in consumer.consume(1000, timeout=1.0):
            error = message.error()
            if error is None:
                ended.discard(message.partition())
                yield _seen(message)
                patience = time.monotonic() + IDLE_S
            elif error.name() == "_PARTITION_EOF":
                ended.add(message.partition())
            else:
                raise KafkaException(error)
        if time.monotonic() > patience:
            raise TimeoutError("the topic does not end")


def _seen(message: Any) -> Seen:
    m = message
    place = m.partition(), m.offset(), m.timestamp()[1]
    return Seen(*place, m.key() or b"", m.value() or b"")
