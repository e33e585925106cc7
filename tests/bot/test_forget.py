"""``/forget`` in whatever spelling, and in a group only where the bot is meant."""

import pytest

from bot.forget import is_forget
from tests.bot.make import ALICE, BOB, BOT, mention_facet, message, post

WHO = {"@twite": BOT.id, "@bob": BOB.id}
GROUP = (ALICE.id, BOB.id, BOT.id)
COMMANDS = ("/forget", "  /forget", "/FORGET\n", "/ Forget", "／forget", "\u200b/for\u00adget.")


def says(text: str, *, group: bool = False) -> bool:
    """Whether that is the command, its handles being mentions."""
    facets = tuple(mention_facet(text, name, who) for name, who in WHO.items() if name in text)
    participants = GROUP if group else (ALICE.id, BOT.id)
    return is_forget(message(text=text, facets=facets, participants=participants), BOT.id)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_spelling_matters_little(command: str) -> None:
    assert says(command)
    assert says(f"@twite {command}")
    assert says(f"@twite  {command}", group=True)
    assert not says(command, group=True)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("@bob /forget", False),
        ("@bob @twite /forget", True),
        ("@twite @bob /forget", True),
        (" @twite  /forget ", True),
        ("@twite, /forget", False),
        ("@bob /forget @twite", False),
        ("hey @twite /forget", False),
        ("@twite /forget me", False),
    ],
)
def test_in_a_group_the_bot_is_the_one_that_is_meant(text: str, meant: bool) -> None:
    assert says(text, group=True) is meant


def test_a_handle_in_plain_text_means_nobody() -> None:
    told = message(text="@twite /forget", participants=GROUP)
    assert not is_forget(told, BOT.id)


def test_whoever_is_alone_with_the_bot_may_name_anybody_first() -> None:
    assert says("@bob /forget")


def test_a_post_is_no_command_and_no_megabyte_is_read_for_one() -> None:
    assert not is_forget(post(text="/forget"), BOT.id)
    assert not says(" " * 3000 + "/forget")
