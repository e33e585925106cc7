"""Reviews as records: one decision each, the words on the topic of the reply, never twice."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from bot.audit import Trace, decision_record
from bot.changes import Changes
from bot.context import Kind, Why, thread_post
from bot.conversation import Decision
from bot.knowledge import KnowledgeUnavailable, ReplySet
from bot.memory import NoKnowledge
from bot.publishing import Place, Publishing
from bot.quotas import Correction
from bot.review_handler import ReviewsHandler
from bot.values import Asked, post_of
from consumers.handler import GiveUp, NotYet, RetryLater, StopPartition
from model.engine import EngineUnavailable, RequestRefused
from schemas import codec, names
from schemas.audit import DecisionRecorded
from schemas.codes import Outcome, SkipReason
from schemas.control import Moderation
from schemas.feed import MentionCreated, Visibility
from schemas.record import Output, Record
from schemas.replies import ReplyCorrected, ReplyCreated, ReplyRetracted
from schemas.reviews import PostChanged, ReferenceMade, ReviewAsked
from tests.bot.make import BOT, NOW, envelope, mention, post, setup
from tests.bot.test_reviews import SOURCE, part, standing
from tests.bot.views.logs import Log

QUOTE = post("at://p/quoted", "secret", revision="q2", version=2)
PUBLISHING = Publishing(BOT.id, lambda: NOW)


class Known(NoKnowledge):
    """Knows one reply and its question. ``caught_up``: whether the views are."""

    def __init__(self, replies: ReplySet | None = None, *, question: bool = True) -> None:
        super().__init__()
        self.shown = replies
        self.caught_up = True
        self.obeyed: str | None = None
        self._question = mention(quoted=QUOTE) if question else None

    async def reached(self, timestamp_ms: int) -> bool:
        return self.caught_up

    def reviewed(self, source: str, event_id: str, decision_id: str) -> str | None:
        return self.obeyed

    def replies_to(self, source_uri: str) -> ReplySet | None:
        return self.shown

    def question(self, uri: str, conversation_id: str | None = None) -> MentionCreated | None:
        return self._question


class Engine:
    """Stands for the whole way of an answer: says ``text``, or raises."""

    def __init__(self, text: str = "Better.", error: Exception | None = None) -> None:
        self.text = text
        self.error = error
        self.visibility = "public"
        self.asked: list[Asked] = []
        self.counted: list[Correction | None] = []

    async def __call__(self, asked: Asked, correction: Correction | None = None) -> Decision:
        self.asked.append(asked)
        self.counted.append(correction)
        if self.error is not None:
            raise self.error
        source = post_of(asked.data)  # type: ignore[arg-type]
        record = decision_record(Trace(asked=asked), setup(), NOW, Outcome.REPLIED)
        seen = QUOTE.model_copy(update={"visibility": self.visibility})
        context = (
            thread_post(seen, Kind.QUOTED, Why.QUOTED, BOT.id),
            thread_post(source, Kind.ASKING, Why.ASKING, BOT.id),  # type: ignore[arg-type]
        )
        record = record.model_copy(update={"context": tuple(one.item() for one in context)})
        reply = ReplyCreated(
            reply_id="today",
            conversation_id="conv-1",
            in_reply_to=source.ref,
            root=source.ref,
            author=BOT,
            text=self.text,
            visibility=Visibility(self.visibility),
            part=1,
            parts=1,
            built_on=tuple(one.ref for one in context),
            decision_id=record.decision_id,
            hops=1,
            created_at=NOW,
        )
        return Decision((reply,), record, context)


def handler(known: Known, engine: Engine | None = None) -> ReviewsHandler:
    changes = Changes(setup().bot, PUBLISHING, 4)
    return ReviewsHandler(setup(), PUBLISHING, changes, known, engine or Engine())


COMMAND = Moderation(
    id="command-1", command="retract", subject="reply:x", moderator="mod", reason="rude"
)


def commanded(text: str | None = None) -> Record:
    """A moderator's command about the reply."""
    change = PostChanged(uri=SOURCE.uri, revision=SOURCE.revision, at=NOW)
    return record_of(change, moderation=COMMAND, text=text)


def record_of(
    change: PostChanged, *, offset: int = 7, private: bool = False, **fields: Any
) -> Record:
    data = ReviewAsked(
        **fields,
        conversation_id="conv-1",
        source=SOURCE,
        decision_id="decision-1",
        private=private,
        change=change,
    )
    place = Place(names.BOT_REVIEWS, "conv-1")
    made = PUBLISHING.output(place, names.REVIEW_ASKED, f"r{offset}", data, envelope())
    return Record(
        topic=names.BOT_REVIEWS,
        partition=2,
        offset=offset,
        timestamp_ms=0,
        key=made.key,
        value=made.value,
        headers=made.headers,
    )


def deleted(uri: str = SOURCE.uri) -> PostChanged:
    return PostChanged(uri=uri, deleted=True, at=NOW)


def edited(**fields: Any) -> PostChanged:
    new = QUOTE.model_copy(update=fields)
    return PostChanged(uri=new.uri, revision=new.revision, version=2, post=new, at=NOW)


async def run(one: ReviewsHandler, record: Record) -> Sequence[Output]:
    return await one.handle(one.open(record), attempt=1)


def read(outputs: Sequence[Output]) -> list[Any]:
    return [
        codec.decode(
            Record(
                topic=one.topic,
                partition=one.partition or 0,
                offset=0,
                timestamp_ms=0,
                key=one.key,
                value=one.value,
                headers=one.headers,
            )
        ).data
        for one in outputs
    ]


async def test_a_retraction_and_its_decision_go_out_together() -> None:
    outputs = await run(handler(Known(standing())), record_of(deleted()))
    retraction, decision = read(outputs)
    assert [one.topic for one in outputs] == [names.BOT_REPLIES, names.BOT_AUDIT]
    assert isinstance(retraction, ReplyRetracted)
    assert isinstance(decision, DecisionRecorded)
    assert (decision.outcome, decision.reason) == (Outcome.RETRACTED, SkipReason.DELETED)
    assert decision.reply_ids == (retraction.reply_id,)
    assert decision.decision_id == retraction.decision_id
    place = decision.input.topic, decision.input.partition, decision.input.offset
    assert place == (names.BOT_REVIEWS, 2, 7)


async def test_a_correction_tells_what_the_reply_is_built_on_now() -> None:
    outputs = await run(handler(Known(standing())), record_of(edited()))
    correction, decision, reference = read(outputs)
    assert isinstance(correction, ReplyCorrected)
    assert correction.text == "Better."
    assert decision.outcome is Outcome.CORRECTED
    assert isinstance(reference, ReferenceMade)
    assert (reference.uri, reference.revision, reference.version) == (QUOTE.uri, "q2", 2)
    assert reference.source == SOURCE
    assert reference.partition == 2


async def test_two_changes_at_once_take_the_reply_back_once() -> None:
    """The views show neither decision yet."""
    one = handler(Known(standing()))
    first = read(await run(one, record_of(deleted())))
    second = read(await run(one, record_of(deleted("at://p/quoted"), offset=8)))
    assert [type(data) for data in first] == [ReplyRetracted, DecisionRecorded]
    (decision,) = second
    assert (decision.outcome, decision.reason) == (Outcome.SKIPPED, SkipReason.TAKEN_BACK)


async def test_what_was_decided_here_counts_until_the_views_show_it() -> None:
    known, engine = Known(standing()), Engine("Better.")
    one = handler(known, engine)
    await run(one, record_of(edited()))
    engine.text = "Part 1."  # what the views still show
    again = read(await run(one, record_of(edited(revision="q3"), offset=8)))
    assert isinstance(again[0], ReplyCorrected)
    known.shown = standing(part(text="Part 1.", revision=again[0].revision))
    kept = read(await run(one, record_of(edited(revision="q4"), offset=9)))
    assert [data.reason for data in kept] == [SkipReason.KEPT]


async def test_the_question_is_asked_at_the_place_of_the_review() -> None:
    engine = Engine()
    await run(handler(Known(standing()), engine), record_of(edited(text="new")))
    (asked,) = engine.asked
    assert (asked.topic, asked.partition, asked.offset) == (names.BOT_REVIEWS, 2, 7)
    assert isinstance(asked.data, MentionCreated)
    assert asked.data.quoted is not None
    assert asked.data.quoted.text == "new"


async def test_a_private_reply_is_changed_in_private() -> None:
    replies = standing(part(visibility=Visibility.DIRECT), private=True)
    outputs = await run(handler(Known(replies)), record_of(deleted(), private=True))
    assert [one.topic for one in outputs] == [names.BOT_DIRECT_REPLIES, names.BOT_AUDIT_PRIVATE]
    assert dict(outputs[0].headers)["ce_type"] == names.DIRECT_REPLY_RETRACTED.encode()


async def test_words_that_became_narrower_leave_the_public_topics() -> None:
    engine = Engine("the secret")
    engine.visibility = "direct"
    outputs = await run(handler(Known(standing()), engine), record_of(edited(visibility="direct")))
    retraction, decision = read(outputs)
    assert isinstance(retraction, ReplyRetracted)
    assert decision.reason == SkipReason.VISIBILITY
    assert [one.topic for one in outputs] == [names.BOT_REPLIES, names.BOT_AUDIT_PRIVATE]
    assert not any(b"secret" in (o.value or b"") for o in outputs if o.topic == names.BOT_REPLIES)


async def test_a_prompt_that_the_engine_refuses_today_takes_the_reply_back() -> None:
    engine = Engine(error=RequestRefused("too-long", "x"))
    outputs = await run(handler(Known(standing()), engine), record_of(edited()))
    assert read(outputs)[1].reason == SkipReason.NO_ANSWER


@pytest.mark.parametrize("error", [EngineUnavailable("x"), KnowledgeUnavailable("x")])
async def test_trouble_that_may_pass_is_tried_again(error: Exception) -> None:
    with pytest.raises(RetryLater):
        await run(handler(Known(standing()), Engine(error=error)), record_of(edited()))


async def test_views_that_stay_behind_stop_the_partition() -> None:
    known = Known(standing())
    known.caught_up = False
    one = handler(known)
    job = one.open(record_of(edited()))
    with pytest.raises(RetryLater):
        await one.handle(job, attempt=4)
    with pytest.raises(StopPartition):
        await one.handle(job, attempt=5)


async def test_a_deleted_source_waits_for_no_view_that_knows_the_whole_reply() -> None:
    known = Known(standing(part(1, 2)))
    known.caught_up = False
    one = handler(known)
    with pytest.raises(RetryLater):  # there is a second part
        await run(one, record_of(deleted()))
    known.shown = standing(part(1, 2), part(2, 2))
    outputs = await run(one, record_of(deleted()))
    assert [type(data) for data in read(outputs)[:2]] == [ReplyRetracted, ReplyRetracted]


async def test_without_its_question_a_deleted_post_still_takes_the_reply_back() -> None:
    outputs = await run(handler(Known(standing(), question=False)), record_of(deleted(QUOTE.uri)))
    assert isinstance(read(outputs)[0], ReplyRetracted)


@pytest.mark.parametrize("spoil", [lambda r: replace(r, value=b"{"), lambda r: r])
def test_a_review_that_is_given_up_has_its_private_dead_letter(
    spoil: Callable[[Record], Record],
) -> None:
    record = spoil(record_of(deleted()))
    error = GiveUp("retries-exhausted", "x")
    outputs = handler(Known()).give_up(record, error, attempts=5)
    assert [one.topic for one in outputs] == [
        names.BOT_DEAD_LETTERS_PRIVATE,
        names.BOT_AUDIT_PRIVATE,
    ]
    (decision,) = read(outputs[1:])
    assert (decision.outcome, decision.reason) == (Outcome.DEAD_LETTERED, "retries-exhausted")


def test_what_is_no_review_is_given_up() -> None:
    record = replace(record_of(deleted()), value=b"{")
    with pytest.raises(GiveUp, match="not-json"):
        handler(Known()).open(record)


def test_deletions_wait_for_no_edits_and_each_change_has_a_flow_of_its_own() -> None:
    one = handler(Known())
    first, second, third = (
        one.open(record_of(change, offset=offset))
        for offset, change in enumerate((edited(), edited(revision="q3"), deleted()))
    )
    assert first.lane == second.lane != third.lane
    assert first.share.flows == second.share.flows != third.share.flows
    assert third.share.priority > first.share.priority


@pytest.mark.parametrize("visibility", ["followers", "moon"])
def test_an_edit_that_fewer_people_may_see_waits_for_no_limit_of_edits(visibility: str) -> None:
    one = handler(Known())
    plain: Any = one.open(record_of(edited(), offset=0))
    narrow: Any = one.open(record_of(edited(revision="q3", visibility=visibility), offset=1))
    assert (plain.lane[0], narrow.lane[0]) == ("edits", "deletions")
    assert not narrow.quick, "it asks the model"


async def test_of_many_edits_that_wait_only_the_last_asks_the_model() -> None:
    engine = Engine()
    one = handler(Known(standing()), engine)
    edits = [edited(revision=f"q{n}", version=n, text=f"words {n}") for n in range(2, 102)]
    jobs = [one.open(record_of(change, offset=n)) for n, change in enumerate(edits)]
    outputs = [read(await one.handle(job, attempt=1)) for job in jobs]
    reasons = [next(d for d in each if isinstance(d, DecisionRecorded)).reason for each in outputs]
    assert reasons == [SkipReason.OVERTAKEN] * 99 + [SkipReason.EDITED]
    (asked,) = engine.asked
    assert isinstance(asked.data, MentionCreated)
    assert asked.data.quoted is not None
    assert asked.data.quoted.text == "words 101"


async def test_the_deletion_of_the_source_overtakes_whatever_waits_for_the_reply() -> None:
    engine = Engine()
    one = handler(Known(standing()), engine)
    edit = one.open(record_of(edited()))
    gone = one.open(record_of(deleted(), offset=8))
    (skipped,) = read(await one.handle(edit, attempt=1))
    assert (skipped.outcome, skipped.reason) == (Outcome.SKIPPED, SkipReason.OVERTAKEN)
    assert isinstance(read(await one.handle(gone, attempt=1))[0], ReplyRetracted)
    assert not engine.asked


async def test_a_deletion_that_overtakes_while_the_model_is_asked_leaves_nothing_to_correct() -> (
    None
):
    class Meanwhile(Engine):
        async def __call__(self, asked: Asked, correction: Correction | None = None) -> Decision:
            decision = await super().__call__(asked, correction)
            self.retracted = read(await run(one, record_of(deleted(), offset=8)))
            return decision

    one = handler(Known(standing()), engine := Meanwhile())
    outputs = read(await run(one, record_of(edited())))
    assert isinstance(engine.retracted[0], ReplyRetracted)
    assert [type(data) for data in outputs] == [DecisionRecorded]
    assert outputs[0].reason == SkipReason.TAKEN_BACK


async def test_a_reply_that_never_stays_the_same_is_looked_at_later() -> None:
    class Restless(Engine):
        async def __call__(self, asked: Asked, correction: Correction | None = None) -> Decision:
            known.shown = standing(part(revision=f"r{len(self.asked)}"))
            return await super().__call__(asked, correction)

    known = Known(standing())
    with pytest.raises(RetryLater):
        await run(handler(known, Restless()), record_of(edited()))


async def test_a_review_that_is_given_up_overtakes_nothing_any_more() -> None:
    one = handler(Known(standing()))
    first, last = record_of(edited(revision="q3", version=3)), record_of(deleted(), offset=8)
    waiting = one.open(first)
    one.open(last)
    one.give_up(last, GiveUp("retries-exhausted", "x"), attempts=5)
    assert isinstance(read(await one.handle(waiting, attempt=1))[0], ReplyCorrected)


async def test_corrections_count_for_whoever_edits_and_nothing_that_must_go_does() -> None:
    engine = Engine()
    one = handler(Known(standing()), engine)
    changes = (edited(), edited(visibility="direct", revision="q3"), deleted(QUOTE.uri))
    for offset, change in enumerate(changes):
        await one.handle(one.open(record_of(change, offset=offset)), attempt=1)
    first, *others = engine.counted
    assert first is not None
    assert (first.reply, first.author) == (SOURCE.uri, QUOTE.author.id)
    assert others == [None, None]


async def test_a_correction_whose_time_has_not_come_is_no_failure() -> None:
    engine = Engine(error=NotYet(3.0))
    with pytest.raises(NotYet):
        await run(handler(Known(standing()), engine), record_of(edited()))


async def test_what_waits_for_its_time_stops_waiting_when_it_is_overtaken() -> None:
    async def look() -> float:
        return 7.0

    one = handler(Known(standing()), Engine(error=NotYet(3.0, look)))
    with pytest.raises(NotYet) as caught:
        await run(one, record_of(edited()))
    assert caught.value.look is not None
    assert await caught.value.look() == 7.0
    one.open(record_of(deleted(), offset=8))
    assert await caught.value.look() == 0


async def test_logs_and_records_hold_no_words(capsys: pytest.CaptureFixture[str]) -> None:
    outputs = await run(handler(Known(standing())), record_of(deleted(QUOTE.uri)))
    shown = capsys.readouterr()
    assert "secret" not in shown.out + shown.err
    (decision,) = (data for data in read(outputs) if isinstance(data, DecisionRecorded))
    assert "secret" not in decision.model_dump_json()


async def test_a_question_of_another_conversation_counts_as_none() -> None:
    """The same URI was told in two conversations of the partition."""
    log = Log()
    elsewhere = mention("@twite", conversation_id="elsewhere", quoted=QUOTE)
    log.add(elsewhere)

    class Views(Known):
        def question(self, uri: str, conversation_id: str | None = None) -> Any:
            return log.knowledge().question(uri, conversation_id)

    one = handler(Views(standing()))
    kept, retraction, _ = read(
        [
            *await run(one, record_of(edited())),
            *await run(one, record_of(deleted(QUOTE.uri), offset=8)),
        ]
    )
    assert (kept.outcome, kept.reason) == (Outcome.SKIPPED, SkipReason.UNKNOWN_REPLY)
    assert isinstance(retraction, ReplyRetracted)


async def test_an_edit_that_names_another_conversation_does_not_move_the_reply() -> None:
    known = Known(standing())
    moved = mention(conversation_id="elsewhere", revision="r9", version=9).post
    change = PostChanged(uri=moved.uri, revision="r9", version=9, post=moved, at=NOW)
    engine = Engine()
    outputs = await run(handler(known, engine), record_of(change))
    assert {one.key for one in outputs if one.topic != names.BOT_REFERENCES} == {b"conv-1"}
    assert [post_of(one.data).conversation_id for one in engine.asked] == ["conv-1"]  # type: ignore[arg-type]


async def test_a_moderator_takes_a_reply_back_once_and_no_model_is_asked() -> None:
    engine = Engine()
    one = handler(Known(standing(part(1), part(2))), engine)
    *said, record = read(await run(one, commanded()))
    assert [type(event) for event in said] == [ReplyRetracted, ReplyRetracted]
    assert {event.reason for event in said} == {"moderated"}
    assert (record.outcome, record.reason) == (Outcome.RETRACTED, SkipReason.MODERATED)
    assert (record.moderation, engine.asked) == (COMMAND, [])
    again = read(await run(one, commanded()))
    assert [event.reason for event in again] == [SkipReason.TAKEN_BACK]


async def test_a_moderators_words_are_checked_and_outlast_every_edit() -> None:
    engine = Engine()
    one = handler(Known(standing(part(1), part(2))), engine)
    new, gone, record = read(await run(one, commanded("Sorry! See evil.example.com")))
    assert isinstance(new, ReplyCorrected)
    assert (new.text, new.built_on) == ("Sorry! See evil. example. com", ())
    assert isinstance(gone, ReplyRetracted)
    assert (record.outcome, record.reason) == (Outcome.CORRECTED, SkipReason.MODERATED)
    assert "links-and-handles" in {rule.name for rule in record.rules}
    kept = read(await run(one, record_of(edited())))
    assert [event.reason for event in kept] == [SkipReason.KEPT]
    assert engine.asked == []


async def test_words_of_which_nothing_may_be_said_change_nothing() -> None:
    (record,) = read(await run(handler(Known(standing(part(1)))), commanded(" ")))
    assert (record.outcome, record.reason) == (Outcome.SKIPPED, SkipReason.NO_ANSWER)
    assert record.moderation == COMMAND


async def test_a_command_about_a_reply_that_nobody_knows_is_skipped() -> None:
    (record,) = read(await run(handler(Known(None)), commanded()))
    assert record.reason == SkipReason.UNKNOWN_REPLY


@pytest.mark.parametrize("known", [False, True])
async def test_a_command_that_is_asked_for_twice_is_obeyed_once(known: bool) -> None:
    """Told apart by the id of the review: here just now, or as the views know it."""
    knowledge = Known(standing(part(1)))
    one = handler(knowledge)
    (*_, first) = read(await run(one, commanded("One.")))
    if known:
        knowledge.obeyed = first.decision_id
        one = handler(knowledge)
    again = replace(commanded("One."), offset=8)
    (second,) = read(await run(one, again))
    assert (first.outcome, second.reason) == (Outcome.CORRECTED, SkipReason.DUPLICATE)
    assert second.duplicate_of == first.decision_id


async def test_a_command_is_overtaken_by_nothing() -> None:
    one = handler(Known(standing(part(1))))
    job = one.open(commanded())
    one.open(record_of(deleted(), offset=8))
    (*_, record) = read(await one.handle(job, attempt=1))
    assert record.reason == SkipReason.MODERATED
