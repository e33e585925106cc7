"""``bot.known``: what the views know, with what was decided here laid over it."""

import asyncio
import re
import sqlite3
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from bot.audit import Trace, decision_record
from bot.knowledge import Knowledge, KnowledgeUnavailable, Surface
from bot.known import KnowledgeOfViews
from bot.memory import NoKnowledge
from bot.values import Seen
from bot.views import accounts, moderation, said, talks, threads, written
from bot.views.accounts import AccountsView
from bot.views.conversation import ConversationView
from bot.views.moderation import ModerationView
from bot.views.replies import RepliesView
from consumers.views.views import ViewLost
from schemas.codes import Outcome
from schemas.feed import MentionCreated, MessageCreated, Post, PostCreated, Ref
from tests.bot.make import (
    BOB,
    BOT,
    NOW,
    NOW_MS,
    around,
    asked,
    direct,
    envelope,
    mention,
    message,
    post,
    setup,
)
from tests.bot.views.logs import Log, Opened, built, deleted, edited, knowing, reviewed
from tests.bot.views.test_replies import decision, reply


def decided(knowledge: Knowledge, name: str = "d1") -> None:
    """The bot answers a mention here."""
    trace = Trace(asked=asked(mention()))
    record = decision_record(trace, setup(), NOW, Outcome.REPLIED, reply_ids=("reply-1",))
    knowledge.decided(record.model_copy(update={"decision_id": name}), [reply(decision_id=name)])


@pytest.mark.parametrize("make", [NoKnowledge, lambda: knowing([])])
def test_what_was_decided_here_counts_at_once(make: Callable[[], Knowledge]) -> None:
    knowledge = make()
    knowledge.meet(envelope(), mention(), "d1")
    assert knowledge.seen(envelope(), mention(), "d1") == Seen()
    again = knowledge.seen(envelope(), mention(), "d2")
    assert (again.duplicate_of, again.answered) == ("d1", False)
    decided(knowledge)
    later = knowledge.seen(envelope(id="e2"), mention(revision="r2"), "d3")
    assert later == Seen(None, "d1", answered=True)
    replies = knowledge.replies_to("at://p/asking")
    assert replies is not None
    assert [part.text for part in replies.standing] == ["Yes."]


@pytest.mark.parametrize("make", [NoKnowledge, lambda: knowing([])])
def test_nothing_is_known_of_the_unknown(make: Callable[[], Knowledge]) -> None:
    knowledge = make()
    surface: Surface
    for surface in ("mention", "direct"):
        assert not knowledge.stopped(surface)
    assert knowledge.account("acc").consents
    assert not knowledge.conversation_blocked("conv-1")
    assert knowledge.latest("at://p") is None
    assert knowledge.changed(post()) is None
    assert knowledge.ancestors(post(parent=Ref(uri="at://x")), 9) == ()
    assert knowledge.root(post(root=Ref(uri="at://x"))) is None
    assert knowledge.quoted(post(quote=Ref(uri="at://x"))) is None
    assert knowledge.quoted(post()) is None
    assert knowledge.siblings(post(parent=Ref(uri="at://x")), ["acc"], 9) == ()
    assert knowledge.turns(message(), 9, NOW) == ()
    assert knowledge.question("at://p") is None
    assert knowledge.replies_to("at://p") is None


def test_repeats_are_known_days_later() -> None:
    log = Log()
    log.add(decision("d1"))
    knowledge = log.knowledge()
    knowledge.meet(envelope(), mention(), "d9")
    assert knowledge.seen(envelope(), mention(), "d9").duplicate_of == "d1"
    assert knowledge.seen(envelope(id="e9"), mention(revision="r2"), "d10") == Seen(
        None, "d1", answered=True
    )


def test_a_repeat_of_a_repeat_names_the_first_of_days_ago() -> None:
    log = Log()
    log.add(decision("d1"))
    knowledge = log.knowledge()
    for name in ("d8", "d9"):
        knowledge.meet(envelope(), mention(), name)
    for name in ("d8", "d9", "d8"):
        assert knowledge.seen(envelope(), mention(), name).duplicate_of == "d1"


def test_a_revision_on_its_way_here_is_an_earlier_one() -> None:
    log = Log()
    log.add(decision("d0", Outcome.SKIPPED, reason="loop", event="e0", revision="r0"))
    knowledge = log.knowledge()
    knowledge.meet(envelope(), mention(), "d1")
    assert knowledge.seen(envelope(id="e2"), mention(revision="r2"), "d2") == Seen(None, "d1")


def test_a_dead_letter_of_days_ago_may_be_tried_again() -> None:
    log = Log()
    log.add(decision("d1", Outcome.DEAD_LETTERED, reason="deadline"))
    knowledge = log.knowledge()
    for name, redriven in (("d2", True), ("d3", False)):
        knowledge.meet(envelope(), mention(), name, redriven=redriven)
    assert knowledge.seen(envelope(), mention(), "d2", redriven=True) == Seen(None, "d1")
    assert knowledge.seen(envelope(), mention(), "d3").duplicate_of == "d2"


def test_a_question_is_put_together_from_what_is_known_now() -> None:
    log = Log()
    root, lost = post("at://p/0", "root"), post("at://p/1", "lost", parent=Ref(uri="at://p/0"))
    quoted = post("at://q", "quoted", conversation_id="other")
    asking = mention("@twite?", ancestors=(root, lost), parent=lost.ref, quoted=quoted)
    log.add(asking)
    assert log.knowledge().question("at://p/asking") == asking
    log.add(edited(root, "root anew"))
    log.add(edited(asking.post, "@twite!"))
    question = log.knowledge().question("at://p/asking")
    assert isinstance(question, MentionCreated)
    assert question.post.text == "@twite!"
    assert [above.text for above in question.ancestors] == ["root", "lost"]
    assert [one.text for one in around(question, log.knowledge())][:2] == ["root anew", "lost"]
    assert question.quoted == quoted
    log.add(deleted("at://p/1"))
    log.add(deleted("at://q", talk="other"))
    question = log.knowledge().question("at://p/asking")
    assert isinstance(question, MentionCreated)
    assert (question.ancestors, question.quoted) == ((), None)
    log.add(deleted("at://p/asking"))
    assert log.knowledge().question("at://p/asking") is None


@pytest.mark.parametrize("visibility", ["followers", "direct", "mutuals"])
def test_what_became_narrower_is_left_out_when_a_question_is_asked_again(visibility: str) -> None:
    """As when it is answered afresh: the event vouches only for the revision that it carries."""
    log = Log()
    above = post("at://p/0", "shown", author=BOB)
    quoted = post("at://q", "quoted", conversation_id="other", author=BOB)
    asking = mention("@twite?", ancestors=(above,), parent=above.ref, quoted=quoted)
    log.add(asking)
    log.add(edited(above, "canary", visibility=visibility))
    log.add(reviewed("at://q", edited(quoted, "canary", visibility=visibility).post))
    question = log.knowledge().question("at://p/asking")
    assert isinstance(question, MentionCreated)
    for one in (question, asking):
        items = around(one, log.knowledge())
        assert [(item.included, item.why.value) for item in items] == [
            (False, "visibility"),
            (False, "visibility"),
            (True, "asking"),
        ]


def test_a_repeat_elsewhere_or_by_another_does_not_take_the_place_of_a_question() -> None:
    log = Log()
    quoted = post("at://q", "quoted", conversation_id="other")
    asking = mention("@twite?", quoted=quoted)
    log.add(asking)
    log.add(mention("@twite elsewhere", quoted=quoted, conversation_id="conv-2"))
    log.add(mention("@twite not theirs", quoted=quoted, author=BOB, revision="r2", version=2))
    log.add(edited(asking.post, "not theirs either", "r3", version=3, author=BOB))
    knowledge = log.knowledge()
    assert knowledge.question("at://p/asking", "conv-1") == asking
    assert knowledge.changed(asking.post) is None
    elsewhere = knowledge.question("at://p/asking", "conv-2")
    assert isinstance(elsewhere, MentionCreated)
    assert elsewhere.post.text == "@twite elsewhere"
    assert knowledge.question("at://p/asking", "conv-3") is None


def test_a_message_of_two_talks_keeps_its_words_in_each() -> None:
    log = Log()
    first = message("at://m/1", "one")
    other = message("at://m/1", "canary", conversation_id="conv-2", revision="r2", version=2)
    log.add(MessageCreated(message=first))
    log.add(MessageCreated(message=other))
    knowledge = log.knowledge()
    assert knowledge.question("at://m/1", "conv-1") == MessageCreated(message=first)
    later = message("at://m/2", "so?", created_at=NOW + timedelta(minutes=1))
    assert knowledge.turns(later, 9, NOW) == (first,)


def test_what_changed_is_told_and_nothing_else() -> None:
    log = Log()
    one = post("at://p/0", "one")
    log.add(PostCreated(post=one))
    assert log.knowledge().changed(one) is None
    log.add(edited(one, "two"))
    stored = log.knowledge().changed(one)
    assert stored is not None
    assert isinstance(stored.post, Post)
    assert (stored.post.text, stored.revision, stored.deleted) == ("two", "r2", False)
    assert log.knowledge().changed(stored.post) is None
    log.add(deleted("at://p/0"))
    gone = log.knowledge().changed(one)
    assert gone is not None
    assert (gone.post, gone.deleted) == (None, True)


def test_messages_change_too() -> None:
    log = Log()
    log.add(direct("one"))
    log.add(edited(direct("one").message, "two"))
    stored = log.knowledge().changed(direct("one").message)
    assert stored is not None
    assert stored.post is not None
    assert stored.post.text == "two"


async def test_it_waits_for_every_view_and_says_whether_they_came() -> None:
    late = Opened(built(ConversationView(BOT.id), []), {"feed.posts/0": 3}, as_of_ms=NOW_MS)
    good = Opened(built(RepliesView(), []), {"bot.audit/0": 7})
    knowledge = KnowledgeOfViews(
        lambda: {"conversation": late, "replies": good, "references": late},
        BOT.id,
        wait_s=0.0,
    )
    assert await knowledge.reached(NOW_MS)
    assert not await knowledge.reached(NOW_MS + 1)
    assert knowledge.positions() == {"conversation/feed.posts/0": 3, "replies/bot.audit/0": 7}


async def test_the_wait_is_for_all_views_at_once() -> None:
    both = asyncio.Barrier(2)

    class Slow(Opened):
        async def reached(self, timestamp_ms: int, timeout_s: float) -> bool:
            await both.wait()
            return True

    one, two = (Slow(built(RepliesView(), []), as_of_ms=0) for _ in range(2))
    knowledge = KnowledgeOfViews(lambda: {"conversation": one, "replies": two}, BOT.id, wait_s=1.0)
    assert await knowledge.reached(5)


@pytest.mark.parametrize("name", ["accounts", "moderation"])
async def test_nobody_is_answered_on_an_old_word_about_what_people_want(name: str) -> None:
    log = Log()
    views = {view.name: Opened(log.view(view)) for view in (AccountsView(), ModerationView())}
    now = [NOW_MS]
    knowledge = KnowledgeOfViews(lambda: views, BOT.id, wait_s=0.0, now_ms=lambda: now[0])
    views[name].as_of_ms = NOW_MS
    assert knowledge.account("acc").consents
    now[0] += 10_001
    assert await knowledge.reached(NOW_MS)
    with pytest.raises(ViewLost):
        knowledge.account("acc")
    if name == "moderation":
        with pytest.raises(ViewLost):
            knowledge.stopped("mention")
    views[name].as_of_ms = NOW_MS + 1
    assert knowledge.account("acc").consents
    assert not knowledge.stopped("mention")


async def test_a_view_that_only_seems_to_be_behind_is_asked_first() -> None:
    class Probed(Opened):
        async def reached(self, timestamp_ms: int, timeout_s: float) -> bool:
            self.as_of_ms = timestamp_ms
            return True

    log = Log()
    views = {view.name: Probed(log.view(view)) for view in (AccountsView(), ModerationView())}
    views["accounts"].as_of_ms = 0
    knowledge = KnowledgeOfViews(lambda: views, BOT.id, wait_s=0.0, now_ms=lambda: NOW_MS)
    await knowledge.reached(0)
    assert views["accounts"].as_of_ms == NOW_MS - 10_000
    assert knowledge.account("acc").consents


def test_a_view_that_is_not_open_means_later() -> None:
    knowledge = KnowledgeOfViews(dict, BOT.id, wait_s=0.0)
    knowledge.meet(envelope(), mention(), "d1")
    with pytest.raises(KnowledgeUnavailable):
        knowledge.seen(envelope(), mention(), "d1")
    with pytest.raises(KnowledgeUnavailable):
        knowledge.latest("at://p")


def test_a_view_that_is_damaged_lets_go_of_the_partition(tmp_path: Any) -> None:
    path = tmp_path / "view.sqlite"
    db = sqlite3.connect(path)
    ConversationView(BOT.id).create(db)
    db.commit()
    db.close()
    path.write_bytes(path.read_bytes()[:5000])
    opened = Opened(sqlite3.connect(path))
    knowledge = KnowledgeOfViews(lambda: {"conversation": opened}, BOT.id, wait_s=0.0)
    with pytest.raises(ViewLost):
        knowledge.latest("at://p")


def test_a_view_that_is_busy_means_later() -> None:
    class Busy:
        def execute(self, *_: object) -> None:
            raise sqlite3.OperationalError("database is locked")

    opened: Any = Opened(Busy())  # type: ignore[arg-type]
    knowledge = KnowledgeOfViews(lambda: {"conversation": opened}, BOT.id, wait_s=0.0)
    with pytest.raises(KnowledgeUnavailable, match="OperationalError: database is locked"):
        knowledge.latest("at://p")


LOOKUPS: dict[str, tuple[str | int, ...] | dict[str, str | int]] = {
    talks._BEFORE: ("c", 1, 1, 0, 10),
    talks._PLACE: ("u",),
    talks._MARK: ("c",),
    threads._BESIDE: ("p", "a", 1),
    written._BY_URI[Post]: ("u",),
    written._DELETED: ("post", "u"),
    written._RUN: ("u", 100),
    accounts._REFUSING: ("[]",),
    moderation._BLOCKED_EACH: ("[]",),
    said._BY_EVENT: {"event": 1, "id": "d", "redriven": 1},
    said._SEEN: {"event": 1, "revision": 1, "uri": 1, "id": "d", "redriven": 1},
    said._PARTS: ("[]",),
    said._ANSWERED: (1,),
}


@pytest.mark.parametrize("lookup", LOOKUPS)
def test_every_lookup_is_by_index(lookup: str) -> None:
    db = sqlite3.connect(":memory:")
    ConversationView(BOT.id).create(db)
    RepliesView().create(db)
    AccountsView().create(db)
    ModerationView().create(db)
    plan = db.execute(f"EXPLAIN QUERY PLAN {lookup}", LOOKUPS[lookup]).fetchall()
    assert plan
    what_is_asked = r"(CONSTANT ROW|one\b|up\b|json_each|\(subquery-\d+\)|earlier\b)"
    assert not [step for *_, step in plan if re.search(rf"\bSCAN (?!{what_is_asked})", step)]


def test_a_message_round_trips_whole() -> None:
    log = Log()
    whole = message("at://m/1", "hi", langs=("de",), parent=Ref(uri="at://m/0"), hops=2)
    log.add(MessageCreated(message=whole))
    stored = log.knowledge().latest("at://m/1")
    assert stored is not None
    assert stored.post == whole
    assert log.knowledge().question("at://m/1") == MessageCreated(message=whole)


def test_forget_counts_before_the_view_has_read_it() -> None:
    log = Log()
    log.add(MessageCreated(message=message("at://m/1", "canary")))
    knowledge = log.knowledge()
    later = message("at://m/3", "who am I?", created_at=NOW + timedelta(minutes=2))
    assert len(knowledge.turns(later, 9, NOW)) == 1
    command = message("at://m/2", "/forget", created_at=NOW + timedelta(minutes=1))
    knowledge.meet(envelope(), MessageCreated(message=command), "d2")
    assert knowledge.turns(later, 9, NOW) == ()
    before = message("at://m/1b", "me?", created_at=NOW + timedelta(seconds=30))
    assert len(knowledge.turns(before, 9, NOW)) == 1
    elsewhere = later.model_copy(update={"conversation_id": "conv-2"})
    assert knowledge.turns(elsewhere, 9, NOW) == ()


def test_a_second_reply_stands_behind_the_first_before_the_view_has_read_it() -> None:
    log = Log()
    log.add(reply("reply-1", "first"))
    knowledge = log.knowledge()
    trace = Trace(asked=asked(mention()))
    record = decision_record(trace, setup(), NOW, Outcome.REPLIED, reply_ids=("reply-9",))
    knowledge.decided(record, [reply("reply-9", "second", revision="r2")])
    replies = knowledge.replies_to("at://p/asking")
    assert replies is not None
    assert [part.text for part in replies.parts] == ["first", "second"]
    assert replies.source.revision == "r2"
    knowledge.decided(record, [reply("reply-1", "first")])
    assert knowledge.replies_to("at://p/asking") == log.knowledge().replies_to("at://p/asking")
