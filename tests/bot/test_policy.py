"""``bot.policy``: every rule, its order, and the verdicts of those that ran."""

import pytest

from bot.policy import RULES, Answer, Settings, Skip, decide
from bot.values import Asked, Seen, Source
from schemas.codes import SkipReason
from schemas.feed import Account, MentionReason, MessageDeleted, MessageEdited, Ref
from tests.bot.make import (
    ALICE,
    BOB,
    BOT,
    NOW,
    asked,
    direct,
    mention,
    mention_facet,
    message,
    post,
)

SETTINGS = Settings(bot_id=BOT.id, hop_limit=2)
OTHER_BOT = Account(id="bot-2", handle="other", bot=True)


def reason_of(data: Source, seen: Seen | None = None) -> str | None:
    verdict, _ = decide(asked(data, seen=seen), SETTINGS)
    return verdict.reason.value if isinstance(verdict, Skip) else None


def deleted() -> MessageDeleted:
    return MessageDeleted(
        ref=Ref(uri="at://m/1", revision="r1"),
        conversation_id="conv-1",
        deleted_by="author",
        deleted_at=NOW,
    )


GROUP = (ALICE.id, BOB.id, BOT.id)
GROUP_TEXT = "Hey @twite"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (mention(), None),
        (mention(visibility="followers"), None),
        (mention(visibility="direct"), None),
        (mention(author=BOT), "own-post"),
        (mention("twite, are you there?"), "not-addressed"),
        (mention("hi", facets=[]), "not-addressed"),
        (mention(mentioned_account_id="acc-bob"), "not-addressed"),
        (mention(visibility="circle"), "visibility"),
        (mention(visibility="Public"), "visibility"),
        (mention(visibility=""), "visibility"),
        (mention(author=OTHER_BOT, hops=2), None),
        (mention(author=OTHER_BOT, hops=3), "loop"),
        (mention(hops=3), None),
        (mention(hops=254), None),
        (mention(hops=255), "loop"),
        (mention("yes", reason=MentionReason.REPLY), None),
        (mention("yes", reason="reply", ancestors=(post(author=BOT),)), None),
        (mention("yes", reason="reply", ancestors=(post(author=BOB),)), "not-addressed"),
        (
            mention("yes", reason="reply", ancestors=(post(author=BOT), post("p", author=BOB))),
            "not-addressed",
        ),
        (mention("look", reason="quote"), None),
        (mention("look", reason="quote", quoted=post(author=BOT)), None),
        (mention("look", reason="quote", quoted=post(author=BOB)), "not-addressed"),
        (direct(), None),
        (direct(author=BOT), "own-post"),
        (direct(participants=(ALICE.id, BOB.id)), "not-addressed"),
        (direct(participants=(BOT.id,)), None),
        (direct(participants=(BOT.id, BOB.id)), "not-addressed"),
        (direct(participants=GROUP), "not-addressed"),
        (
            direct(
                GROUP_TEXT,
                participants=GROUP,
                facets=(mention_facet(GROUP_TEXT, "@twite", BOT.id),),
            ),
            None,
        ),
        (
            direct(
                GROUP_TEXT,
                participants=GROUP,
                facets=(mention_facet(GROUP_TEXT, "@twite", BOB.id),),
            ),
            "not-addressed",
        ),
        (direct(author=OTHER_BOT, participants=(OTHER_BOT.id, BOT.id), hops=3), "loop"),
        (MessageEdited(message=message(), previous_revision="r0"), "edited"),
        (MessageEdited(message=message(author=BOT), previous_revision="r0"), "own-post"),
        (deleted(), "deleted"),
    ],
)
def test_what_is_answered_and_what_is_skipped(data: Source, reason: str | None) -> None:
    assert reason_of(data) == reason


def test_repeats_come_first() -> None:
    own = mention(author=BOT)
    assert reason_of(own, Seen(duplicate_of="first")) == "duplicate"
    assert reason_of(mention(), Seen(duplicate_of="first", earlier="first")) == "duplicate"
    assert reason_of(mention(), Seen(earlier="first")) == "edited"
    assert reason_of(deleted(), Seen(duplicate_of="first")) == "duplicate"


def test_every_rule_that_ran_has_its_verdict() -> None:
    verdict, rules = decide(asked(mention()), SETTINGS)
    assert verdict == Answer(mention())
    assert [(rule.name, rule.verdict) for rule in rules] == [(name, "pass") for name, _ in RULES]
    skip, rules = decide(asked(mention(mentioned_account_id="x")), SETTINGS)
    assert isinstance(skip, Skip)
    assert skip.reason is SkipReason.NOT_ADDRESSED
    assert [rule.verdict for rule in rules] == ["pass", "pass", "pass", "pass", "skip"]
    assert rules[-1].detail == "another account is mentioned"


def test_every_rule_can_skip() -> None:
    """A rule nobody can trip would be no rule."""
    trips: dict[str, Asked] = {
        "duplicate": asked(mention(), seen=Seen(duplicate_of="d")),
        "own-post": asked(mention(author=BOT)),
        "deleted": asked(deleted()),
        "edited": asked(mention(), seen=Seen(earlier="d")),
        "not-addressed": asked(mention("hi")),
        "visibility": asked(mention(visibility="?")),
        "loop": asked(mention(hops=255)),
    }
    assert set(trips) == {name for name, _ in RULES}
    for name, rule in RULES:
        assert rule(trips[name], SETTINGS) is not None
        assert rule(asked(mention()), SETTINGS) is None


def test_details_never_hold_what_was_written() -> None:
    text = "@twite secret-canary"
    for data in (mention(text, visibility="secret-canary"), mention(text, hops=255)):
        _, rules = decide(asked(data), SETTINGS)
        assert "secret-canary" not in " ".join(rule.detail or "" for rule in rules)
