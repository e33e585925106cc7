"""``bot.context``: which posts the model may see, and how they fit a budget."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.context import TURN_TOKENS, Kind, Why, cut_to_tokens, spend, without_call
from bot.text import graphemes
from schemas.feed import Account, Attachment, Facet, MentionCreated, Post, Ref, Visibility
from tests.bot.make import ALICE, BOB, BOT, around, direct, mention, mention_facet, post, run_of

FAMILY = "👨‍👩‍👧‍👦"


def whys(data: MentionCreated) -> list[tuple[str, bool, str]]:
    return [(p.ref.uri, p.included, p.why.value) for p in around(data)]


def thread(size: int, **fields: Any) -> tuple[Post, ...]:
    return run_of(*(post(f"at://p/{i}", f"Post {i}", author=BOB, **fields) for i in range(size)))


def replying(above: tuple[Post, ...], **fields: Any) -> MentionCreated:
    return mention(ancestors=above, parent=above[-1].ref if above else None, **fields)


def test_reading_order_ancestors_quoted_asking() -> None:
    quoted = post("at://q/1", "Quoted", conversation_id="other", author=BOT)
    data = replying(thread(2), quoted=quoted, quote=quoted.ref)
    posts = around(data)
    assert [(p.kind, p.why, p.is_bot) for p in posts] == [
        (Kind.ANCESTOR, Why.ROOT, False),
        (Kind.ANCESTOR, Why.ANCESTOR, False),
        (Kind.QUOTED, Why.QUOTED, True),
        (Kind.ASKING, Why.ASKING, False),
    ]
    assert all(p.trust == "untrusted" for p in posts)
    assert [p.text for p in posts] == ["Post 0", "Post 1", "Quoted", "how are you?"]
    assert posts[0].author == BOB
    assert posts[0].visibility is Visibility.PUBLIC


def test_a_private_talk_is_the_quoted_post_and_the_message() -> None:
    quoted = post("at://q/1", "Quoted", author=BOB)
    posts = around(direct(quoted=quoted))
    assert [(p.ref.uri, p.kind) for p in posts] == [
        ("at://q/1", Kind.QUOTED),
        ("at://m/1", Kind.ASKING),
    ]
    assert posts[-1].visibility is Visibility.DIRECT


def test_attachments_are_text_like_any_other() -> None:
    cards = (
        Attachment(type="image", alt="A cat"),
        Attachment(type="card", title="News", description="Of today", url="https://x.example/"),
        Attachment(type="video"),
    )
    asking = around(mention("@twite look", attachments=cards))[-1]
    assert asking.text == "look\n[image: A cat]\n[card: News: Of today]\n[video]"


@pytest.mark.parametrize(
    ("text", "shown", "left"),
    [
        ("@twite hi", "@twite", "hi"),
        ("  @twite\nhi", "@twite", "hi"),
        ("hi @twite", "@twite", "hi @twite"),
        ("@twite", "@twite", "@twite"),
        ("é@twite hi", "@twite", "é@twite hi"),
        ("@someone hi", None, "@someone hi"),
    ],
)
def test_the_call_at_the_beginning_is_left_out(text: str, shown: str | None, left: str) -> None:
    facets = (mention_facet(text, shown, BOT.id),) if shown else ()
    assert without_call(post(text=text, facets=facets), BOT.id) == left


def test_two_calls_and_a_call_of_somebody_else() -> None:
    text = "@twite @twite @bob hi"
    facets = [
        Facet(type="mention", byte_start=start, byte_end=start + length, account_id=who)
        for start, length, who in [(0, 6, BOT.id), (7, 6, BOT.id), (14, 4, BOB.id)]
    ]
    assert without_call(post(text=text, facets=tuple(facets)), BOT.id) == "@bob hi"


def test_refs_that_the_platform_left_out_are_believed() -> None:
    loose = tuple(post(f"at://p/{i}", author=BOB) for i in range(3))
    assert [included for _, included, _ in whys(mention(ancestors=loose))] == [True] * 4


def test_only_the_unbroken_run_at_the_parent_is_kept() -> None:
    above = thread(4)
    gap = (*above[:1], *above[2:])
    assert whys(replying(gap)) == [
        ("at://p/0", False, "broken-run"),
        ("at://p/2", True, "root"),
        ("at://p/3", True, "ancestor"),
        ("at://p/asking", True, "asking"),
    ]


@pytest.mark.parametrize(
    ("above", "why"),
    [
        ((post("at://p/x"),), "broken-run"),  # not the parent
        ((post("at://p/asking"),), "cycle"),
        ((post("at://p/1", conversation_id="conv-2"),), "other-conversation"),
    ],
)
def test_ancestors_that_contradict_the_mention_are_left_out(
    above: tuple[Post, ...], why: str
) -> None:
    told = Ref(uri="at://p/1" if why != "cycle" else "at://p/asking")
    data = mention(ancestors=above, parent=told)
    assert whys(data)[0][1:] == (False, why)
    assert whys(data)[-1][1:] == (True, "asking")


def test_a_mention_that_is_a_root_has_no_ancestors() -> None:
    data = mention(ancestors=(post("at://p/1"),), root=Ref(uri="at://p/asking"))
    assert whys(data)[0] == ("at://p/1", False, "broken-run")


def test_cycles_end() -> None:
    first, second = thread(2)
    looped = (second, first.model_copy(update={"parent": second.ref}), second)
    assert whys(replying(looped)) == [
        ("at://p/1", False, "cycle"),
        ("at://p/0", True, "root"),
        ("at://p/1", True, "ancestor"),
        ("at://p/asking", True, "asking"),
    ]


def test_unknown_visibility_is_left_out_and_breaks_nothing() -> None:
    above = thread(3)
    odd = above[1].model_copy(update={"visibility": "circle"})
    assert whys(replying((above[0], odd, above[2]))) == [
        ("at://p/0", True, "root"),
        ("at://p/1", False, "visibility"),
        ("at://p/2", True, "ancestor"),
        ("at://p/asking", True, "asking"),
    ]


@pytest.mark.parametrize(
    ("quoted", "quote", "why"),
    [
        (post("at://q/1"), Ref(uri="at://q/2"), "not-the-quote"),
        (post("at://q/1", visibility="circle"), None, "visibility"),
        (post("at://p/0"), None, "repeated"),
        (post("at://p/asking"), None, "repeated"),
    ],
)
def test_a_quote_that_does_not_fit_is_left_out(quoted: Post, quote: Ref | None, why: str) -> None:
    data = replying(thread(1), quoted=quoted, quote=quote)
    assert whys(data)[1] == (quoted.uri, False, why)


def test_audit_items_hold_refs_and_no_text() -> None:
    item = around(replying(thread(1)))[0].item()
    assert item.ref == Ref(uri="at://p/0", revision="r1")
    assert (item.author_id, item.trust, item.included, item.why) == (
        BOB.id,
        "untrusted",
        True,
        "root",
    )
    assert "Post 0" not in item.model_dump_json()


def test_the_budget_is_spent_from_the_newest_and_the_root_is_kept() -> None:
    posts = around(replying(thread(10)))
    budget = 4 * (TURN_TOKENS + 6) + TURN_TOKENS + len("how are you?")
    chosen = spend(posts, len, budget, 100)
    assert [p.ref.uri for p in chosen if p.included] == [
        "at://p/0",
        "at://p/7",
        "at://p/8",
        "at://p/9",
        "at://p/asking",
    ]
    assert {p.why for p in chosen if not p.included} == {Why.BUDGET}


def test_a_post_that_does_not_fit_hides_all_older_ones() -> None:
    texts = ("root", "short", "long" * 50, "long" * 50)
    above = run_of(*(post(f"at://p/{i}", text) for i, text in enumerate(texts)))
    chosen = spend(around(replying(above)), len, 170, 100)
    assert [p.included for p in chosen] == [True, False, False, True, True]


def test_each_post_is_cut() -> None:
    (asking,) = spend(around(mention("@twite " + "word " * 500)), len, 10_000, 50)
    assert len(asking.text) == 51
    assert asking.text.endswith("…")


sizes = st.lists(st.integers(0, 300), max_size=12)


@given(sizes, st.integers(1, 2000), st.integers(1, 400))
def test_the_budget_holds(lengths: list[int], budget: int, post_tokens: int) -> None:
    above = run_of(*(post(f"at://p/{i}", "x" * n) for i, n in enumerate(lengths)))
    posts = around(replying(above))
    chosen = spend(posts, len, budget, post_tokens)
    assert chosen == spend(posts, len, budget, post_tokens)
    assert [p.ref for p in chosen] == [p.ref for p in posts]
    assert chosen[-1].included
    assert chosen[0].included
    kept = [p for p in chosen if p.included]
    assert all(len(p.text) <= post_tokens + 1 for p in kept)
    cost = sum(len(p.text) + TURN_TOKENS for p in kept)
    assert cost <= max(budget, 2 * TURN_TOKENS + 4) or len(kept) <= 2
    inside = [p.included for p in chosen[1:]]
    assert inside == sorted(inside)  # one run up to the asking post


@given(st.text(max_size=200) | st.just(FAMILY * 30), st.integers(1, 60))
def test_cutting_to_tokens_splits_no_grapheme(text: str, limit: int) -> None:
    short = cut_to_tokens(text, lambda t: len(t.encode()), limit)
    if short != text:
        body = short[:-1]
        assert short.endswith("…")
        assert len(body.encode()) <= limit
        whole = graphemes(text)
        assert body == "".join(whole[: len(graphemes(body))])


def test_a_megabyte_is_not_counted_whole() -> None:
    seen: list[int] = []

    def count(text: str) -> int:
        seen.append(len(text))
        return len(text)

    spend(around(mention("@twite " + "x" * 1_000_000)), count, 1000, 300)
    assert max(seen) <= 300 * 16 + 1


def test_every_text_stands_beside_its_own_author() -> None:
    eve = Account(id="acc-eve", handle=ALICE.handle, display_name=ALICE.display_name)
    above = run_of(post("at://p/0", "by eve", author=eve), post("at://p/1", "by bob", author=BOB))
    posts = around(replying(above))
    assert [(p.author.id, p.text) for p in posts[:2]] == [
        ("acc-eve", "by eve"),
        ("acc-bob", "by bob"),
    ]
