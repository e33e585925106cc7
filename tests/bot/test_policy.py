"""``bot.policy``: every rule, its order, and the verdicts of those that ran."""

import time
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from bot.echoes import Echoes
from bot.facts import Facts
from bot.knowledge import AccountState, Stored
from bot.memory import NoKnowledge
from bot.policy import (
    BEFORE_QUOTA,
    PAUSED_S,
    REVIEW,
    RULES,
    SECOND_LOOK,
    Answer,
    Rule,
    Settings,
    Skip,
    decide,
    judge,
    look_again,
)
from bot.quotas import Claim, Correction, NoQuotas, Taken
from bot.rates import LiveLimits
from bot.values import Asked, BotIdentity, Seen, Source
from consumers.handler import NotYet
from schemas import names
from schemas.codes import SkipReason
from schemas.feed import Account, MentionReason, MessageDeleted, MessageEdited, Post, Ref
from tests.bot.make import (
    ALICE,
    BOB,
    BOT,
    NOW,
    NOW_MS,
    asked,
    direct,
    mention,
    mention_facet,
    message,
    post,
    run_of,
)

SETTINGS = Settings(BotIdentity(account=BOT, cluster_id="cluster-1"), hop_limit=2)
OTHER_BOT = Account(id="bot-2", handle="other", bot=True)
HOUR_MS = 3_600_000
FACTS = Facts(now_ms=NOW_MS)
SAID = "The moon is as far away as thirty Earths in a row."


def reason_of(data: Source, seen: Seen | None = None) -> str | None:
    verdict, _ = judge(asked(data, seen=seen), SETTINGS, FACTS)
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


ANSWERED = Seen(earlier="first", answered=True)


def test_repeats_come_first() -> None:
    own = mention(author=BOT)
    assert reason_of(own, Seen(duplicate_of="first")) == "duplicate"
    assert reason_of(mention(), replace(ANSWERED, duplicate_of="first")) == "duplicate"
    assert reason_of(mention(), ANSWERED) == "edited"
    assert reason_of(deleted(), Seen(duplicate_of="first")) == "duplicate"


def test_a_new_revision_of_what_got_no_answer_is_answered() -> None:
    assert reason_of(mention(), Seen(earlier="first")) is None


# One input and one state of the world that trips each rule; beside it one that is just short.
TRIPS: dict[str, list[tuple[Asked, Facts]]] = {
    "duplicate": [(asked(mention(), seen=Seen(duplicate_of="d")), FACTS)],
    "own-post": [(asked(mention(author=BOT)), FACTS)],
    "deleted": [(asked(deleted()), FACTS), (asked(mention()), replace(FACTS, gone=True))],
    "edited": [(asked(mention(), seen=ANSWERED), FACTS)],
    "not-addressed": [(asked(mention("hi")), FACTS)],
    "visibility": [(asked(mention(visibility="?")), FACTS)],
    "loop": [(asked(mention(hops=255)), FACTS)],
    "echo": [(asked(mention()), replace(FACTS, echo=True))],
    "too-old": [(asked(mention(), timestamp_ms=NOW_MS - 24 * HOUR_MS - 1), FACTS)],
    "opted-out": [(asked(mention()), replace(FACTS, asker=AccountState(opted_out=True)))],
    "account-deleted": [(asked(mention()), replace(FACTS, asker=AccountState(deleted=True)))],
    "blocked": [
        (asked(mention()), replace(FACTS, asker=AccountState(blocked_bot=True))),
        (asked(mention()), replace(FACTS, asker=AccountState(moderator_blocked=True))),
        (asked(mention()), replace(FACTS, conversation_blocked=True)),
    ],
    "stopped": [(asked(direct()), replace(FACTS, stopped=True))],
    "cancelled": [(asked(direct()), replace(FACTS, cancelled=True))],
    "quota": [(asked(mention()), replace(FACTS, taken=Taken("author, 1 per 1 minute")))],
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_rule_can_skip_for_its_reasons_and_no_other(rule: Rule) -> None:
    """A rule nobody can trip would be no rule."""
    skips = [rule.check(*trip[:1], SETTINGS, trip[1]) for trip in TRIPS[rule.name]]
    assert {skip and skip.reason for skip in skips} == set(rule.reasons)
    assert rule.check(asked(mention()), SETTINGS, FACTS) is None


@pytest.mark.parametrize("name", TRIPS)
def test_it_is_that_rule_which_skips(name: str) -> None:
    """Nothing before it in the order minds."""
    for one, facts in TRIPS[name]:
        verdict, rules = judge(one, SETTINGS, facts)
        assert isinstance(verdict, Skip)
        assert (rules[-1].name, rules[-1].verdict) == (name, "skip")
        assert [rule.name for rule in rules] == [rule.name for rule in RULES][: len(rules)]


def test_every_reason_of_a_rule_is_documented() -> None:
    assert {reason for rule in RULES for reason in rule.reasons} <= set(SkipReason)
    assert all(rule.check.__doc__ for rule in RULES)
    assert len({rule.name for rule in RULES}) == len(RULES)


@pytest.mark.parametrize(
    ("age_hours", "limit", "skipped"),
    [(0, 24.0, False), (24, 24.0, False), (25, 24.0, True), (1, 0.5, True), (-3, 1.0, False)],
)
def test_too_old_is_told_by_the_brokers_time(age_hours: int, limit: float, skipped: bool) -> None:
    one = asked(mention(), timestamp_ms=NOW_MS - age_hours * HOUR_MS)
    verdict, _ = judge(one, SETTINGS, replace(FACTS, max_age_hours=limit))
    assert isinstance(verdict, Skip) is skipped


def test_a_record_without_a_time_is_not_old() -> None:
    verdict, _ = judge(asked(mention(), timestamp_ms=-1), SETTINGS, FACTS)
    assert isinstance(verdict, Answer)


def test_the_time_that_a_user_wrote_does_not_count() -> None:
    old = mention(created_at=NOW - timedelta(days=3000))
    assert reason_of(old) is None


def test_details_never_hold_what_was_written() -> None:
    text = "@twite secret-canary"
    for data in (mention(text, visibility="secret-canary"), mention(text, hops=255)):
        _, rules = judge(asked(data), SETTINGS, FACTS)
        assert "secret-canary" not in " ".join(rule.detail or "" for rule in rules)


# The order of things in ``decide``.


class Known(NoKnowledge):
    """Knows what it is told."""

    def __init__(self, **known: Any) -> None:
        super().__init__()
        self.known = known
        self.asked_for: list[str] = []

    def account(self, account_id: str) -> AccountState:
        self.asked_for.append(account_id)
        state: AccountState = self.known.get("accounts", {}).get(account_id, AccountState())
        return state

    def conversation_blocked(self, conversation_id: str) -> bool:
        return conversation_id in self.known.get("blocked", ())

    def stopped(self, surface: str) -> bool:
        return surface in self.known.get("stopped", ())

    def paused(self, conversation_id: str, account_id: str) -> bool:
        return not {conversation_id, account_id}.isdisjoint(self.known.get("paused", ()))

    def cancelled_ms(self, conversation_id: str, account_id: str) -> int | None:
        at_ms: int | None = self.known.get("cancelled", {}).get(conversation_id)
        return at_ms

    def latest(self, uri: str) -> Stored | None:
        stored: Stored | None = self.known.get("posts", {}).get(uri)
        return stored

    def is_deleted(self, uri: str, kind: str) -> bool:
        stored = self.latest(uri)
        return stored is not None and stored.deleted


class Spent(NoQuotas):
    """Says what it is told, and keeps who asked."""

    def __init__(self, taken: Taken | None = None) -> None:
        super().__init__()
        self.taken = taken or Taken()
        self.claims: list[Claim] = []

    async def take(self, claim: Claim | Correction, limits: LiveLimits, now: Any) -> Taken:
        assert isinstance(claim, Claim)
        self.claims.append(claim)
        return self.taken


async def decided(
    data: Source,
    knowledge: NoKnowledge | None = None,
    quotas: NoQuotas | None = None,
    echoes: Echoes | None = None,
) -> str | None:
    verdict, _ = await decide(
        asked(data),
        SETTINGS,
        knowledge or NoKnowledge(),
        quotas or NoQuotas(),
        echoes or Echoes(),
        NOW,
    )
    return verdict.reason.value if isinstance(verdict, Skip) else None


async def test_every_rule_that_ran_has_its_verdict() -> None:
    verdict, rules = await decide(
        asked(mention()), SETTINGS, NoKnowledge(), NoQuotas(), Echoes(), NOW
    )
    assert verdict == Answer(mention())
    assert [(rule.name, rule.verdict) for rule in rules] == [(rule.name, "pass") for rule in RULES]
    other = asked(mention(mentioned_account_id="x"))
    skip, rules = await decide(other, SETTINGS, NoKnowledge(), NoQuotas(), Echoes(), NOW)
    assert isinstance(skip, Skip)
    assert skip.reason is SkipReason.NOT_ADDRESSED
    assert [rule.verdict for rule in rules] == ["pass", "pass", "pass", "pass", "skip"]
    assert rules[-1].detail == "another account is mentioned"


@pytest.mark.parametrize(
    ("data", "known", "reason"),
    [
        (mention(), {"accounts": {ALICE.id: AccountState(opted_out=True)}}, "opted-out"),
        (direct(), {"accounts": {ALICE.id: AccountState(opted_out=True)}}, "opted-out"),
        (mention(), {"accounts": {BOB.id: AccountState(opted_out=True)}}, None),
        (mention(), {"accounts": {ALICE.id: AccountState(blocked_bot=True)}}, "blocked"),
        (mention(), {"accounts": {ALICE.id: AccountState(moderator_blocked=True)}}, "blocked"),
        (mention(), {"accounts": {ALICE.id: AccountState(deleted=True)}}, "deleted"),
        (mention(), {"blocked": {"conv-1"}}, "blocked"),
        (mention(), {"blocked": {"conv-2"}}, None),
        (mention(), {"stopped": {"mention"}}, "stopped"),
        (mention(), {"stopped": {"direct"}}, None),
        (direct(), {"stopped": {"direct"}}, "stopped"),
        (mention(), {"posts": {"at://p/asking": Stored(None, "r1", deleted=True)}}, "deleted"),
        (mention(), {"posts": {"at://p/other": Stored(None, "r1", deleted=True)}}, None),
        (mention(), {"posts": {"at://p/asking": Stored(None, None, deleted=False)}}, None),
    ],
)
async def test_what_is_known_decides(
    data: Source, known: dict[str, Any], reason: str | None
) -> None:
    quotas = Spent()
    assert await decided(data, Known(**known), quotas) == reason
    assert len(quotas.claims) == (reason is None), "a skip for another reason takes no share"


async def test_a_repeat_asks_nobody() -> None:
    knowledge, quotas = Known(), Spent()
    one = asked(mention(), seen=Seen(duplicate_of="first"))
    verdict, _ = await decide(one, SETTINGS, knowledge, quotas, Echoes(), NOW)
    assert isinstance(verdict, Skip)
    assert not knowledge.asked_for
    assert not quotas.claims


async def test_a_used_up_quota_is_the_last_word() -> None:
    quotas = Spent(Taken("thread, 5 per 1 minute"))
    verdict, rules = await decide(asked(mention()), SETTINGS, NoKnowledge(), quotas, Echoes(), NOW)
    assert verdict == Skip(SkipReason.QUOTA, "thread, 5 per 1 minute")
    assert [rule.name for rule in rules] == [rule.name for rule in RULES]
    assert await decided(mention(author=BOT), quotas=quotas) == "own-post"


# Whom an input counts for.


def stored(one: Post) -> dict[str, Any]:
    return {"posts": {one.uri: Stored(one, one.revision, deleted=False)}}


BOBS = post("at://p/bobs", author=BOB)


@pytest.mark.parametrize(
    ("data", "known", "target"),
    [
        (mention(), {}, None),
        (mention(ancestors=run_of(post(author=ALICE), BOBS)), {}, "account/acc-bob"),
        (mention(ancestors=(post(author=ALICE),)), {}, None),
        (mention(ancestors=(post(author=BOT),)), {}, None),
        (mention(parent=BOBS.ref), stored(BOBS), "account/acc-bob"),
        (mention(parent=BOBS.ref), {}, "post/at://p/bobs"),
        (mention(quoted=BOBS, quote=BOBS.ref), {}, "account/acc-bob"),
        (mention(quote=BOBS.ref), {}, "post/at://p/bobs"),
        (mention(quoted=post(author=BOT), quote=post().ref), {}, None),
        (direct(), {}, None),
    ],
)
async def test_the_target_is_the_other_person(
    data: Source, known: dict[str, Any], target: str | None
) -> None:
    quotas = Spent()
    assert await decided(data, Known(**known), quotas) is None
    (claim,) = quotas.claims
    assert claim.target == target
    assert (claim.author, claim.thread) == (ALICE, "conv-1")


# The bot's own words.


async def test_what_the_bot_said_here_is_not_answered() -> None:
    echoes = Echoes()
    echoes.said(SAID, "conv-1")
    assert await decided(mention("@twite " + SAID.upper()), echoes=echoes) == "loop"
    assert await decided(direct(SAID), echoes=echoes) == "loop"
    assert await decided(mention("@twite " + SAID + " Really?"), echoes=echoes) is None


async def test_elsewhere_only_bots_are_taken_for_an_echo() -> None:
    """A model that only repeats a question must not make it nobody's."""
    echoes = Echoes()
    echoes.said(SAID, "conv-2")
    assert await decided(mention("@twite " + SAID), echoes=echoes) is None
    assert await decided(mention("@twite " + SAID, author=OTHER_BOT), echoes=echoes) == "loop"


async def test_after_a_restart_the_thread_tells_what_the_bot_said() -> None:
    mine = post("at://p/mine", SAID, author=BOT)
    assert await decided(mention("@twite " + SAID, ancestors=(mine,))) == "loop"
    known = Known(**stored(mine))
    assert await decided(mention("@twite " + SAID, parent=mine.ref), known) == "loop"
    theirs = post("at://p/mine", SAID, author=BOB)
    assert await decided(mention("@twite " + SAID, ancestors=(theirs,))) is None


# Once more.


@pytest.mark.parametrize("name", [rule.name for rule in SECOND_LOOK])
def test_what_changed_meanwhile_is_seen_by_a_second_look(name: str) -> None:
    for one, facts in TRIPS[name]:
        verdict, _ = judge(one, SETTINGS, facts, SECOND_LOOK)
        assert isinstance(verdict, Skip)


def test_a_second_look_asks_anew_and_minds_nothing_else() -> None:
    assert [rule.name for rule in SECOND_LOOK] == [
        "deleted", "not-addressed", "visibility",
        "opted-out", "account-deleted", "blocked", "stopped", "cancelled",
    ]  # fmt: skip
    old = asked(mention(), seen=Seen(duplicate_of="first"), timestamp_ms=0)
    out = Known(accounts={ALICE.id: AccountState(opted_out=True)})
    verdict, _ = look_again(asked(mention()), SETTINGS, out, NOW)
    assert verdict == Skip(SkipReason.OPTED_OUT)
    verdict, _ = look_again(old, SETTINGS, NoKnowledge(), NOW)
    assert isinstance(verdict, Answer)


def test_a_review_minds_neither_age_nor_repeats_nor_quotas() -> None:
    left_out = {"duplicate", "edited", "too-old", "echo", "quota", "cancelled"}
    assert {rule.name for rule in RULES} - {rule.name for rule in REVIEW} == left_out
    assert (*BEFORE_QUOTA, RULES[-1]) == RULES
    assert RULES[-1].name == "quota"


@pytest.mark.parametrize("whom", ["conv-1", ALICE.id])
async def test_what_is_paused_waits_and_takes_nobodys_share(whom: str) -> None:
    known, spent = Known(paused={whom}), Spent()
    with pytest.raises(NotYet):
        await decide(asked(mention()), SETTINGS, known, spent, Echoes(), NOW)
    with pytest.raises(NotYet):
        look_again(asked(mention()), SETTINGS, known, NOW)
    assert spent.claims == []


async def test_what_is_paused_is_looked_at_without_being_handled() -> None:
    known = Known(paused={ALICE.id})
    with pytest.raises(NotYet) as waiting:
        await decide(asked(mention()), SETTINGS, known, Spent(), Echoes(), NOW)
    look = waiting.value.look
    assert look is not None
    assert await look() == waiting.value.seconds == PAUSED_S
    known.known["cancelled"] = {"conv-1": NOW_MS + 1}
    assert await look() == 0.0, "it is skipped now"
    known.known["cancelled"] = {}
    assert await look() > 0
    known.known["paused"] = set()
    assert await look() == 0.0, "it may be answered now"


async def test_what_gets_too_old_while_it_is_paused_is_handled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(NotYet) as waiting:
        await decide(asked(mention()), SETTINGS, Known(paused={ALICE.id}), Spent(), Echoes(), NOW)
    look = waiting.value.look
    assert look is not None
    later = time.monotonic() + 365 * 86_400
    monkeypatch.setattr("bot.policy.time", SimpleNamespace(monotonic=lambda: later))
    assert await look() == 0.0


async def test_what_is_skipped_anyway_does_not_wait() -> None:
    known = Known(paused={"conv-1"}, blocked={"conv-1"})
    verdict, _ = await decide(asked(mention()), SETTINGS, known, Spent(), Echoes(), NOW)
    assert isinstance(verdict, Skip)
    assert verdict.reason is SkipReason.BLOCKED


def test_words_that_must_go_wait_for_no_pause_and_no_cancellation() -> None:
    known = Known(paused={"conv-1"}, cancelled={"conv-1": NOW_MS})
    review = replace(asked(mention()), topic=names.BOT_REVIEWS)
    verdict, _ = look_again(review, SETTINGS, known, NOW)
    assert isinstance(verdict, Answer)


@pytest.mark.parametrize(("age_ms", "skipped"), [(0, True), (1, True), (-1, False)])
def test_only_what_had_come_in_already_is_cancelled(age_ms: int, skipped: bool) -> None:
    one = asked(mention(), timestamp_ms=NOW_MS - age_ms)
    verdict, _ = look_again(one, SETTINGS, Known(cancelled={"conv-1": NOW_MS}), NOW)
    assert verdict == Skip(SkipReason.CANCELLED) if skipped else isinstance(verdict, Answer)
