"""``bot.pins``: the prompt that a moderator pinned is used, and what is unknown is told once."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from structlog.testing import capture_logs

from bot.handler import BotHandler
from bot.knowledge import Standing
from bot.pins import Pins, pinnable
from bot.settings import PromptsSettings
from bot.templates import template_of
from bot.values import Source
from model.echo import EchoEngine
from schemas.control import Moderation
from tests.bot.make import NOW, direct, mention, record, setup
from tests.bot.test_approval import Commanded
from tests.bot.test_handler import decision_of

SHORT = template_of("short", b"Be {bot}, and short.")
LONG = template_of("long", b"Be {bot}, and long.")


@pytest.fixture
async def engine() -> AsyncIterator[EchoEngine]:
    engine = EchoEngine()
    await engine.start()
    yield engine
    await engine.stop()


def pinned(surface: str, prompt: str | None, name: str = "c-1") -> Commanded:
    told = Moderation(
        id=name, command="pin", subject=f"prompt:{surface}", moderator="anna", reason="why"
    )
    knowledge = Commanded()
    knowledge.commands[told.subject] = Standing(told, 0, prompt=prompt)
    return knowledge


async def used(engine: EchoEngine, knowledge: Commanded, data: Source) -> str:
    """The hash of the prompt that answers."""
    pins = Pins((SHORT, LONG))
    handler = BotHandler(setup(), engine, knowledge, pins=pins, now=lambda: NOW)
    outputs = await handler.handle(handler.open(record(data)), attempt=1)
    prompt = decision_of(outputs).prompt
    assert prompt is not None
    return prompt.template_hash


async def test_the_pinned_prompt_answers_on_its_surface_alone(engine: EchoEngine) -> None:
    own = setup().prompts
    assert await used(engine, pinned("mention", SHORT.hash[:12]), mention()) == SHORT.hash
    assert await used(engine, pinned("mention", SHORT.hash[:12]), direct()) == own.direct.hash
    knowledge = pinned("mention", SHORT.hash)
    knowledge.say("unpin", "prompt:mention")
    assert await used(engine, knowledge, mention()) == own.mention.hash


def test_it_goes_before_a_canary() -> None:
    prompts = setup().prompts
    own = setup(prompts=replace(prompts, canary_direct=LONG, canary_direct_share=1.0))
    found = Pins((SHORT,)).setup_for(own, direct(), pinned("direct", SHORT.hash))
    assert (found.prompts.direct, found.prompts.canary_direct) == (SHORT, None)


@pytest.mark.parametrize("named", ["ffff", "", None])
def test_what_no_worker_has_is_told_once_for_each_command(named: str | None) -> None:
    pins, own = Pins((SHORT,)), setup()
    with capture_logs() as logs:
        for name in ("c-1", "c-1", "c-2"):
            assert pins.setup_for(own, mention(), pinned("mention", named, name)) is own
    assert [one["log_level"] for one in logs] == ["warning"] * 2
    registry = CollectorRegistry()
    registry.register(pins)
    said = generate_latest(registry).decode()
    assert 'twite_prompt_pins_unknown_total{surface="mention"} 2.0' in said


def test_a_beginning_that_several_have_names_none() -> None:
    twins = tuple(replace(SHORT, hash="abc" + one) for one in ("1", "2"))
    pins, own = Pins(twins), setup()
    assert pins.setup_for(own, mention(), pinned("mention", "abc")) is own
    assert pins.setup_for(own, mention(), pinned("mention", "abc2")).prompts.mention == twins[1]


def test_files_that_are_faulty_or_too_long_can_not_be_pinned(
    engine: EchoEngine, tmp_path: Path
) -> None:
    (tmp_path / "good.txt").write_text("Be {bot}.")
    (tmp_path / "bad.txt").write_text("Be {nobody}.")
    (tmp_path / "long.txt").write_text("word " * 5_000)
    found = pinnable(PromptsSettings(directory=tmp_path), setup(), engine)
    names = {one.name for one in found}
    assert {"good", "mention", "direct"} <= names
    assert names.isdisjoint({"bad", "long"})
