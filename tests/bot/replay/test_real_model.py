"""Frozen replays of replies of the default model: drawn again, token for token."""

from pathlib import Path

import pytest

from bot.replay.frozen import Frozen
from model.engine import Sampling
from schemas.replays import Change
from tests.bot.make import mention, record, setup
from tests.bot.replay.world import World, results_of

pytestmark = pytest.mark.slow  # loads the real model

QUESTIONS = (
    "@twite What is the capital of France?",
    "@twite Name three colours.",
    "@twite Why is the sky blue?",
    "@twite Write a line about the sea.",
)


async def test_replies_of_the_default_model_are_drawn_again(tmp_path: Path) -> None:
    from model.transformers_engine import TransformersEngine

    engine = TransformersEngine(dtype="fp32", slots=4, threads=2)
    sampling = Sampling(max_tokens=24, temperature=0.7, top_p=0.9)
    try:
        world = await World(setup(sampling=sampling), engine).start()
        for number, text in enumerate(QUESTIONS):
            data = mention(text)
            post = data.post.model_copy(update={"uri": f"at://p/{number}"})
            data = data.model_copy(update={"post": post})
            await world.take(record(data, event_id=f"event-{number}"))
        way = Frozen(world.setup, engine, same_model=True)
        results = await results_of(world, way, tmp_path)
    finally:
        await engine.stop()
    assert all(one.asked_model for one in results)
    assert [one.score.verdict for one in results if one.score] == ["identical"] * len(QUESTIONS)
    assert [one.change for one in results] == [Change.IDENTICAL] * len(QUESTIONS)
