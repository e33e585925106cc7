"""What docs/feeds.md shows can be played, and the sample file is what the page shows."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bot.feed import Entry, FeedError, check_file, read_file, read_line
from bot.settings import BotSettings
from schemas.codec import Undecodable, decode
from schemas.feed import AccountChanged, MentionCreated, MessageCreated, PostDeleted, PostEdited
from tests.bot.outcomes import as_record

DOCS = Path(__file__).parents[2] / "docs"
SAMPLE = DOCS / "sample-feed.jsonl"


def shown() -> list[dict[str, Any]]:
    page = (DOCS / "feeds.md").read_text(encoding="utf-8")
    return [json.loads(block) for block in re.findall(r"```json\n(.*?)```", page, re.DOTALL)]


def played(entry: dict[str, Any]) -> Entry:
    found = read_line(json.dumps(entry).encode(), 1, "page")
    assert found is not None
    return found


def test_every_event_of_the_page_is_one_of_the_contract() -> None:
    small, whole, message, edit, deletion, wish, asked, _ = [
        played(entry).output for entry in shown()
    ]
    first, second, third = (decode(as_record(output)) for output in (small, whole, message))
    assert (small.topic, small.key) == ("feed.mentions", b"thread-1")
    assert isinstance(first.data, MentionCreated)
    assert first.data.mentioned_account_id == BotSettings().account_id
    assert first.data.post.facets[0].account_id == BotSettings().account_id
    assert isinstance(second.data, MentionCreated)
    assert second.data.quoted is not None
    assert second.envelope.traceparent is not None
    assert second.data.ancestors[-1].ref == second.data.post.parent
    assert isinstance(third.data, MessageCreated)
    assert message.topic == "feed.direct-messages"
    fourth, fifth = decode(as_record(edit)).data, decode(as_record(deletion)).data
    assert isinstance(fourth, PostEdited)
    assert fourth.post.uri == second.data.quoted.uri
    assert fourth.previous_revision == second.data.quoted.revision
    assert isinstance(fifth, PostDeleted)
    assert fifth.ref == first.data.post.ref
    sixth, seventh = decode(as_record(wish)).data, decode(as_record(asked)).data
    assert isinstance(sixth, AccountChanged)
    assert sixth.opted_out
    assert isinstance(seventh, MentionCreated)
    assert seventh.post.author.id == sixth.account_id
    assert (wish.topic, wish.key) == ("feed.accounts", b"acct-dora")
    assert (edit.topic, deletion.topic, deletion.key) == ("feed.posts", "feed.posts", small.key)


def test_the_raw_record_of_the_page_is_garbage_with_bytes() -> None:
    output = played(shown()[-1]).output
    assert output.value == b'\xff\xfe{"post": not JSON'
    assert dict(output.headers)["trace"] == b"\x00\xff"
    with pytest.raises(Undecodable):
        decode(as_record(output))


@pytest.mark.parametrize("name", ["id", "source", "type", "time", "data"])
def test_the_small_event_has_nothing_that_can_be_left_out(name: str) -> None:
    small = shown()[0]
    assert set(small) == {"id", "source", "type", "time", "data"}
    with pytest.raises(FeedError, match=name):
        played({key: value for key, value in small.items() if key != name})


def test_the_sample_file_is_what_the_page_shows() -> None:
    assert check_file(SAMPLE) == len(shown())
    assert [e.output for e in read_file(SAMPLE)] == [played(entry).output for entry in shown()]


def test_the_page_says_how_far_repeats_are_told() -> None:
    page = " ".join((DOCS / "feeds.md").read_text(encoding="utf-8").split())
    repeats = page[page.index("## Repeats") : page.index("## Raw records")]
    assert "within one partition" in repeats
    assert "exactly one conversation" in repeats
