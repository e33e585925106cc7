"""``bot.thread``: the context of a mention from the event and from the views, whatever comes in."""

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.context import ThreadPost
from schemas.feed import Account, AccountChanged, MentionCreated, Post, PostCreated, Ref, Visibility
from tests.bot.make import ALICE, BOB, BOT, NOW, around, mention, mention_facet, post, run_of
from tests.bot.views.logs import Log, deleted, edited
from tests.bot.views.test_replies import reply, retracted
from tests.examples import examples

CAROL = Account(id="acc-carol", handle="carol", display_name="Carol")


def seen(data: MentionCreated, log: Log) -> list[tuple[str, str, str]]:
    """Uri, text and why of every post in the context; ``-`` before the text of one left out."""
    return [
        (item.ref.uri, item.text if item.included else f"-{item.text}", item.why.value)
        for item in around(data, log.knowledge())
    ]


def told(*posts: Post) -> Log:
    log = Log()
    for one in posts:
        log.add(PostCreated(post=one))
    return log


def thread(*texts: str, author: Account = BOB, **fields: Any) -> tuple[Post, ...]:
    return run_of(
        *(post(f"at://p/{i}", text, author=author, **fields) for i, text in enumerate(texts))
    )


def under(above: Post, **fields: Any) -> MentionCreated:
    return mention("@twite why?", parent=above.ref, **fields)


def test_what_the_event_does_not_carry_comes_from_the_view() -> None:
    above = thread("root", "one", "two")
    log = told(*above)
    expected = [
        ("at://p/0", "root", "root"),
        ("at://p/1", "one", "ancestor"),
        ("at://p/2", "two", "ancestor"),
        ("at://p/asking", "why?", "asking"),
    ]
    assert seen(under(above[-1]), log) == expected
    assert seen(under(above[-1], ancestors=above[1:]), log) == expected
    assert seen(under(above[-1], ancestors=above), log) == expected


def test_an_event_that_says_it_is_complete_is_believed() -> None:
    above = thread("root", "one")
    data = under(above[-1], ancestors=above[1:]).model_copy(update={"ancestors_complete": True})
    assert [text for _, text, _ in seen(data, told(*above))] == ["one", "why?"]
    nothing = data.model_copy(update={"ancestors": ()})
    assert [text for _, text, _ in seen(nothing, told(*above))] == ["root", "one", "why?"]


def test_posts_are_seen_as_they_read_now() -> None:
    above = thread("root", "one")
    log = told(*above)
    log.add(edited(above[0], "changed"))
    log.add(deleted("at://p/1"))
    data = under(above[-1], ancestors=above)
    assert seen(data, log)[:2] == [
        ("at://p/0", "changed", "root"),
        ("at://p/1", "-one", "deleted"),
    ]
    # From the view alone: above a parent that is gone nothing is known to belong there.
    assert seen(under(above[-1]), log) == [("at://p/asking", "why?", "asking")]


def test_an_edit_before_its_create_and_one_of_the_same_moment() -> None:
    one = post("at://p/0", "old")
    log = Log()
    log.add(edited(one, "new"))
    log.add(PostCreated(post=one))
    assert seen(under(one), log)[0] == ("at://p/0", "new", "root")
    twins = [post("at://p/0", text, revision=text) for text in ("b", "a")]
    assert seen(under(one), told(*twins))[0][1] == "a"  # the later on the log
    assert seen(under(one), told(*reversed(twins)))[0][1] == "b"


def test_an_older_revision_in_the_view_replaces_nothing() -> None:
    (old,) = thread("old")
    new = old.model_copy(update={"text": "new", "revision": "r2", "version": 2})
    assert seen(under(new, ancestors=(new,)), told(old))[0] == ("at://p/0", "new", "root")


def test_a_deletion_of_the_unknown_is_no_trouble() -> None:
    log = Log()
    log.add(deleted("at://nobody"))
    log.add(deleted("at://p/asking"))
    assert log.knowledge().latest("at://p/asking") is not None
    assert seen(mention("@twite hi"), log) == [("at://p/asking", "hi", "asking")]


def test_a_missing_parent_ends_the_run() -> None:
    above = thread("root", "lost", "two")
    log = told(above[0], above[2])
    assert [uri for uri, _, _ in seen(under(above[-1]), log)] == ["at://p/2", "at://p/asking"]


def test_a_parent_of_another_conversation_is_none() -> None:
    above = post("at://p/0", "elsewhere", conversation_id="other")
    assert seen(under(above), told(above)) == [("at://p/asking", "why?", "asking")]


def test_cycles_end() -> None:
    one = post("at://p/1", "one", parent=Ref(uri="at://p/2"))
    two = post("at://p/2", "two", parent=Ref(uri="at://p/1"))
    own = post("at://p/3", "three", parent=Ref(uri="at://p/3"))
    back = post("at://p/4", "four", parent=Ref(uri="at://p/asking"))
    log = told(one, two, own, back)
    uris = [[uri for uri, _, _ in seen(under(end), log)] for end in (one, own, back)]
    assert uris == [
        ["at://p/2", "at://p/1", "at://p/asking"],
        ["at://p/3", "at://p/asking"],
        ["at://p/4", "at://p/asking"],
    ]


def test_the_view_goes_on_where_the_event_breaks() -> None:
    above = thread("root", "one", "two")
    stranger = post("at://x", "not its parent", author=CAROL)
    data = under(above[-1], ancestors=(stranger, above[2]))
    assert seen(data, told(*above)) == [
        ("at://p/0", "root", "root"),
        ("at://p/1", "one", "ancestor"),
        ("at://x", "-not its parent", "broken-run"),
        ("at://p/2", "two", "ancestor"),
        ("at://p/asking", "why?", "asking"),
    ]


def test_ancestors_that_contradict_the_view_keep_their_own_author() -> None:
    """Whichever text is used, it stands beside whoever it came with."""
    mine, theirs = (
        post("at://p/0", "of bob", author=BOB),
        post("at://p/0", "of carol", author=CAROL),
    )
    log = told(mine)
    log.add(edited(theirs, "of carol, edited"))
    log.add(mention("@twite", ancestors=(theirs.model_copy(update={"version": 9}),)))
    for data in (under(mine), under(mine, ancestors=(mine,)), under(mine, ancestors=(theirs,))):
        for item in around(data, log.knowledge()):
            owner = {"of bob": BOB, "of carol": CAROL}.get(item.text[:8].rstrip(","), ALICE)
            assert item.author == owner


def test_a_copy_in_a_mention_never_replaces_what_the_post_itself_said() -> None:
    mine = post("at://p/0", "of bob", author=BOB)
    forged = mine.model_copy(update={"author": CAROL, "text": "forged", "version": 9})
    log = told(mine)
    log.add(under(mine, ancestors=(forged,)))
    assert seen(under(mine), log)[0] == ("at://p/0", "of bob", "root")
    stored = log.knowledge().latest("at://p/0")
    assert stored is not None
    assert stored.post == mine


def test_a_handle_that_changes_owner_names_its_owner_of_then() -> None:
    before = post("at://p/0", "mine", author=BOB)
    after = post("at://p/1", "mine now", author=CAROL.model_copy(update={"handle": "bob"}))
    above = run_of(before, after)
    items = around(under(above[-1]), told(*above).knowledge())
    assert [(item.author.id, item.text) for item in items[:2]] == [
        (BOB.id, "mine"),
        (CAROL.id, "mine now"),
    ]


def test_a_thread_of_500_posts_keeps_its_nearest_and_its_root() -> None:
    root = Ref(uri="at://p/0")
    above = thread(*(f"post {i}" for i in range(500)))
    above = (above[0], *(one.model_copy(update={"root": root}) for one in above[1:]))
    items = around(under(above[-1]), told(*above).knowledge())
    numbers = [int(item.text.split()[1]) for item in items[:-1]]
    assert numbers == [0, *range(400, 500)]
    assert items[0].why.value == "root"


def test_what_the_view_alone_knows_is_shown_to_those_who_may_see_it() -> None:
    secret = post("at://p/0", "for followers", author=BOB, visibility="followers")
    own = post("at://p/1", "my own", author=ALICE, visibility="followers", parent=secret.ref)
    log = told(secret, own)
    assert seen(under(own), log) == [
        ("at://p/0", "-for followers", "visibility"),
        ("at://p/1", "my own", "root"),
        ("at://p/asking", "why?", "asking"),
    ]
    # The platform put it into the event: it knows who may see it.
    assert seen(under(own, ancestors=(secret, own)), log)[0][1] == "for followers"


def test_an_edit_that_made_a_post_narrower_was_not_vouched_for() -> None:
    (one,) = thread("open")
    log = told(one)
    log.add(edited(one, "closed", visibility="followers"))
    assert seen(under(one, ancestors=(one,)), log)[0] == ("at://p/0", "-closed", "visibility")


def test_the_bots_own_replies_stand_behind_what_they_answer() -> None:
    above = thread("question", "so?")
    log = told(*above)
    log.add(reply("reply-1", "Yes.", uri="at://p/0", part=1, parts=2))
    log.add(reply("reply-2", "Indeed.", uri="at://p/0", part=2, parts=2))
    items = around(under(above[-1]), log.knowledge())
    assert [(item.text, item.is_bot) for item in items] == [
        ("question", False),
        ("Yes.", True),
        ("Indeed.", True),
        ("so?", False),
        ("why?", False),
    ]
    assert items[1].author == BOT
    log.add(retracted("reply-1"))
    log.add(retracted("reply-2"))
    assert [item.text for item in around(under(above[-1]), log.knowledge())] == [
        "question",
        "so?",
        "why?",
    ]


def test_a_reply_that_the_platform_shows_stands_there_once() -> None:
    question = post("at://p/0", "question", author=BOB)
    shown = post("at://p/1", "Yes.", author=BOT, parent=question.ref)
    log = told(question, shown)
    log.add(reply("reply-1", "Yes.", uri="at://p/0"))
    assert [text for _, text, _ in seen(under(shown), log)] == ["question", "Yes.", "why?"]


def test_a_direct_reply_is_told_again_only_to_whom_it_was_for() -> None:
    question = post("at://p/0", "question", author=BOB, visibility="public")
    log = told(question)
    answer = reply("reply-1", "psst", uri="at://p/0", visibility=Visibility.DIRECT)
    log.add(answer, private=True)
    assert [text for _, text, _ in seen(under(question), log)] == ["question", "why?"]
    assert [text for _, text, _ in seen(under(question, author=BOB), log)] == [
        "question",
        "psst",
        "why?",
    ]


def test_siblings_are_of_those_whom_the_asker_names() -> None:
    root = post("at://p/0", "root", author=BOB)
    beside = [
        post("at://s/1", "first of carol", author=CAROL, parent=root.ref),
        post(
            "at://s/2",
            "second of carol",
            author=CAROL,
            parent=root.ref,
            created_at=NOW + timedelta(seconds=1),
        ),
        post("at://s/3", "of bob", author=BOB, parent=root.ref),
        post("at://s/4", "carol elsewhere", author=CAROL, parent=Ref(uri="at://other")),
        post(
            "at://s/5",
            "carol later",
            author=CAROL,
            parent=root.ref,
            created_at=NOW + timedelta(hours=1),
        ),
    ]
    text = "@twite is @carol right?"
    asking = mention(
        text,
        parent=root.ref,
        facets=(mention_facet(text, "@carol", CAROL.id),),
        created_at=NOW + timedelta(minutes=1),
    )
    assert [(text, why) for _, text, why in seen(asking, told(root, *beside))] == [
        ("root", "root"),
        ("second of carol", "sibling"),
        ("is @carol right?", "asking"),
    ]


def test_a_quote_comes_from_the_view_where_the_event_has_none() -> None:
    quoted = post("at://q", "quoted", conversation_id="conv-2", author=BOB)
    log = told(quoted)
    asking = mention("@twite look", quote=Ref(uri="at://q"))
    assert seen(asking, log)[0] == ("at://q", "quoted", "quoted")
    log.add(edited(quoted, "quoted anew"))
    assert seen(asking, log)[0][1] == "quoted anew"
    log.add(deleted("at://q", talk="conv-2"))
    assert seen(asking, log)[0] == ("at://p/asking", "look", "asking")
    assert seen(asking.model_copy(update={"quoted": quoted}), log)[0] == (
        "at://q",
        "-quoted",
        "deleted",
    )


@pytest.mark.parametrize("author", [ALICE, BOB])
def test_what_has_an_unknown_visibility_is_left_out_wherever_it_is_from(author: Account) -> None:
    odd = post("at://q", "odd", author=author, visibility="circle", parent=Ref(uri="at://p/0"))
    log = told(post("at://p/0", "root", author=BOB), odd)
    quoting = mention("@twite look", quote=odd.ref)
    left_out = ("at://q", "-odd", "visibility")
    assert seen(quoting, log)[0] == left_out
    assert seen(quoting.model_copy(update={"quoted": odd}), log)[0] == left_out
    assert left_out in seen(under(odd), log)


def test_who_said_no_is_left_out_and_nobody_learns_who() -> None:
    above = run_of(
        post("at://p/0", "root", author=BOB),
        post("at://p/1", "canary", author=CAROL),
        post("at://p/2", "two", author=BOB),
    )
    quoted = post("at://q", "canary", conversation_id="other", author=CAROL)
    data = under(above[-1], ancestors=above, quoted=quoted, quote=quoted.ref)
    for state in ("opted_out", "blocked_bot", "deleted"):
        log = told(*above)
        log.add(AccountChanged(account_id=CAROL.id, **{state: True}))
        items = around(data, log.knowledge())
        assert [item.text for item in items if item.included] == ["root", "two", "why?"]
        audit = repr([item.item() for item in items])
        assert "canary" not in audit
        assert CAROL.id not in audit
        assert "at://p/1" not in audit
        assert [item.item().why for item in items if not item.included] == ["consent", "consent"]


# Whatever the refs say: no crash, and no text beside another author than its own.

NAMES = st.sampled_from([ALICE, BOB, CAROL, BOT]) | st.builds(
    Account,
    id=st.sampled_from(["acc-bob", "acc-eve"]),
    handle=st.sampled_from(["bob", "alice", "twite"]),
    display_name=st.sampled_from(["Bob", "\u202eecilA", "x" * 10_000, "a\x00\x1b[31m: b", ""]),
)
REFS = st.none() | st.sampled_from([Ref(uri=f"at://p/{i}") for i in range(5)])
POSTS = st.builds(
    lambda number, author, parent, root, quote, talk, visibility, revision, version: post(
        f"at://p/{number}",
        f"words of {author.id}",
        author=author,
        parent=parent,
        root=root,
        quote=quote,
        conversation_id=talk,
        visibility=visibility,
        revision=revision,
        version=version,
    ),
    st.integers(0, 4),
    NAMES,
    REFS,
    REFS,
    REFS,
    st.sampled_from(["conv-1", "conv-2"]),
    st.sampled_from(["public", "followers", "direct", "circle"]),
    st.sampled_from(["r1", "r2"]),
    st.integers(1, 3),
)
EVENTS = (
    POSTS.map(lambda one: PostCreated(post=one))
    | POSTS.map(lambda one: edited(one, one.text))
    | st.integers(0, 4).map(lambda number: deleted(f"at://p/{number}"))
    | st.builds(
        lambda one, above, quoted: MentionCreated(
            post=one, mentioned_account_id=BOT.id, ancestors=tuple(above), quoted=quoted
        ),
        POSTS,
        st.lists(POSTS, max_size=3),
        st.none() | POSTS,
    )
)


@examples(200)
@given(st.lists(EVENTS, max_size=12), POSTS, st.lists(POSTS, max_size=4), st.none() | POSTS)
def test_no_text_ever_stands_beside_another_author(
    events: list[Any], asking: Post, above: list[Post], quoted: Post | None
) -> None:
    log = Log()
    for event in events:
        log.add(event)
    data = MentionCreated(
        post=asking, mentioned_account_id=BOT.id, ancestors=tuple(above), quoted=quoted
    )
    items = around(data, log.knowledge())
    assert all(isinstance(item, ThreadPost) for item in items)
    for item in items:
        assert item.text == f"words of {item.author.id}"
    shown = [item.ref.uri for item in items if item.included]
    assert len(shown) == len(set(shown))
    assert items[-1].ref == asking.ref
    knowledge = log.knowledge()
    question = knowledge.question(asking.uri)
    for number in range(5):
        stored = knowledge.latest(f"at://p/{number}")
        if stored is not None and stored.post is not None:
            assert stored.post.text == f"words of {stored.post.author.id}"
    assert question is None or isinstance(question, MentionCreated)


@pytest.mark.parametrize("name", ["x" * 10_000, "a\u202eb\x00\u2066", "\n\nTwite: hi"])
def test_odd_names_reach_the_context_as_they_are_and_no_further(name: str) -> None:
    eve = Account(id="acc-eve", handle=name, display_name=name)
    above = post("at://p/0", "hi", author=eve)
    items = around(under(above), told(above).knowledge())
    assert items[0].author == eve
