"""What can be found out about a cluster without changing it, for the guards.

In: the settings. Out: ``Cluster``, plain values: topics with their configuration, brokers, the
consumer group, and what this user may do. Whatever this user may not ask is None, which is an
answer, too. Next: ``bot/guards.py`` judges it.

Whether a producer may use a transactional id only an InitProducerId can tell: it is asked for
an id of its own, with the same beginning as those of the workers, so it disturbs nobody.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    KafkaConnectionError,
    KafkaError,
    NodeNotReadyError,
    RequestTimedOutError,
    for_code,
)
from aiokafka.protocol.transaction import InitProducerIdRequest

from bot.clients import admin
from bot.errors import Trouble
from bot.requests import DescribeGroupRequest, MetadataRequest
from bot.settings import KafkaSettings
from consumers.config import WorkerConfig
from consumers.errors import BrokerUnreachable
from schemas.topics import TOPICS

T = TypeVar("T")

# Operations by their bit in Kafka's "authorized operations" (AclOperation of the Java client).
_OPERATIONS = {3: "read", 4: "write", 8: "describe", 10: "describe configs", 12: "write once"}
_NOT_TOLD = -(2**31)
# Kafka's error codes.
_UNKNOWN_TOPIC = 3
_TOPIC_DENIED = 29
_NO_LEADER = 5
_TRIES = 100
_PAUSE_S = 0.1
_TRANSACTION_COORDINATOR = 1
# The coordinator is not known yet, still loads, moved, or ends an earlier transaction.
_PASSING = {14, 15, 16, 51}
_UNREACHABLE = (KafkaConnectionError, NodeNotReadyError, RequestTimedOutError)
INTERNAL_TOPICS = ("__consumer_offsets", "__transaction_state")


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicFacts:
    """A topic as it stands. ``visible`` False: this user may not even describe it; then
    nothing else is known. ``replication``: copies of the partition that has the fewest."""

    visible: bool = True
    partitions: int = 0
    replication: int = 0
    config: Mapping[str, str] | None = None
    rights: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a group; ``topics``: what it asks for, None where that is not readable."""

    client_id: str
    host: str
    topics: frozenset[str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupFacts:
    """A consumer group. ``state`` ``Dead`` without members: there is none (yet); ``listed``:
    the broker lists a group of that name, so a Dead one is of another kind."""

    state: str = "Dead"
    protocol_type: str = ""
    protocol: str = ""
    members: tuple[Member, ...] = ()
    listed: bool = False
    rights: frozenset[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What is known. ``broker_configs``: one per broker, None where this user may not ask;
    ``group`` None: this user may not describe it; ``producer``: the name of the error that a
    transactional producer gets at its start, empty for none."""

    brokers: int
    topics: Mapping[str, TopicFacts]
    broker_configs: tuple[Mapping[str, str], ...] | None = None
    group: GroupFacts | None = None
    producer: str = ""
    internal: Mapping[str, TopicFacts] = field(default_factory=dict)


class CannotAsk(Trouble):
    """The brokers answer, but not to what the guards ask."""


async def look(config: WorkerConfig, kafka: KafkaSettings) -> Cluster:
    """Raises ``BrokerUnreachable`` and ``CannotAsk``."""
    async with admin(kafka) as client:
        try:
            return await _look(client, config)
        except (KafkaError, NotImplementedError, OSError, TimeoutError) as error:
            if isinstance(error, OSError | TimeoutError) or _may_pass(error):
                raise BrokerUnreachable(kafka.bootstrap_servers, error) from error
            raise CannotAsk(
                f"the brokers can't be asked how they are ({type(error).__name__}: {error}).",
                where=kafka.bootstrap_servers,
                todo="Are they Apache Kafka 2.3 or newer, or speak its protocol?",
            ) from error


async def members_of(kafka: KafkaSettings) -> tuple[Member, ...]:
    """Who is in the group of the workers now. Raises ``BrokerUnreachable`` and ``CannotAsk``."""
    async with admin(kafka) as client:
        try:
            group = await _group(client, kafka.group_id)
        except (KafkaError, OSError, TimeoutError) as error:
            raise BrokerUnreachable(kafka.bootstrap_servers, error) from error
    if group is None:
        raise CannotAsk(
            f"this user may not see who is in the group {kafka.group_id}.",
            where=kafka.bootstrap_servers,
            todo="Allow it to describe the group (an ACL).",
        )
    return group.members


async def _look(client: AIOKafkaAdminClient, config: WorkerConfig) -> Cluster:
    answer = await _metadata(client)
    configs = await _topic_configs(client, [t["topic"] for t in answer["topics"] if _there(t)])
    topics = {
        topic["topic"]: _topic(topic, configs.get(topic["topic"]))
        for topic in answer["topics"]
        if topic["error_code"] != _UNKNOWN_TOPIC
    }
    return Cluster(
        brokers=len(answer["brokers"]),
        topics={name: topics[name] for name in TOPICS if name in topics},
        internal={name: topics[name] for name in INTERNAL_TOPICS if name in topics},
        broker_configs=await _broker_configs(client, [b["node_id"] for b in answer["brokers"]]),
        group=await _group(client, config.group_id),
        producer=await _try_producer(client, config),
    )


async def _metadata(client: AIOKafkaAdminClient) -> dict[str, Any]:
    """Once more where a new topic has no leader yet."""
    answer: dict[str, Any] = {}
    for _ in range(_TRIES):
        response = await client._send_request(MetadataRequest([*TOPICS, *INTERNAL_TOPICS]))
        answer = response.to_object()
        if all(topic["error_code"] != _NO_LEADER for topic in answer["topics"]):
            break
        await asyncio.sleep(_PAUSE_S)
    return answer


def _there(topic: Mapping[str, Any]) -> bool:
    return topic["error_code"] not in (_UNKNOWN_TOPIC, _TOPIC_DENIED)


def _topic(answer: Mapping[str, Any], config: Mapping[str, str] | None) -> TopicFacts:
    if answer["error_code"] == _TOPIC_DENIED:
        return TopicFacts(visible=False)
    return TopicFacts(
        partitions=len(answer["partitions"]),
        replication=min((len(p["replicas"]) for p in answer["partitions"]), default=0),
        config=config,
        rights=_rights(answer["authorized_operations"]),
    )


def _rights(bits: int) -> frozenset[str] | None:
    if bits == _NOT_TOLD:
        return None
    return frozenset(name for bit, name in _OPERATIONS.items() if bits & (1 << bit))


async def _topic_configs(
    client: AIOKafkaAdminClient, names: Iterable[str]
) -> dict[str, Mapping[str, str]]:
    return await _configs(client, ConfigResourceType.TOPIC, names)


async def _broker_configs(
    client: AIOKafkaAdminClient, nodes: Iterable[int]
) -> tuple[Mapping[str, str], ...] | None:
    found = await _configs(client, ConfigResourceType.BROKER, map(str, nodes))
    return tuple(found.values()) or None


async def _configs(
    client: AIOKafkaAdminClient, kind: ConfigResourceType, names: Iterable[str]
) -> dict[str, Mapping[str, str]]:
    """Configuration by name, of those that this user may ask for."""
    resources = [ConfigResource(kind, name) for name in names]
    if not resources:
        return {}
    found: dict[str, Mapping[str, str]] = {}
    for response in await client.describe_configs(resources):
        for error, _, _, name, entries in response.resources:
            if not error:
                found[name] = {entry[0]: entry[1] for entry in entries if entry[1] is not None}
    return found


async def _group(client: AIOKafkaAdminClient, group_id: str) -> GroupFacts | None:
    try:
        listed, group = await _patiently(lambda: _describe_group(client, group_id))
    except GroupAuthorizationFailedError:
        return None
    return GroupFacts(
        state=group["state"],
        protocol_type=group["protocol_type"],
        protocol=group["protocol"],
        members=tuple(map(_member, group["members"])),
        listed=listed,
        rights=_rights(group["authorized_operations"]),
    )


async def _describe_group(
    client: AIOKafkaAdminClient, group_id: str
) -> tuple[bool, dict[str, Any]]:
    """Whether the broker lists the group, and what it says of it."""
    node = await client.find_coordinator(group_id)
    listed = {name for name, _ in await client.list_consumer_groups([node])}
    response = await client._send_request(DescribeGroupRequest(group_id), node)
    (group,) = response.to_object()["groups"]
    if group["error_code"]:
        raise for_code(group["error_code"])(group_id)
    return group_id in listed, group


def _member(member: Mapping[str, Any]) -> Member:
    return Member(member["client_id"], member["client_host"], _subscription(member))


def _subscription(member: Mapping[str, Any]) -> frozenset[str] | None:
    try:
        metadata = ConsumerProtocolMemberMetadata.decode(member["member_metadata"] or b"")
    except (ValueError, TypeError):
        return None
    return frozenset(metadata.subscription)


async def _try_producer(client: AIOKafkaAdminClient, config: WorkerConfig) -> str:
    """The error that a worker's producer would get at its start; an id of its own is used."""
    try:
        await _patiently(lambda: _init_producer(client, config))
    except KafkaError as error:
        if _may_pass(error):
            raise
        return type(error).__name__
    return ""


async def _init_producer(client: AIOKafkaAdminClient, config: WorkerConfig) -> None:
    transactional_id = f"{config.group_id}.config-check"
    node = await client.find_coordinator(transactional_id, _TRANSACTION_COORDINATOR)
    request = InitProducerIdRequest(transactional_id, config.transaction_timeout_ms)
    response = await client._send_request(request, node)
    if response.error_code:
        raise for_code(response.error_code)(transactional_id)


async def _patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Once more while a coordinator starts or moves."""
    for _ in range(_TRIES):
        try:
            return await ask()
        except KafkaError as error:
            if isinstance(error, _UNREACHABLE) or not _may_pass(error):
                raise
        await asyncio.sleep(_PAUSE_S)
    return await ask()


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, _UNREACHABLE) or getattr(error, "errno", None) in _PASSING
