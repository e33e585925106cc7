"""``bot.views.replies`` and ``bot.views.said``: what the bot decided and said, days later."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot import policy
from bot.facts import Facts
from bot.values import Seen, Source, source_ref
from bot.views import said
from bot.views.replies import RepliesView, key_of
from consumers.views.view import BadRecord
from schemas import names
from schemas.audit import DecisionRecorded, InputRef
from schemas.codes import Outcome
from schemas.feed import MessageDeleted, Ref, Visibility
from schemas.replies import ReplyCorrected, ReplyCreated, ReplyRetracted
from tests.bot.make import BOT, NOW, NOW_MS, asked, direct, envelope, mention, setup
from tests.bot.views.logs import Log, built, garbled, rows
from tests.bot.views.test_conversation import shuffled
from tests.examples import examples

VIEW = RepliesView()
URI = "at://p/asking"


def decision(
    name: str,
    outcome: Outcome = Outcome.REPLIED,
    *,
    event: str = "event-1",
    revision: str | None = "r1",
    uri: str = URI,
    topic: str = names.FEED_MENTIONS,
    **fields: Any,
) -> DecisionRecorded:
    place = InputRef(topic=topic, partition=0, offset=0, source="/platform", id=event)
    return DecisionRecorded(
        decision_id=name,
        outcome=outcome,
        input=place,
        source_ref=Ref(uri=uri, revision=revision),
        conversation_id="conv-1",
        code_version="1",
        settings_digest="d",
        recorded_at=NOW,
        **fields,
    )


def reply(
    name: str = "reply-1", text: str = "Yes.", *, revision: str = "r1", **fields: Any
) -> ReplyCreated:
    given: dict[str, Any] = {
        "conversation_id": "conv-1",
        "visibility": Visibility.PUBLIC,
        "part": 1,
        "parts": 1,
        "decision_id": "d1",
    } | fields
    source = Ref(uri=given.pop("uri", URI), revision=revision)
    return ReplyCreated(
        reply_id=name,
        text=text,
        in_reply_to=source,
        root=source,
        author=BOT,
        built_on=(source,),
        hops=1,
        created_at=NOW,
        **given,
    )


def corrected(name: str = "reply-1", text: str = "No.", decision: str = "d2") -> ReplyCorrected:
    return ReplyCorrected(
        reply_id=name,
        decision_id=decision,
        reason="edited",
        revision=decision,
        conversation_id="conv-1",
        text=text,
        built_on=(Ref(uri=URI, revision="r2"),),
    )


def retracted(name: str = "reply-1", decision: str = "d3") -> ReplyRetracted:
    return ReplyRetracted(
        reply_id=name, decision_id=decision, reason="deleted", conversation_id="conv-1"
    )


def seen(log: Log, decision_id: str, *, redriven: bool = False, **event: Any) -> Seen:
    given = {"id": "event-1"} | event
    data = mention(revision=given.pop("revision", "r1"))
    return said.seen(log.view(VIEW), envelope(**given), data, decision_id, redriven)


def test_the_same_event_and_the_same_revision_name_the_first_decision() -> None:
    log = Log()
    log.add(decision("d1"))
    assert seen(log, "d1") == Seen()
    assert seen(log, "d2").duplicate_of == "d1"
    assert seen(log, "d2", id="event-2").duplicate_of == "d1"
    assert seen(log, "d2", id="event-2", revision="r2") == Seen(None, "d1", answered=True)


def test_what_only_repeats_is_never_the_first() -> None:
    """After a crash the repeat may be on the log, and what it repeats not."""
    log = Log()
    log.add(decision("d2", Outcome.SKIPPED, reason="duplicate", duplicate_of="d1"))
    assert seen(log, "d1") == Seen()
    log.add(decision("d1"))
    assert seen(log, "d3").duplicate_of == "d1"


def test_an_edit_that_was_skipped_is_an_earlier_revision_without_an_answer() -> None:
    log = Log()
    log.add(decision("d2", Outcome.SKIPPED, reason="edited", event="e2", revision="r2"))
    assert seen(log, "d1") == Seen(None, "d2", answered=False)
    log.add(decision("d0", event="e0", revision="r0"))
    assert seen(log, "d1") == Seen(None, "d0", answered=True)


def test_a_dead_letter_lets_a_redriven_record_try_again_until_one_is_answered() -> None:
    log = Log()
    log.add(decision("d1", Outcome.DEAD_LETTERED, reason="deadline"))
    assert seen(log, "d2").duplicate_of == "d1"
    assert seen(log, "d2", redriven=True).duplicate_of is None
    log.add(decision("d2"))
    assert seen(log, "d3", redriven=True).duplicate_of == "d2"


def skipped_as_deleted(data: Source, name: str, *, gone: bool, **fields: Any) -> DecisionRecorded:
    """The decision on an input where its post may be ``gone``, by the rules themselves."""
    settings = policy.Settings.of(setup().bot, setup().limits)
    facts = Facts(now_ms=NOW_MS, gone=gone)
    verdict, rules = policy.judge(asked(data), settings, facts)
    assert isinstance(verdict, policy.Skip)
    told = {"reason": verdict.reason, "rules": rules} | fields
    return decision(name, Outcome.SKIPPED, uri=source_ref(data).uri, **told)


def gone(uri: str = URI) -> MessageDeleted:
    return MessageDeleted(
        ref=Ref(uri=uri, revision="r1"),
        conversation_id="conv-1",
        deleted_by="author",
        deleted_at=NOW,
    )


def test_deletions_and_reviews_say_nothing_about_a_revision() -> None:
    log = Log()
    topic = names.FEED_DIRECT_MESSAGES
    log.add(skipped_as_deleted(gone(), "d1", gone=False, topic=topic, event="e1"))
    log.add(decision("d2", Outcome.CORRECTED, topic=names.BOT_REVIEWS, event="event-1"))
    assert seen(log, "d3") == Seen()
    log.add(decision("d4", event="e4"))
    assert said.seen(log.view(VIEW), envelope(id="e9"), gone(), "d5", False) == Seen()
    assert said.seen(log.view(VIEW), envelope(id="e1"), gone(), "d5", False) == Seen("d1")


@pytest.mark.parametrize(
    ("data", "topic"),
    [(mention(), names.FEED_MENTIONS), (direct(), names.FEED_DIRECT_MESSAGES)],
)
def test_a_repeat_of_what_was_gone_when_it_came_first_names_that_decision(
    data: Source, topic: str
) -> None:
    log = Log()
    log.add(skipped_as_deleted(data, "d1", gone=True, topic=topic))
    again = said.seen(log.view(VIEW), envelope(id="another"), data, "d2", False)
    assert again == Seen("d1", "d1", answered=False)


def test_a_private_decision_counts_as_well() -> None:
    log = Log()
    log.add(decision("d1", uri="at://m/1"), private=True)
    found = said.seen(log.view(VIEW), envelope(id="other"), direct(), "d2", False)
    assert found.duplicate_of == "d1"


def test_a_reply_reads_as_it_was_last_corrected() -> None:
    log = Log()
    log.add(decision("d1"))
    log.add(reply("reply-1", "Yes.", part=1, parts=2))
    log.add(reply("reply-2", "And no.", part=2, parts=2))
    log.add(decision("d2", Outcome.CORRECTED, revision="r2", topic=names.BOT_REVIEWS))
    log.add(corrected())
    found = said.replies_to_each(log.view(VIEW), [URI]).get(URI)
    assert found is not None
    assert found.source == Ref(uri=URI, revision="r2")
    assert (found.decision_id, found.private, found.conversation_id) == ("d2", False, "conv-1")
    assert [(part.text, part.revision, part.decision_id) for part in found.parts] == [
        ("No.", "d2", "d2"),
        ("And no.", None, "d1"),
    ]
    assert found.parts[0].built_on == (Ref(uri=URI, revision="r2"),)
    assert found.parts[0].source == Ref(uri=URI, revision="r1")
    assert found.parts[0].visibility is Visibility.PUBLIC
    assert found.standing == found.parts


def test_what_was_taken_back_leaves_no_text() -> None:
    log = Log()
    log.add(reply(text="canary"), private=False)
    log.add(corrected(text="canary too"))
    log.add(retracted())
    db = log.view(VIEW)
    assert "canary" not in repr(rows(db))
    found = said.replies_to_each(db, [URI]).get(URI)
    assert found is not None
    assert (found.standing, found.parts[0].retracted, found.parts[0].text) == ((), True, "")


def test_a_direct_reply_is_private() -> None:
    log = Log()
    log.add(reply(visibility=Visibility.DIRECT), private=True)
    found = said.replies_to_each(log.view(VIEW), [URI]).get(URI)
    assert found is not None
    assert found.private
    assert said.replies_to_each(log.view(VIEW), ["at://other"]).get("at://other") is None


def test_keys_are_not_mixed_up() -> None:
    assert key_of("ab", "c") != key_of("a", "bc")
    assert -(2**63) <= key_of("a") < 2**63


@pytest.mark.parametrize(
    ("members", "code"),
    [({"reply_id": None}, "schema"), ({"in_reply_to": 3}, "schema"), ({"part": "x"}, "schema")],
)
def test_a_bad_record_of_our_own_is_told(members: dict[str, Any], code: str) -> None:
    log = Log()
    good = log.add(reply())
    db = built(VIEW, [])
    with pytest.raises(BadRecord) as caught:
        VIEW.apply(db, garbled(good, **members))
    assert caught.value.code == code
    for bad, other in (
        (replace(good, value=b"{"), "not-json"),
        (replace(good, value=b"[]"), "schema"),
        (replace(good, value=None), "no-value"),
        (replace(good, headers=()), "header-missing"),
        (replace(good, headers=(("ce_type", b"what"),)), "unknown-type"),
    ):
        with pytest.raises(BadRecord) as caught:
            VIEW.apply(db, bad)
        assert caught.value.code == other
    assert all(not found for found in rows(db).values())


EVENTS = st.tuples(
    st.sampled_from(["decision", "reply", "corrected", "retracted"]),
    st.sampled_from(["1", "2"]),
    st.sampled_from(["r1", "r2"]),
    st.booleans(),
    st.sampled_from(list(Outcome)),
)


def log_of(events: list[tuple[Any, ...]]) -> Log:
    log = Log()
    for kind, name, revision, private, outcome in events:
        match kind:
            case "decision":
                log.add(decision(f"d{name}", outcome, revision=revision), private=private)
            case "reply":
                log.add(reply(f"reply-{name}", revision=revision), private=private)
            case "corrected":
                log.add(corrected(f"reply-{name}", decision=revision), private=private)
            case "retracted":
                log.add(retracted(f"reply-{name}"), private=private)
    return log


@examples(150)
@given(st.lists(EVENTS, max_size=12), st.data())
def test_the_order_of_topics_makes_no_difference(events: list[tuple[Any, ...]], order: Any) -> None:
    records = log_of(events).records
    assert rows(built(VIEW, records)) == rows(built(VIEW, shuffled(records, order)))


@examples(150)
@given(st.lists(EVENTS, max_size=12), st.integers(0, 12))
def test_forgetting_by_age_is_never_having_known(events: list[tuple[Any, ...]], cut: int) -> None:
    records = log_of(events).records
    before = round(NOW.timestamp() * 1000) + 1000 * cut
    db = built(VIEW, records)
    while VIEW.trim(db, before, 2):
        pass
    late = [record for record in records if record.timestamp_ms >= before]
    assert rows(db) == rows(built(VIEW, late))
    assert (VIEW.oldest_ms(db) or before) >= before
