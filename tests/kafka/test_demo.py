"""The demo through real Kafka: every input its one outcome, also when the worker is killed."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from confluent_kafka import Consumer, TopicPartition

from bot.cluster import members_of
from bot.config import as_environment
from bot.errors import Trouble
from bot.events import (
    Person,
    deletion_of,
    edit_of,
    edited,
    mention_of,
    message_to,
    post,
    structured,
)
from bot.forget import FORGOTTEN
from bot.observe import Outcome
from bot.scene import Scene
from bot.settings import BotSettings, KafkaSettings, ModelSettings
from bot.worker_process import WorkerProcess
from schemas.codes import Outcome as Kind
from tests.conftest import Kafka
from tests.kafka.playing import demo_on, echo_settings

pytestmark = pytest.mark.kafka

BOT = BotSettings()
# Written out here on purpose: the ids must not change with the code.
NAMESPACE = uuid.UUID("6f0c8a52-3d1e-5b7a-9c44-7477697465b0")
ROOT = Path(__file__).parents[2]


def expected_reply_id(uri: str, revision: str) -> str:
    """As DESIGN has it: UUIDv5 of the JSON array [bot id, source URI, source revision, part]."""
    name = json.dumps([BOT.account_id, uri, revision, 1], separators=(",", ":"))
    return str(uuid.uuid5(NAMESPACE, name))


def write_feed(path: Path, mentions: int, messages: int) -> tuple[Counter[str], Counter[str]]:
    """A feed of both kinds; the ids that its public and its private replies must have."""
    run = uuid.uuid4().hex[:8]
    people = [Person(f"acct-{n}", f"person{n}") for n in range(7)]
    public: Counter[str] = Counter()
    private: Counter[str] = Counter()
    lines = []
    for n in range(mentions):
        asked = mention_of(BOT, people[n % 7], f"Question {n}?", conversation_id=f"{run}:{n % 9}")
        public[expected_reply_id(asked.data.post.uri, asked.data.post.revision)] += 1
        lines.append(structured(asked))
    for n in range(messages):
        said = message_to(BOT, people[n % 7], f"Hello {n}!", conversation_id=f"{run}:dm{n % 3}")
        private[expected_reply_id(said.data.message.uri, said.data.message.revision)] += 1
        lines.append(structured(said))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return public, private


def read_independently(servers: str, topic: str) -> list[dict[str, Any]]:
    """All committed values of a topic, read with another client library."""
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": f"checker-{uuid.uuid4()}",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    try:
        return _read_to_end(consumer, topic)
    finally:
        consumer.close()


def _read_to_end(consumer: Consumer, topic: str) -> list[dict[str, Any]]:
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
    values, ended, give_up_at = [], 0, time.monotonic() + 60
    while ended < len(partitions):
        assert time.monotonic() < give_up_at, f"{topic} was not read to its end"
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error() is not None:
            ended += 1  # the end of a partition
        else:
            values.append(json.loads(message.value()))
    return values


def ids_in(values: Sequence[dict[str, Any]], wanted: Counter[str]) -> Counter[str]:
    return Counter(value["reply_id"] for value in values if value["reply_id"] in wanted)


async def test_the_built_in_feed_shows_every_kind_of_outcome(kafka: Kafka, tmp_path: Path) -> None:
    landed: list[Outcome] = []
    demo, shown = demo_on(echo_settings(kafka), tmp_path, landed=landed.append)
    assert await demo.run() == 0
    assert demo.report.problems == []
    assert (demo.report.played, demo.report.inputs, demo.report.replied) == (21, 19, 12)
    assert demo.report.skipped == {"own-post": 1, "loop": 1, "duplicate": 1, "opted-out": 1}
    assert (demo.report.corrected, demo.report.retracted) == (1, 1)
    assert sum(demo.report.dead_lettered.values()) == 1
    private = [o for o in landed if o.decision.outcome is Kind.REPLIED and "private" in o.at.topic]
    assert len(private) == 5  # four messages, and the post for followers
    assert all(o.replies[0].at.topic == "bot.direct-replies" for o in private)
    talk = sorted(
        (o for o in private if o.input.topic == "feed.direct-messages"), key=lambda o: o.input
    )
    turns = [[item.why for item in one.decision.context if item.included] for one in talk]
    assert turns == [["asking"], ["turn", "own-reply", "asking"], ["asking"], ["asking"]]
    assert talk[2].replies[0].data.text == FORGOTTEN
    text = shown.getvalue()
    assert "@alice: @twite When was the Eiffel Tower finished?" in text
    assert "@chidi (quoted): The Eiffel Tower in Paris was finished in 1889." in text
    corrected = re.search(r"the bot had said: (.*)\n *corrected, edited\n *(.*)\n", text)
    assert corrected is not None
    assert corrected[1].endswith("What is the capital of Germany?")
    assert corrected[2].endswith("What is the capital of Egypt?")
    assert "every input had exactly one outcome" in text


async def test_an_independent_client_finds_exactly_the_expected_replies(
    kafka: Kafka, tmp_path: Path
) -> None:
    public, private = write_feed(tmp_path / "feed.jsonl", mentions=30, messages=10)
    demo, _ = demo_on(echo_settings(kafka), tmp_path, feed=tmp_path / "feed.jsonl")
    assert await demo.run() == 0
    replies = read_independently(kafka.bootstrap_servers, "bot.replies")
    assert ids_in(replies, public) == public
    assert not ids_in(replies, private)
    direct = read_independently(kafka.bootstrap_servers, "bot.direct-replies")
    assert ids_in(direct, private) == private


async def test_kill_9_of_the_worker_in_the_middle_of_the_feed(kafka: Kafka, tmp_path: Path) -> None:
    """What comes after a kill is played after it: there is always something left to do."""
    public, private = write_feed(tmp_path / "feed.jsonl", mentions=60, messages=20)
    killed: list[int] = []
    kills = {15: asyncio.Event(), 45: asyncio.Event()}  # by the number of outcomes shown
    held = {40: kills[15], 70: kills[45]}  # by the number of records played

    def kill_after(outcome: Outcome) -> None:
        seen.append(outcome)
        pid = demo.worker.pid if demo.worker else None
        if len(seen) in kills and pid is not None:
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)
            kills[len(seen)].set()

    async def holding(scenes: AsyncIterator[Scene]) -> AsyncIterator[Scene]:
        count = 0
        async for scene in scenes:
            if count in held:
                await held[count].wait()
            yield scene
            count += 1

    seen: list[Outcome] = []
    settings = echo_settings(kafka, latency_ms=60)
    demo, shown = demo_on(
        settings, tmp_path, feed=tmp_path / "feed.jsonl", landed=kill_after, through=holding
    )
    assert await demo.run() == 0
    assert len(set(killed)) == 2
    assert demo.worker is not None
    assert demo.worker.restarts >= 2
    assert "the worker is gone" in shown.getvalue()
    assert demo.report.replied == 80
    replies = read_independently(kafka.bootstrap_servers, "bot.replies")
    assert ids_in(replies, public) == public
    direct = read_independently(kafka.bootstrap_servers, "bot.direct-replies")
    assert ids_in(direct, private) == private
    decisions = [
        (value["input"]["topic"], value["input"]["partition"], value["input"]["offset"])
        for topic in ("bot.audit", "bot.audit-private")
        for value in read_independently(kafka.bootstrap_servers, topic)
    ]
    assert max(Counter(decisions).values()) == 1


async def test_a_worker_that_cannot_start_says_why(kafka: Kafka, tmp_path: Path) -> None:
    wrong = ModelSettings(engine="transformers", name=str(tmp_path / "no-model-here"))
    settings = echo_settings(kafka).model_copy(update={"model": wrong})
    demo, _ = demo_on(settings, tmp_path)
    with pytest.raises(Trouble, match=r"ended while it started.*no-model-here"):
        await demo.run()


async def test_records_that_no_worker_answers_are_played_too(kafka: Kafka, tmp_path: Path) -> None:
    feed = tmp_path / "feed.jsonl"
    account = {
        "id": str(uuid.uuid4()),
        "source": "/test",
        "type": "twite.feed.account.changed.v1",
        "time": "2026-01-01T00:00:00Z",
        "data": {"account_id": "acct-1"},
    }
    feed.write_text(json.dumps(account) + "\n")
    demo, shown = demo_on(echo_settings(kafka), tmp_path, feed=feed)
    assert await demo.run() == 0
    assert (demo.report.played, demo.report.inputs) == (1, 0)
    text = shown.getvalue()
    assert "acct-1: is as everybody is" in text
    assert "taken note of; no reply changes" in text
    assert "1 record played, none of which the bot answers" in text


async def test_the_sample_file_is_played_as_its_page_says(kafka: Kafka, tmp_path: Path) -> None:
    """With ids of its own, as the broker keeps what other runs said."""
    run = uuid.uuid4().hex[:8]
    sample = (ROOT / "docs" / "sample-feed.jsonl").read_text()
    feed = tmp_path / "feed.jsonl"
    feed.write_text(re.sub(r'"(event-|post:|message:|thread-|talk-)', rf'"{run}-\1', sample))
    demo, shown = demo_on(echo_settings(kafka), tmp_path, feed=feed)
    assert await demo.run() == 0
    report = demo.report
    assert (report.replied, report.corrected, report.retracted) == (3, 1, 1)
    assert (report.inputs, sum(report.dead_lettered.values())) == (7, 1)
    assert report.skipped == {"opted-out": 1}
    assert "@chidi (edits): The Eiffel Tower in Paris was finished in March" in shown.getvalue()


async def test_an_edit_that_concerns_no_reply_has_no_outcome(kafka: Kafka, tmp_path: Path) -> None:
    somebody = Person("acct-9", "nine")
    before = post(somebody, "Nobody asks about this.", conversation_id=f"c-{uuid.uuid4()}")
    asked = mention_of(BOT, somebody, "And this?")
    told = (edit_of(before, edited(before, "Or this.")), asked, deletion_of(before))
    feed = tmp_path / "feed.jsonl"
    feed.write_text("".join(json.dumps(structured(event)) + "\n" for event in told))
    demo, shown = demo_on(echo_settings(kafka), tmp_path, feed=feed)
    assert await demo.run() == 0
    assert (demo.report.played, demo.report.inputs, demo.report.replied) == (3, 1, 1)
    assert shown.getvalue().count("taken note of; no reply changes") == 2


def children_of(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_behind(kafka: Kafka, tmp_path: Path, how: signal.Signals) -> None:
    """``twite demo`` with a broker of its own, ended in the middle; ``kafka`` is not used by
    it, but its jars are then in the cache."""
    log = tmp_path / "demo.log"
    command = [sys.executable, "-m", "bot.cli", "demo", "--engine", "echo", "--feed", "-"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TWITE_KAFKA")}
    with (
        log.open("wb") as out,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=out, stderr=out, cwd=ROOT, env=environment
        ) as demo,
    ):
        wait_for(lambda: b"Feed: playing" in log.read_bytes(), log)
        family = children_of(demo.pid)
        assert any("kafka.Kafka" in process.cmdline() for process in family)
        assert any("worker" in process.cmdline() for process in family)
        demo.send_signal(how)
        demo.wait(60)
        if how is not signal.SIGKILL:
            assert not [process for process in family if alive(process)]
            assert log.read_bytes().endswith(b"stopped\n")
    wait_for(lambda: not [process for process in family if alive(process)], log)
    assert demo.returncode not in (0, None)
    assert b"Traceback" not in log.read_bytes()


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def wait_for(condition: Callable[[], bool], log: Path, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, log.read_text(errors="replace")
        time.sleep(0.05)


@pytest.mark.slow
async def test_the_built_in_feed_with_the_real_model(kafka: Kafka, tmp_path: Path) -> None:
    settings = echo_settings(kafka).model_copy(update={"model": ModelSettings()})
    demo, _ = demo_on(settings, tmp_path)
    assert await demo.run() == 0
    report = demo.report
    assert report.problems == []
    reviews = report.corrected + report.retracted + report.skipped["kept"]
    assert (report.played, report.inputs) == (21, 17 + reviews)
    assert report.retracted >= 1
    assert report.replied + report.skipped["no-answer"] == 12
    assert report.replied >= 10


async def nobody_in_the_group(kafka: KafkaSettings) -> None:
    """A static member stays until its session is over."""
    deadline = time.monotonic() + 60
    while await members_of(kafka):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.2)


async def test_where_a_worker_is_running_the_demo_starts_none(kafka: Kafka, tmp_path: Path) -> None:
    """And what the command says of it, before it asks: nobody is there to be asked."""
    public, _ = write_feed(tmp_path / "feed.jsonl", mentions=5, messages=0)
    settings = echo_settings(kafka)
    worker = WorkerProcess(settings, tmp_path / "other.log", lambda line: None)
    await worker.start()
    try:
        assert len(await members_of(settings.kafka)) == 1
        ended = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-m", "bot.cli", "demo"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
            env=os.environ | as_environment(settings),
        )
        assert ended.returncode == 2
        assert "1 running worker of the group" in ended.stderr
        assert "nobody is there to be asked" in ended.stderr
        demo, shown = demo_on(settings, tmp_path, feed=tmp_path / "feed.jsonl")
        demo.starts_worker = False
        assert await demo.run() == 0
        assert (demo.worker, demo.report.replied) == (None, 5)
        assert "those that are there answer" in shown.getvalue()
    finally:
        await worker.stop()
    replies = read_independently(kafka.bootstrap_servers, "bot.replies")
    assert ids_in(replies, public) == public


async def test_a_talk_goes_on_after_the_feed(kafka: Kafka, tmp_path: Path) -> None:
    feed = tmp_path / "feed.jsonl"
    write_feed(feed, mentions=1, messages=0)
    command = [sys.executable, "-m", "bot.cli", "demo", "--talk", "--yes", "--feed", str(feed)]
    settings = echo_settings(kafka)
    await nobody_in_the_group(settings.kafka)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TWITE_KAFKA")}
    ended = await asyncio.to_thread(
        subprocess.run,
        command,
        input="How are you?\n/dm a secret\n/edit 1 Why?\n/delete 2\n/optout\nMe?\n/optin\n/quit\n",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
        env=clean | as_environment(settings),
    )
    assert ended.returncode == 0, ended.stderr
    assert "A worker will be started in the group" in ended.stderr
    assert f"publish a feed onto the topics of the Kafka at {kafka.bootstrap_servers}" in (
        " ".join(ended.stderr.split())
    )
    assert "How are you?" in ended.stdout
    assert "bot.replies/" in ended.stdout
    assert "bot.direct-replies/" in ended.stdout
    places = [
        ended.stdout.index(told)
        for told in ("corrected, edited", "retracted, deleted", "opted out:", "skipped, opted-out")
    ]
    assert places == sorted(places)
    assert ended.stdout.index("you are opted in again") > places[-1]
