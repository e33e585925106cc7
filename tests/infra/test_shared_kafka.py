"""The Kafka that all tests share: it is the kind that was asked for, and carries records."""

import os

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from tests.conftest import Kafka, MakeTopics, choose_broker


@pytest.mark.kafka
async def test_records_of_many_partitions_come_back(kafka: Kafka, kafka_topics: MakeTopics) -> None:
    (topic,) = await kafka_topics("records", partitions=2)
    wish = os.environ.get("TWITE_TEST_KAFKA")
    assert kafka.kind == wish or not wish
    partitions = [TopicPartition(topic, number) for number in range(2)]
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as producer:
        for partition in partitions:
            await producer.send_and_wait(topic, b"%d" % partition.partition, partition=partition[1])
    async with AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap_servers) as consumer:
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        records = [await consumer.getone(partition) for partition in partitions]
    assert [record.value for record in records] == [b"0", b"1"]


@pytest.mark.kafka
async def test_large_records_are_accepted(kafka: Kafka, kafka_topics: MakeTopics) -> None:
    large = {"max.message.bytes": str(6 * 1024 * 1024)}
    (topic,) = await kafka_topics("large", topic_configs=large)
    value = os.urandom(5 * 1024 * 1024)
    async with AIOKafkaProducer(
        bootstrap_servers=kafka.bootstrap_servers, max_request_size=6 * 1024 * 1024
    ) as producer:
        written = await producer.send_and_wait(topic, value)
    assert written.offset == 0


def test_a_process_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWITE_TEST_KAFKA", "process")
    broker, why = choose_broker()
    assert broker.kind == "process"
    assert why == "TWITE_TEST_KAFKA=process"


def test_without_an_engine_it_is_a_process_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TWITE_TEST_KAFKA", raising=False)
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    broker, why = choose_broker()
    assert broker.kind == "process"
    assert "no Docker engine answers" in why


async def test_a_container_that_cannot_be_had_fails_loudly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from infra.errors import EngineMissing

    monkeypatch.setenv("TWITE_TEST_KAFKA", "container")
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    broker, _ = choose_broker()
    assert broker.kind == "container"
    with pytest.raises(EngineMissing, match="no Docker engine answers"):
        await broker.start()


def test_any_other_wish_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWITE_TEST_KAFKA", "redpanda")
    with pytest.raises(pytest.UsageError, match=r"container.*process.*redpanda"):
        choose_broker()
