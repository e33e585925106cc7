import json
from typing import Any

import pytest

from schemas.names import FEED_MENTIONS, FEED_POSTS, MENTION_CREATED, POST_CREATED
from schemas.privacy import is_private
from schemas.record import Record
from schemas.types import EVENT_TYPES
from tests.schemas.samples import POST, SAMPLES, headers, record, sample

FOLLOWERS = {**POST, "visibility": "followers"}
LEAST: dict[str, Any] = {"post": POST, "mentioned_account_id": "acct:bot"}


def mention(data: Any = None, **changed: Any) -> Record:
    return record(MENTION_CREATED, LEAST if data is None else data, **changed)


@pytest.mark.parametrize("visibility", ["public", "unlisted"])
def test_open_posts_and_mentions_are_not_private(visibility: str) -> None:
    post = {**POST, "visibility": visibility}
    assert not is_private(mention({"post": post, "ancestors": [post], "quoted": post}))
    assert not is_private(record(POST_CREATED, {"post": post}))


@pytest.mark.parametrize(
    "data",
    [
        {"post": FOLLOWERS},
        {"post": {**POST, "visibility": "direct"}},
        {"post": {**POST, "visibility": "circle"}},
        {"post": {**POST, "visibility": "Public"}},
        {"post": {**POST, "visibility": None}},
        {"post": {**POST, "visibility": ["public"]}},
        {"post": {"text": "no visibility"}},
        {"post": "public"},
        {"visibility": "public"},
        {"post": POST, "ancestors": [POST, FOLLOWERS]},
        {"post": POST, "ancestors": [{"text": "no visibility"}]},
        {"post": POST, "ancestors": ["text"]},
        {"post": POST, "ancestors": "text"},
        {"post": POST, "ancestors": None},
        {"post": POST, "quoted": FOLLOWERS},
        {"post": POST, "quoted": "text"},
        {"post": POST, "quoted": {}},
        {"post": POST, "message": {"text": "private"}},
        {"post": {**POST, "unknown": [{"visibility": "direct"}]}},
        {"post": POST, "unknown": {"visibility": 1}},
        {},
        [],
        [POST],
        "public",
        1,
        None,
    ],
)
def test_anything_narrower_or_untold_anywhere_is_private(data: Any) -> None:
    assert is_private(mention(value=json.dumps(data).encode()))


@pytest.mark.parametrize("name", set(EVENT_TYPES))
def test_only_types_of_open_topics_can_be_open(name: str) -> None:
    is_open = {name: not is_private(record(name))}
    assert is_open == {name: "post" in SAMPLES[name]}
    claimed = mention(headers=headers(name))
    assert is_private(claimed) is not (set(EVENT_TYPES[name].topics) <= {FEED_POSTS, FEED_MENTIONS})


@pytest.mark.parametrize("topic", ["feed.direct-messages", "bot.replies", "unknown", ""])
def test_a_record_from_any_other_topic_is_private(topic: str) -> None:
    assert is_private(mention(topic=topic))


@pytest.mark.parametrize(
    ("ce_type", "private"),
    [
        (b"twite.feed.mention.created.v2", False),
        (b"nobody.knows", False),
        (b"twite.feed.direct-message.created.v2", True),
        (b"Private.Note", True),
        (b"\xff", True),
        (None, False),
    ],
)
def test_an_unknown_type_is_private_where_it_names_private_talk(
    ce_type: bytes | None, private: bool
) -> None:
    assert is_private(mention(headers=headers(MENTION_CREATED, ce_type=ce_type))) is private


def test_one_private_claim_of_several_is_enough() -> None:
    doubled = (*headers(MENTION_CREATED), ("ce_type", b"twite.feed.direct-message.created.v1"))
    assert is_private(mention(headers=doubled))


VALUE = json.dumps(LEAST).encode()


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"not json",
        VALUE[:-1],
        VALUE + b"\xff",
        b"\xef\xbb\xbf" + VALUE,
        VALUE[:-1] + b',"a":NaN}',
        VALUE[:-1] + b',"a":' + b"[" * 70 + b"]" * 70 + b"}",
        VALUE + b" " * 1024 * 1024,
        b'{"post":{"text":"secret","visibility":"direct"},' + VALUE[1:],
        b'{"post":{"visibility":"direct","visibility":"public"}}',
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_cannot_be_told_is_private(value: bytes | None) -> None:
    assert is_private(mention(value=value))


def test_numbers_and_surrogates_do_not_hide_that_a_post_is_open() -> None:
    odd = VALUE[:-1] + b',"a":' + b"1" * 5000 + rb',"b":1e999,"c":"\ud800"}'
    assert not is_private(mention(value=odd))


def test_a_faulty_schema_does_not_hide_it_either() -> None:
    data = sample(MENTION_CREATED)
    del data["mentioned_account_id"]
    assert not is_private(mention(data))
