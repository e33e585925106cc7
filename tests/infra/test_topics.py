"""The topic table on a real broker: made once, with its settings, and refused where unequal."""

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from infra.broker import LocalBroker
from infra.errors import BrokerUnreachable, TopicsRefused
from infra.ports import free_port
from infra.topics import _refused, create_topics, describe_topics
from schemas.topics import FEED_ACCOUNTS, FEED_MENTIONS, TOPICS


async def test_no_broker_says_where_and_what_to_do() -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(BrokerUnreachable, match=rf"{address}.*twite broker"):
        await create_topics(address)


def test_a_refusal_ends_in_one_full_stop() -> None:
    refused = str(_refused("feed.mentions", 38, "All brokers are cordoned."))
    assert "All brokers are cordoned. Check" in refused


@pytest.mark.kafka
async def test_topics_are_made_once_as_the_table_says() -> None:
    async with LocalBroker() as broker:  # its own: the shared one is not ours to fill
        address = broker.bootstrap_servers
        assert await describe_topics(address) == {}
        assert sorted(await create_topics(address, partitions=3)) == sorted(TOPICS)
        assert await create_topics(address, partitions=3) == []
        states = await describe_topics(address)
        assert states.keys() == TOPICS.keys()
        assert states[FEED_MENTIONS].partitions == 3
        assert states[FEED_ACCOUNTS].partitions == 1
        assert all(state.ready and state.replication == 1 for state in states.values())
        for topic in TOPICS.values():
            assert (await _settings(address, topic.name)).items() >= topic.config().items()
        with pytest.raises(TopicsRefused, match="3 partitions, not 4"):
            await create_topics(address, partitions=4)


@pytest.mark.kafka
async def test_more_replicas_than_brokers_are_refused_with_a_reason() -> None:
    async with LocalBroker() as broker:
        with pytest.raises(TopicsRefused, match=r"(?i)replication.*kafka\.replication"):
            await create_topics(broker.bootstrap_servers, replication=3)


async def _settings(address: str, topic: str) -> dict[str, str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
        return {entry[0]: entry[1] for entry in answers[0].resources[0][4]}
    finally:
        await admin.close()
