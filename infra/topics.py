"""Makes the topics of ``schemas.topics.TOPICS`` on a broker, and tells what is there.

In comes an address; afterwards every topic is there with the settings of the table, and
those that meet in one conversation have the same number of partitions. What was there
before stays as it is, so this may run at every start.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaConnectionError, KafkaError, for_code

from infra.errors import BrokerUnreachable, TopicsRefused
from schemas.topics import TOPICS, Topic

_ALREADY_THERE: Final = 36  # Kafka's TOPIC_ALREADY_EXISTS
_LEADER_MISSING: Final = -1
_PATIENCE = 30.0  # seconds until new topics have leaders
_POLL = 0.05  # seconds between two looks


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as the broker has it. ``ready``: every partition has a leader."""

    name: str
    partitions: int
    replication: int
    ready: bool


async def create_topics(
    bootstrap_servers: str,
    *,
    partitions: int = 4,
    replication: int = 1,
    client: Mapping[str, Any] | None = None,
) -> list[str]:
    """Creates what is missing and returns its names; ready for use on return.

    ``partitions`` is for the topics that meet in a conversation, the others have one.
    ``client`` holds further arguments of aiokafka's clients (security).
    Raises ``BrokerUnreachable`` or ``TopicsRefused``.
    """
    async with _admin(bootstrap_servers, client) as admin:
        there = await _states(admin)
        _refuse_unequal(there.values(), partitions)
        missing = [topic for name, topic in TOPICS.items() if name not in there]
        created = await _create(admin, missing, partitions, replication) if missing else []
        await _until_ready(admin)
        return created


async def describe_topics(
    bootstrap_servers: str, *, client: Mapping[str, Any] | None = None
) -> dict[str, TopicState]:
    """Those of our topics that are there. Raises ``BrokerUnreachable``."""
    async with _admin(bootstrap_servers, client) as admin:
        return await _states(admin)


@asynccontextmanager
async def _admin(
    bootstrap_servers: str, client: Mapping[str, Any] | None
) -> AsyncIterator[AIOKafkaAdminClient]:
    options = {"bootstrap_servers": bootstrap_servers, **(client or {})}
    admin = AIOKafkaAdminClient(**options)
    try:
        try:
            await _quietly_start(admin)
        except (KafkaError, OSError) as error:
            raise _unreachable(str(options["bootstrap_servers"]), error) from error
        try:
            yield admin
        except KafkaError as error:
            raise _unreachable(str(options["bootstrap_servers"]), error) from error
    finally:
        await admin.close()


async def _quietly_start(admin: AIOKafkaAdminClient) -> None:
    """aiokafka logs an error per refused connection; ours says it once, with what to do."""
    logger = logging.getLogger("aiokafka")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        await admin.start()
    finally:
        logger.setLevel(level)


def _unreachable(bootstrap_servers: str, error: BaseException) -> BrokerUnreachable:
    known = isinstance(error, KafkaConnectionError | OSError | TimeoutError)
    return BrokerUnreachable(bootstrap_servers, None if known else error)


async def _states(admin: AIOKafkaAdminClient) -> dict[str, TopicState]:
    # Asked for all: to ask for one by name could create it on a broker that allows that.
    found = (_state(entry) for entry in await admin.describe_topics(None))
    return {state.name: state for state in found if state is not None and state.name in TOPICS}


def _state(entry: Mapping[str, Any]) -> TopicState | None:
    partitions = entry["partitions"]
    if entry["error_code"] or not partitions:
        return None
    return TopicState(
        name=entry["topic"],
        partitions=len(partitions),
        replication=len(partitions[0]["replicas"]),
        ready=all(p["leader"] != _LEADER_MISSING and not p["error_code"] for p in partitions),
    )


def _refuse_unequal(there: Iterable[TopicState], partitions: int) -> None:
    for state in there:
        if TOPICS[state.name].partitioned == "conversation" and state.partitions != partitions:
            raise TopicsRefused(
                f"{state.name} is there with {state.partitions} partitions, not {partitions}. "
                "Topics that meet in a conversation must have the same number: ask for "
                f"{state.partitions} (--partitions, or the setting kafka.partitions), or remove "
                "the topic if its records may go."
            )


async def _create(
    admin: AIOKafkaAdminClient, missing: Sequence[Topic], partitions: int, replication: int
) -> list[str]:
    answer = await admin.create_topics(
        [_new_topic(topic, partitions, replication) for topic in missing]
    )
    created = []
    for name, code, *message in answer.topic_errors:
        if code not in (0, _ALREADY_THERE):  # another start may have been quicker
            raise _refused(name, code, message[0] if message else None)
        if code == 0:
            created.append(name)
    return created


def _new_topic(topic: Topic, partitions: int, replication: int) -> NewTopic:
    return NewTopic(
        topic.name,
        num_partitions=partitions if topic.partitioned == "conversation" else 1,
        replication_factor=replication,
        topic_configs=topic.config(),
    )


def _refused(name: str, code: int, message: str | None) -> TopicsRefused:
    why = (message or for_code(code).__name__).rstrip(".")
    return TopicsRefused(
        f"the broker does not create the topic {name}: {why}. "
        "Check the number of replicas against the number of brokers (the setting "
        "kafka.replication) and that this user may create topics, or have them created by "
        "somebody who may."
    )


async def _until_ready(admin: AIOKafkaAdminClient) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if _all_ready(await _states(admin)):
            return
        await asyncio.sleep(_POLL)
    raise TopicsRefused(
        f"the topics have no leader after {_PATIENCE:.0f} s; look at the broker's log"
    )


def _all_ready(states: Mapping[str, TopicState]) -> bool:
    return len(states) == len(TOPICS) and all(state.ready for state in states.values())
