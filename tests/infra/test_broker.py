"""A real Kafka process: it answers, comes back on its data, and never outlives its owner."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from infra.broker import LocalBroker, run_broker_forever
from infra.errors import BrokerFailed
from infra.probe import answers
from tests.wait import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(180)]

OWNER = """
import asyncio
from infra.broker import LocalBroker

async def main():
    async with LocalBroker() as broker:
        print(broker.pid, broker.folder, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def owner() -> AsyncIterator[tuple[asyncio.subprocess.Process, int, Path]]:
    """Another Python process with a broker, the pid of its JVM and its temporary folder."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OWNER, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        pid, folder = (await process.stdout.readline()).decode().split()
        yield process, int(pid), Path(folder)
    finally:
        if process.returncode is None:
            process.kill()
        await process.stdout.read()  # to its end, or asyncio leaves the pipe open
        await process.wait()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_nothing_is_left_when_the_owner_is_ended(end: signal.Signals) -> None:
    async with owner() as (process, pid, folder):
        assert psutil.pid_exists(pid)
        assert folder.exists()
        process.send_signal(end)
        await process.wait()
        await wait_until(lambda: not psutil.pid_exists(pid) and not folder.exists())


async def test_the_jvm_dies_with_its_guard() -> None:
    async with LocalBroker() as broker:
        jvm = psutil.Process(broker.pid)
        guard = jvm.parent()
        assert guard is not None
        guard.kill()
        await asyncio.to_thread(jvm.wait, 60)
        assert not jvm.is_running()
        await wait_until(lambda: not broker.running)
        with pytest.raises(BrokerFailed, match="not running"):
            print(broker.pid)
    assert not broker.folder.exists()


async def test_a_killed_broker_comes_back_with_its_records() -> None:
    async with LocalBroker() as broker:
        await _write(broker.bootstrap_servers, b"before")
        killed, address = broker.pid, broker.bootstrap_servers
        await broker.kill()
        assert not psutil.pid_exists(killed)
        await broker.restart()
        assert broker.pid != killed
        assert broker.bootstrap_servers == address
        assert await _read(address) == [b"before"]


async def test_a_data_folder_keeps_cluster_id_and_records(tmp_path: Path) -> None:
    async with LocalBroker(data_dir=tmp_path) as broker:
        await _write(broker.bootstrap_servers, b"kept")
        cluster = _cluster_id(tmp_path)
    async with LocalBroker(data_dir=tmp_path) as broker:
        assert await _read(broker.bootstrap_servers) == [b"kept"]
    assert _cluster_id(tmp_path) == cluster


async def test_a_taken_port_says_which_and_what_to_do() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(BrokerFailed, match=f"port {port} on 127.0.0.1 is taken.*choose"):
            await LocalBroker(port=port).start()


async def test_a_broker_that_cannot_start_shows_the_end_of_its_log() -> None:
    broker = LocalBroker(properties={"log.segment.bytes": "nonsense"})
    with pytest.raises(BrokerFailed, match=r"(?s)end of its log.*nonsense"):
        await broker.start()
    assert not broker.folder.exists()


async def test_cancelled_while_it_starts_it_leaves_nothing() -> None:
    stages: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    broker = LocalBroker(progress=lambda line: loop.call_soon_threadsafe(stages.put_nowait, line))
    task = asyncio.create_task(broker.start())
    while "starting" not in await stages.get():
        pass
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not broker.folder.exists()


async def test_run_forever_ends_when_told_and_notices_a_dead_broker(tmp_path: Path) -> None:
    lines: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    runs = asyncio.create_task(
        run_broker_forever(
            data_dir=tmp_path,
            stop=stop,
            progress=lambda line: loop.call_soon_threadsafe(lines.put_nowait, line),
        )
    )
    while not (line := await lines.get()).startswith("ready"):
        pass
    address = line.rpartition("=")[2]
    assert await answers(address)
    stop.set()
    await runs
    assert not await answers(address)


async def test_a_dead_broker_ends_run_forever(tmp_path: Path) -> None:
    runs = asyncio.create_task(run_broker_forever(data_dir=tmp_path, progress=lambda line: None))
    pid = await _jvm_under(os.getpid(), str(tmp_path))
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(BrokerFailed):
        await runs


async def _jvm_under(owner_pid: int, argument: str) -> int:
    while True:
        for child in psutil.Process(owner_pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                line = " ".join(child.cmdline())
                if (
                    argument in line
                    and line.endswith("server.properties")
                    and "kafka.Kafka" in line
                ):
                    return child.pid
        await asyncio.sleep(0.05)


def _cluster_id(folder: Path) -> str:
    lines = (folder / "data" / "meta.properties").read_text().splitlines()
    return next(line for line in lines if line.startswith("cluster.id="))


async def _write(address: str, value: bytes) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    await admin.create_topics([NewTopic("kept", 1, 1)])
    await admin.close()
    async with AIOKafkaProducer(bootstrap_servers=address, acks="all") as producer:
        await producer.send_and_wait("kept", value)


async def _read(address: str) -> list[bytes]:
    async with AIOKafkaConsumer(bootstrap_servers=address, enable_auto_commit=False) as consumer:
        partition = TopicPartition("kept", 0)
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        records = await consumer.getmany(partition, timeout_ms=20_000)
        return [record.value for record in records[partition]]
