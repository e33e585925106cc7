"""What a decision or an event means for everything that was built on a post."""

from datetime import timedelta
from typing import Any

import pytest

from bot.audit import Trace, decision_record
from bot.changes import Changes, partition_of
from bot.conversation import Decision
from bot.publishing import Publishing
from bot.values import Asked
from schemas import codec, names
from schemas.audit import ContextItem
from schemas.codes import Outcome, SkipReason
from schemas.feed import DeletedBy, MessageDeleted, MessageEdited, PostDeleted, PostEdited, Ref
from schemas.record import Output, Record
from schemas.replies import ReplyCreated
from schemas.reviews import PostChanged, ReferenceMade
from schemas.topics import MAX_VALUE_BYTES
from tests.bot.make import ALICE, BOT, NOW, asked, envelope, mention, message, post, run_of, setup

PARTITIONS = 4
CHANGES = Changes(setup().bot, Publishing(BOT.id, lambda: NOW), PARTITIONS)


def reply_to(one: Asked, **fields: Any) -> ReplyCreated:
    source = one.data.post.ref  # type: ignore[union-attr]
    given: dict[str, Any] = {
        "reply_id": "reply-1",
        "conversation_id": "conv-1",
        "in_reply_to": source,
        "root": source,
        "author": BOT,
        "text": "Fine.",
        "visibility": "public",
        "part": 1,
        "parts": 1,
        "decision_id": "d",
        "hops": 1,
        "created_at": NOW,
    } | fields
    return ReplyCreated.model_validate(given)


def skipped(one: Asked, reason: SkipReason) -> Decision:
    return Decision(
        (), decision_record(Trace(asked=one), setup(), NOW, Outcome.SKIPPED, reason.value)
    )


def data_of(output: Output) -> Any:
    """Through the codec, as whoever reads it would see it."""
    record = Record(
        topic=output.topic,
        partition=output.partition or 0,
        offset=0,
        timestamp_ms=0,
        key=output.key,
        value=output.value,
        headers=output.headers,
    )
    return codec.decode(record).data


def test_the_partition_of_a_post_depends_on_its_uri_alone() -> None:
    assert {partition_of(f"at://p/{n}", 16) for n in range(1000)} == set(range(16))
    assert partition_of("at://p/1", 16) == 11  # fixed for ever: records stand on the log by it


def test_a_reply_refers_to_its_source_and_to_what_it_was_built_on_but_not_to_the_bots_own() -> None:
    root, own = run_of(post("at://p/root", version=3), post("at://p/own", author=BOT))
    one = asked(mention(ancestors=(root, own), parent=own.ref))
    context = [
        {"ref": root.ref, "author_id": ALICE.id, "included": True},
        {"ref": Ref(uri="at://p/left"), "author_id": ALICE.id, "included": False, "why": "budget"},
        {"ref": own.ref, "author_id": BOT.id, "included": True},
        {"ref": one.data.post.ref, "author_id": ALICE.id, "included": True},  # type: ignore[union-attr]
    ]
    record = decision_record(Trace(asked=one), setup(), NOW, Outcome.REPLIED).model_copy(
        update={"context": tuple(_item(**item) for item in context)}
    )
    outputs = CHANGES.references_of(Decision((reply_to(one),), record), one)
    made = [data_of(output) for output in outputs]
    assert all(isinstance(one, ReferenceMade) for one in made)
    assert [(one.uri, one.revision, one.version) for one in made] == [
        ("at://p/asking", "r1", 1),
        ("at://p/root", "r1", 3),
    ]
    for output, one_made in zip(outputs, made, strict=True):
        assert output.partition == partition_of(one_made.uri, PARTITIONS)
        assert (output.topic, output.key) == (names.BOT_REFERENCES, one_made.uri.encode())
        assert (one_made.conversation_id, one_made.partition) == ("conv-1", one.partition)
        assert (one_made.source.uri, one_made.private) == ("at://p/asking", False)
    assert len({dict(output.headers)["ce_id"] for output in outputs}) == 2


def _item(**fields: Any) -> ContextItem:
    return ContextItem(trust="untrusted", **fields)


def test_a_skip_refers_to_nothing() -> None:
    one = asked(mention())
    assert CHANGES.of_decision(skipped(one, SkipReason.QUOTA), one) == ()


def test_a_new_revision_of_an_answered_mention_is_a_change() -> None:
    one = asked(mention("@twite and now?", revision="r2", version=2))
    (output,) = CHANGES.of_decision(skipped(one, SkipReason.EDITED), one)
    changed: PostChanged = data_of(output)
    assert (changed.uri, changed.revision, changed.version) == ("at://p/asking", "r2", 2)
    assert changed.post is not None
    assert changed.post.text == "@twite and now?"
    assert not changed.deleted


@pytest.mark.parametrize("reason", [SkipReason.DUPLICATE, SkipReason.OWN_POST, SkipReason.QUOTA])
def test_a_repeat_changes_nothing(reason: SkipReason) -> None:
    edited = MessageEdited(message=message(revision="r2"), previous_revision="r1")
    one = asked(edited)
    assert CHANGES.of_decision(skipped(one, reason), one) == ()


def test_an_edited_message_carries_its_new_text_and_a_deleted_one_none() -> None:
    edited = MessageEdited(message=message(text="new", revision="r2"), previous_revision="r1")
    one = asked(edited)
    (output,) = CHANGES.of_decision(skipped(one, SkipReason.EDITED), one)
    assert data_of(output).message.text == "new"
    assert data_of(output).post is None
    gone = MessageDeleted(
        ref=Ref(uri="at://m/1", revision="r2"),
        conversation_id="conv-1",
        deleted_by=DeletedBy.MODERATOR,
        deleted_at=NOW,
    )
    one = asked(gone)
    (output,) = CHANGES.of_decision(skipped(one, SkipReason.DELETED), one)
    changed = data_of(output)
    assert (changed.deleted, changed.deleted_by, changed.message) == (True, "moderator", None)


def _post_record(offset: int = 3) -> Record:
    return Record(
        topic=names.FEED_POSTS, partition=1, offset=offset, timestamp_ms=0, key=b"c", value=b"{}"
    )


def test_an_edit_and_a_deletion_in_the_stream_are_told_once_each() -> None:
    new = post(revision="r2", version=2, edited_at=NOW + timedelta(minutes=1))
    edited = PostEdited(post=new, previous_revision="r1")
    (output,) = CHANGES.of_post(_post_record(), envelope(names.POST_EDITED), edited)
    assert data_of(output).at == new.edited_at
    gone = PostDeleted(
        ref=new.ref, conversation_id="conv-1", deleted_by=DeletedBy.AUTHOR, deleted_at=NOW
    )
    (other,) = CHANGES.of_post(_post_record(4), envelope(names.POST_DELETED), gone)
    assert data_of(other).deleted
    assert output.partition == other.partition
    assert dict(output.headers)["ce_id"] != dict(other.headers)["ce_id"]


def test_the_bots_own_posts_change_nothing() -> None:
    own = PostEdited(post=post(author=BOT, revision="r2"), previous_revision="r1")
    assert CHANGES.of_post(_post_record(), envelope(names.POST_EDITED), own) == ()


def test_a_post_too_large_to_travel_is_told_without_its_text() -> None:
    long = post(text="x" * (MAX_VALUE_BYTES - 2000), revision="r2", version=2)
    edited = PostEdited(post=long, previous_revision="r1")
    (output,) = CHANGES.of_post(_post_record(), envelope(names.POST_EDITED), edited)
    changed = data_of(output)
    assert (changed.revision, changed.post, changed.deleted) == ("r2", None, False)
