"""``twite replay`` on real Kafka: what a worker decided, made again; and nothing else written."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition

from bot import cli
from bot.app import run_worker
from bot.ask import ask, publish, to_output
from bot.clients import admin, consumer, producer
from bot.config import as_environment
from bot.events import Person, addressed, edit_of, edited, mention, message_to, post
from bot.observe import Outcome
from bot.settings import (
    KafkaSettings,
    LimitsSettings,
    LoggingSettings,
    ModelSettings,
    Settings,
    ViewsSettings,
)
from consumers.reader import Range, RangeReader, range_reader
from infra.topics import create_topics
from schemas import names
from schemas.codec import decode
from schemas.envelope import Envelope, Event
from schemas.feed import PostCreated
from tests.wait import wait_until

pytestmark = pytest.mark.kafka

ALICE = Person("acc-alice", "alice", "Alice")
BOB = Person("acc-bob", "bob", "Bob")
SECRET = "My secret is a purple cow."


@pytest.fixture(scope="module")
def settings(own_broker: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A Kafka of its own, as everything on it is counted."""
    return Settings(
        kafka=KafkaSettings(bootstrap_servers=own_broker, partitions=2),
        model=ModelSettings(engine="echo"),
        views=ViewsSettings(directory=tmp_path_factory.mktemp("views")),
        logging=LoggingSettings(level="error"),
    )


@pytest.fixture(scope="module")
def answered(settings: Settings) -> list[Outcome]:
    return asyncio.run(_answered(settings))


async def _answered(settings: Settings) -> list[Outcome]:
    """Two mentions below a post that only the views know, and a private talk of two turns. The
    post is edited when all of it is decided and the worker gone."""
    kafka, bot = settings.kafka, settings.bot
    await create_topics(kafka.bootstrap_servers, partitions=2)
    root = post(ALICE, "What is a log?", conversation_id="thread-1")
    envelope = Envelope(
        id="root", source="/platform", type=names.POST_CREATED, time=root.created_at
    )
    events: list[Any] = [message_to(bot, ALICE, SECRET), message_to(bot, ALICE, "What did I say?")]
    for who, words in ((ALICE, "Explain it."), (BOB, "And a lane?")):
        text, facets = addressed(bot, words)
        asking = post(who, text, conversation_id="thread-1", facets=facets, above=root)
        events.insert(0, mention(bot, asking))
    async with producer(kafka) as writer:
        await publish(writer, to_output(Event(envelope, PostCreated(post=root))))
        stop = asyncio.Event()
        worker = asyncio.create_task(run_worker(settings, stop=stop))
        try:
            outcomes = [await ask(kafka, event, timeout_s=60) for event in events]
        finally:
            stop.set()
            await worker
        await publish(writer, to_output(edit_of(root, edited(root, "What is a dog?"))))
    return [outcome for outcome in outcomes if outcome]


class Twite:
    """Runs the command in this process."""

    def __init__(
        self,
        settings: Settings,
        state: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        self.settings = settings
        self.state = state
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self.said = ""

    def run(self, arguments: Sequence[str], *, status: int = 0) -> str:
        """What it printed; what it said besides is in ``said``."""
        for name, value in as_environment(self.settings).items():
            self._monkeypatch.setenv(name, value)
        words = ["twite", "replay", "--nice", "0", "--state", str(self.state), *arguments]
        self._monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = self._capsys.readouterr()
        self.said = told.err
        assert (ended.value.code or 0) == status, told.err
        return told.out

    def results(self, *arguments: str, status: int = 0) -> list[dict[str, Any]]:
        """Every result that it printed as JSON."""
        lines = self.run(["--json", *arguments], status=status).splitlines()
        *results, _ = map(json.loads, lines)
        return results


@pytest.fixture
def twite(
    settings: Settings,
    answered: list[Outcome],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Twite:
    assert len(answered) == 4
    return Twite(settings, tmp_path / "state", monkeypatch, capsys)


def changes(results: Sequence[dict[str, Any]]) -> list[str]:
    return [one["change"] for one in results]


def test_frozen_every_decision_comes_out_as_it_was(twite: Twite, answered: list[Outcome]) -> None:
    results = twite.results("--all")
    assert {one["decision_id"] for one in results} == {o.decision.decision_id for o in answered}
    assert changes(results) == ["identical"] * 4
    assert [one["score"]["verdict"] for one in results] == ["identical"] * 4
    assert SECRET not in json.dumps(results)
    assert sum(one["hidden"] for one in results) == 2


def test_rebuilt_a_thread_edited_since_is_seen_as_it_was(twite: Twite, settings: Settings) -> None:
    before = asyncio.run(_ends(settings.kafka))
    results = twite.results("--all", "--mode", "rebuilt", "--reveal")
    assert changes(results) == ["identical"] * 4, results
    thread = next(one for one in results if "Explain it." in one["after"]["text"])
    assert [item["why"] for item in thread["after"]["context"]] == ["root", "asking"]
    talk = next(one for one in results if "What did I say?" in one["after"]["text"])
    assert [item["why"] for item in talk["after"]["context"]] == ["turn", "own-reply", "asking"]
    # Nothing else was written, and no offset moved.
    after = asyncio.run(_ends(settings.kafka))
    grown = {place.topic for place in after if after[place] != before[place]}
    assert grown == {names.BOT_REPLAYS}


def test_results_are_events_of_the_contract(twite: Twite, settings: Settings) -> None:
    results = twite.results("--all")
    (replay_id,) = {one["replay_id"] for one in results}
    published = asyncio.run(_published(settings.kafka, replay_id))
    assert published == {one["decision_id"] for one in results}


def test_selected_by_author_conversation_range_and_id(
    twite: Twite, answered: list[Outcome]
) -> None:
    first = answered[0]
    one = first.decision.decision_id
    assert {r["decision_id"] for r in twite.results("--id", one, "--no-publish")} == {one}
    uri = first.decision.source_ref.uri if first.decision.source_ref else ""
    assert {r["decision_id"] for r in twite.results("--id", uri, "--no-publish")} == {one}
    assert len(twite.results("--author", BOB.id, "--no-publish")) == 1
    assert len(twite.results("--conversation", "thread-1", "--no-publish")) == 2
    by_input = twite.results("--range", str(first.input), "--no-publish")
    by_record = twite.results("--range", str(first.at), "--no-publish")
    assert [r["decision_id"] for r in (*by_input, *by_record)] == [one, one]


def test_what_is_not_there_gets_a_clear_word(twite: Twite, answered: list[Outcome]) -> None:
    (unknown,) = twite.results("--id", "no-such-id", "--no-publish")
    assert (unknown["change"], unknown["why"]) == ("not-replayed", "unknown-id")
    twite.run(["--range", f"{names.FEED_MENTIONS}/0/100000-100001"], status=1)
    assert "there is no such record" in twite.said
    twite.run(["--author", "nobody"], status=1)
    assert "no decision is like that" in twite.said
    twite.run([], status=2)
    assert "nothing says which decisions" in twite.said


def test_the_gate_lets_a_small_change_through_and_stops_a_large_one(
    twite: Twite, tmp_path: Path
) -> None:
    prompt = tmp_path / "next.txt"
    prompt.write_text("You are {bot}. Say nothing but the truth.\n")
    words = ["--all", "--against", str(prompt), "--no-publish", "--budget"]
    assert "within the budget" in twite.run([*words, "5%"])
    # Texts changed, but no outcome.
    assert "text changed" in twite.run([*words, "0%"])
    strict = LimitsSettings(max_age_hours=1e-9)
    twite.settings = twite.settings.model_copy(update={"limits": strict})
    said = twite.run([*words, "50%"], status=4)
    assert "100.00% of outcomes changed: more than the budget" in said
    assert "replied → skipped, too-old" in said


def test_the_report_is_a_terminal_table_and_one_page(twite: Twite, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    said = twite.run(["--all", "--no-publish", "--html", str(page)])
    assert "identical" in said
    assert "4 would be drawn again token for token" in said
    text = page.read_text()
    assert "4 decisions" in text
    assert "purple cow" not in text
    twite.run(["--all", "--no-publish", "--html", str(tmp_path / "no" / "such.html")], status=2)
    assert "no file can be written there" in twite.said


def test_interrupted_it_goes_on_with_the_same_command(twite: Twite, tmp_path: Path) -> None:
    """Ctrl-C, with one decision at a time and an engine that takes its time."""
    environment = os.environ | as_environment(twite.settings)
    environment["TWITE_MODEL__ECHO__LATENCY_MS"] = "1500"
    words = ["replay", "--all", "--in-flight", "1", "--json", "--state", str(tmp_path)]
    command = [sys.executable, "-m", "bot.cli", *words]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as first:
        asyncio.run(wait_until(lambda: bool(_kept(tmp_path)), 60))
        first.send_signal(signal.SIGINT)
        out, err = first.communicate(timeout=60)
    assert first.returncode == 128 + signal.SIGINT, err
    assert "the same command with --resume goes on" in err
    before = _kept(tmp_path)
    assert 0 < len(before) < 4
    assert out == ""
    second = subprocess.run([*command, "--resume"], env=environment, **pipes, check=False)
    assert second.returncode == 0, second.stderr
    assert second.stdout.splitlines()[: len(before)] == before
    assert list(tmp_path.iterdir()) == []
    *results, _ = map(json.loads, second.stdout.splitlines())
    assert len({one["decision_id"] for one in results}) == len(results) == 4
    third = subprocess.run([*command, "--resume"], env=environment, **pipes, check=False)
    assert third.returncode == 1
    assert "no replay of this command was interrupted" in third.stderr


def _kept(state: Path) -> list[str]:
    """The results that are on the disk."""
    return [
        line for file in state.glob("*/results.jsonl") for line in file.read_text().splitlines()
    ]


async def _published(kafka: KafkaSettings, replay_id: str) -> set[str]:
    """The decisions that a replay's results on the topic tell of."""
    async with range_reader(kafka.bootstrap_servers) as reader:
        return {
            decode(record).data.decision_id
            async for record in reader.read(Range(names.BOT_REPLAYS))
            if record.key == replay_id.encode()
        }


async def _ends(kafka: KafkaSettings) -> dict[TopicPartition, int]:
    """The end of every partition of every topic, Kafka's own of committed offsets included."""
    async with admin(kafka) as client, consumer(kafka, committed=False) as reader:
        described = await client.describe_topics(None)
        places = [
            TopicPartition(one["topic"], partition["partition"])
            for one in described
            for partition in one["partitions"]
        ]
        ends: dict[TopicPartition, int] = await reader.end_offsets(places)
        return ends


def test_reviews_come_out_as_they_were(twite: Twite, settings: Settings) -> None:
    """The last test of this file: a worker comes back and corrects what was built on the edit."""
    asyncio.run(_corrected(settings))
    results = twite.results("--outcome", "corrected", "--mode", "rebuilt")
    assert changes(results) == ["identical"] * 2, results
    assert {one["after"]["reason"] for one in results} == {"edited"}
    assert changes(twite.results("--outcome", "corrected")) == ["identical"] * 2


async def _corrected(settings: Settings) -> None:
    stop = asyncio.Event()
    worker = asyncio.create_task(run_worker(settings, stop=stop))
    try:
        async with asyncio.timeout(60), range_reader(settings.kafka.bootstrap_servers) as reader:
            while await _corrections(reader) < 2:  # noqa: ASYNC110 - only asking tells
                await asyncio.sleep(0.1)
    finally:
        stop.set()
        await worker


async def _corrections(reader: RangeReader) -> int:
    found = 0
    async for record in reader.read(Range(names.BOT_AUDIT)):
        found += decode(record).data.outcome.value == "corrected"
    return found
