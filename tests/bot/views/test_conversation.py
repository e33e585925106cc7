"""``bot.views.conversation``: what people wrote, whatever the order in which topics are read."""

import sqlite3
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.views import talks
from bot.views.conversation import ConversationView
from bot.views.written import latest
from consumers.views.view import BadRecord
from schemas import names
from schemas.feed import (
    MentionCreated,
    MessageCreated,
    MessageDeleted,
    MessageEdited,
    Post,
    PostCreated,
    Ref,
)
from schemas.record import Record
from tests.bot.make import (
    ALICE,
    BOB,
    BOT,
    NOW,
    direct,
    mention,
    mention_facet,
    message,
    post,
    run_of,
)
from tests.bot.views.logs import Log, built, deleted, edited, reviewed, rows
from tests.examples import examples

VIEW = ConversationView(BOT.id)


def texts(db: sqlite3.Connection) -> str:
    return repr(rows(db))


def test_every_revision_of_a_post_is_kept_with_its_author() -> None:
    log, first = Log(), post("at://p/1", "one", author=ALICE)
    log.add(PostCreated(post=first))
    log.add(edited(first, "two"))
    there = log.view(VIEW).execute("SELECT revision, author, content FROM posts").fetchall()
    assert [(revision, author) for revision, author, _ in there] == [
        ("r1", ALICE.id),
        ("r2", ALICE.id),
    ]
    assert "one" in there[0][2]
    assert "two" in there[1][2]


def test_what_is_deleted_leaves_no_text() -> None:
    log = Log()
    asking = mention("@twite canary", ancestors=run_of(post("at://p/0", "above")))
    log.add(asking)
    log.add(PostCreated(post=asking.post))
    log.add(deleted(asking.post.uri))
    db = log.view(VIEW)
    assert "canary" not in texts(db)
    assert "above" in texts(db)
    assert db.execute("SELECT count(*) FROM questions").fetchone() == (0,)


def test_a_deleted_quote_leaves_no_text() -> None:
    log = Log()
    quoted = post("at://q/1", "canary", conversation_id="other", author=BOB)
    log.add(mention("@twite look", quoted=quoted, quote=quoted.ref))
    assert "canary" in texts(log.view(VIEW))
    log.add(deleted("at://q/1", talk="other"))
    assert "canary" not in texts(log.view(VIEW))


def test_a_quote_of_another_conversation_is_known_as_it_reads_now() -> None:
    log = Log()
    quoted = post("at://q/1", "canary", conversation_id="other", author=BOB)
    asking = mention("@twite look", quoted=quoted, quote=quoted.ref)
    log.add(asking)
    new = quoted.model_copy(update={"text": "edited", "revision": "r2", "version": 2})
    log.add(reviewed("at://q/1", new))
    question = log.knowledge().question(asking.post.uri)
    assert isinstance(question, MentionCreated)
    assert question.quoted == quoted
    changed = log.knowledge().changed(quoted)
    assert changed is not None
    assert changed.post == new
    stranger = new.model_copy(update={"author": ALICE, "version": 3, "text": "not theirs"})
    log.add(reviewed("at://q/1", stranger))
    question = log.knowledge().question(asking.post.uri)
    assert isinstance(question, MentionCreated)
    assert question.quoted == quoted
    assert log.knowledge().changed(quoted) is None
    log.add(reviewed("at://q/1", None))
    question = log.knowledge().question(asking.post.uri)
    assert isinstance(question, MentionCreated)
    assert question.quoted is None
    shown = texts(log.view(VIEW))
    assert not any(word in shown for word in ("canary", "edited", "not theirs"))


def test_posts_of_another_conversation_are_no_posts_of_this_one() -> None:
    log = Log()
    above = post("at://p/0", "elsewhere", conversation_id="other")
    log.add(mention("@twite", ancestors=(above,), parent=above.ref))
    db = log.view(VIEW)
    assert db.execute("SELECT uri FROM posts").fetchall() == [("at://p/asking",)]


def test_private_messages_never_stand_among_posts() -> None:
    log = Log()
    log.add(MessageCreated(message=message("at://m/1", "canary", quoted=post("at://q", "shown"))))
    log.add(edited(message("at://m/1", "canary"), "canary again"))
    db = log.view(VIEW)
    assert db.execute("SELECT count(*) FROM posts").fetchone() == (0,)
    assert "shown" not in repr(db.execute("SELECT content FROM messages").fetchall())


FORGETS = (
    *("/forget", " /FORGET \n", "@twite /forget", "/ forget", "/forget.", "／forget"),
    *(
        "/for\u200bget",
        "\ufeff/forget",
        "\u202e/forget",
        "/forge\u00adt",
        "/forget\x00",
        "/forget。",
    ),
)


@pytest.mark.parametrize("text", FORGETS)
def test_forget_empties_the_talk_and_no_other(text: str) -> None:
    log = Log()
    log.add(MessageCreated(message=message("at://m/1", "canary")))
    log.add(MessageCreated(message=message("at://m/2", "kept", conversation_id="conv-2")))
    facets = (mention_facet(text, "@twite", BOT.id),) if "@" in text else ()
    log.add(MessageCreated(message=message("at://m/3", text, facets=facets)))
    db = log.view(VIEW)
    assert "canary" not in texts(db)
    assert db.execute("SELECT uri FROM messages").fetchall() == [("at://m/2",)]
    assert db.execute("SELECT uri FROM questions").fetchall() == [("at://m/2",)]


@pytest.mark.parametrize(
    "text", ["please /forget", "/forget me", "forget", "@bob hi /forget", "/forget..", ""]
)
def test_other_words_forget_nothing(text: str) -> None:
    log = Log()
    log.add(MessageCreated(message=message("at://m/1", "kept")))
    log.add(MessageCreated(message=message("at://m/2", text)))
    assert len(log.view(VIEW).execute("SELECT uri FROM messages").fetchall()) == 2


def test_a_bad_record_says_why_and_writes_nothing() -> None:
    log = Log()
    good = log.add(PostCreated(post=post()))
    db = built(VIEW, [])
    for bad, code in (
        (replace(good, value=b"{"), "not-json"),
        (replace(good, value=None), "no-value"),
        (replace(good, key=b"other"), "key-mismatch"),
        (replace(good, topic=names.FEED_MENTIONS), "wrong-topic"),
    ):
        with pytest.raises(BadRecord) as caught:
            VIEW.apply(db, bad)
        assert caught.value.code == code
    assert all(not found for found in rows(db).values())


def minutes(count: int) -> datetime:
    return NOW + timedelta(minutes=count)


def test_a_forget_that_comes_again_leaves_what_was_said_since() -> None:
    log = Log()
    log.add(direct("canary", uri="at://m/1", created_at=minutes(1)))
    command = direct("/forget", uri="at://m/2", created_at=minutes(2))
    log.add(command)
    log.add(direct("since", uri="at://m/3", created_at=minutes(3)))
    log.add(command)
    log.add(direct("late", uri="at://m/1b", created_at=minutes(1)))
    asking = message("at://m/4", "so?", created_at=minutes(4))
    told = talks.messages(log.view(ConversationView(BOT.id)), asking, 9, NOW)
    assert [one.text for one in told] == ["since"]
    assert talks.question(log.view(ConversationView(BOT.id)), "at://m/3") is not None
    assert talks.question(log.view(ConversationView(BOT.id)), "at://m/1") is None


@pytest.mark.parametrize(
    ("text", "left"), [("/forget", 1), ("@twite /forget", 0), ("@bob /forget", 1)]
)
def test_in_a_group_the_bot_must_be_spoken_to(text: str, left: int) -> None:
    group = {"participants": ("acc-alice", "acc-bob", BOT.id)}
    named = {"@twite": BOT.id, "@bob": BOB.id}
    facets = [mention_facet(text, name, who) for name, who in named.items() if name in text]
    log = Log()
    log.add(direct("said", uri="at://m/1", **group))
    log.add(direct(text, uri="at://m/2", facets=facets, **group))
    asking = message("at://m/3", "so?", created_at=minutes(1), **group)
    told = talks.messages(log.view(ConversationView(BOT.id)), asking, 9, NOW)
    assert [one.text for one in told if "forget" not in one.text] == ["said"] * left


# Any order of topics, and forgetting by age, give the same rows.

URIS = ["at://a", "at://b", "at://c"]
EVENTS = st.tuples(
    st.sampled_from(
        [
            *("created", "edited", "deleted", "mention", "quote-edit", "quote-delete"),
            *("dm", "dm-edit", "dm-delete", "forget"),
        ]
    ),
    st.sampled_from(URIS),
    st.sampled_from(["r1", "r2"]),
    st.sampled_from(["one", "two", "/forget"]),
    st.sampled_from(["conv-1", "conv-2"]),
    st.sampled_from(URIS),
)


def log_of(events: list[tuple[str, ...]]) -> Log:
    log = Log()
    for kind, uri, revision, text, talk, other in events:
        fields: dict[str, Any] = {"revision": revision, "conversation_id": talk}
        one = post(uri, text, parent=Ref(uri=other), **fields)
        private = message(uri, text, **fields)
        above = post(other, "above " + text, conversation_id=talk, author=BOB)
        match kind:
            case "created":
                log.add(PostCreated(post=one))
            case "edited":
                log.add(edited(one, text + "!"))
            case "deleted":
                log.add(deleted(uri, talk=talk))
            case "mention":
                log.add(
                    MentionCreated(
                        post=one, mentioned_account_id=BOT.id, ancestors=(above,), quoted=above
                    )
                )
            case "dm":
                log.add(MessageCreated(message=private))
            case "dm-edit":
                log.add(MessageEdited(message=private, previous_revision="r0"))
            case "dm-delete":
                log.add(deleted(uri, MessageDeleted, talk))
            case "quote-edit":
                log.add(reviewed(uri, one, talk))
            case "quote-delete":
                log.add(reviewed(uri, None, talk))
            case "forget":
                log.add(MessageCreated(message=message(f"{uri}/f", "/forget", **fields)))
    return log


def shuffled(records: list[Record], order: Any) -> list[Record]:
    """The records with topics interleaved otherwise; each topic keeps its order."""
    queues: dict[str, list[Record]] = {}
    for record in records:
        queues.setdefault(record.topic, []).append(record)
    mixed = []
    while queues:
        topic = order.draw(st.sampled_from(sorted(queues)))
        mixed.append(queues[topic].pop(0))
        if not queues[topic]:
            del queues[topic]
    return mixed


@examples(150)
@given(st.lists(EVENTS, max_size=14), st.data())
def test_the_order_of_topics_makes_no_difference(events: list[tuple[str, ...]], order: Any) -> None:
    records = log_of(events).records
    assert rows(built(VIEW, records)) == rows(built(VIEW, shuffled(records, order)))


@examples(150)
@given(st.lists(EVENTS, max_size=14), st.integers(0, 14))
def test_forgetting_by_age_is_never_having_known(events: list[tuple[str, ...]], cut: int) -> None:
    records = log_of(events).records
    before = round((NOW + timedelta(seconds=cut)).timestamp() * 1000)
    db = built(VIEW, records)
    while removed := VIEW.trim(db, before, 2):
        assert removed <= 2
    late = [record for record in records if record.timestamp_ms >= before]
    assert rows(db) == rows(built(VIEW, late))
    oldest = VIEW.oldest_ms(db)
    assert oldest is None or oldest >= before


def test_posts_round_trip_whole() -> None:
    whole = post(
        "at://p/1",
        "Hé @bob",
        author=ALICE.model_copy(update={"bot": True, "created_at": NOW}),
        facets=(mention_facet("Hé @bob", "@bob", BOB.id),),
        langs=("fr",),
        visibility="followers",
        root=Ref(uri="at://p/0"),
        parent=Ref(uri="at://p/0", revision="x"),
        quote=Ref(uri="at://q"),
        hops=3,
        version=4,
        edited_at=NOW,
    )
    log = Log()
    log.add(PostCreated(post=whole))
    stored = latest(log.view(VIEW), "at://p/1")
    assert stored is not None
    assert isinstance(stored.post, Post)
    assert stored.post == whole
