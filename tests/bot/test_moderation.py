"""``bot.moderation``: which subject a command is written on, and what has it obeyed."""

import pytest

from bot.errors import Trouble
from bot.moderation import commanded, subject_of


@pytest.mark.parametrize(
    ("command", "named", "subject"),
    [
        ("block", "account:a", "account:a"),
        ("unblock", "conversation:c", "conversation:c"),
        ("stop", "everything", "everything"),
        ("resume", "direct-messages", "direct-messages"),
        ("pause", "account:a", "pause:account:a"),
        ("resume", "account:a", "pause:account:a"),
        ("cancel", "conversation:c", "cancel:conversation:c"),
        ("approve-first", "account:a", "approval:account:a"),
        ("pin", "mention", "prompt:mention"),
        ("unpin", "direct", "prompt:direct"),
        ("publish-directly", "everything", "approval:everything"),
        ("resume", "pause:account:a", "pause:account:a"),
        ("cancel", "cancel:conversation:c", "cancel:conversation:c"),
    ],
)
def test_what_may_stand_beside_a_block_has_a_subject_of_its_own(
    command: str, named: str, subject: str
) -> None:
    assert subject_of(command, named) == subject


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("block", "everything"),
        ("stop", "account:a"),
        ("pause", "account:"),
        ("cancel", "a"),
        ("approve-first", "b"),
    ],
)
def test_what_makes_no_sense_is_refused(command: str, named: str) -> None:
    with pytest.raises(Trouble, match="nothing to"):
        subject_of(command, named)


@pytest.mark.parametrize(
    ("member", "value", "limit"),
    [
        ("moderator", "m" * 513, "512 bytes"),
        ("subject", "account:" + "a" * 600, "512 bytes"),
        ("subject", "account:a\x07", "control characters"),
    ],
)
def test_a_member_that_is_too_long_is_named_with_its_limit(
    member: str, value: str, limit: str
) -> None:
    members = {"command": "block", "subject": "account:a", "reason": "r", "moderator": "m"}
    with pytest.raises(Trouble, match=limit) as told:
        commanded(**{**members, member: value})
    assert told.value.where == member
    assert value not in str(told.value)
