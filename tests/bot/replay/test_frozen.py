"""The recorded prompt put to a model once more."""

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from bot.replay.frozen import NOT_ASKED, OTHER_MODEL, UNCHECKED, Frozen
from model.echo import EchoEngine
from model.engine import EngineDescription, Generation, GenerationRequest, RequestRefused
from schemas import names
from schemas.audit import DecisionRecorded
from schemas.codes import Outcome, SkipReason
from schemas.replays import Change, NotReplayed, ReplayCompared
from tests.bot.make import BOT, direct, mention, record
from tests.bot.replay.world import PARTITION, World, results_of


class Other(EchoEngine):
    """Other weights, which say something else."""

    said = "Something  else entirely."  # the check of characters makes one blank of two, as then

    def describe(self) -> EngineDescription:
        return replace(super().describe(), model="other", weights_digest="sha256:00")

    async def generate(self, request: GenerationRequest) -> Generation:
        self.asked = request
        return replace(await super().generate(request), text=self.said)


class Same(Other):
    """The weights of then, which say something else all the same."""

    def describe(self) -> EngineDescription:
        return EchoEngine.describe(self)


async def frozen(
    world: World,
    root: Path,
    engine: EchoEngine | None = None,
    *,
    same_model: bool = True,
    **options: Any,
) -> list[ReplayCompared]:
    if engine is not None:
        await engine.start()
    way = Frozen(world.setup, engine or world.engine, same_model=same_model)
    return await results_of(world, way, root, **options)


async def answered(data: Any = None) -> World:
    world = await World().start()
    await world.take(record(data or mention()))
    return world


def forge(world: World, **changed: Any) -> DecisionRecorded:
    """The first decision, changed on the log by somebody who can write there."""
    forged = world.decisions[0].model_copy(update=changed)
    audit = world.audit()
    audit[0] = replace(audit[0], value=forged.model_dump_json().encode())
    return forged


async def test_the_same_engine_gives_the_same(tmp_path: Path) -> None:
    world = await answered()
    (result,) = await frozen(world, tmp_path)
    assert result.change is Change.IDENTICAL
    assert result.asked_model
    assert result.before is not None
    assert result.after is not None
    assert result.before.text == result.after.text
    assert result.before.text is not None
    assert result.after.rules == result.before.rules
    assert result.score is not None
    assert result.score.verdict == "identical"


async def test_what_other_weights_answered_is_not_compared_unless_asked(tmp_path: Path) -> None:
    world = await answered()
    (result,) = await frozen(world, tmp_path, Other())
    assert (result.change, result.why) == (Change.NOT_REPLAYED, NotReplayed.MODEL_GONE)
    assert result.notes[0].startswith("echo sha256:")

    engine = Other()
    (result,) = await frozen(world, tmp_path, engine, same_model=False)
    assert result.change is Change.TEXT
    assert result.notes == (OTHER_MODEL,)
    assert result.score is None
    assert result.after is not None
    assert (result.after.text, result.after.model) == (Other.said, "other")
    prompt = world.decisions[0].prompt
    assert prompt is not None
    assert engine.asked.prompt.token_ids == prompt.token_ids  # the same tokenizer, other weights


async def test_an_answer_that_may_not_be_said_changes_the_action(tmp_path: Path) -> None:
    world = await answered()
    engine = Same()
    engine.said = "no " * 60
    (result,) = await frozen(world, tmp_path, engine)
    assert result.change is Change.ACTION
    assert result.after is not None
    assert (result.after.outcome, result.after.reason) == (
        Outcome.SKIPPED,
        SkipReason.NO_ANSWER.value,
    )


async def test_a_link_that_is_taken_out_changes_a_verdict(tmp_path: Path) -> None:
    world = await answered()
    engine = Same()
    engine.said = "See https://evil.example/ for more of the same."
    (result,) = await frozen(world, tmp_path, engine)
    assert result.change is Change.VERDICT
    assert result.score is not None  # what the weights would draw does not depend on the text


async def test_a_decision_without_the_model_is_as_it_was(tmp_path: Path) -> None:
    world = await answered(mention(author=BOT))
    (result,) = await frozen(world, tmp_path)
    assert (result.change, result.asked_model, result.notes) == (
        Change.IDENTICAL,
        False,
        (NOT_ASKED,),
    )


async def test_without_the_input_the_text_is_compared_and_nothing_checked(tmp_path: Path) -> None:
    world = await answered()
    world.log.records[names.FEED_MENTIONS, PARTITION].clear()
    (result,) = await frozen(world, tmp_path)
    assert (result.change, result.notes) == (Change.IDENTICAL, (UNCHECKED,))


async def test_private_texts_are_hidden_unless_asked_for(tmp_path: Path) -> None:
    world = await answered(direct("My secret is a purple cow."))
    (hidden,) = await frozen(world, tmp_path)
    assert hidden.hidden
    assert "purple" not in hidden.model_dump_json()
    assert hidden.before is not None
    assert hidden.before.length
    (shown,) = await frozen(world, tmp_path, reveal=True)
    assert not shown.hidden
    assert "purple" in shown.model_dump_json()


@pytest.mark.parametrize(
    "changed",
    [
        {"decision_id": "00000000-0000-0000-0000-000000000000"},
        {"segments": 1},
        {"logprobs": (0.0,)},
    ],
)
async def test_a_record_that_was_edited_is_told(tmp_path: Path, changed: dict[str, Any]) -> None:
    world = await answered()
    then = world.decisions[0]
    assert then.prompt is not None
    assert then.output is not None
    if "segments" in changed:
        changed = {"prompt": then.prompt.model_copy(update={"token_ids": (1, 2, 3)})}
    if "logprobs" in changed:
        changed = {"output": then.output.model_copy(update=changed)}
    forge(world, **changed)
    (result,) = await frozen(world, tmp_path)
    assert result.why is NotReplayed.EDITED_RECORD
    assert result.before is None


async def test_what_another_bot_decided_is_told(tmp_path: Path) -> None:
    world = await answered()
    account = world.setup.bot.account.model_copy(update={"id": "bot-2"})
    world.setup = replace(world.setup, bot=replace(world.setup.bot, account=account))
    (result,) = await frozen(world, tmp_path)
    assert result.why is NotReplayed.OTHER_BOT


async def test_a_record_of_a_time_without_prompts_is_told(tmp_path: Path) -> None:
    world = await answered()
    prompt = world.decisions[0].prompt
    assert prompt is not None
    bare = prompt.model_copy(update={"token_ids": (), "segments": (), "messages": ()})
    forge(world, prompt=bare)
    (result,) = await frozen(world, tmp_path)
    assert result.why is NotReplayed.OLDER_SCHEMA


async def test_a_prompt_that_the_engine_refuses_is_told(tmp_path: Path) -> None:
    class Refusing(EchoEngine):
        async def generate(self, request: GenerationRequest) -> Generation:
            raise RequestRefused("too long")

    world = await answered()
    (result,) = await frozen(world, tmp_path, Refusing())
    assert result.why is NotReplayed.REFUSED


async def test_the_record_of_a_topic_made_anew_is_another(tmp_path: Path) -> None:
    """Somebody else's record stands where the input stood: nothing is checked against it."""
    world = await answered()
    inputs = world.log.records[names.FEED_MENTIONS, PARTITION]
    inputs[0] = replace(record(mention("@twite other"), event_id="other"), offset=0)
    (result,) = await frozen(world, tmp_path)
    assert UNCHECKED in result.notes


async def test_an_adapter_is_part_of_the_weights(tmp_path: Path) -> None:
    class Adapted(Same):
        adapters: ClassVar[dict[str, str]] = {"polite": "sha256:11"}

        def describe(self) -> EngineDescription:
            return replace(super().describe(), adapters=self.adapters)

    class Gone(Adapted):
        adapters: ClassVar[dict[str, str]] = {"polite": "sha256:22"}

    world = await answered()
    then = world.decisions[0].engine
    assert then is not None
    named = {"adapter": "polite", "adapter_digest": "sha256:11"}
    forge(world, engine=then.model_copy(update=named))
    engine = Adapted()
    await frozen(world, tmp_path, engine)
    assert engine.asked.adapter == "polite"
    (result,) = await frozen(world, tmp_path, Gone())
    assert result.why is NotReplayed.MODEL_GONE
