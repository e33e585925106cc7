"""The stream of posts: only edits and deletions mean anything, and nothing is a dead letter."""

import json
from typing import Any

import pytest
from pydantic import BaseModel

from bot.changes import Changes
from bot.posts import PostsHandler
from bot.publishing import Publishing
from consumers.handler import GiveUp, StopPartition
from schemas import codec, names
from schemas.feed import DeletedBy, PostCreated, PostDeleted, PostEdited
from schemas.record import Record
from tests.bot.make import BOT, NOW, envelope, post, setup

NEW = post(revision="r2", version=2)
EDITED = PostEdited(post=NEW, previous_revision="r1")
DELETED = PostDeleted(
    ref=NEW.ref, conversation_id="conv-1", deleted_by=DeletedBy.AUTHOR, deleted_at=NOW
)


def handler() -> PostsHandler:
    return PostsHandler(Changes(setup().bot, Publishing(BOT.id, lambda: NOW), 4))


def record(kind: str, data: BaseModel | None, **changes: Any) -> Record:
    made = codec.encode(names.FEED_POSTS, "conv-1", envelope(kind), data) if data else None
    given: dict[str, Any] = {
        "topic": names.FEED_POSTS,
        "partition": 0,
        "offset": 5,
        "timestamp_ms": 0,
        "key": b"conv-1",
        "value": made.value if made else b"[",
        "headers": made.headers if made else (("ce_type", kind.encode()),),
    }
    return Record(**(given | changes))


def test_posts_that_are_new_are_done_at_a_glance() -> None:
    one = handler()
    assert one.open(record(names.POST_CREATED, PostCreated(post=post()))).done
    assert one.open(record(names.POST_CREATED, None)).done  # not even looked at
    assert not one.skipped


@pytest.mark.parametrize(
    ("kind", "data"), [(names.POST_EDITED, EDITED), (names.POST_DELETED, DELETED)]
)
async def test_edits_and_deletions_are_told(kind: str, data: BaseModel) -> None:
    one = handler()
    job = one.open(record(kind, data))
    assert not job.done
    (output,) = await one.handle(job, attempt=1)
    assert output.topic == names.BOT_REFERENCES
    told = json.loads(output.value or b"")
    assert (told["uri"], told["deleted"]) == (NEW.uri, kind == names.POST_DELETED)


def test_edits_of_one_post_stay_in_their_order() -> None:
    one = handler()
    edit, deletion = record(names.POST_EDITED, EDITED), record(names.POST_DELETED, DELETED)
    assert one.open(edit).lane == one.open(deletion).lane


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"value": b"{"}, "not-json"),
        ({"value": None}, "no-value"),
        ({"key": b"other"}, "key-mismatch"),
        ({"headers": ()}, "header-missing"),
    ],
)
def test_what_cannot_be_read_is_counted_and_skipped(changes: dict[str, Any], code: str) -> None:
    one = handler()
    assert one.open(record(names.POST_EDITED, EDITED, **changes)).done
    assert dict(one.skipped) == {code: 1}


def test_a_change_is_never_given_up() -> None:
    with pytest.raises(StopPartition):
        handler().give_up(record(names.POST_EDITED, EDITED), GiveUp("deadline", "x"), attempts=5)
