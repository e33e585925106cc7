"""``twite explain`` and ``twite evidence`` on real Kafka: what a worker did is found and told."""

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from bot import cli
from bot.app import run_worker
from bot.ask import ask, open_asker
from bot.config import as_environment
from bot.events import Person, deletion_of, edit_of, edited, mention_of, message_to, post
from bot.explain import find as finding
from bot.explain.complete import missing_of
from bot.explain.find import Subject, find
from bot.observe import Outcome
from bot.settings import KafkaSettings, LoggingSettings, ModelSettings, Settings
from consumers.reader import range_reader
from infra.topics import create_topics
from schemas import names

pytestmark = pytest.mark.kafka

ALICE = Person("acc-alice", "alice", "Alice")
SECRET = "My secret is a purple cow."


@dataclass(frozen=True)
class Played:
    """What was written to the bot, and what it came to."""

    uri: str
    mention: Outcome
    message: Outcome
    second: Outcome
    reviews: list[Outcome]


@pytest.fixture(scope="module")
def settings(own_broker: str) -> Settings:
    """A Kafka of its own."""
    return Settings(
        kafka=KafkaSettings(bootstrap_servers=own_broker, partitions=2),
        model=ModelSettings(engine="echo"),
        logging=LoggingSettings(level="error"),
    )


@pytest.fixture(scope="module")
def played(settings: Settings) -> Played:
    return asyncio.run(_play(settings))


async def _play(settings: Settings) -> Played:
    await create_topics(settings.kafka.bootstrap_servers, partitions=2)
    root = post(ALICE, "What is a log?", conversation_id="thread-1")
    asking = mention_of(
        settings.bot, ALICE, "Explain it.", conversation_id="thread-1", thread=(root,)
    )
    now = edited(asking.data.post, asking.data.post.text + " Please!")
    changes = (edit_of(asking.data.post, now), deletion_of(now))
    stop = asyncio.Event()
    worker = asyncio.create_task(run_worker(settings, stop=stop))
    try:
        first = await ask(settings.kafka, asking, timeout_s=60)
        private = await ask(settings.kafka, message_to(settings.bot, ALICE, SECRET), timeout_s=60)
        second = await ask(settings.kafka, message_to(settings.bot, ALICE, "And?"), timeout_s=60)
        async with open_asker(settings.kafka) as asker:
            reviews = [o for event in changes for o in await asker.change(event, 60) or ()]
    finally:
        stop.set()
        await worker
    assert first is not None
    assert private is not None
    assert second is not None
    return Played(asking.data.post.uri, first, private, second, reviews)


@pytest.fixture
def twite(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> "Twite":
    for name, value in as_environment(settings).items():
        monkeypatch.setenv(name, value)
    return Twite(monkeypatch, capsys)


@dataclass(frozen=True)
class Twite:
    """The command in this process."""

    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str, status: int = 0) -> str:
        """What it prints, on both streams."""
        self.monkeypatch.setattr(sys, "argv", ["twite", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = self.capsys.readouterr()
        assert int(ended.value.code or 0) == status, said.err
        return said.out if status == 0 else said.err


def test_a_reply_is_explained_with_what_became_of_it(played: Played, twite: Twite) -> None:
    decision = played.mention.decision
    for word in (played.uri, decision.decision_id, decision.reply_ids[0], str(played.mention.at)):
        told = json.loads(twite("explain", word, "--json", "--tokens"))
        assert told["decision_id"] == decision.decision_id
        assert told["said"][0]["text"] == played.mention.replies[0].data.text
        assert told["said"][0]["at"] == str(played.mention.replies[0].at)
        assert [seen["why"] for seen in told["thread"]] == ["root", "asking"]
        assert [one["outcome"] for one in told["later"]] == ["corrected", "retracted"]
        assert [one["said"][0]["what"] for one in told["later"]] == ["correction", "retraction"]
        assert [one["because"] for one in told["later"]] == [
            "a post was edited",
            "a post was deleted",
        ]
        assert told["input"]["gone"] is None
        assert told["warnings"] == []
        ids = [i for segment in told["tokens"]["prompt"] for i in segment["token_ids"]]
        assert decision.prompt is not None
        assert tuple(ids) == decision.prompt.token_ids


def test_private_talks_need_two_words(played: Played, twite: Twite) -> None:
    word = played.message.decision.decision_id
    assert "--private looks there" in twite("explain", word, status=1)
    hidden = twite("explain", word, "--private")
    assert "purple" not in hidden
    assert "--reveal shows them" in hidden
    assert "purple cow" in " ".join(twite("explain", word, "--private", "--reveal").split())


def test_the_page_is_written(played: Played, twite: Twite, tmp_path: Path) -> None:
    page = tmp_path / "why.html"
    assert twite("explain", played.uri, "--html", str(page)) == ""
    text = page.read_text()
    assert "The bot replied" in text
    assert played.mention.decision.decision_id in text
    assert "cannot be written" in twite("explain", played.uri, "--html", "/no/where", status=1)


def test_what_is_not_there_is_told(played: Played, twite: Twite) -> None:
    assert played.reviews
    said = " ".join(twite("explain", "at://nobody", status=1).split())
    assert "no decision on bot.audit names it" in said
    assert "older ones are past retention" in said
    assert "(any more)" in twite("explain", "bot.audit/0/999999", status=1)


def test_a_case_goes_into_evidence_and_is_checked_without_kafka(
    played: Played, twite: Twite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, case, again = (str(tmp_path / name) for name in ("k.pem", "case.zip", "again.zip"))
    twite("evidence", "keygen", key)
    decision = played.mention.decision.decision_id
    for file in (case, again):
        twite("evidence", "export", decision, "--key", key, "--out", file)
    assert Path(case).read_bytes() == Path(again).read_bytes()
    assert Path(case).stat().st_mode & 0o077 == 0
    monkeypatch.setenv("TWITE_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    public = ["--key", str(tmp_path / "k.pub.pem")]
    found = json.loads(twite("evidence", "verify", case, *public, "--json"))
    members = {member["name"] for member in found["manifest"]["members"]}
    assert {
        "input/value",
        "decision/value",
        "replies/1/value",
        "later/1/decision/value",
        "later/1/input/value",
        "later/2/replies/1/value",
        "messages.json",
        f"schemas/{names.REPLY_RETRACTED}.json",
        f"schemas/{names.REVIEW_ASKED}.json",
    } <= members
    data = Path(case).read_bytes()
    Path(case).write_bytes(data.replace(b"What is a log?", b"What is a dog?", 1))
    assert twite("evidence", "verify", case, *public, status=1) == ""


async def test_a_decision_of_a_worker_lacks_nothing(
    settings: Settings, played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "FIRST_STRETCH", 1)  # in several stretches
    wanted = [one.decision for one in (played.mention, played.message, played.second)]
    wanted += [review.decision for review in played.reviews]
    async with range_reader(settings.kafka.bootstrap_servers) as reader:
        for decision in wanted:
            found = await find(reader, Subject.of(decision.decision_id), private=True)
            assert found.data == decision
            assert missing_of(found) == ()
            assert found.data.positions
