"""A decision record holds everything that explains and re-runs it, each part by name."""

from dataclasses import replace
from typing import Any

import pytest

from bot import policy
from bot.explain.case import Decided, decided_of
from bot.explain.complete import missing_of
from bot.explain.find import Subject, find
from bot.handler import BotHandler
from model.echo import EchoEngine
from model.engine import EngineDescription, Sampling
from schemas import names
from schemas.audit import DecisionRecorded, EngineRecord, SamplingRecord
from schemas.codes import Outcome
from schemas.feed import AccountChanged
from schemas.record import Record
from tests.bot.explain.log import Log
from tests.bot.make import BOB, BOT, NOW, NOW_MS, direct, mention, post, record, run_of, setup
from tests.bot.views.logs import Log as Topics

CHECKS = ["characters", "unfinished", "markdown", "links-and-handles", "length", "settled", "empty"]
STAGES = ["views", "policy", "context", "prompt", "model", "checks", "second-look", "reply"]


@pytest.fixture
async def decided() -> Decided:
    """A mention below a thread, answered by a handler over views of which one says no."""
    return await made(record(asking()))


def asking() -> Any:
    above = run_of(
        post("at://p/1", "I said no.", author=BOB.model_copy(update={"id": "acc-shy"})),
        post("at://p/2", "Cats are.", author=BOB),
    )
    return mention("@twite who is right?", ancestors=above, parent=above[-1].ref)


async def made(asked: Record) -> Decided:
    topics = Topics()
    topics.add(AccountChanged(account_id="acc-shy", opted_out=True))
    engine = EchoEngine()
    await engine.start()
    handler = BotHandler(setup(), engine, topics.knowledge(), now=lambda: NOW, counter=lambda: 0.0)
    log = Log()
    await log.answer(replace(asked, timestamp_ms=NOW_MS), handler)
    await engine.stop()
    (audit,) = [
        one
        for (topic, _), kept in log.records.items()
        if topic in (names.BOT_AUDIT, names.BOT_AUDIT_PRIVATE)
        for one in kept
    ]
    found = decided_of(audit)
    assert found is not None
    return found


async def test_an_answered_decision_has_everything(decided: Decided) -> None:
    data = decided.data
    assert data.outcome is Outcome.REPLIED
    assert missing_of(decided) == ()

    # The input, and what caused the record.
    where = data.input
    assert (where.topic, where.id, where.source) == (names.FEED_MENTIONS, "event-1", "/platform")
    assert where.timestamp_ms is not None
    assert decided.envelope.causationid == decided.envelope.correlationid == "event-1"
    assert decided.envelope.id == data.decision_id

    # Every post that was looked at, in or out, with why; of who said no, nothing.
    assert [(c.ref.uri, c.ref.revision, c.author_id, c.included, c.why) for c in data.context] == [
        ("left-out", None, "left-out", False, "consent"),
        ("at://p/2", "r1", BOB.id, True, "ancestor"),
        ("at://p/asking", "r1", "acc-alice", True, "asking"),
    ]
    assert {c.trust for c in data.context} == {"untrusted"}

    # The prompt: its file, the exact messages, and token ids of which each has a trust.
    prompt, mine = data.prompt, setup().prompts.mention
    assert prompt is not None
    assert (prompt.template, prompt.template_hash) == (mine.name, mine.hash)
    assert "".join(m.content for m in prompt.messages if m.trust == "untrusted").count("Cats") == 1
    assert [s.start for s in prompt.segments] == [0, *(s.end for s in prompt.segments)][:-1]
    assert prompt.segments[-1].end == len(prompt.token_ids) > 0

    # Which model, how its tokens were drawn, and what it gave.
    engine = EchoEngine().describe()
    assert data.engine == EngineRecord(
        name=engine.name, model=engine.model, revision=engine.revision,
        weights_digest=engine.weights_digest, precision=engine.precision,
        attention=engine.attention, versions=dict(engine.versions),
        context_length=engine.context_length,
    )  # fmt: skip
    assert data.sampling is not None
    assert data.sampling.seed > 0
    assert data.output is not None
    assert len(data.output.token_ids) == len(data.output.logprobs) > 0

    # Each rule in its order, each check, the look before it was said.
    verdicts = [rule.name for rule in data.rules]
    rules = [rule.name for rule in policy.BEFORE_QUOTA]
    assert verdicts == ["views", *rules, "language", *CHECKS, "worth-saying", "second-look"]
    assert all(rule.verdict for rule in data.rules)

    # How far each view was, what each stage took, which code and settings.
    assert {place.split("/")[0] for place in data.positions} == {
        "conversation", "replies", "accounts", "moderation",
    }  # fmt: skip
    assert list(data.timings_ms) == STAGES
    assert (data.code_version, data.settings_digest) == ("1.2.3", "d" * 64)


def test_a_record_has_a_place_for_every_word_on_engine_and_sampling() -> None:
    """A field that is added to these must go on the record, or be named here."""
    described = set(EngineDescription.__dataclass_fields__) - {"adapters"}  # the one that answered
    assert described <= set(EngineRecord.model_fields)
    assert set(Sampling.__dataclass_fields__) == set(SamplingRecord.model_fields)


@pytest.mark.parametrize(
    ("asked", "outcome"),
    [
        (record(direct("Hello")), Outcome.REPLIED),
        (record(direct("/forget")), Outcome.REPLIED),
        (record(mention("hello", facets=())), Outcome.SKIPPED),
        (record(mention(author=BOT)), Outcome.SKIPPED),
        (replace(record(mention()), value=b"{"), Outcome.DEAD_LETTERED),
        (replace(record(mention()), headers=()), Outcome.DEAD_LETTERED),
    ],
)
async def test_every_kind_of_decision_has_what_it_must(asked: Record, outcome: Outcome) -> None:
    decided = await made(asked)
    assert decided.data.outcome is outcome
    assert missing_of(decided) == ()


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("engine", None, "engine"),
        ("engine.weights_digest", "", "digest of the weights"),
        ("engine.context_length", None, "context length of the model"),
        ("prompt", None, "messages"),
        ("prompt.template_hash", "", "hash of the template"),
        ("prompt.messages", (), "messages"),
        ("prompt.token_ids", (), "token ids of the prompt"),
        ("sampling", None, "sampling and seed"),
        ("output", None, "output"),
        ("output.logprobs", (), "log-probabilities"),
        ("context", (), "context"),
        ("rules", (), "verdicts of the rules"),
        ("timings_ms", {}, "timings"),
        ("code_version", "", "code version"),
        ("settings_digest", "", "digest of the settings"),
        ("source_ref", None, "what the input is about"),
        ("input.timestamp_ms", None, "when Kafka took the input in"),
        ("input.source", None, "source of the input event"),
    ],
)
async def test_whatever_is_taken_away_is_named(
    decided: Decided, path: str, value: Any, said: str
) -> None:
    assert said in missing_of(replace(decided, data=_without(decided.data, path, value)))


async def test_a_record_without_a_cause_is_named(decided: Decided) -> None:
    envelope = decided.envelope.model_copy(update={"causationid": None})
    assert missing_of(replace(decided, envelope=envelope)) == ("causation",)


async def test_what_is_found_lacks_nothing() -> None:
    log = Log()
    await log.answer(record(asking()))
    found = await find(log, Subject.of("at://p/asking"))
    assert missing_of(found) == ()


def _without(data: DecisionRecorded, path: str, value: Any) -> DecisionRecorded:
    head, _, tail = path.partition(".")
    if tail:
        value = getattr(data, head).model_copy(update={tail: value})
    return data.model_copy(update={head: value})
