from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.feed import (
    MAX_ANCESTORS,
    AccountChanged,
    DeletedBy,
    Facet,
    FeedbackGiven,
    MentionCreated,
    MentionReason,
    Message,
    Post,
    PostDeleted,
    PostEdited,
    Ref,
    Visibility,
)
from tests.schemas.samples import ACCOUNT, DELETED, MESSAGE, POST, TIME, WRITTEN

LEAST: dict[str, Any] = {
    "uri": "u",
    "revision": "r",
    "conversation_id": "c",
    "author": ACCOUNT,
    "text": "",
    "visibility": "public",
    "created_at": TIME,
}
TEXT = "aé😀b"  # a: byte 0, é: 1-3, 😀: 3-7, b: 7-8


def post(**changed: Any) -> Post:
    return Post.model_validate({**LEAST, **changed})


def tag(start: Any, end: Any, **more: Any) -> dict[str, Any]:
    return {"type": "tag", "tag": "x", "byte_start": start, "byte_end": end, **more}


def kept(*facets: dict[str, Any], text: str = TEXT) -> list[tuple[int, int]]:
    return [(f.byte_start, f.byte_end) for f in post(text=text, facets=facets).facets]


def test_what_is_missing_has_its_default() -> None:
    least = post()
    assert (least.version, least.hops, least.author.bot) == (1, 0, False)
    assert (least.facets, least.attachments, least.langs) == ((), (), ())
    assert [least.edited_at, least.root, least.parent, least.quote] == [None] * 4
    mention = MentionCreated(post=least, mentioned_account_id="b")
    assert (mention.reason, mention.ancestors) == (MentionReason.MENTION, ())
    assert (mention.ancestors_complete, mention.quoted) == (False, None)
    changed = AccountChanged(account_id="a")
    assert (changed.opted_out, changed.blocked_bot, changed.deleted) == (False, False, False)
    message = {name: value for name, value in WRITTEN.items() if name != "hops"}
    assert Message.model_validate(message).participants == ()


@pytest.mark.parametrize("name", LEAST)
def test_what_has_no_default_is_required(name: str) -> None:
    with pytest.raises(ValidationError):
        Post.model_validate({key: value for key, value in LEAST.items() if key != name})


@pytest.mark.parametrize("name", ["edited_at", "root", "parent", "quote"])
def test_null_means_missing_where_a_member_is_optional(name: str) -> None:
    assert post(**{name: None}) == post()


@pytest.mark.parametrize("name", ["version", "hops", "facets", "langs", "attachments", "text"])
def test_null_is_an_error_where_it_is_not(name: str) -> None:
    with pytest.raises(ValidationError):
        post(**{name: None})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("uri", 1),
        ("uri", ""),
        ("text", 1),
        ("text", ["a"]),
        ("version", "1"),
        ("version", 1.0),
        ("version", True),
        ("version", 2**63),
        ("hops", 256),
        ("hops", -1),
        ("author", "ann"),
        ("author", {**ACCOUNT, "bot": 1}),
        ("author", {"handle": "ann"}),
        ("langs", "en"),
        ("langs", [1]),
        ("facets", {}),
        ("facets", [1]),
        ("attachments", [{"alt": "no type"}]),
        ("root", "post:0"),
        ("created_at", 0),
        ("created_at", "0000-01-01T00:00:00Z"),
        ("visibility", None),
    ],
)
def test_a_wrong_value_is_an_error(name: str, value: object) -> None:
    with pytest.raises(ValidationError):
        post(**{name: value})


@pytest.mark.parametrize("visibility", [*Visibility, "circle", ""])
def test_visibility_is_any_string(visibility: str) -> None:
    assert post(visibility=visibility).visibility == str(visibility)


def test_unknown_members_are_dropped_and_values_are_frozen() -> None:
    odd = post(shadow="x", author={**ACCOUNT, "secret": "x"})
    assert odd == post()
    assert "secret" not in odd.model_dump_json()
    with pytest.raises(ValidationError):
        odd.text = "other"  # type: ignore[misc]


def test_any_unicode_is_a_text() -> None:
    text = "\x00 \u202e e\u0301 \U0010ffff \uffff"
    assert post(text=text).text == text


@pytest.mark.parametrize(("start", "end"), [(0, 1), (1, 3), (3, 7), (7, 8), (0, 8), (1, 7), (0, 3)])
def test_a_facet_on_whole_characters_stays(start: int, end: int) -> None:
    assert kept(tag(start, end)) == [(start, end)]


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (0, 9),
        (8, 9),
        (8, 8),
        (0, 0),
        (3, 1),
        (-1, 1),
        (0, -1),
        (2, 3),
        (1, 2),
        (3, 4),
        (4, 7),
        (10**300, 10**301),
    ],
)
def test_a_facet_with_a_faulty_range_is_dropped_alone(start: int, end: int) -> None:
    assert kept(tag(start, end), tag(0, 1)) == [(0, 1)]


@pytest.mark.parametrize(
    "facet",
    [
        {"type": "poll"},
        {"type": ""},
        {"type": "Tag", "tag": "x"},
        {"type": "tag"},
        {"type": "tag", "tag": ""},
        {"type": "tag", "url": "https://a.example"},
        {"type": "link", "tag": "x"},
        {"type": "link", "url": None},
        {"type": "mention", "tag": "x"},
        {"type": "mention", "account_id": ""},
        {"type": "mention", "account_id": "a\n"},
        {"type": "mention", "account_id": "a" * 513},
    ],
)
def test_a_facet_of_unknown_type_or_without_what_it_needs_is_dropped(facet: Any) -> None:
    assert kept({"byte_start": 0, "byte_end": 1, **facet}) == []


@pytest.mark.parametrize(
    "facet",
    [
        {"type": "mention", "account_id": "a"},
        {"type": "link", "url": "https://a.example"},
        {"type": "tag", "tag": "x", "account_id": None},
    ],
)
def test_each_type_of_facet_stays_with_what_it_needs(facet: Any) -> None:
    assert kept({"byte_start": 0, "byte_end": 1, **facet}) == [(0, 1)]


@pytest.mark.parametrize(
    "facet",
    [
        tag("0", 1),
        tag(0, 1.0),
        tag(True, 2),
        tag(0, None),
        tag(0, 1, type=1),
        tag(0, 1, type="unknown", account_id=7),
        tag(99, 100, url=7),
        {"type": "tag", "tag": "x", "byte_start": 0},
        {"byte_start": 0, "byte_end": 1},
    ],
)
def test_a_facet_of_a_wrong_json_type_is_an_error_even_where_it_would_be_dropped(
    facet: Any,
) -> None:
    with pytest.raises(ValidationError):
        kept(facet)


@given(st.text(), st.integers(-3, 40), st.integers(-3, 40))
def test_what_a_kept_facet_covers_is_always_whole_text(text: str, start: int, end: int) -> None:
    covers = {
        len(text[:i].encode()): {len(text[:j].encode()) for j in range(i + 1, len(text) + 1)}
        for i in range(len(text))
    }
    right = end in covers.get(start, set())
    assert kept(tag(start, end), text=text) == ([(start, end)] if right else [])


def test_facets_of_messages_and_quotes_are_checked_against_their_own_text() -> None:
    quoted = {**POST, "text": "", "facets": [tag(0, 1)]}
    message = Message.model_validate({**MESSAGE, "quoted": quoted, "facets": [tag(0, 1)]})
    assert message.quoted is not None
    assert (len(message.facets), message.quoted.facets) == (1, ())
    assert Facet(type="tag", tag="x", byte_start=0, byte_end=1) == message.facets[0]


def test_a_hundred_ancestors_are_fine_and_one_more_is_an_error() -> None:
    ancestors = (post(),) * MAX_ANCESTORS
    mention = MentionCreated(post=post(), mentioned_account_id="b", ancestors=ancestors)
    assert len(mention.ancestors) == 100
    with pytest.raises(ValidationError):
        MentionCreated(post=post(), mentioned_account_id="b", ancestors=(*ancestors, post()))


def test_ancestors_that_contradict_each_other_are_left_to_the_context() -> None:
    stranger = post(uri="x", conversation_id="elsewhere", parent={"uri": "nowhere"})
    mention = MentionCreated(
        post=post(parent={"uri": "p"}), mentioned_account_id="b", ancestors=(stranger, stranger)
    )
    assert mention.ancestors == (stranger, stranger)


def test_a_ref_may_lack_its_revision_and_a_post_gives_its_own() -> None:
    assert Ref.model_validate({"uri": "u"}) == Ref(uri="u", revision=None)
    assert post().ref == Ref(uri="u", revision="r")


@pytest.mark.parametrize(
    ("model", "data"),
    [
        (PostDeleted, {**DELETED, "deleted_by": "nobody"}),
        (PostDeleted, {**DELETED, "deleted_by": 1}),
        (PostEdited, {"post": POST}),
        (FeedbackGiven, {"reply_id": "r", "account_id": "a", "kind": "love"}),
        (MentionCreated, {"post": POST, "mentioned_account_id": "b", "reason": "poke"}),
        (MentionCreated, {"post": POST, "mentioned_account_id": "b", "reason": None}),
        (MentionCreated, {"post": POST, "mentioned_account_id": "b", "ancestors": {}}),
        (AccountChanged, {"account_id": "a", "deleted": "yes"}),
    ],
)
def test_words_outside_a_closed_list_are_an_error(model: Any, data: Any) -> None:
    with pytest.raises(ValidationError):
        model.model_validate(data)


def test_words_of_a_closed_list_become_their_members() -> None:
    assert PostDeleted.model_validate(DELETED).deleted_by is DeletedBy.AUTHOR
