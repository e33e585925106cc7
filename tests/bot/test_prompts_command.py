"""``twite prompts`` without a broker, and ``bot.preview``: the same prompt as a worker's."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bot import cli
from bot.cli import console
from bot.conversation import answer
from bot.events import structured
from bot.preview import asked_of, knowledge_of, preview, question_in
from bot.settings import BotSettings, known_fields
from bot.values import Source
from model.echo import ByteChatTokenizer, EchoEngine
from schemas import names
from schemas.envelope import Event
from schemas.feed import AccountChanged, MessageCreated, PostCreated
from schemas.record import Record
from tests.bot.make import (
    ALICE,
    BOB,
    BOT,
    NOW,
    asked,
    envelope,
    mention,
    message,
    post,
    record,
    setup,
)

FEED = Path(__file__).parents[2] / "docs" / "sample-feed.jsonl"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TWITE_CONFIG", raising=False)
    for known in known_fields():
        monkeypatch.delenv(known.variable, raising=False)
    monkeypatch.setenv("TWITE_MODEL__ENGINE", "echo")
    monkeypatch.setattr(console.out, "_width", 200)
    monkeypatch.chdir(tmp_path)


def run(arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """As the shell would: the exit status of ``twite prompts``."""
    monkeypatch.setattr(sys, "argv", ["twite", "prompts", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def told(kind: str, topic: str, data: Any, key: str, offset: int) -> Record:
    """A record of a type that ``make.record`` does not know."""
    made = record(mention(), offset=offset)
    headers = tuple((n, kind.encode() if n == "ce_type" else v) for n, v in made.headers)
    value = json.dumps(data.model_dump(mode="json")).encode()
    return replace(made, topic=topic, key=key.encode(), value=value, headers=headers)


def thread() -> list[Record]:
    """A thread that the events of its mention do not carry, and somebody in it who said no."""
    root = post("at://p/0", "What is a log?", author=BOB)
    above = post("at://p/1", "I do not want this read.", author=BOB.model_copy(update={"id": "no"}))
    above = above.model_copy(update={"parent": root.ref, "root": root.ref})
    asking = mention("@twite explain?", parent=above.ref, root=root.ref)
    no = AccountChanged(account_id="no", opted_out=True)
    return [
        told(names.POST_CREATED, names.FEED_POSTS, PostCreated(post=root), "conv-1", 0),
        told(names.POST_CREATED, names.FEED_POSTS, PostCreated(post=above), "conv-1", 1),
        told(names.ACCOUNT_CHANGED, names.FEED_ACCOUNTS, no, "no", 2),
        record(asking, offset=7),
    ]


def talk() -> list[Record]:
    first = message("at://m/1", "My name is Alice.")
    second = message("at://m/2", "Who am I?", created_at=NOW + timedelta(minutes=1))
    return [
        record(MessageCreated(message=one), offset=place, event_id=f"e{place}")
        for place, one in enumerate((first, second))
    ]


@pytest.mark.parametrize("records", [thread(), talk()])
async def test_a_preview_is_what_a_worker_gives_the_model(records: list[Record]) -> None:
    engine, using = EchoEngine(), setup()
    await engine.start()
    place = question_in(records, None, BOT.id)
    known = knowledge_of(records, BOT.id)
    seen = preview(records[place], known, using, ByteChatTokenizer(), 32768)
    data: Source = asked_data(records[place])
    decision = await answer(
        asked(data),
        using,
        engine,
        knowledge_of(records, BOT.id),
        now=lambda: NOW,
        counter=lambda: 0.0,
    )
    prompt = decision.record.prompt
    assert prompt is not None
    assert seen.prompt.token_ids == prompt.token_ids
    assert seen.template_hash == prompt.template_hash
    assert seen.context == decision.record.context
    await engine.stop()


def asked_data(one: Record) -> Source:
    found = asked_of(one)
    assert found is not None
    return found.data


def test_a_preview_knows_threads_talks_and_consent() -> None:
    records = thread()
    seen = preview(records[-1], knowledge_of(records, BOT.id), setup(), ByteChatTokenizer(), 32768)
    text = ByteChatTokenizer().spell(seen.prompt.token_ids)
    assert "Bob: What is a log?" in text
    assert "do not want" not in text
    assert [item.why for item in seen.context if not item.included] == ["consent"]
    assert seen.tokens("trusted") + seen.tokens("untrusted") == len(seen.prompt.token_ids)
    turns = talk()
    second = preview(turns[-1], knowledge_of(turns, BOT.id), setup(), ByteChatTokenizer(), 32768)
    assert "My name is Alice." in ByteChatTokenizer().spell(second.prompt.token_ids)
    assert second.private


def test_a_preview_says_where_the_policy_would_not_ask() -> None:
    records = [
        told(
            names.ACCOUNT_CHANGED,
            names.FEED_ACCOUNTS,
            AccountChanged(account_id=ALICE.id, opted_out=True),
            ALICE.id,
            0,
        ),
        record(mention()),
    ]
    seen = preview(records[-1], knowledge_of(records, BOT.id), setup(), ByteChatTokenizer(), 32768)
    assert seen.skipped == "opted-out"


def test_list_names_what_is_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "next.txt").write_text("Be kind.")
    monkeypatch.setenv("TWITE_PROMPTS__DIRECTORY", str(tmp_path))
    monkeypatch.setenv("TWITE_PROMPTS__CANARY_MENTION", "next")
    monkeypatch.setenv("TWITE_PROMPTS__CANARY_MENTION_SHARE", "0.1")
    assert run(["list", "--json"], monkeypatch) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["prompts"]}
    assert rows["next"]["used_for"] == ["10% of mentions"]
    assert rows["mention"]["used_for"] == ["mentions"]
    assert rows["next"]["file"] == str(tmp_path / "next.txt")
    assert len(rows["next"]["hash"]) == 64
    assert run(["list"], monkeypatch) == 0
    assert "10% of mentions" in capsys.readouterr().out


def test_show_prints_the_prompt(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["show", "mention"], monkeypatch) == 0
    said = capsys.readouterr()
    assert said.out.startswith("You are {bot},")
    assert setup().prompts.mention.hash in said.err
    assert run(["show", "nothing"], monkeypatch) == 1
    said = capsys.readouterr()
    assert "prompts.directory, which is not set" in said.err
    assert "choose one of: direct, mention" in said.err


def test_list_shows_a_faulty_prompt_beside_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "mention.txt").write_text("{nobody}")
    (tmp_path / "folder.txt").mkdir()
    monkeypatch.setenv("TWITE_PROMPTS__DIRECTORY", str(tmp_path))
    assert run(["list", "--json"], monkeypatch) == 1
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["prompts"]}
    assert sorted(rows) == ["direct", "mention"]
    assert rows["direct"]["problem"] is None
    assert rows["mention"]["hash"] is None
    assert rows["mention"]["used_for"] == ["mentions"]
    assert "line 1 has {nobody}" in rows["mention"]["problem"]
    assert run(["list"], monkeypatch) == 1
    said = capsys.readouterr()
    assert "comes with Twite" in said.out
    assert "line 1 has {nobody}" in said.out


def test_a_name_that_can_be_no_file_is_told_in_short(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("x" * 5_000, "x" * 5_000 + ".txt", "a\0b", "a\0b.txt"):
        assert run(["show", name], monkeypatch) == 1
        said = capsys.readouterr().err
        assert "there is no prompt called" in said or "cannot be read" in said
        assert "unexpected" not in said
        assert len(said) < 700


def test_what_never_ends_is_not_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pipe, large = tmp_path / "pipe.txt", tmp_path / "large.jsonl"
    os.mkfifo(pipe)
    with large.open("wb") as file:
        file.truncate(2**30)
    for arguments in (
        ["render", "/dev/urandom"],
        ["render", str(pipe)],
        ["show", str(pipe)],
        ["render", str(FEED), "--prompt", str(pipe)],
    ):
        assert run(arguments, monkeypatch) == 1
        assert "cannot be read: Is not a regular file." in capsys.readouterr().err
    assert run(["render", str(large)], monkeypatch) == 1
    assert "more than" in capsys.readouterr().err


def test_diff_compares_with_what_comes_with_twite(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(["diff", "mention"], monkeypatch) == 0
    assert capsys.readouterr().out == ""
    own = tmp_path / "mention.txt"
    own.write_text("You are {bot}. [bold]Be kind.[/bold]")
    assert run(["diff", "mention", str(own)], monkeypatch) == 1
    said = capsys.readouterr().out
    assert said.startswith("--- mention (comes with Twite)\n+++ mention (")
    assert "+You are {bot}. [bold]Be kind.[/bold]" in said
    assert run(["diff", str(own), "direct"], monkeypatch) == 1
    assert "-You are {bot}. [bold]Be kind.[/bold]" in capsys.readouterr().out
    monkeypatch.setenv("TWITE_PROMPTS__DIRECTORY", str(tmp_path))
    assert run(["diff", "mention"], monkeypatch) == 1
    assert "+You are {bot}. [bold]Be kind.[/bold]" in capsys.readouterr().out


def test_diff_without_anything_to_compare_with_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "next.txt").write_text("Be kind.")
    monkeypatch.setenv("TWITE_PROMPTS__DIRECTORY", str(tmp_path))
    assert run(["diff", "next"], monkeypatch) == 1
    said = capsys.readouterr().err
    assert f"{tmp_path / 'next.txt'}: no prompt of this name comes with Twite" in said
    assert "twite prompts diff mention next" in said


def test_what_fails_at_once_is_told_before_the_tokenizer_loads(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def slow(*arguments: object) -> None:
        raise AssertionError("the tokenizer was loaded")

    monkeypatch.setattr("model.loader.build_tokenizer", slow)
    monkeypatch.setenv("TWITE_KAFKA__BOOTSTRAP_SERVERS", "localhost:1")
    for arguments, words in (
        (["none.jsonl"], "none.jsonl"),
        ([str(FEED), "--uri", "post:none"], "about 'post:none'"),
        ([str(FEED), "--prompt", "none"], "no prompt called 'none'"),
        (["--uri", "post:1"], "No Kafka broker answers at localhost:1."),
        (["--decision", "1"], "No Kafka broker answers at localhost:1."),
    ):
        assert run(["render", *arguments], monkeypatch) == 1
        assert words in capsys.readouterr().err


def test_a_prompt_that_is_too_long_is_told_by_render(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "long.txt").write_text("word " * 500)
    assert run(["render", str(FEED), "--prompt", "long.txt"], monkeypatch) == 1
    said = capsys.readouterr().err
    assert "long.txt: " in said
    assert "set bot.prompt_tokens to" in said


def test_render_shows_a_conversation_of_a_feed_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(["render", str(FEED), "--uri", "post:1"], monkeypatch) == 0
    out = capsys.readouterr().out
    assert "<user>alice: What is the capital of France?<end><assistant>" in out
    assert "tokens: " in out
    (tmp_path / "next.txt").write_text("Only rhymes, {bot}.")
    private = ["render", str(FEED), "--uri", "message:1"]
    assert run([*private, "--prompt", "next.txt", "--json"], monkeypatch) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["segments"][1]["text"] == "Only rhymes, Twite."
    assert (value["prompt"], value["private"]) == ("next", True)
    assert value["tokens"]["total"] == len(value["token_ids"])
    assert value["token_ids"] == sorted_ids(value)


def sorted_ids(value: dict[str, Any]) -> list[int]:
    """The ids again, from the texts of the segments."""
    names_of = {"<system>": 257, "<user>": 258, "<assistant>": 259, "<end>": 256}
    ids: list[int] = []
    for segment in value["segments"]:
        text = segment["text"]
        while text:
            control = next((name for name in names_of if text.startswith(name)), None)
            ids += [names_of[control]] if control else list(text[0].encode())
            text = text[len(control or text[0]) :]
    return ids


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["render"], 2, "one conversation, please"),
        (["render", "x.jsonl", "--decision", "1"], 2, "one conversation, please"),
        (["render", "--uri", "a", "--again"], 2, "one conversation, please"),
        (["render", "none.jsonl"], 1, "none.jsonl"),
        (["render", str(FEED), "--uri", "post:none"], 1, "about 'post:none'"),
        (["render", str(FEED), "--prompt", "none"], 1, "no prompt called 'none'"),
    ],
)
def test_what_cannot_be_shown_is_told(
    arguments: list[str],
    status: int,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(arguments, monkeypatch) == status
    assert words in capsys.readouterr().err


def test_a_feed_file_may_tell_what_the_mention_does_not_carry(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    bot = BotSettings()
    root = post("at://p/0", "What is a log?", author=BOB)
    asking = mention("@twite explain?", parent=root.ref, root=root.ref)
    asking = asking.model_copy(update={"mentioned_account_id": bot.account_id})
    events: list[Event[Any]] = [
        Event(envelope(names.POST_CREATED, id="1"), PostCreated(post=root)),
        Event(envelope(id="2"), asking),
    ]
    feed = tmp_path / "feed.jsonl"
    feed.write_text("\n".join(json.dumps(structured(event)) for event in events))
    assert run(["render", str(feed)], monkeypatch) == 0
    assert "Bob: What is a log?" in capsys.readouterr().out
