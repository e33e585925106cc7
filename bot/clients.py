"""Kafka clients for commands: an admin, a reader's consumer and an idempotent producer.

Settings come in, a started client goes out, closed at the end of its ``async with``. A broker
that does not answer raises ``BrokerUnreachable``, which says what to do. The worker does not
use these: its transactional clients are the runtime's own.
"""

import asyncio
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError, KafkaError

from bot.errors import Trouble
from bot.publishing import Send
from bot.settings import KafkaSettings
from consumers import batches
from consumers.errors import BrokerUnreachable, TopicMissing
from schemas.record import Output
from schemas.topics import MAX_REQUEST_BYTES

START_S = 10.0  # how long a client may take to find its broker
STOP_S = 5.0  # `stop()` of a client whose broker is gone can hang


@asynccontextmanager
async def admin(kafka: KafkaSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    """An admin client. Raises ``BrokerUnreachable``."""
    client = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers, **options(kafka))
    await _start(client.start(), client.close, kafka)
    try:
        yield client
    finally:
        await _stop(client.close())


@asynccontextmanager
async def producer(kafka: KafkaSettings) -> AsyncIterator[AIOKafkaProducer]:
    """An idempotent producer: a record is written once, also where a send was retried.

    It places records by Kafka's own default, murmur2 of the key, so all events of a
    conversation go to the same partition of every topic. Raises ``BrokerUnreachable``.
    """
    client = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers,
        enable_idempotence=True,
        max_request_size=MAX_REQUEST_BYTES,
        **options(kafka),
    )
    await _start(client.start(), client.stop, kafka)
    try:
        yield client
    finally:
        await _stop(client.stop())


@asynccontextmanager
async def lossy_sender(kafka: KafkaSettings) -> AsyncIterator[Send]:
    """What writes records of which any may be lost: one broker's word is enough, and none is
    written again by itself. Raises ``BrokerUnreachable``."""
    client = AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers,
        acks=1,
        max_request_size=MAX_REQUEST_BYTES,
        **options(kafka),
    )
    await _start(client.start(), client.stop, kafka)
    try:
        yield functools.partial(_send, client)
    finally:
        await _stop(client.stop())


@asynccontextmanager
async def sure_sender(kafka: KafkaSettings) -> AsyncIterator[Send]:
    """What writes records outside of transactions, each once for all that it can tell. Raises
    ``BrokerUnreachable``."""
    async with producer(kafka) as client:
        yield functools.partial(_send, client)


async def _send(client: AIOKafkaProducer, output: Output) -> object:
    return await client.send_and_wait(
        output.topic,
        output.value,
        key=output.key,
        partition=output.partition,
        headers=list(output.headers),
    )


@asynccontextmanager
async def consumer(
    kafka: KafkaSettings, *, committed: bool = True
) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer without a group. ``committed``: it sees committed records only, and ends are
    those of what is committed. Raises ``BrokerUnreachable``."""
    batches.install()  # dead letters may hold what the library alone can't read
    client = AIOKafkaConsumer(
        bootstrap_servers=kafka.bootstrap_servers,
        group_id=None,
        enable_auto_commit=False,
        isolation_level="read_committed" if committed else "read_uncommitted",
        max_partition_fetch_bytes=MAX_REQUEST_BYTES,
        **options(kafka),
    )
    await _start(client.start(), client.stop, kafka)
    try:
        yield client
    finally:
        await _stop(client.stop())


def options(kafka: KafkaSettings) -> dict[str, Any]:
    """Security options; a certificate file that cannot be read is told as trouble."""
    try:
        return kafka.client_options()
    except OSError as error:
        what = f"a certificate or key cannot be used: {error.strerror or error}."
        raise Trouble(what, where="kafka.ssl_*", todo="Name PEM files that are there.") from error


async def cluster_id(kafka: KafkaSettings) -> str:
    """The id that the cluster gave itself: part of every decision's id."""
    async with admin(kafka) as client:
        description = await client.describe_cluster()
    return str(description["cluster_id"])


async def topic_partitions(kafka: KafkaSettings) -> dict[str, int]:
    """Partition count of each topic there is. Raises ``BrokerUnreachable``."""
    async with admin(kafka) as client:
        # Asked for all: to ask for one by name could create it on a broker that allows that.
        found = await client.describe_topics(None)
    return {topic["topic"]: len(topic["partitions"]) for topic in found if not topic["error_code"]}


async def require_topics(kafka: KafkaSettings, names: Sequence[str]) -> dict[str, int]:
    """Partition counts of ``names``; raises ``TopicMissing`` where one is missing."""
    counts = await topic_partitions(kafka)
    if missing := [name for name in names if name not in counts]:
        raise TopicMissing(missing, kafka.bootstrap_servers)
    return {name: counts[name] for name in names}


async def _start(
    start: Awaitable[Any], stop: Callable[[], Awaitable[Any]], kafka: KafkaSettings
) -> None:
    try:
        await asyncio.wait_for(start, START_S)
    except asyncio.CancelledError:
        await _stop(stop())
        raise
    except (TimeoutError, KafkaError) as error:
        await _stop(stop())
        known = isinstance(error, KafkaConnectionError | TimeoutError)
        raise BrokerUnreachable(kafka.bootstrap_servers, None if known else error) from error


async def _stop(stop: Awaitable[Any]) -> None:
    try:
        await asyncio.wait_for(stop, STOP_S)
    except (TimeoutError, KafkaError):
        return  # nothing is lost: every send was awaited before
