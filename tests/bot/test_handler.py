"""``bot.handler``: records in, records to publish out, whatever the bytes."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from bot.handler import BotHandler, lane_of, share_of, size_of
from bot.known import KnowledgeOfViews
from bot.memory import NoKnowledge
from bot.publishing import source_of
from bot.values import Source
from consumers.handler import GiveUp, Handler, RetryLater
from model.echo import EchoEngine
from schemas import codec, names
from schemas.audit import DecisionRecorded
from schemas.dead_letters import parse_dead_letter, redriven
from schemas.envelope import Event
from schemas.feed import Account, MessageDeleted, PostCreated, Ref
from schemas.ids import decision_id
from schemas.record import Output, Record
from schemas.replies import ReplyCreated
from schemas.topics import TOPICS
from tests.bot.make import ALICE, BOB, BOT, NOW, direct, mention, post, record, run_of, setup
from tests.bot.views.logs import Log
from tests.examples import examples

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
async def engine() -> AsyncIterator[EchoEngine]:
    engine = EchoEngine()
    await engine.start()
    yield engine
    await engine.stop()


@pytest.fixture
def handler(engine: EchoEngine) -> BotHandler:
    return BotHandler(setup(), engine, now=lambda: NOW, counter=lambda: 0.0)


async def run(handler: Handler, one: Record) -> list[Output]:
    """What the runtime would publish for a record."""
    try:
        return list(await handler.handle(handler.open(one), attempt=1))
    except GiveUp as error:
        return list(handler.give_up(one, error, attempts=1))


def read(output: Output, partition: int = 2) -> Event[Any]:
    """An output as a consumer reads it back."""
    return codec.decode(
        Record(
            topic=output.topic,
            partition=partition,
            offset=0,
            timestamp_ms=0,
            key=output.key,
            value=output.value,
            headers=output.headers,
        )
    )


def decision_of(outputs: Sequence[Output]) -> DecisionRecorded:
    (audit,) = [o for o in outputs if o.topic.startswith("bot.audit")]
    data = read(audit).data
    assert isinstance(data, DecisionRecorded)
    return data


async def test_a_mention_gives_a_reply_and_a_decision(handler: BotHandler) -> None:
    outputs = await run(handler, record(mention(), ce_traceparent=TRACE))
    assert [o.topic for o in outputs] == [names.BOT_REPLIES, names.BOT_AUDIT]
    assert [o.key for o in outputs] == [b"conv-1", b"conv-1"]
    reply, decision = read(outputs[0]), read(outputs[1])
    assert isinstance(reply.data, ReplyCreated)
    assert reply.envelope.id == reply.data.reply_id
    assert decision.envelope.id == decision.data.decision_id == reply.data.decision_id
    for event in (reply, decision):
        assert event.envelope.source == "twite://bot-1"
        assert event.envelope.time == NOW
        assert event.envelope.causationid == "event-1"
        assert event.envelope.correlationid == "event-1"
        assert event.envelope.traceparent == TRACE


async def test_a_correlation_is_passed_on(handler: BotHandler) -> None:
    outputs = await run(handler, record(mention(), ce_correlationid="flow-9"))
    assert {read(o).envelope.correlationid for o in outputs} == {"flow-9"}


async def test_a_private_message_stays_private(handler: BotHandler) -> None:
    outputs = await run(handler, record(direct("secret-canary")))
    assert [o.topic for o in outputs] == [names.BOT_DIRECT_REPLIES, names.BOT_AUDIT_PRIVATE]
    assert read(outputs[0]).envelope.type == names.DIRECT_REPLY_CREATED


@pytest.mark.parametrize(
    ("data", "topics"),
    [
        (mention(visibility="unlisted"), ["bot.replies", "bot.audit"]),
        (mention(visibility="followers"), ["bot.direct-replies", "bot.audit-private"]),
        (mention(visibility="direct"), ["bot.direct-replies", "bot.audit-private"]),
        (mention(visibility="circle"), ["bot.audit-private"]),
        (
            mention(ancestors=run_of(post("at://p/0", visibility="direct"))),
            ["bot.direct-replies", "bot.audit-private"],
        ),
        (
            mention(ancestors=run_of(post("at://p/0", visibility="circle"))),
            ["bot.replies", "bot.audit-private"],
        ),
        (
            mention(quoted=post("at://q/0", visibility="followers")),
            ["bot.direct-replies", "bot.audit-private"],
        ),
        (mention(author=BOT), ["bot.audit"]),
        (direct(author=BOT), ["bot.audit-private"]),
    ],
)
async def test_outputs_go_where_their_readers_may_see_them(
    handler: BotHandler, data: Source, topics: list[str]
) -> None:
    assert [o.topic for o in await run(handler, record(data))] == topics


async def test_the_same_record_again_gives_the_same_bytes(
    engine: EchoEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers, or two attempts: only times, and the salt of the texts, may differ."""
    monkeypatch.setattr("bot.audit.secrets.token_hex", lambda size: "0" * 2 * size)
    one = record(mention(ancestors=run_of(post("at://p/0", author=BOB))))
    same = [
        await run(BotHandler(setup(), engine, now=lambda: NOW, counter=lambda: 0.0), one)
        for _ in range(2)
    ]
    assert same[0] == same[1]
    later = BotHandler(setup(), engine, now=lambda: NOW + timedelta(hours=1))
    job = later.open(one)
    await later.handle(job, attempt=1)
    outputs = await later.handle(job, attempt=2)
    assert [_without_times(o) for o in outputs] == [_without_times(o) for o in same[0]]


def _without_times(output: Output) -> tuple[object, ...]:
    data = json.loads(output.value or b"")
    for name in ("created_at", "recorded_at", "timings_ms"):
        data.pop(name, None)
    headers = [header for header in output.headers if header[0] != "ce_time"]
    return output.topic, output.key, data, headers


async def test_repeats_are_answered_once(handler: BotHandler) -> None:
    first = decision_of(await run(handler, record(mention(), offset=7)))
    for offset, event_id in ((8, "event-1"), (9, "event-2")):
        again = await run(handler, record(mention(), offset=offset, event_id=event_id))
        assert [o.topic for o in again] == [names.BOT_AUDIT]
        assert decision_of(again).reason == "duplicate"
        assert decision_of(again).duplicate_of == first.decision_id
    edited = await run(handler, record(mention(revision="r2"), offset=10, event_id="event-3"))
    assert decision_of(edited).reason == "edited"


async def test_repeats_are_told_in_the_order_of_offsets(handler: BotHandler) -> None:
    jobs = [handler.open(record(mention(), offset=offset)) for offset in (7, 8)]
    second, first = [decision_of(await handler.handle(job, attempt=1)) for job in reversed(jobs)]
    assert (first.outcome, second.outcome) == ("replied", "skipped")


async def test_opening_a_record_twice_makes_no_repeat_of_it(handler: BotHandler) -> None:
    handler.open(record(mention()))
    assert decision_of(await run(handler, record(mention()))).outcome == "replied"


async def test_a_deletion_is_skipped(handler: BotHandler) -> None:
    gone = MessageDeleted(
        ref=Ref(uri="at://m/1"), conversation_id="conv-1", deleted_by="author", deleted_at=NOW
    )
    decision = decision_of(await run(handler, record(gone)))
    assert (decision.reason, decision.conversation_id) == ("deleted", "conv-1")
    assert decision.source_ref == Ref(uri="at://m/1")


def test_lanes() -> None:
    assert lane_of(mention()) == ("mention", "conv-1", ALICE.id)
    assert lane_of(mention(author=BOB)) != lane_of(mention())
    assert lane_of(direct()) == ("dm", "conv-1")
    assert lane_of(direct(author=BOB)) == lane_of(direct())


def test_shares_are_of_authors_and_threads(handler: BotHandler) -> None:
    share = handler.open(record(mention())).share
    assert share.flows == ((("author", ALICE.id), 1.0), (("thread", "conv-1"), 0.25))
    assert share_of(direct()).flows == ((("author", ALICE.id), 1.0),)


def test_the_source_is_a_uri_of_bounded_length() -> None:
    assert source_of("bot-1") == "twite://bot-1"
    assert source_of("did:plc:ab/c é") == "twite://did%3Aplc%3Aab%2Fc%20%C3%A9"
    assert len(source_of("é" * 256)) <= 512


def broken(**changes: Any) -> Record:
    return replace(record(mention()), **changes)


@pytest.mark.parametrize(
    ("one", "code", "private"),
    [
        (broken(value=b"{"), "not-json", True),
        (broken(value=None), "no-value", True),
        (broken(key=b"other"), "key-mismatch", False),
        (broken(key=None), "key-mismatch", False),
        (broken(key=b"\xff\x00"), "key-mismatch", False),
        (broken(headers=()), "header-missing", False),
        (broken(headers=(*record(mention()).headers, ("ce_id", b"x"))), "header-doubled", False),
        (broken(topic="feed.direct-messages"), "wrong-topic", True),
        (replace(record(direct()), topic="feed.mentions"), "wrong-topic", True),
        (broken(value=b"[" * 10_000), "too-deep", True),
        (
            broken(value=b"{", headers=(("\udcff", None), *record(mention()).headers)),
            "header-encoding",
            True,
        ),
    ],
)
async def test_a_bad_record_becomes_a_dead_letter_as_it_was(
    handler: BotHandler, one: Record, code: str, private: bool
) -> None:
    letter, audit = await run(handler, one)
    read_back = parse_dead_letter(letter)
    assert read_back.error_code == code
    assert (read_back.key, read_back.value, read_back.headers) == (
        one.key,
        one.value,
        one.headers,
    )
    assert (read_back.topic, read_back.partition, read_back.offset) == (one.topic, 2, 7)
    suffix = "-private" if private else ""
    assert letter.topic == f"bot.dead-letters{suffix}"
    assert audit.topic == f"bot.audit{suffix}"
    assert audit.key == one.key
    decision = decision_of([audit])
    assert (decision.outcome, decision.reason) == ("dead_lettered", code)
    assert decision.decision_id == decision_id(BOT.id, "cluster-1", one.topic, 2, 7)
    assert decision.conversation_id is None
    assert decision.input.id == (None if code.startswith("header") else "event-1")


@examples(60, HealthCheck.function_scoped_fixture)
@given(
    topic=st.sampled_from([names.FEED_MENTIONS, names.FEED_DIRECT_MESSAGES]),
    key=st.none() | st.binary(max_size=8),
    value=st.none() | st.binary(max_size=40),
    headers=st.lists(
        st.tuples(st.sampled_from(["ce_id", "ce_type", "x"]), st.binary(max_size=9)), max_size=5
    ),
)
def test_garbage_always_ends_as_one_dead_letter(
    handler: BotHandler,
    topic: str,
    key: bytes | None,
    value: bytes | None,
    headers: list[tuple[str, bytes]],
) -> None:
    one = Record(
        topic=topic,
        partition=0,
        offset=1,
        timestamp_ms=0,
        key=key,
        value=value,
        headers=tuple(headers),
    )
    letter, audit = asyncio.run(run(handler, one))
    assert parse_dead_letter(letter).headers == one.headers
    assert (letter.key, audit.key) == (key, key)
    assert json.loads(audit.value or b"")["outcome"] == "dead_lettered"


async def test_an_event_the_bot_does_not_read_is_a_dead_letter(handler: BotHandler) -> None:
    stray = post()
    one = replace(
        record(mention()),
        topic=names.FEED_POSTS,
        value=json.dumps({"post": stray.model_dump(mode="json")}).encode(),
        headers=tuple(
            (name, names.POST_CREATED.encode() if name == "ce_type" else value)
            for name, value in record(mention()).headers
        ),
    )
    letter, _ = await run(handler, one)
    assert parse_dead_letter(letter).error_code == "wrong-topic"


async def test_a_redriven_record_is_answered_once_under_a_decision_of_its_own(
    handler: BotHandler,
) -> None:
    first = record(mention(), offset=7)
    handler.open(first)
    error = GiveUp("deadline", "too slow", private=False)
    letter, audit = handler.give_up(first, error, attempts=5)
    copy = decision_of(await run(handler, record(mention(), offset=8)))
    assert (copy.reason, copy.duplicate_of) == ("duplicate", decision_of([audit]).decision_id)

    again = redriven(parse_dead_letter(letter))
    assert (again.key, again.value, again.headers[:-1]) == (first.key, first.value, first.headers)
    second = replace(first, offset=9, headers=again.headers)
    outputs = await run(handler, second)
    reply, decision = read(outputs[0]).data, decision_of(outputs)
    assert isinstance(reply, ReplyCreated)
    assert decision.outcome == "replied"
    assert decision.input.redrive_of == "feed.mentions/2/7"
    assert decision.decision_id == decision_id(BOT.id, "cluster-1", first.topic, 2, 9)
    third = decision_of(await run(handler, replace(second, offset=10)))
    assert (third.reason, third.duplicate_of) == ("duplicate", decision.decision_id)


async def test_a_redriven_record_of_something_answered_is_a_repeat(handler: BotHandler) -> None:
    answered = decision_of(await run(handler, record(mention(), offset=7)))
    again = record(mention(), offset=8, twite_redrive_of="feed.mentions/2/7")
    decision = decision_of(await run(handler, again))
    assert (decision.reason, decision.duplicate_of) == ("duplicate", answered.decision_id)
    assert decision.input.redrive_of == "feed.mentions/2/7"


async def test_a_redriven_record_that_fails_again_says_so(handler: BotHandler) -> None:
    bad = replace(record(mention(), twite_redrive_of="feed.mentions/2/3"), value=b"{")
    decision = decision_of(await run(handler, bad))
    assert (decision.outcome, decision.input.redrive_of) == ("dead_lettered", "feed.mentions/2/3")


async def test_giving_up_on_a_good_record_names_its_conversation(handler: BotHandler) -> None:
    for data, suffix in ((mention(), ""), (direct(), "-private")):
        error = GiveUp("retries-exhausted", "5 attempts failed")
        letter, audit = handler.give_up(record(data), error, attempts=5)
        assert parse_dead_letter(letter).attempts == 5
        assert letter.topic == f"bot.dead-letters{suffix}"
        assert audit.topic == f"bot.audit{suffix}"
        decision = decision_of([audit])
        assert decision.conversation_id == "conv-1"
        assert decision.source_ref is not None
        assert read(audit).envelope.causationid == "event-1"


async def test_what_a_doubled_member_hides_stays_private(handler: BotHandler) -> None:
    """The last member counts for the bot, but the bytes of the first would travel along."""
    value = record(mention()).value or b""
    hidden = b'{"post":{"text":"secret"},' + value[1:]
    one = broken(value=hidden)
    letter, _ = handler.give_up(one, GiveUp("retries-exhausted", "x", private=False), attempts=5)
    assert letter.topic == names.BOT_DEAD_LETTERS_PRIVATE


async def test_an_engine_that_is_away_means_later() -> None:
    handler = BotHandler(setup(), EchoEngine())  # never started
    with pytest.raises(RetryLater):
        await handler.handle(handler.open(record(mention())), attempt=1)


async def test_a_refused_prompt_is_given_up() -> None:
    engine = EchoEngine(context_length=20)
    await engine.start()
    outputs = await run(BotHandler(setup(), engine), record(mention()))
    assert parse_dead_letter(outputs[0]).error_code == "handler-error"
    assert decision_of(outputs).outcome == "dead_lettered"
    await engine.stop()


async def test_the_largest_mention_makes_outputs_that_fit(handler: BotHandler) -> None:
    long = "i" * 500
    author = Account(id=f"a{long}", handle="h" * 2000, display_name="d" * 2000)
    ancestors = run_of(
        *(
            post(f"at://{i}/{long}", "x" * 1000, author=author, root=Ref(uri=long, revision=long))
            for i in range(100)
        )
    )
    words = " ".join(f"🙂{number}" for number in range(5000))
    data = mention(f"@twite {words}", ancestors=ancestors, langs=("en",) * 1000)
    one = record(data)
    assert 800_000 < len(one.value or b"") <= 1_048_576
    outputs = await run(handler, one)
    assert decision_of(outputs).outcome == "replied"
    for output in outputs:
        assert size_of(output) < TOPICS[output.topic].max_message_bytes / 2


async def test_an_output_that_would_not_fit_is_given_up(
    handler: BotHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {name: replace(topic, max_message_bytes=500) for name, topic in TOPICS.items()}
    monkeypatch.setattr("bot.handler.TOPICS", small)
    outputs = await run(handler, record(mention()))
    assert parse_dead_letter(outputs[0]).error_code == "output-too-large"


async def test_logs_hold_places_and_digests_only(handler: BotHandler) -> None:
    with capture_logs() as lines:
        await run(handler, record(mention("@twite secret-canary")))
        await run(handler, broken(value=b"secret-canary"))
    assert [line["log_level"] for line in lines] == ["debug", "warning"]
    assert lines[1]["reason"] == "not-json"
    assert "secret-canary" not in str(lines)


# With what is known: repeats of days ago, and views that can't be read.


def over(log: Log, engine: EchoEngine) -> BotHandler:
    return BotHandler(setup(), engine, log.knowledge(), now=lambda: NOW, counter=lambda: 0.0)


async def test_a_repeat_is_known_after_a_restart(engine: EchoEngine) -> None:
    log = Log()
    first = decision_of(await run(over(log, engine), record(mention(), offset=7)))
    log.add(first)
    for offset, event_id in ((8, "event-1"), (9, "event-2")):
        again = await run(over(log, engine), record(mention(), offset=offset, event_id=event_id))
        assert [o.topic for o in again] == [names.BOT_AUDIT]
        assert decision_of(again).duplicate_of == first.decision_id
    edited_ = await run(over(log, engine), record(mention(revision="r2"), offset=10, event_id="e3"))
    assert decision_of(edited_).reason == "edited"
    # The same record once more, as after a crash before its offset was committed: no repeat.
    same = await run(over(log, engine), record(mention(), offset=7))
    assert decision_of(same).outcome == "replied"


async def test_a_view_that_is_away_means_later_and_never_a_dead_letter(
    engine: EchoEngine,
) -> None:
    away = KnowledgeOfViews(dict, BOT.id, wait_s=0.0)
    handler = BotHandler(setup(), engine, away)
    job = handler.open(record(mention()))
    with pytest.raises(RetryLater):
        await handler.handle(job, attempt=1)


async def test_a_decision_that_saw_something_narrower_is_private(engine: EchoEngine) -> None:
    """Also where it was left out: who wrote what to whom is not for everybody."""
    log = Log()
    log.add(PostCreated(post=post("at://p/0", "psst", author=BOB, visibility="followers")))
    asking = mention(parent=Ref(uri="at://p/0"))
    outputs = await run(over(log, engine), record(asking))
    assert [o.topic for o in outputs] == [names.BOT_REPLIES, names.BOT_AUDIT_PRIVATE]
    assert b"psst" not in b"".join(o.value or b"" for o in outputs)


async def test_handlers_of_a_partition_share_what_they_know(engine: EchoEngine) -> None:
    knowledge = NoKnowledge()
    one, other = (BotHandler(setup(), engine, knowledge) for _ in range(2))
    first = decision_of(await run(one, record(mention(), offset=7)))
    again = decision_of(await run(other, record(mention(), offset=8)))
    assert again.duplicate_of == first.decision_id
