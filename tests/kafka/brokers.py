"""Kafkas of a file's own, and access lists on them."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from infra.broker import LocalBroker
from infra.topics import create_topics

GUARDED = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}
"""Access lists are obeyed; what has none is everybody's."""
OTHERS = "User:somebody"


@contextmanager
def running(
    properties: Mapping[str, str] | None = None, *, partitions: int = 0
) -> Iterator[LocalBroker]:
    """A broker, with the topics of the contract where ``partitions`` are given."""
    broker = LocalBroker(properties=properties)
    asyncio.run(broker.start())
    try:
        if partitions:
            asyncio.run(create_topics(broker.bootstrap_servers, partitions=partitions))
        yield broker
    finally:
        asyncio.run(broker.stop())


def allowed(kind: ResourceType, name: str, who: str, operation: AclOperation) -> AclBinding:
    """Whoever it is may do that, and nobody who is not named."""
    literal, allow = ResourcePatternType.LITERAL, AclPermissionType.ALLOW
    return AclBinding(kind, name, literal, who, "*", operation, allow)
