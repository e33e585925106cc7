"""``bot.talk``: the memory of a private talk, and how it is emptied."""

from datetime import timedelta
from typing import Any

import pytest

from bot.context import TalkPost
from bot.values import Limits
from schemas.feed import (
    Account,
    AccountChanged,
    Message,
    MessageCreated,
    MessageDeleted,
    Ref,
    Visibility,
)
from tests.bot.make import ALICE, BOB, BOT, NOW, around, message, post
from tests.bot.views.logs import Log, deleted, edited
from tests.bot.views.test_replies import corrected, reply, retracted


def said(number: int, text: str, **fields: Any) -> Message:
    """Message ``number`` of the talk, a minute after the one before."""
    return message(f"at://m/{number}", text, created_at=NOW + timedelta(minutes=number), **fields)


def talk(*texts: str) -> Log:
    log = Log()
    for number, text in enumerate(texts):
        log.add(MessageCreated(message=said(number, text)))
    return log


def answered(log: Log, number: int, text: str, name: str | None = None) -> None:
    log.add(
        reply(
            name or f"reply-{number}",
            text,
            uri=f"at://m/{number}",
            visibility=Visibility.DIRECT,
        ),
        private=True,
    )


def turns(log: Log, asking: Message, **limits: Any) -> list[str]:
    items = around(MessageCreated(message=asking), log.knowledge(), Limits(**limits))
    assert all(isinstance(item, TalkPost) for item in items)
    assert items[-1].text == asking.text
    return [item.text for item in items[:-1] if item.included]


def test_the_last_turns_stand_before_the_message_with_the_bots_answers() -> None:
    log = talk("hi", "and now?")
    answered(log, 0, "hello")
    answered(log, 1, "wait")
    items = around(MessageCreated(message=said(2, "done?")), log.knowledge())
    assert [(item.text, item.is_bot, item.why.value) for item in items] == [
        ("hi", False, "turn"),
        ("hello", True, "own-reply"),
        ("and now?", False, "turn"),
        ("wait", True, "own-reply"),
        ("done?", False, "asking"),
    ]


def test_another_talk_is_another_talk() -> None:
    log = talk("canary")
    assert turns(log, said(1, "hi", conversation_id="conv-2")) == []


def test_later_messages_are_not_known_yet() -> None:
    """A message that is answered late sees what it would have seen in time."""
    log = talk("one", "two", "three")
    assert turns(log, said(1, "two")) == ["one"]


def test_messages_of_one_moment_stand_in_the_order_of_the_log() -> None:
    log = Log()
    for name in "abc":
        log.add(MessageCreated(message=message(f"at://m/{name}", name, created_at=NOW)))
    assert turns(log, message("at://m/b", "b", created_at=NOW)) == ["a"]
    assert turns(log, message("at://m/new", "new", created_at=NOW)) == ["a", "b", "c"]


def test_turns_are_as_they_read_now() -> None:
    log = talk("one", "two", "three")
    answered(log, 0, "yes")
    log.add(edited(said(0, "one"), "one anew"))
    log.add(deleted("at://m/1", MessageDeleted))
    log.add(corrected("reply-0", "no"), private=True)
    assert turns(log, said(3, "so?")) == ["one anew", "no", "three"]
    log.add(retracted("reply-0"), private=True)
    assert turns(log, said(3, "so?")) == ["one anew", "three"]


def test_a_turn_that_was_deleted_takes_its_answer_with_it() -> None:
    log = talk("canary", "two")
    answered(log, 0, "about the canary")
    log.add(deleted("at://m/0", MessageDeleted))
    assert turns(log, said(3, "so?")) == ["two"]


def test_as_many_and_as_old_as_the_settings_say() -> None:
    log = talk(*(str(number) for number in range(10)))
    answered(log, 9, "nine")
    assert turns(log, said(10, "so?"), talk_turns=3) == ["8", "9", "nine"]
    assert turns(log, said(10, "so?"), talk_turns=0) == []
    assert turns(log, said(10, "so?"), talk_hours=3 / 60) == ["7", "8", "9", "nine"]
    assert turns(log, said(10, "so?"), talk_hours=0) == []
    assert len(turns(log, said(10, "so?"), talk_hours=87_600)) == 11


def test_many_edits_crowd_nobody_out() -> None:
    log = talk("one", "two")
    for number in range(40):
        log.add(edited(said(1, "two"), f"two {number}", revision=f"e{number}"))
    assert turns(log, said(2, "so?"), talk_turns=2) == ["one", "two 39"]


def test_forget_empties_the_memory() -> None:
    log = talk("canary", "canary two")
    answered(log, 0, "about the canary")
    log.add(MessageCreated(message=said(2, "/forget")))
    answered(log, 2, "Done.")
    assert turns(log, said(3, "who am I?")) == []
    log.add(MessageCreated(message=said(3, "who am I?")))
    log.add(edited(said(0, "canary"), "canary again"))
    log.add(MessageCreated(message=said(4, "Done.", author=BOT, parent=Ref(uri="at://m/2"))))
    assert turns(log, said(5, "so?")) == ["who am I?"]


def test_what_the_platform_shows_of_the_bots_answers_stands_there_once() -> None:
    log = talk("hi")
    answered(log, 0, "hello")
    log.add(MessageCreated(message=said(1, "hello", author=BOT, parent=Ref(uri="at://m/0"))))
    assert turns(log, said(2, "so?")) == ["hi", "hello"]
    log = talk("hi")
    answered(log, 0, "hello")
    log.add(MessageCreated(message=said(1, "hello", author=BOT)))
    assert turns(log, said(2, "so?")) == ["hi", "hello"]
    log = talk("hi")
    log.add(MessageCreated(message=said(1, "of another life", author=BOT)))
    assert turns(log, said(2, "so?")) == ["hi", "of another life"]


def test_who_joins_a_talk_sees_nothing_of_before() -> None:
    log = talk("canary")
    answered(log, 0, "about the canary")
    trio = (ALICE.id, BOB.id, BOT.id)
    log.add(MessageCreated(message=said(1, "bob is here", participants=trio)))
    assert turns(log, said(2, "hi", participants=trio)) == ["bob is here"]
    assert turns(log, said(2, "hi")) == ["canary", "about the canary", "bob is here"]


def test_who_said_no_is_left_out_of_a_group() -> None:
    trio = (ALICE.id, BOB.id, BOT.id)
    log = Log()
    log.add(MessageCreated(message=said(0, "canary", author=BOB, participants=trio)))
    log.add(MessageCreated(message=said(1, "mine", participants=trio)))
    log.add(AccountChanged(account_id=BOB.id, opted_out=True))
    assert turns(log, said(2, "hi", participants=trio)) == ["mine"]


def test_a_quoted_post_stands_before_the_message() -> None:
    quoted = post("at://q", "quoted", conversation_id="other", author=BOB)
    asking = MessageCreated(message=said(1, "look", quoted=quoted, quote=quoted.ref))
    log = talk("hi")
    items = around(asking, log.knowledge())
    assert [(item.text, item.kind.value) for item in items] == [
        ("hi", "turn"),
        ("quoted", "quoted"),
        ("look", "asking"),
    ]
    log.add(asking)
    question = log.knowledge().question("at://m/1")
    assert question == asking


@pytest.mark.parametrize("author", [BOT, Account(id="bot-1", handle="x")])
def test_the_bots_own_messages_are_its_turns(author: Account) -> None:
    log = talk("hi")
    log.add(MessageCreated(message=said(1, "I am back", author=author)))
    items = around(MessageCreated(message=said(2, "so?")), log.knowledge())
    assert [item.is_bot for item in items] == [False, True, False]
