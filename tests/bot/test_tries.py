"""The way of an answer that is asked for twice, is long, or is in another language."""

import itertools
from dataclasses import replace

import pytest

from bot.conversation import Decision, answer
from bot.memory import NoKnowledge
from bot.replay.compare import is_same_model
from bot.reply import seed_of
from bot.values import Limits, Setup, Source
from model.echo import EchoEngine
from model.engine import EngineDescription, Generation, GenerationRequest, Sampling
from schemas.audit import RuleVerdict
from tests.bot.make import BOB, BOT, NOW, asked, direct, mention, post, run_of, setup

FINE = "A log is a list that only grows."


class Says(EchoEngine):
    """The echo engine, but with the words that a test gives, one after the other."""

    def __init__(self, *texts: str) -> None:
        super().__init__()
        self.texts = list(texts)
        self.requests: list[GenerationRequest] = []

    async def generate(self, request: GenerationRequest) -> Generation:
        self.requests.append(request)
        return Generation(self.texts.pop(0), (104, 105), (-0.5, -0.25), "stop")


async def decide(data: Source, engine: Says, using: Setup | None = None) -> Decision:
    ticks = itertools.count()
    return await answer(
        asked(data),
        using or setup(),
        engine,
        NoKnowledge(),
        now=lambda: NOW,
        counter=lambda: next(ticks) / 1000,
    )


def rules(decision: Decision, name: str) -> list[RuleVerdict]:
    return [rule for rule in decision.record.rules if rule.name == name]


@pytest.mark.parametrize(
    "first", ["", "https://evil.com", "the " * 40, "how are you today, my friend?"]
)
async def test_an_answer_that_is_none_is_asked_for_once_more(first: str) -> None:
    engine = Says(first, FINE)
    decision = await decide(mention("@twite how are you today, my friend?"), engine)
    (reply,) = decision.replies
    assert reply.text == FINE
    one, two = (request.sampling for request in engine.requests)
    assert (one.seed, two.seed) == (seed_of(reply.reply_id), seed_of(reply.reply_id, 2))
    assert (one.temperature, two.temperature) == (0.0, 0.7)
    record = decision.record
    assert record.sampling is not None
    assert (record.sampling.seed, record.sampling.temperature) == (two.seed, 0.7)
    assert record.output is not None
    assert record.output.text == FINE
    retried, passed = rules(decision, "worth-saying")
    assert (retried.verdict, passed.verdict) == ("retry", "pass")
    assert f"seed {one.seed}, temperature 0.0" in (retried.detail or "")
    assert len(rules(decision, "length")) == 2
    assert record.timings_ms["model"] == 2.0


async def test_two_answers_that_are_none_are_a_skip_with_its_reason() -> None:
    engine = Says("the " * 40, "")
    decision = await decide(mention(), engine, setup(retry_temperature=1.5))
    assert decision.replies == ()
    assert decision.record.reason == "no-answer"
    first, second = rules(decision, "worth-saying")
    assert (first.detail or "").startswith("repetition; ")
    assert (second.detail or "").startswith("empty; ")
    assert second.verdict == "skip"
    assert engine.requests[1].sampling.temperature == 1.5


async def test_what_the_bot_said_before_is_not_said_again() -> None:
    above = run_of(
        post("at://p/0", "What is a log?", author=BOB), post("at://p/1", FINE, author=BOT)
    )
    engine = Says(FINE, "It is an ordered list of records.")
    decision = await decide(mention("@twite pardon?", ancestors=above), engine)
    assert decision.replies[0].text == "It is an ordered list of records."
    assert "said before" in (rules(decision, "worth-saying")[0].detail or "")


async def test_a_good_answer_is_asked_for_once() -> None:
    engine = Says(FINE)
    decision = await decide(mention(), engine, setup(sampling=Sampling(temperature=0.3)))
    assert decision.replies[0].text == FINE
    assert [request.sampling.temperature for request in engine.requests] == [0.3]
    assert [rule.verdict for rule in rules(decision, "worth-saying")] == ["pass"]


class Adapted(Says):
    """The same with LoRA weights."""

    def describe(self) -> EngineDescription:
        return replace(super().describe(), adapters={"polite": "sha256:1", "pirate": "sha256:2"})


async def test_the_adapter_that_answers_is_asked_and_stands_on_the_record() -> None:
    engine = Adapted(FINE, FINE)
    decision = await decide(mention(), engine, replace(setup(), adapter="pirate"))
    assert [request.adapter for request in engine.requests] == ["pirate"]
    record = decision.record
    assert record.engine is not None
    assert (record.engine.adapter, record.engine.adapter_digest) == ("pirate", "sha256:2")
    told = engine.describe()
    assert is_same_model(record, told)
    assert not is_same_model(record, replace(told, adapters={"pirate": "sha256:3"}))
    assert not is_same_model(record, replace(told, adapters={}))
    plain = await decide(mention(), engine)
    assert plain.record.engine is not None
    assert plain.record.engine.adapter is None
    assert is_same_model(plain.record, replace(told, adapters={}))


async def test_a_long_answer_is_one_decision_with_several_replies() -> None:
    using = replace(setup(), limits=Limits(max_graphemes=80, max_parts=3))
    words = [f"Sentence number {n} says something." for n in range(6)]
    decision = await decide(mention(), Says(" ".join(words)), using)
    assert [reply.part for reply in decision.replies] == [1, 2, 3]
    assert decision.record.reply_ids == tuple(reply.reply_id for reply in decision.replies)
    assert len({reply.decision_id for reply in decision.replies}) == 1


async def test_the_language_of_the_asker_is_hinted_recorded_and_labelled() -> None:
    engine = Says("La capitale della Francia è Parigi.")
    decision = await decide(mention("@twite Qual è la capitale della Francia?"), engine)
    assert decision.record.prompt is not None
    system = [part for part in decision.record.prompt.messages if part.role == "system"]
    assert (system[-1].content, system[-1].trust) == ("\nAnswer in Italian.", "trusted")
    assert decision.replies[0].langs == ("it",)
    (rule,) = rules(decision, "language")
    assert (rule.verdict, rule.detail) == ("hint", "it detected")


async def test_an_answer_in_another_language_says_so() -> None:
    engine = Says("The capital of France is the beautiful city of Paris.")
    decision = await decide(direct("Qual è la capitale della Francia?", langs=("it",)), engine)
    assert decision.replies[0].langs == ("en",)
    assert rules(decision, "language")[0].detail == "it told"


async def test_the_prompts_own_language_needs_no_hint() -> None:
    decision = await decide(mention("@twite What is the capital of France?"), Says("Paris it is."))
    assert decision.record.prompt is not None
    assert len([m for m in decision.record.prompt.messages if m.role == "system"]) == 1
    assert rules(decision, "language")[0].verdict == "pass"


async def test_every_reply_and_decision_names_its_prompt() -> None:
    own = setup().prompts
    canary = replace(own, canary_mention=own.direct, canary_mention_share=1.0)
    for using, template in ((setup(), own.mention), (setup(prompts=canary), own.direct)):
        decision = await decide(mention(), Says(FINE), using)
        assert decision.replies[0].prompt_hash == template.hash
        assert decision.record.prompt is not None
        assert decision.record.prompt.template_hash == template.hash


async def test_private_talks_go_first_and_their_turns_are_kept() -> None:
    engine = Says(FINE, FINE)
    await decide(mention(), engine)
    message = direct()
    await decide(message, engine)
    public, private = engine.requests
    assert (public.priority, public.cache_key) == (0, None)
    assert (private.priority, private.cache_key) == (1, message.message.conversation_id)
