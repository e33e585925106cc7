"""How records are shown: who does what, from their bytes."""

import pytest

from bot.ask import to_output
from bot.events import (
    Person,
    account_changed,
    deletion_of,
    edit_of,
    edited,
    message_to,
    post,
)
from bot.scene import Scene, scene_of, type_of
from bot.settings import BotSettings
from schemas.envelope import Event
from schemas.record import Output

ALICE = Person("acct-alice", "alice")
POST = post(ALICE, "Paris.", conversation_id="c", uri="post:1")
MESSAGE = message_to(BotSettings(), ALICE, "hi").data.message


def shown(event: Event) -> tuple[str, str]:  # type: ignore[type-arg]
    scene = scene_of("title", to_output(event))
    return scene.who, scene.text


def test_an_edit_is_shown_with_its_author_and_the_new_text() -> None:
    assert shown(edit_of(POST, edited(POST, "Rome."))) == ("@alice (edits)", "Rome.")
    private = shown(edit_of(MESSAGE, edited(MESSAGE, "hello")))
    assert private == ("@alice (private) (edits)", "hello")


def test_a_deletion_is_shown_with_who_did_it() -> None:
    assert shown(deletion_of(POST)) == ("the author", "deletes post:1")


@pytest.mark.parametrize(
    ("wishes", "text"),
    [
        ({"opted_out": True}, "wants no answers of the bot"),
        ({"opted_out": True, "blocked_bot": True}, "wants no answers of the bot, blocks the bot"),
        ({}, "is as everybody is"),
    ],
)
def test_an_account_is_shown_with_what_it_wants(wishes: dict[str, bool], text: str) -> None:
    assert shown(account_changed(ALICE, **wishes)) == ("acct-alice", text)


@pytest.mark.parametrize("value", [b"\xff", b"1", b"[]", b'"deleted_by"', b"{}", b"null", None])
def test_anything_else_is_no_event(value: bytes | None) -> None:
    record = Output(topic="feed.posts", key=None, value=value)
    size = f"{len(value or b'')} bytes"
    assert scene_of("t", record) == Scene("t", record, "(no event)", size)


def test_the_type_is_that_of_the_headers() -> None:
    assert type_of(to_output(deletion_of(POST))) == "twite.feed.post.deleted.v1"
    assert type_of(Output(topic="t", key=None, value=b"")) == ""
    assert type_of(Output(topic="t", key=None, value=b"", headers=(("ce_type", None),))) == ""
