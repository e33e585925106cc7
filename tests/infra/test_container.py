"""Kafka in a container: the same life as a local process, and no container left behind.

Where no engine or image is to be had, the same tests hold that this is said clearly.
"""

import subprocess
import sys

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from infra.container import IMAGE, ContainerBroker, remove_stale_containers, why_no_container
from infra.errors import BrokerFailed, EngineMissing
from infra.probe import answers

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

OWNER = """
import asyncio, os, signal
from infra.container import ContainerBroker

async def main():
    broker = ContainerBroker()
    await broker.start()
    print(broker.container_id, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


async def test_it_answers_comes_back_after_a_kill_and_goes() -> None:
    broker = ContainerBroker()
    if why := why_no_container():
        with pytest.raises(EngineMissing) as refused:
            await broker.start()
        assert str(refused.value) == why
        return
    async with broker:
        address, pid = broker.bootstrap_servers, broker.pid
        await _make_topic(address)
        await broker.restart()
        assert broker.bootstrap_servers == address
        assert broker.pid != pid
        assert "kept" in await _topics(address)
    assert not await answers(address)
    with pytest.raises(BrokerFailed, match="not started"):
        print(broker.pid)


async def test_a_broker_that_cannot_start_shows_the_end_of_its_log() -> None:
    broker = ContainerBroker(properties={"log.segment.bytes": "nonsense"})
    if why_no_container():
        with pytest.raises(EngineMissing, match=r"Docker engine"):
            await broker.start()
        return
    with pytest.raises(BrokerFailed, match=r"(?s)end of its log.*nonsense"):
        await broker.start()


async def test_a_container_of_a_killed_owner_is_removed_by_the_next_start() -> None:
    if why := why_no_container():
        assert IMAGE in why or "no Docker engine answers" in why
        return
    owner = subprocess.run(  # noqa: ASYNC221 - nothing else runs here
        [sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True, check=False
    )
    orphan = owner.stdout.strip()
    assert owner.returncode == -9
    assert orphan in remove_stale_containers()
    assert orphan not in remove_stale_containers()


async def _make_topic(address: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    await admin.create_topics([NewTopic("kept", 1, 1)])
    await admin.close()


async def _topics(address: str) -> list[str]:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        return list(await admin.list_topics())
    finally:
        await admin.close()
