"""``twite views`` against a real broker, on files of its own."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition

from bot.clients import cluster_id
from bot.config import as_environment
from bot.remembering import follow_config
from bot.settings import Settings, ViewsSettings
from consumers.views.files import lags, survey
from schemas import names
from tests.conftest import Kafka
from tests.kafka.playing import echo_settings
from tests.kafka.viewing import viewing_bot

pytestmark = pytest.mark.kafka

ROOT = Path(__file__).parents[2]
Twite = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def settings(kafka: Kafka, tmp_path: Path) -> Settings:
    views = ViewsSettings(directory=tmp_path / "views")
    return echo_settings(kafka).model_copy(update={"views": views})


@pytest.fixture
def twite(settings: Settings) -> Twite:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TWITE_")}
    environment = clean | as_environment(settings)

    def call(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "bot.cli", *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=ROOT,
            env=environment | {"COLUMNS": "160"},
        )

    assert call("topics", "create").returncode == 0
    return call


async def test_views_are_shown_verified_and_rebuilt(twite: Twite, settings: Settings) -> None:
    nothing = twite("views", "show")
    assert (nothing.returncode, "no views here yet" in nothing.stdout) == (0, True)
    assert twite("views", "verify").returncode == 1

    async with viewing_bot(settings, [0, 1]):
        shown = twite("views", "show")
        assert shown.returncode == 0, shown.stderr
        assert shown.stdout.count("in use") == 8  # three of two partitions, two of all
        verified = twite("views", "verify", "--view", "conversation")
        assert (verified.returncode, verified.stdout.count(": equal,")) == (0, 2)
        refused = twite("views", "rebuild", "--view", "replies", "--partition", "1")
        assert (refused.returncode, "running worker" in refused.stderr) == (1, True)

    rebuilt = twite("views", "rebuild")
    assert (rebuilt.returncode, rebuilt.stdout.count("built in")) == (0, 8), rebuilt.stderr
    verified = twite("views", "verify")
    assert (verified.returncode, verified.stdout.count(": equal,")) == (0, 8), verified.stdout

    assert settings.views.directory is not None
    found = survey(settings.views.directory, await cluster_id(settings.kafka), [])
    (accounts,) = (file for file in found if file.view == "accounts")
    with closing(sqlite3.connect(accounts.path)) as db, db:
        (table,) = db.execute("SELECT name FROM sqlite_master WHERE name = 'accounts'").fetchone()
        columns = len(db.execute(f"PRAGMA table_info({table})").fetchall())
        marks = ", ".join(["'strange'", *["0"] * (columns - 1)])
        db.execute(f"INSERT INTO {table} VALUES ({marks})")  # noqa: S608
    differs = twite("views", "verify", "--view", "accounts")
    assert (differs.returncode, "DIFFERS" in differs.stdout) == (1, True)
    assert "1 rows only in the view" in differs.stdout


async def test_markers_of_transactions_are_no_lag(twite: Twite, settings: Settings) -> None:
    async with viewing_bot(settings, [0, 1]):
        pass
    assert settings.views.directory is not None
    found = survey(settings.views.directory, await cluster_id(settings.kafka), [])
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka.bootstrap_servers, transactional_id="marks"
    )
    await producer.start()
    try:
        async with producer.transaction():
            await producer.send(names.BOT_REPLIES, b"?", partition=0)
    finally:
        await producer.stop()
    readers = [f.path for f in found if TopicPartition(names.BOT_REPLIES, 0) in f.positions]
    assert readers
    behind = await lags(follow_config(settings), found)  # a record and its marker are one
    assert {path for path, lag in behind.items() if lag} == set(readers)
    assert {behind[path] for path in readers} == {1}
    async with viewing_bot(settings, [0, 1]):
        pass
    found = survey(settings.views.directory, await cluster_id(settings.kafka), [])
    assert set((await lags(follow_config(settings), found)).values()) == {0}


def test_an_unknown_view_is_told(twite: Twite) -> None:
    for command in ("show", "rebuild"):
        said = twite("views", command, "--view", "nonsense")
        assert said.returncode == 1
        assert "conversation" in said.stderr
