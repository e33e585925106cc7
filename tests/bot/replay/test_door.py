"""A replay cannot publish a reply: every way around its one door is shut."""

import ast
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

import bot.replay
from bot.replay.door import NotThroughHere, ResultsDoor, ResultsProducer, output_of
from schemas import names
from schemas.codec import decode
from schemas.record import Record
from schemas.replays import Change, ReplayCompared, ReplaySide
from schemas.topics import MAX_VALUE_BYTES, TOPICS

ROOM = Path(bot.replay.__file__).parent
NOW = datetime(2026, 11, 24, tzinfo=UTC)


def result(**fields: Any) -> ReplayCompared:
    given: dict[str, Any] = {
        "replay_id": "replay-1",
        "mode": "frozen",
        "decision_id": "d-1",
        "change": Change.IDENTICAL,
        "compared_at": NOW,
    } | fields
    return ReplayCompared(**given)


@asynccontextmanager
async def made(kind: type[AIOKafkaProducer]) -> AsyncIterator[AIOKafkaProducer]:
    """Never started: nothing listens there."""
    producer = kind(bootstrap_servers="localhost:1")
    try:
        yield producer
    finally:
        await producer.stop()


@pytest.mark.parametrize("topic", [name for name in TOPICS if name != names.BOT_REPLAYS])
async def test_the_producer_takes_no_other_topic(topic: str) -> None:
    async with made(ResultsProducer) as producer:
        batch = producer.create_batch()
        for way in (
            producer.send(topic, b"x"),
            producer.send_and_wait(topic, b"x"),
            producer.send_batch(batch, topic, partition=0),
        ):
            with pytest.raises(NotThroughHere):
                await way


async def test_the_producer_has_no_transactions_and_moves_no_offsets() -> None:
    async with made(ResultsProducer) as producer:
        with pytest.raises(NotThroughHere):
            await producer.begin_transaction()
        with pytest.raises(NotThroughHere):
            await producer.send_offsets_to_transaction({}, "twite")


async def test_no_other_producer_fits_behind_the_door() -> None:
    class Wider(ResultsProducer):
        async def send(self, topic: str, *args: Any, **options: Any) -> Any:
            return await AIOKafkaProducer.send(self, topic, *args, **options)

    for kind in (AIOKafkaProducer, Wider):
        async with made(kind) as producer:
            with pytest.raises(NotThroughHere):
                ResultsDoor(producer)


def test_what_goes_through_is_for_that_topic_whatever_it_holds() -> None:
    hostile = result(replay_id=names.BOT_REPLIES, notes=(names.BOT_REPLIES,))
    output = output_of(hostile)
    assert (output.topic, output.partition) == (names.BOT_REPLAYS, None)


def test_a_result_is_an_event_with_the_same_id_each_time() -> None:
    outputs = [output_of(result()), output_of(result())]
    records = [Record(o.topic, 0, 0, 0, o.key, o.value, o.headers) for o in outputs]
    first, second = map(decode, records)
    assert first.envelope.id == second.envelope.id
    assert first.data == result()
    other = output_of(result(decision_id="d-2"))
    assert dict(other.headers)["ce_id"] != first.envelope.id.encode()


def test_one_that_is_too_large_goes_without_its_texts() -> None:
    side = ReplaySide(text="x" * MAX_VALUE_BYTES, length=MAX_VALUE_BYTES)
    output = output_of(result(before=side, after=side))
    assert len(output.value or b"") < 10_000
    assert b"too large" in (output.value or b"")


def imports(file: Path) -> set[str]:
    """Every module that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_nothing_else_in_the_room_can_make_a_producer() -> None:
    files = sorted(ROOM.glob("*.py"))
    assert ROOM / "door.py" in files
    for file in files:
        if file.name == "door.py":
            continue
        reached = imports(file)
        assert not {one for one in reached if one.split(".")[0] in ("aiokafka", "confluent_kafka")}
        assert not {one for one in reached if one.startswith("bot.clients")}
        assert not {one for one in reached if one.endswith((".ResultsProducer", "import_module"))}
        assert "__import__" not in file.read_text()


def test_the_check_of_imports_sees_one_in_a_function(tmp_path: Path) -> None:
    file = tmp_path / "sly.py"
    file.write_text("def f():\n    from aiokafka import AIOKafkaProducer\n")
    assert imports(file) == {"aiokafka.AIOKafkaProducer"}


def test_only_one_class_of_the_room_is_a_producer() -> None:
    tree = ast.parse((ROOM / "door.py").read_text())
    calls = {
        node.func.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert "AIOKafkaProducer" not in calls
