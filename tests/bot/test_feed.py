"""Feed files: what a line may be, what it becomes, and how a wrong one is told."""

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from bot.ask import to_output
from bot.errors import Trouble
from bot.events import Person, mention_of, message_to, structured
from bot.feed import (
    SHOWN,
    Entry,
    FeedError,
    FeedErrors,
    check_file,
    open_feed,
    read_file,
    read_line,
)
from bot.settings import BotSettings
from consumers.batches import raw_header_name
from schemas.codec import decode
from schemas.feed import MentionCreated
from schemas.record import Output
from tests.bot.outcomes import as_record

BOT = BotSettings()
ALICE = Person("acct-alice", "alice")


def read(*lines: str | bytes) -> list[Entry]:
    data = [line if isinstance(line, bytes) else line.encode() for line in lines]
    found = [read_line(line, number, "feed.jsonl") for number, line in enumerate(data, start=1)]
    return [entry for entry in found if entry]


def one(entry: dict[str, Any]) -> Output:
    (found,) = read(json.dumps(entry))
    return found.output


def test_an_event_becomes_the_record_that_the_codec_would_write() -> None:
    event = mention_of(BOT, ALICE, "Grüße 👋", conversation_id="thread-1")
    output = one(structured(event))
    assert output.topic == "feed.mentions"
    assert output.key == b"thread-1"
    decoded = decode(as_record(output))
    assert decoded == decode(as_record(to_output(event)))
    assert isinstance(decoded.data, MentionCreated)
    assert decoded.data == event.data


def test_a_message_goes_to_its_topic() -> None:
    output = one(structured(message_to(BOT, ALICE, "hello", conversation_id="talk-1")))
    assert (output.topic, output.key) == ("feed.direct-messages", b"talk-1")


def test_topic_and_key_beside_the_event_win() -> None:
    event = structured(message_to(BOT, ALICE, "hello")) | {"topic": "feed.mentions", "key": "x"}
    output = one(event)
    assert (output.topic, output.key) == ("feed.mentions", b"x")
    assert one(event | {"key": None}).key is None


def test_an_account_event_is_keyed_by_its_account() -> None:
    event = {
        "id": "1",
        "source": "/s",
        "type": "twite.feed.account.changed.v1",
        "time": "2026-01-01T00:00:00Z",
        "data": {"account_id": "acct-1"},
    }
    assert one(event).key == b"acct-1"
    assert one(event).topic == "feed.accounts"


def test_a_raw_record_holds_any_bytes() -> None:
    output = one(
        {
            "topic": "feed.mentions",
            "key_base64": base64.b64encode(b"\xff\x00").decode(),
            "headers": {"ce_type": "x"},
            "value_base64": base64.b64encode(b"\xfe").decode(),
        }
    )
    assert output == Output(
        topic="feed.mentions", key=b"\xff\x00", value=b"\xfe", headers=(("ce_type", b"x"),)
    )


def test_headers_may_come_twice_and_hold_bytes() -> None:
    headers = [["a", "1"], ["a", "2"], ["b", {"base64": "/w=="}], ["c", None]]
    output = one({"topic": "feed.t", "headers": headers, "value": "v"})
    assert output.headers == (("a", b"1"), ("a", b"2"), ("b", b"\xff"), ("c", None))


def test_a_header_name_that_is_no_text_is_written_as_its_bytes() -> None:
    ((name, _),) = one({"topic": "feed.t", "headers": {"\ud800x": "v"}}).headers
    assert raw_header_name(name) == b"\xed\xa0\x80x"


def test_key_and_value_may_be_null() -> None:
    assert one({"topic": "feed.t"}) == Output(topic="feed.t", key=None, value=None)


def test_empty_lines_and_comments_are_left_out_but_counted() -> None:
    entries = read("# a feed", "", '{"topic": "feed.t"}', "   ", '{"topic": "feed.u"}')
    assert [entry.line for entry in entries] == [3, 5]


def test_wrong_data_is_played_all_the_same() -> None:
    event = structured(mention_of(BOT, ALICE, "hi", conversation_id="c"))
    event["data"]["post"]["text"] = 5
    assert json.loads(one(event).value or b"")["post"]["text"] == 5


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("nonsense", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("5", "not a JSON object"),
        ("{}", "neither an event"),
        ('{"topic": "feed.t", "value": 5}', "'value' must be a string"),
        ('{"topic": "feed.t", "value_base64": "***"}', "'value_base64' is not base64"),
        ('{"topic": "feed.t", "headers": [["a"]]}', "a header must be a pair"),
        ('{"topic": "feed.t", "headers": {"a": 5}}', "the value of a header"),
        ('{"topic": "feed.t", "headers": 5}', "'headers' must be"),
        ('{"data": {}}', "an event needs 'id'"),
        ('{"id": "1", "source": "s", "type": "t", "time": "t", "data": 1}', "needs 'data'"),
        (
            '{"id": "1", "source": "s", "type": "no.such", "time": "t", "data": {"post": {}}}',
            "unknown type",
        ),
        (
            '{"id": "1", "source": "s", "topic": "feed.t", "type": "t", "time": "t", "data": {}}',
            "no conversation_id",
        ),
        ('{"topic": 5}', "'topic' must be a string"),
        ('{"topic": "bot.replies"}', "feeds may only write feed.* topics, not 'bot.replies'"),
        ('{"topic": "__consumer_offsets"}', "only write feed.* topics"),
        ('{"topic": "feed.\\u001b[2J\\u202e"}', r"not 'feed.\x1b[2J\u202e'"),
        ('{"topic": "feed.\\ud800"}', r"not 'feed.\ud800'"),
        (
            '{"id": "1", "source": "s", "topic": "bot.audit", "type": "", "time": "", "data": {}}',
            "feeds may only write feed.* topics, not 'bot.audit'",
        ),
        (b"\xff\xfe", "not JSON"),
    ],
)
def test_a_wrong_line_is_told_with_its_number(line: str | bytes, what: str) -> None:
    with pytest.raises(FeedError) as caught:
        read('{"topic": "feed.t"}', line)
    assert caught.value.where == "feed.jsonl:2"
    assert what in str(caught.value)


def test_all_that_is_wrong_with_a_line_is_told() -> None:
    with pytest.raises(FeedError) as caught:
        read('{"id": 5, "type": "no.such", "data": []}')
    said = str(caught.value)
    for problem in ("'id', a", "'source', a", "'time', a", "unknown type 'no.such'", "'data', an"):
        assert problem in said
    with pytest.raises(FeedError, match=r"'key' must.*'value_base64' is not.*a header must be"):
        read('{"topic": "feed.t", "key": 1, "value_base64": "*", "headers": [["a"], ["b"]]}')


def test_all_wrong_lines_of_a_file_are_told(tmp_path: Path) -> None:
    path = tmp_path / "feed.jsonl"
    path.write_text('{"topic": "feed.t"}\n' + "nonsense\n" * (SHOWN + 3))
    with pytest.raises(FeedErrors, match=f"{SHOWN + 3} lines are no event") as caught:
        check_file(path)
    *told, last = caught.value.lines
    assert [line.split(": ")[0] for line in told] == [f"{path}:{n + 2}" for n in range(SHOWN)]
    assert "the first 10 are told here" in last


def test_a_good_file_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "feed.jsonl"
    path.write_text('# two\n{"topic": "feed.t"}\n\n{"topic": "feed.t"}\n')
    assert check_file(path) == 2


@pytest.mark.parametrize("text", ["", "\n\n", "# only words\n"])
def test_a_file_without_anything_to_play_is_trouble(tmp_path: Path, text: str) -> None:
    path = tmp_path / "feed.jsonl"
    path.write_text(text)
    with pytest.raises(Trouble, match="nothing to play") as caught:
        check_file(path)
    assert caught.value.status == 2


def test_a_file_that_is_not_there_is_trouble(tmp_path: Path) -> None:
    with pytest.raises(Trouble) as caught:
        list(read_file(tmp_path / "nowhere.jsonl"))
    assert "nowhere.jsonl: cannot be read: No such file" in str(caught.value)


async def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "feed.jsonl"
    path.write_text('{"topic": "feed.t", "value": "v"}\n')
    assert [entry.output.value async for entry in open_feed(str(path))] == [b"v"]


async def test_standard_input_is_read_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading) as stdin, os.fdopen(writing, "wb", buffering=0) as typed:
        monkeypatch.setattr("sys.stdin", stdin)
        entries = open_feed("-")
        typed.write(b'{"topic": "feed.t"}\n\n{"topic"')
        assert (await anext(entries)).line == 1
        typed.write(b': "feed.u"}')
        typed.close()
        assert [(entry.line, entry.output.topic) async for entry in entries] == [(3, "feed.u")]


@pytest.mark.parametrize("name", ["pipe", "/dev/zero", "."])
def test_what_may_never_end_is_refused_with_what_to_do(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "pipe":
        os.mkfifo(path)
    with pytest.raises(Trouble) as caught:
        check_file(path)
    assert "cannot be read: Is" in str(caught.value)
    assert "--feed -" in caught.value.todo
