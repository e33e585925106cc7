"""The chain over a real log: killed sealers, two at once, and logs that somebody doctored."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from bot.config import as_environment
from bot.sealing.check import Verdict, Wrong
from bot.sealing.exporting import export
from bot.sealing.sealer import Sealer
from bot.sealing.verify import verify, verify_file
from bot.settings import KafkaSettings, ModelSettings, Settings
from consumers.reader import Bound
from infra.topics import create_topics
from schemas.names import BOT_AUDIT
from schemas.record import Record
from tests.bot.sealing.made import decision

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]
EVERYTHING = (Bound(), Bound())


@pytest.fixture
async def kafka(own_broker: str) -> KafkaSettings:
    """A cluster of this file's own: every chain on it is looked at."""
    await create_topics(own_broker, partitions=2)
    return KafkaSettings(bootstrap_servers=own_broker)


@pytest.fixture
async def producer(kafka: KafkaSettings) -> AsyncIterator[AIOKafkaProducer]:
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers) as started:
        yield started


async def written(producer: AIOKafkaProducer, count: int, topic: str = BOT_AUDIT) -> None:
    for number in range(count):
        one: Record = decision(number, f"text {number}")
        await producer.send_and_wait(
            topic, one.value, one.key, partition=number % 2, headers=list(one.headers)
        )


async def until_sealed(kafka: KafkaSettings) -> list[Verdict]:
    """The verdicts, once nothing waits for a seal."""
    async with asyncio.timeout(60):
        while True:
            found = await verify(kafka)
            if not any(one.unsealed for one in found):
                return found
            await asyncio.sleep(0.05)


def environment(kafka: KafkaSettings) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TWITE_")}
    return clean | as_environment(Settings(kafka=kafka, model=ModelSettings(engine="echo")))


@contextmanager
def sealing(kafka: KafkaSettings) -> Iterator["subprocess.Popen[bytes]"]:
    """``twite audit seal`` in a process of its own."""
    command = [sys.executable, "-m", "bot.cli", "audit", "seal"]
    process = subprocess.Popen(command, cwd=ROOT, env=environment(kafka), stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def whole(found: list[Verdict], records: int) -> None:
    assert [fault for one in found for fault in one.faults] == []
    assert sum(one.good for one in found) == sum(one.records for one in found) == records


async def test_a_killed_sealer_and_two_at_once_leave_one_chain(
    kafka: KafkaSettings, producer: AIOKafkaProducer, tmp_path: Path
) -> None:
    with sealing(kafka) as first:
        await written(producer, 20)
        await until_sealed(kafka)
        await written(producer, 200)
        first.send_signal(signal.SIGKILL)
    stop = asyncio.Event()
    heads: list[int] = []
    two = [
        Sealer(
            kafka,
            BOT_AUDIT,
            partition,
            batch_s=0.01,
            takeover_s=0.2,
            most=7,
            sealed=lambda head: heads.append(head.number),
        )
        for partition in (0, 1, 0, 1)
    ]
    tasks = [asyncio.create_task(one.run(stop)) for one in two]
    await written(producer, 80)
    found = await until_sealed(kafka)
    stop.set()
    await asyncio.gather(*tasks)
    whole(found, 300)
    assert len(heads) > 10
    await _doctored_files(kafka, tmp_path)
    await _a_broken_log(kafka, producer)


async def _doctored_files(kafka: KafkaSettings, folder: Path) -> None:
    file, bare = folder / "audit.jsonl", folder / "erased.jsonl"
    assert await export(kafka, file, EVERYTHING, erases=False, private=False) == 300
    assert await export(kafka, bare, EVERYTHING, erases=True, private=True) == 300
    whole(await verify_file(file, kafka), 300)
    whole(await verify_file(bare, kafka), 300)
    whole(await verify_file(bare, None), 300)
    assert "text 7" in file.read_text()
    assert "text 7" not in bare.read_text()
    lines = bare.read_text().splitlines()
    at = next(i for i, line in enumerate(lines) if '"offset":5,' in line)
    record = json.loads(lines[at])
    record["record"]["value"] = record["record"]["value"].replace('"replied"', '"skipped"')
    doctored = [*lines[:at], json.dumps(record), *lines[at + 2 :]]
    bare.write_text("\n".join(doctored))
    for trusted in (kafka, None):
        faults = [fault for one in await verify_file(bare, trusted) for fault in one.faults]
        assert [fault.what for fault in faults] == [Wrong.CHANGED, Wrong.MISSING]
        assert faults[0].place == "bot.audit/0/5"


async def _a_broken_log(kafka: KafkaSettings, producer: AIOKafkaProducer) -> None:
    """Somebody with the right to write puts a seal of their own behind the last one."""
    from datetime import UTC, datetime

    from bot.sealing.seals import Head, output_of, seal

    lie = output_of(
        seal(Head(3, 4), [replace(decision(4), topic=BOT_AUDIT, partition=0)]), datetime.now(UTC)
    )
    await producer.send_and_wait(
        lie.topic, lie.value, lie.key, partition=0, headers=list(lie.headers)
    )
    faults = [fault for one in await verify(kafka) for fault in one.faults]
    assert [fault.what for fault in faults] == [Wrong.BROKEN_LINK, Wrong.MISSING]
    command = [sys.executable, "-m", "bot.cli", "audit", "verify"]
    done = await asyncio.to_thread(
        subprocess.run,
        command,
        cwd=ROOT,
        env=environment(kafka) | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    assert "bot.audit/0 seal 4: a seal does not follow the one before" in done.stdout
