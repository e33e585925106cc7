"""``bot.views.accounts`` and ``bot.views.moderation``: who wants what, and what moderators say."""

from dataclasses import replace
from typing import Any

import pytest

from bot.knowledge import UNKNOWN_ACCOUNT, AccountState
from bot.views.accounts import AccountsView
from bot.views.moderation import ModerationView
from consumers.views.view import BadRecord
from schemas import names
from schemas.control import ModerationCommanded
from schemas.feed import AccountChanged
from tests.bot.views.logs import Log, built, rows


def changed(**state: bool) -> AccountChanged:
    return AccountChanged(account_id="acc-1", **state)


def command(word: str, subject: str) -> ModerationCommanded:
    return ModerationCommanded(command=word, subject=subject, reason="because", moderator="mod")


def test_the_latest_state_of_an_account_counts() -> None:
    log = Log()
    assert log.knowledge().account("acc-1") == UNKNOWN_ACCOUNT
    log.add(changed(opted_out=True))
    assert log.knowledge().account("acc-1") == AccountState(opted_out=True)
    log.add(changed(blocked_bot=True, deleted=True))
    assert log.knowledge().account("acc-1") == AccountState(blocked_bot=True, deleted=True)
    assert not log.knowledge().account("acc-1").consents
    log.add(changed())
    assert log.knowledge().account("acc-1") == UNKNOWN_ACCOUNT
    assert rows(log.view(AccountsView()))["accounts"] == []


def test_a_tombstone_forgets_an_account() -> None:
    log = Log()
    log.add(changed(opted_out=True))
    log.tombstone(names.FEED_ACCOUNTS, "acc-1")
    assert log.knowledge().account("acc-1") == UNKNOWN_ACCOUNT


@pytest.mark.parametrize("view", [AccountsView(), ModerationView()])
def test_a_tombstone_of_nobody_is_a_bad_record(view: Any) -> None:
    log = Log()
    bad = replace(log.tombstone(view.topics[0], "x"), key=b"\xff")
    with pytest.raises(BadRecord, match="key-mismatch"):
        view.apply(built(view, []), bad)


def test_moderators_block_and_unblock() -> None:
    log = Log()
    log.add(command("block", "account:acc-1"))
    log.add(command("block", "conversation:conv-1"))
    knowledge = log.knowledge()
    assert knowledge.account("acc-1").moderator_blocked
    assert not knowledge.account("acc-2").moderator_blocked
    assert knowledge.conversation_blocked("conv-1")
    assert not knowledge.conversation_blocked("conv-2")
    log.add(command("unblock", "account:acc-1"))
    log.tombstone(names.BOT_MODERATION, "conversation:conv-1")
    knowledge = log.knowledge()
    assert not knowledge.account("acc-1").moderator_blocked
    assert not knowledge.conversation_blocked("conv-1")


@pytest.mark.parametrize(
    ("subject", "mention", "direct"),
    [
        ("everything", True, True),
        ("mentions", True, False),
        ("direct-messages", False, True),
        ("something", False, False),
    ],
)
def test_moderators_stop_and_resume(subject: str, mention: bool, direct: bool) -> None:
    log = Log()
    log.add(command("stop", subject))
    knowledge = log.knowledge()
    assert (knowledge.stopped("mention"), knowledge.stopped("direct")) == (mention, direct)
    log.add(command("resume", subject))
    knowledge = log.knowledge()
    assert (knowledge.stopped("mention"), knowledge.stopped("direct")) == (False, False)


def test_unknown_commands_are_kept_and_change_nothing_else() -> None:
    log = Log()
    log.add(command("stop", "everything"))
    log.add(command("dance", "account:acc-1"))
    assert log.knowledge().account("acc-1") == UNKNOWN_ACCOUNT
    assert log.knowledge().stopped("mention")
    assert len(rows(log.view(ModerationView()))["commands"]) == 2


@pytest.mark.parametrize("view", [AccountsView(), ModerationView()])
def test_what_is_compacted_is_never_trimmed(view: Any) -> None:
    log = Log()
    log.add(changed(opted_out=True))
    log.add(command("stop", "everything"))
    db = log.view(view)
    before = rows(db)
    assert view.oldest_ms(db) is None
    assert view.trim(db, 2**60, 10) == 0
    assert rows(db) == before


def test_pauses_and_cancellations_stand_beside_blocks() -> None:
    log = Log()
    log.add(command("block", "account:acc-1"))
    log.add(command("pause", "pause:account:acc-1"))
    cancelled = log.add(command("cancel", "cancel:conversation:conv-1"))
    knowledge = log.knowledge()
    assert knowledge.account("acc-1").moderator_blocked
    assert (knowledge.paused("conv-1", "acc-1"), knowledge.paused("conv-1", "acc-2")) == (
        True,
        False,
    )
    assert knowledge.cancelled_ms("conv-1", "acc-2") == cancelled.timestamp_ms
    assert knowledge.cancelled_ms("conv-2", "acc-1") is None
    log.add(command("resume", "pause:account:acc-1"))
    assert not log.knowledge().paused("conv-1", "acc-1")


def test_whatever_command_stands_last_on_a_subject_is_told_as_it_was_given() -> None:
    log = Log()
    assert not log.knowledge().has_approvals()
    log.add(command("approve-first", "approval:conversation:conv-1"))
    approved = command("approve", "held:d-1").model_copy(update={"text_digest": "abc"})
    log.add(approved)
    knowledge = log.knowledge()
    assert knowledge.has_approvals()
    found = knowledge.standing(("held:d-1", "held:d-2", "approval:conversation:conv-1"))
    assert [one.command for one in found] == ["approve", "approve-first"]
    assert (found[0].text_digest, found[0].moderation.moderator) == ("abc", "mod")
    log.add(command("publish-directly", "approval:conversation:conv-1"))
    assert not log.knowledge().has_approvals()
    log.add(command("reject", "held:d-1"))
    assert log.knowledge().has_approvals()
