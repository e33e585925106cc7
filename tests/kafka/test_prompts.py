"""``twite prompts render`` on real Kafka: the prompt of a decision, and of a post now."""

import asyncio
import json
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from bot import cli
from bot.app import run_worker
from bot.ask import ask
from bot.config import as_environment
from bot.events import Person, mention_of, message_to, post
from bot.observe import Outcome
from bot.settings import KafkaSettings, LoggingSettings, ModelSettings, Settings
from infra.topics import create_topics
from schemas.feed import Message, Post

pytestmark = pytest.mark.kafka

ALICE = Person("acc-alice", "alice", "Alice")
SECRET = "My secret is a purple cow."


@pytest.fixture(scope="module")
def settings(own_broker: str) -> Settings:
    """A Kafka of its own, in which a mention and a talk were answered."""
    return Settings(
        kafka=KafkaSettings(bootstrap_servers=own_broker, partitions=2),
        model=ModelSettings(engine="echo"),
        logging=LoggingSettings(level="error"),
    )


@pytest.fixture(scope="module")
def answered(settings: Settings) -> list[tuple[Post | Message, Outcome]]:
    return asyncio.run(_answered(settings))


async def _answered(settings: Settings) -> list[tuple[Post | Message, Outcome]]:
    await create_topics(settings.kafka.bootstrap_servers, partitions=2)
    root = post(ALICE, "What is a log?", conversation_id="thread-1")
    events: list[Any] = [
        mention_of(settings.bot, ALICE, "Explain it.", conversation_id="thread-1", thread=(root,)),
        message_to(settings.bot, ALICE, SECRET),
        message_to(settings.bot, ALICE, "What did I say?"),
    ]
    stop = asyncio.Event()
    worker = asyncio.create_task(run_worker(settings, stop=stop))
    try:
        outcomes = [await ask(settings.kafka, event, timeout_s=60) for event in events]
    finally:
        stop.set()
        await worker
    posts = [getattr(event.data, "post", None) or event.data.message for event in events]
    return [(one, outcome) for one, outcome in zip(posts, outcomes, strict=True) if outcome]


def render(
    settings: Settings,
    arguments: Sequence[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> dict[str, Any]:
    for name, value in as_environment(settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["twite", "prompts", "render", "--json", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    assert ended.value.code in (0, None), said.err
    shown: dict[str, Any] = json.loads(said.out)
    return shown


def test_what_was_seen_is_shown_and_made_again(
    settings: Settings,
    answered: list[tuple[Post | Message, Outcome]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert len(answered) == 3
    for asking, outcome in answered:
        prompt = outcome.decision.prompt
        assert prompt is not None
        decision = ["--decision", outcome.decision.decision_id, "--reveal"]
        saw = render(settings, decision, monkeypatch, capsys)
        again = render(settings, [*decision, "--again"], monkeypatch, capsys)
        by_uri = render(settings, ["--uri", asking.uri, "--reveal"], monkeypatch, capsys)
        assert (saw["recorded"], again["recorded"], by_uri["recorded"]) == (True, False, False)
        for one in (saw, again, by_uri):
            assert tuple(one["token_ids"]) == prompt.token_ids
            assert one["prompt_hash"] == prompt.template_hash == outcome.replies[0].data.prompt_hash


def test_private_words_are_shown_only_when_asked_for(
    settings: Settings,
    answered: list[tuple[Post | Message, Outcome]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asking, outcome = answered[-1]
    for arguments in (["--uri", asking.uri], ["--decision", outcome.decision.decision_id]):
        hidden = render(settings, arguments, monkeypatch, capsys)
        assert hidden["private"]
        assert "purple" not in json.dumps(hidden)
        assert hidden["token_ids"] is None
        assert "purple" in json.dumps(
            render(settings, [*arguments, "--reveal"], monkeypatch, capsys)
        )
