"""The echo engine keeps the contract, and its text depends only on its prompt."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.echo import ROLE_IDS, ByteChatTokenizer, EchoEngine
from model.engine import ChatMessage, EngineUnavailable, Part
from tests.model.contract import EngineContract, ask, until


class TestEcho(EngineContract):
    @pytest.fixture
    async def engine(self) -> AsyncIterator[EchoEngine]:
        engine = EchoEngine()
        await engine.start()
        yield engine
        await engine.stop()

    @pytest.fixture
    async def slow_engine(self) -> AsyncIterator[EchoEngine]:
        engine = EchoEngine(latency_ms=3_600_000, slots=3)
        await engine.start()
        yield engine
        await engine.stop()


async def test_latency_and_slots_are_kept_first_come_first_served() -> None:
    engine = EchoEngine(latency_ms=1, slots=2)
    await engine.start()
    ended: list[int] = []

    async def one(n: int) -> None:
        await engine.generate(ask(engine, f"r{n}"))
        ended.append(n)

    await asyncio.gather(*(one(n) for n in range(7)))
    assert ended == list(range(7))


async def test_the_text_names_the_prompt_and_repeats_what_was_said() -> None:
    engine = EchoEngine()
    await engine.start()
    made = await engine.generate(ask(engine, "a", "Grüße 😀", max_tokens=99, seed=1))
    again = await engine.generate(ask(engine, "b", "Grüße 😀", max_tokens=99, seed=2))
    assert made == again
    assert made.text.startswith("echo ")
    assert made.text.endswith(": Grüße 😀")
    assert made.finish_reason == "stop"


async def test_the_queue_is_bounded() -> None:
    engine = EchoEngine(latency_ms=3_600_000, slots=1, max_queued=1)
    await engine.start()
    tasks = [asyncio.create_task(engine.generate(ask(engine, f"r{n}"))) for n in range(2)]
    await until(lambda: engine.capacity().queued_tokens > 0)
    with pytest.raises(EngineUnavailable, match="full"):
        await engine.generate(ask(engine, "more"))
    await engine.stop()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_before_the_start_nothing_is_answered() -> None:
    engine = EchoEngine()
    with pytest.raises(EngineUnavailable):
        await engine.generate(ask(engine, "a"))


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=3))
def test_bytes_never_become_control_ids_and_come_back(texts: list[str]) -> None:
    tokenizer = ByteChatTokenizer()
    prompt = tokenizer.encode_chat([ChatMessage("user", tuple(Part(t) for t in texts))])
    written = [prompt.token_ids[s.start : s.end] for s in prompt.segments if s.trust != "trusted"]
    assert [tokenizer.decode(ids) for ids in written] == [text for text in texts if text]
    assert not tokenizer.control_ids & {i for ids in written for i in ids}
    assert prompt.token_ids[-1] == ROLE_IDS["assistant"]
    assert [s.start for s in prompt.segments][1:] == [s.end for s in prompt.segments][:-1]


def test_a_character_cut_in_the_middle_is_left_out() -> None:
    whole = "aé日😀".encode()
    decoded = [ByteChatTokenizer().decode(whole[:n]) for n in range(len(whole) + 1)]
    assert decoded == ["", "a", "a", "aé", "aé", "aé", "aé日", "aé日", "aé日", "aé日", "aé日😀"]
