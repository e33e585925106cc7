"""Kept, corrected or retracted: what an answer of today means for the reply that stands."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.audit import Trace, decision_record
from bot.conversation import Decision
from bot.knowledge import ReplyPart, ReplySet, Stored
from bot.memory import NoKnowledge
from bot.reviews import (
    Making,
    Verdict,
    has_read_back,
    judge,
    renewed,
    settled_without_asking,
    without_question,
)
from schemas.codes import Outcome, SkipReason
from schemas.feed import MentionCreated, Message, MessageCreated, Post, Ref, Visibility
from schemas.ids import reply_id
from schemas.replies import ReplyCorrected, ReplyCreated, ReplyRetracted
from schemas.reviews import PostChanged, ReviewAsked
from tests.bot.make import BOB, BOT, NOW, asked, mention, message, post, setup

SOURCE = Ref(uri="at://p/asking", revision="r1")
MAKING = Making(setup().bot, "review-1", NOW)
QUOTE = Ref(uri="at://p/quoted", revision="q1")


class Known(NoKnowledge):
    """Knows the newest of some posts."""

    def __init__(self, **latest: Stored) -> None:
        super().__init__()
        self._latest = {f"at://p/{name}": stored for name, stored in latest.items()}

    def latest(self, uri: str) -> Stored | None:
        return self._latest.get(uri)


NOTHING = Known()


def part(number: int = 1, of: int = 1, text: str | None = None, **fields: Any) -> ReplyPart:
    given: dict[str, Any] = {
        "reply_id": reply_id(BOT.id, SOURCE.uri, "r1", number),
        "source": SOURCE,
        "conversation_id": "conv-1",
        "part": number,
        "parts": of,
        "text": text or f"Part {number}.",
        "facets": (),
        "langs": ("en",),
        "visibility": Visibility.PUBLIC,
        "built_on": (SOURCE, QUOTE),
        "decision_id": "decision-1",
        "created_at": NOW,
    } | fields
    return ReplyPart(**given)


def standing(*parts: ReplyPart, private: bool = False) -> ReplySet:
    return ReplySet(SOURCE, "conv-1", "decision-1", parts or (part(),), private)


def edited(uri: str = QUOTE.uri, revision: str = "q2", version: int = 2, **fields: Any) -> Any:
    new = post(uri, "new words", revision=revision, version=version)
    return PostChanged(uri=uri, revision=revision, version=version, post=new, at=NOW, **fields)


def deleted(uri: str = QUOTE.uri) -> PostChanged:
    return PostChanged(uri=uri, deleted=True, at=NOW)


def review(change: PostChanged) -> ReviewAsked:
    return ReviewAsked(
        conversation_id="conv-1",
        source=SOURCE,
        decision_id="decision-1",
        private=False,
        change=change,
    )


def answer_of(*texts: str, visibility: str = "public", reason: str | None = None) -> Decision:
    """What answering today comes to."""
    one = asked(mention(revision="r2"))
    outcome = Outcome.REPLIED if texts else Outcome.SKIPPED
    replies = tuple(
        ReplyCreated(
            reply_id=f"today-{n}",
            conversation_id="conv-1",
            in_reply_to=Ref(uri=SOURCE.uri, revision="r2"),
            root=SOURCE,
            author=BOT,
            text=text,
            visibility=Visibility(visibility),
            part=n,
            parts=len(texts),
            built_on=(Ref(uri=SOURCE.uri, revision="r2"),),
            decision_id="review-1",
            hops=1,
            created_at=NOW,
        )
        for n, text in enumerate(texts, start=1)
    )
    return Decision(replies, decision_record(Trace(asked=one), setup(), NOW, outcome, reason))


def said(verdict: Verdict, kind: type[Any]) -> list[str]:
    return [one.reply_id for one in verdict.said if isinstance(one, kind)]


def test_without_a_reply_there_is_nothing_to_take_back() -> None:
    verdict = settled_without_asking(review(deleted()), None, NOTHING, MAKING)
    assert verdict == Verdict(Outcome.SKIPPED, SkipReason.UNKNOWN_REPLY)


def test_what_was_taken_back_is_taken_back_once() -> None:
    gone = standing(part(retracted=True))
    verdict = settled_without_asking(review(deleted(SOURCE.uri)), gone, NOTHING, MAKING)
    assert verdict == Verdict(Outcome.SKIPPED, SkipReason.TAKEN_BACK)


def test_a_deleted_source_retracts_every_part_without_asking_the_model() -> None:
    replies = standing(part(1, 3), part(2, 3), part(3, 3, retracted=True))
    verdict = settled_without_asking(review(deleted(SOURCE.uri)), replies, NOTHING, MAKING)
    assert verdict is not None
    assert (verdict.outcome, verdict.reason) == (Outcome.RETRACTED, SkipReason.DELETED)
    assert said(verdict, ReplyRetracted) == [one.reply_id for one in replies.parts[:2]]
    assert verdict.after is not None
    assert verdict.after.standing == ()


def test_a_source_that_is_gone_by_now_retracts_whatever_the_change_was() -> None:
    gone = Known(asking=Stored(None, None, deleted=True))
    verdict = settled_without_asking(review(edited()), standing(), gone, MAKING)
    assert verdict is not None
    assert verdict.outcome is Outcome.RETRACTED


@pytest.mark.parametrize(
    ("change", "settled"),
    [
        (edited(), False),
        (deleted(), False),
        (edited(revision="q1"), True),  # it is built on that revision
        (edited("at://p/other"), True),  # it is built on this no more
        (deleted("at://p/other"), True),
    ],
)
def test_a_change_that_is_taken_in_already_asks_nothing(change: PostChanged, settled: bool) -> None:
    verdict = settled_without_asking(review(change), standing(), NOTHING, MAKING)
    assert verdict == (Verdict(Outcome.SKIPPED, SkipReason.KEPT) if settled else None)


def test_an_older_change_than_the_one_that_was_taken_in_asks_nothing() -> None:
    newest = post(QUOTE.uri, revision="q1", version=5)
    known = Known(quoted=Stored(newest, "q1", deleted=False))
    verdict = settled_without_asking(review(edited(version=4)), standing(), known, MAKING)
    assert verdict == Verdict(Outcome.SKIPPED, SkipReason.KEPT)
    assert settled_without_asking(review(edited(version=6)), standing(), known, MAKING) is None


def test_where_nobody_knows_the_question_deleted_words_must_not_stay() -> None:
    assert without_question(deleted(), standing(), MAKING).outcome is Outcome.RETRACTED
    kept = without_question(edited(), standing(), MAKING)
    assert (kept.outcome, kept.reason) == (Outcome.SKIPPED, SkipReason.UNKNOWN_REPLY)


def test_the_same_words_are_kept() -> None:
    verdict = judge(answer_of("Part 1."), standing(), edited(), MAKING)
    assert verdict == Verdict(Outcome.SKIPPED, SkipReason.KEPT)


def test_other_words_correct_the_same_reply() -> None:
    verdict = judge(answer_of("Better."), standing(), edited(), MAKING)
    assert (verdict.outcome, verdict.reason) == (Outcome.CORRECTED, SkipReason.EDITED)
    (correction,) = verdict.said
    assert isinstance(correction, ReplyCorrected)
    assert correction.reply_id == part().reply_id
    assert (correction.text, correction.revision) == ("Better.", "review-1")
    assert verdict.after is not None
    assert verdict.after.source.revision == "r2"
    assert verdict.after.parts[0].built_on == correction.built_on


def test_surplus_parts_go_and_missing_ones_come() -> None:
    two = standing(part(1, 2), part(2, 2))
    shorter = judge(answer_of("All."), two, edited(), MAKING)
    assert said(shorter, ReplyCorrected) == [two.parts[0].reply_id]
    assert said(shorter, ReplyRetracted) == [two.parts[1].reply_id]
    longer = judge(answer_of("a", "b", "c"), two, edited(), MAKING)
    assert len(said(longer, ReplyCorrected)) == 2
    assert said(longer, ReplyCreated) == [reply_id(BOT.id, SOURCE.uri, "r1", 3)]


def test_a_part_that_was_taken_back_never_comes_again() -> None:
    replies = standing(part(1, 2), part(2, 2, retracted=True))
    verdict = judge(answer_of("a", "b"), replies, edited(), MAKING)
    (made,) = said(verdict, ReplyCreated)
    assert made not in {one.reply_id for one in replies.parts}


def test_a_correction_is_never_seen_by_more_or_fewer_than_the_reply() -> None:
    narrower = judge(answer_of("Better.", visibility="direct"), standing(), edited(), MAKING)
    assert (narrower.outcome, narrower.reason) == (Outcome.RETRACTED, SkipReason.VISIBILITY)
    direct = standing(part(1, 1, visibility=Visibility.DIRECT), private=True)
    wider = judge(answer_of("a", "b"), direct, edited(), MAKING)
    made = next(one for one in wider.said if isinstance(one, ReplyCreated))
    assert made.visibility is Visibility.DIRECT


@pytest.mark.parametrize(
    ("reason", "change", "outcome"),
    [
        (SkipReason.NO_ANSWER, edited(), Outcome.RETRACTED),
        (SkipReason.OPTED_OUT, edited(), Outcome.RETRACTED),
        (SkipReason.NOT_ADDRESSED, edited(), Outcome.RETRACTED),
        (SkipReason.STOPPED, edited(), Outcome.SKIPPED),
        (SkipReason.STOPPED, deleted(), Outcome.RETRACTED),
        (SkipReason.QUOTA, edited(), Outcome.SKIPPED),
    ],
)
def test_where_nothing_would_be_said_today(
    reason: SkipReason, change: PostChanged, outcome: Outcome
) -> None:
    verdict = judge(answer_of(reason=reason.value), standing(), change, MAKING)
    assert verdict.outcome is outcome


def test_the_question_is_put_with_what_is_newest() -> None:
    question = mention(quoted=post(QUOTE.uri, "old", revision="q1"))
    asking = edited(SOURCE.uri, "r2")
    assert renewed(question, asking, NOTHING).post.text == "new words"  # type: ignore[union-attr]
    newer = asking.post.model_copy(update={"text": "newest", "version": 3})
    known = Known(asking=Stored(newer, "r3", deleted=False))
    assert renewed(question, asking, known).post.text == "newest"  # type: ignore[union-attr]
    quoted = renewed(question, edited(), NOTHING)
    assert isinstance(quoted, MentionCreated)
    assert quoted.quoted is not None
    assert quoted.quoted.text == "new words"
    gone = renewed(question, deleted(), NOTHING)
    assert isinstance(gone, MentionCreated)
    assert gone.quoted is None


def test_a_message_is_renewed_like_a_mention() -> None:
    new = message(text="new", revision="r2", version=2)
    change = PostChanged(uri=new.uri, revision="r2", version=2, message=new, at=NOW)
    again = renewed(MessageCreated(message=message()), change, NOTHING)
    assert isinstance(again, MessageCreated)
    assert again.message.text == "new"
    quoting = MessageCreated(message=message(quoted=post(QUOTE.uri, revision="q1")))
    without = renewed(quoting, deleted(), NOTHING)
    assert isinstance(without, MessageCreated)
    assert without.message.quoted is None


def test_a_post_never_takes_the_place_of_a_message() -> None:
    change = edited("at://m/1")
    again = renewed(MessageCreated(message=message()), change, NOTHING)
    assert isinstance(again, MessageCreated)
    assert again.message.text == "Hello"


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8))
def test_whatever_follows_no_part_is_taken_back_or_made_twice(lengths: Sequence[int]) -> None:
    """Reviews one after another, 0 for an answer of today that is none."""
    replies, made, gone = standing(), {part().reply_id}, set[str]()
    for n, length in enumerate(lengths):
        making = replace(MAKING, decision_id=f"review-{n}")
        if not replies.standing:
            break
        texts = [f"{n}.{i}" for i in range(length)]
        reason = None if texts else SkipReason.NO_ANSWER.value
        verdict = judge(answer_of(*texts, reason=reason), replies, edited(), making)
        for one in verdict.said:
            assert one.reply_id not in gone
            assert (one.reply_id in made) is not isinstance(one, ReplyCreated)
            (gone if isinstance(one, ReplyRetracted) else made).add(one.reply_id)
        assert verdict.after is not None
        assert {p.reply_id for p in verdict.after.standing} == made - gone
        assert not has_read_back(replies, verdict.after)
        assert has_read_back(verdict.after, verdict.after)
        replies = verdict.after
    assert not has_read_back(None, replies)


def test_types_tell_posts_from_messages() -> None:
    assert not issubclass(Message, Post)
    assert not issubclass(Post, Message)


@pytest.mark.parametrize("fields", [{"author": BOB}, {"conversation_id": "elsewhere"}])
def test_who_else_edits_it_or_where_else_changes_nothing(fields: dict[str, Any]) -> None:
    """Answering refuses such a revision as well."""
    question = mention(quoted=post(QUOTE.uri, "their words", revision="q1"))
    for uri in (SOURCE.uri, QUOTE.uri):
        strange = post(uri, "not theirs", revision="q2", version=2, **fields)
        change = PostChanged(uri=uri, revision="q2", version=2, post=strange, at=NOW)
        assert renewed(question, change, NOTHING) == question
        known = Known(asking=Stored(strange, "q2", deleted=False))
        assert renewed(question, change, known) == question


@pytest.mark.parametrize("visibility", ["followers", "direct", "mutuals"])
def test_a_quoted_post_that_became_narrower_is_not_shown(visibility: str) -> None:
    new = post(QUOTE.uri, "a secret", revision="q2", version=2, visibility=visibility)
    change = PostChanged(uri=QUOTE.uri, revision="q2", version=2, post=new, at=NOW)
    again = renewed(mention(quoted=post(QUOTE.uri, revision="q1")), change, NOTHING)
    assert isinstance(again, MentionCreated)
    assert again.quoted is None
