"""Commands against a real broker: topics, mention and dm with a worker, a clean stop."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.config import as_environment
from schemas.topics import TOPICS
from tests.conftest import Kafka
from tests.kafka.playing import echo_settings

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]


def environment(kafka: Kafka) -> dict[str, str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TWITE_")}
    if cache := os.environ.get("TWITE_CACHE"):
        clean["TWITE_CACHE"] = cache
    return clean | as_environment(echo_settings(kafka)) | {"TWITE_LOGGING__FORMAT": "json"}


def twite(kafka: Kafka, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "bot.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
        env=environment(kafka),
    )


@pytest.fixture
def topics(kafka: Kafka) -> None:
    assert twite(kafka, "topics", "create").returncode == 0


@pytest.fixture
def worker(kafka: Kafka, topics: None, tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    log = tmp_path / "worker.log"
    with (
        log.open("wb") as out,
        subprocess.Popen(
            [sys.executable, "-m", "bot.cli", "worker"],
            stderr=out,
            cwd=ROOT,
            env=environment(kafka),
        ) as process,
    ):
        try:
            deadline = time.monotonic() + 60
            while b"worker ready" not in log.read_bytes():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            yield process
        finally:
            process.terminate()
            process.wait(30)


def test_topics_are_created_once_and_described(kafka: Kafka, topics: None) -> None:
    again = twite(kafka, "topics", "create")
    assert again.stdout.strip() == f"nothing to create: all {len(TOPICS)} are there"
    described = twite(kafka, "topics", "describe")
    assert described.returncode == 0
    assert "feed.direct-messages" in described.stdout


def test_unequal_partitions_are_refused_with_what_to_do(kafka: Kafka, topics: None) -> None:
    refused = twite(kafka, "topics", "create", "--partitions", "7")
    assert refused.returncode == 1
    assert "--partitions" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_config_check_is_green(kafka: Kafka, topics: None) -> None:
    checked = twite(kafka, "config", "check")
    assert checked.returncode == 0, checked.stdout
    assert f"all {len(TOPICS)} are there" in checked.stdout


@pytest.mark.usefixtures("worker")
def test_a_mention_is_answered(kafka: Kafka) -> None:
    asked = twite(kafka, "mention", "What is a bird?", "--json", "--timeout", "60")
    assert asked.returncode == 0, asked.stderr
    outcome = json.loads(asked.stdout)
    assert outcome["outcome"] == "replied"
    assert outcome["input"].startswith("feed.mentions/")
    (reply,) = outcome["replies"]
    assert "What is a bird?" in reply["text"]
    assert reply["at"].startswith("bot.replies/")


@pytest.mark.usefixtures("worker")
def test_a_private_message_is_answered_in_private(kafka: Kafka) -> None:
    asked = twite(kafka, "dm", "hello", "--author", f"acct-{uuid.uuid4()}", "--json")
    outcome = json.loads(asked.stdout)
    (reply,) = outcome["replies"]
    assert reply["visibility"] == "direct"
    assert reply["at"].startswith("bot.direct-replies/")
    assert outcome["decision"].startswith("bot.audit-private/")


@pytest.mark.usefixtures("worker")
def test_a_skip_is_told_with_its_reason(kafka: Kafka) -> None:
    asked = twite(kafka, "mention", "hello", "--author", "twite-bot")
    assert asked.returncode == 0
    assert asked.stdout.startswith("skipped, own-post: ")


def test_without_a_worker_the_wait_ends_with_status_3(kafka: Kafka, topics: None) -> None:
    asked = twite(kafka, "mention", "is anybody there?", "--timeout", "1")
    assert asked.returncode == 3
    assert "Is a worker running?" in asked.stderr


def test_sigterm_stops_the_worker_cleanly(
    kafka: Kafka, worker: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    events = [json.loads(line) for line in (tmp_path / "worker.log").read_text().splitlines()]
    assert events[-1]["event"] == "worker stopped"
    assert kafka.bootstrap_servers
