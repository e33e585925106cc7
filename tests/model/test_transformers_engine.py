"""The transformers engine keeps the contract and says what the model itself would say."""

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from model.engine import (
    Engine,
    EngineError,
    EngineUnavailable,
    GenerationRequest,
    ModelNotFound,
    RequestRefused,
    StepFailed,
)
from model.libraries import quiet_libraries
from model.transformers_engine import MAX_FAILURES, TransformersEngine
from tests.model.contract import QUESTIONS, EngineContract, ask, assert_same, until

pytestmark = pytest.mark.slow  # loads torch, which takes some seconds


def tiny_engine(folder: Path, **settings: Any) -> TransformersEngine:
    options = {
        "dtype": "fp32",
        "device": "cpu",
        "slots": 4,
        "context_length": 512,
        "read_tokens": 20,
        **settings,
    }
    return TransformersEngine(str(folder), **options)


@pytest.fixture
async def tiny(tiny_folder: Path) -> AsyncIterator[TransformersEngine]:
    engine = tiny_engine(tiny_folder)
    await engine.start()
    yield engine
    await engine.stop()


class TestTinyModel(EngineContract):
    """A real Llama with random weights: all the ways of the engine, in a second."""

    @pytest.fixture
    async def engine(self, tiny: TransformersEngine) -> TransformersEngine:
        return tiny

    @pytest.fixture
    async def slow_engine(self, tiny_folder: Path) -> AsyncIterator[TransformersEngine]:
        engine = tiny_engine(tiny_folder, context_length=8192)
        await engine.start()
        yield engine
        await engine.stop()


@pytest.fixture(scope="class")
def shared() -> Iterator[TransformersEngine]:
    engine = TransformersEngine(dtype="fp32", slots=4)
    yield engine
    asyncio.run(engine.stop())


@pytest.mark.slow
class TestDefaultModel(EngineContract):
    """The default model; one engine for all tests, since it outlives their event loops."""

    many = 8
    crowd = 24

    @pytest.fixture
    async def engine(self, shared: TransformersEngine) -> TransformersEngine:
        await shared.start()
        return shared

    @pytest.fixture
    async def slow_engine(self, engine: TransformersEngine) -> TransformersEngine:
        return engine

    @pytest.mark.skip(reason="reads 8191 tokens: minutes on a CPU; the tiny model shows it")
    async def test_the_longest_prompt_leaves_room_for_one_token(self, engine: Engine) -> None: ...

    async def test_greedy_replies_are_those_of_generate(self, engine: TransformersEngine) -> None:
        from model.weights import resolve

        requests = [ask(engine, f"r{n}", QUESTIONS[n], max_tokens=16) for n in range(4)]
        await assert_as_generate(engine, requests, resolve().path)


async def assert_as_generate(
    engine: Engine, requests: list[GenerationRequest], folder: Path
) -> None:
    """All requests at once give what the model's own ``generate`` gives for each alone."""
    import torch

    made = await asyncio.gather(*(engine.generate(request) for request in requests))
    with quiet_libraries():
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        for request, reply in zip(requests, made, strict=True):
            ids = torch.tensor([request.prompt.token_ids])
            whole = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=request.sampling.max_tokens,
                do_sample=False,
            )
            assert list(reply.token_ids) == whole[0, ids.shape[1] :].tolist()
            scores = model(whole).logits[0].log_softmax(-1)
            at = range(ids.shape[1] - 1, whole.shape[1] - 1)
            own = [float(scores[n, whole[0, n + 1]]) for n in at]
            assert reply.logprobs == pytest.approx(own, abs=1e-3)


async def test_greedy_replies_are_those_of_generate(
    tiny: TransformersEngine, tiny_folder: Path
) -> None:
    requests = [
        ask(tiny, f"r{n}", f"{n} " + QUESTIONS[n % 5] * (1 + n % 3), max_tokens=10 + 5 * n)
        for n in range(10)
    ]
    await assert_as_generate(tiny, requests, tiny_folder)


async def test_the_model_is_described(tiny: TransformersEngine, tiny_folder: Path) -> None:
    told = tiny.describe()
    assert (told.name, told.model) == ("transformers", str(tiny_folder))
    assert (told.precision, told.attention, told.context_length) == ("fp32", "sdpa", 512)
    assert {"torch", "transformers", "tokenizers", "accelerate"} <= set(told.versions)


async def test_a_step_that_fails_fails_its_requests_and_the_engine_goes_on(
    tiny: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr("model.slots.Slots.decode", _raise)
        tasks = [tiny.generate(ask(tiny, f"r{n}")) for n in range(3)]
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(end) for end in ends} == {StepFailed}
    assert (await tiny.generate(ask(tiny, "a"))).token_ids
    assert tiny.capacity().free_slots == 4


async def test_an_engine_that_keeps_failing_gives_up_and_can_be_started_again(
    tiny: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr("model.slots.Slots.read", _raise)
        for n in range(MAX_FAILURES):
            with pytest.raises(EngineUnavailable, match="RuntimeError"):
                await tiny.generate(ask(tiny, f"r{n}"))
        await until(lambda: tiny.capacity().free_slots == 0)
        with pytest.raises(EngineUnavailable, match="not running"):
            await tiny.generate(ask(tiny, "a"))
    await until(lambda: not engine_threads())
    await tiny.start()
    assert (await tiny.generate(ask(tiny, "a"))).token_ids


async def test_prompts_at_which_steps_raise_are_told_apart_and_end_no_engine(
    tiny: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them in a row than steps may fail; the model itself works all the time."""
    from model.slots import Slots  # loads torch

    read = Slots.read

    def fragile(self: Slots, token_ids: Sequence[int], *more: Any, **options: Any) -> Any:
        if bad.issubset(token_ids):
            raise IndexError("what Ada wrote")
        return read(self, token_ids, *more, **options)

    request = ask(tiny, "bad", "xyzzy")
    bad = set(request.prompt.token_ids) - set(ask(tiny, "good", "good").prompt.token_ids)
    assert bad
    monkeypatch.setattr(Slots, "read", fragile)
    for n in range(MAX_FAILURES + 2):
        with pytest.raises(StepFailed, match="IndexError"):
            await tiny.generate(replace(request, id=f"bad {n}"))
    assert (await tiny.generate(ask(tiny, "good", "good"))).token_ids


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RuntimeError("out of memory"), "RuntimeError('out of memory')"),
        (ValueError("what Ada wrote"), "ValueError"),
        (UnicodeEncodeError("utf-8", "what Ada wrote", 0, 1, "no"), "UnicodeEncodeError"),
    ],
)
async def test_a_failing_step_is_logged_without_what_people_wrote(
    tiny: TransformersEngine, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    def fail(*args: Any) -> None:
        raise error

    with monkeypatch.context() as broken, capture_logs() as logs:
        broken.setattr("model.slots.Slots.decode", fail)
        with pytest.raises(EngineUnavailable):
            await tiny.generate(ask(tiny, "r"))
    assert [line["error"] for line in logs if line["event"] == "engine_step_failed"] == [told]
    assert "Ada" not in str(logs)


def _raise(*args: Any) -> None:
    raise RuntimeError("out of memory, say")


async def test_a_row_without_numbers_hurts_only_itself(
    tiny: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from model.slots import Slots

    decode = Slots.decode

    def spoiled(self: Slots, *args: Any) -> Any:
        logits = decode(self, *args)
        logits[0] = float("nan")
        return logits

    monkeypatch.setattr("model.slots.Slots.decode", spoiled)
    tasks = [tiny.generate(ask(tiny, f"r{n}", QUESTIONS[0], max_tokens=2)) for n in range(2)]
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert any(isinstance(end, EngineUnavailable) for end in ends)
    monkeypatch.undo()
    assert (await tiny.generate(ask(tiny, "a"))).token_ids


async def test_before_the_start_there_is_nothing(tiny_folder: Path) -> None:
    engine = tiny_engine(tiny_folder)
    with pytest.raises(EngineUnavailable):
        engine.describe()
    with pytest.raises(EngineUnavailable):
        _ = engine.tokenizer
    await engine.stop()


async def test_the_queue_is_bounded(tiny_folder: Path) -> None:
    engine = tiny_engine(tiny_folder, slots=1, max_queued=1, context_length=8192)
    await engine.start()
    tasks = [
        asyncio.create_task(engine.generate(ask(engine, f"r{n}", max_tokens=100_000)))
        for n in range(2)
    ]
    await until(lambda: engine.capacity().queued_tokens > 0)
    with pytest.raises(EngineUnavailable, match="full"):
        await engine.generate(ask(engine, "more"))
    await engine.stop()
    await asyncio.gather(*tasks, return_exceptions=True)


def engine_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "twite-engine"]


async def test_stopping_ends_the_thread(tiny_folder: Path) -> None:
    engine = tiny_engine(tiny_folder)
    await engine.start()
    assert len(engine_threads()) == 1
    await engine.stop()
    assert not engine_threads()


async def test_a_start_that_is_cancelled_leaves_no_thread(tiny_folder: Path) -> None:
    engine = tiny_engine(tiny_folder)
    start = asyncio.create_task(engine.start())
    await until(lambda: bool(engine_threads()))
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    await until(lambda: not engine_threads())


async def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="no model folder"):
        await TransformersEngine(str(tmp_path / "nowhere")).start()


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda folder: (folder / "chat_template.jinja").unlink(), "no chat template"),
        (lambda folder: (folder / "model.safetensors").unlink(), "Only safetensors"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\0" * 64), "not a whole"),
        (lambda folder: (folder / "config.json").write_text("{}"), "cannot be loaded"),
    ],
)
async def test_a_folder_that_cannot_work_says_why(
    tiny_folder: Path, tmp_path: Path, damage: Any, told: str
) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "model")
    damage(folder)
    with pytest.raises(EngineError, match=told):
        await tiny_engine(folder).start()


@pytest.mark.parametrize(
    ("setting", "told"), [({"dtype": "int3"}, "no precision"), ({"device": "cuda"}, "no GPU")]
)
async def test_settings_that_cannot_work_say_why(
    tiny_folder: Path, setting: dict[str, str], told: str
) -> None:
    import torch

    if setting.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(EngineError, match=told):
        await tiny_engine(tiny_folder, **setting).start()


async def test_ids_beyond_the_vocabulary_are_refused(tiny: TransformersEngine) -> None:
    from dataclasses import replace

    from tests.model.contract import prompt_of

    last = len(tiny.tokenizer._tokenizer) - 1
    assert await tiny.generate(replace(ask(tiny, "a"), prompt=prompt_of([last])))
    with pytest.raises(RequestRefused, match="vocabulary"):
        await tiny.generate(replace(ask(tiny, "a"), prompt=prompt_of([last + 1])))


async def test_stats_tell_how_full_the_cache_is(tiny: TransformersEngine) -> None:
    before = tiny.stats()
    assert (before.cache_use, before.running, before.state) == (0.0, 0, "up")
    task = asyncio.create_task(tiny.generate(ask(tiny, "a", max_tokens=400)))
    await until(lambda: tiny.stats().cache_use > 0.01)
    assert tiny.stats().cache_use <= 0.25  # one of four rows
    await tiny.cancel("a")
    await task
    after = tiny.stats()
    assert after.cache_use == 0.0
    assert (after.steps or 0) > (before.steps or 0)


async def talk(engine: TransformersEngine, name: str, how: dict[str, Any]) -> list[Any]:
    """Three turns of a private talk, each with all that was said before; what came each time."""
    said, made = "", []
    for turn in range(3):
        said += f" {QUESTIONS[turn]}"
        request = replace(ask(engine, f"{name}{turn}", said, **how), cache_key=name)
        made.append(await engine.generate(request))
        said += f" {made[-1].text}"
    return made


@pytest.mark.parametrize("how", [{}, {"temperature": 0.9, "seed": 3, "repetition_penalty": 1.1}])
async def test_replies_are_the_same_with_and_without_what_was_kept(
    tiny_folder: Path, how: dict[str, Any]
) -> None:
    found = {}
    for kept in (0, 4):
        engine = tiny_engine(tiny_folder, kept_prompts=kept)
        await engine.start()
        found[kept] = [
            made for name in "abc" for made in await talk(engine, f"{name * 9} talk", how)
        ]
        await engine.stop()
    assert_same(found[4], found[0])
    cached = {kept: [m.timings.cached_tokens for m in made] for kept, made in found.items()}
    assert sum(cached[0]) == 0
    assert all(cached[4][n] > 8 for n in (1, 2, 4, 5, 7, 8))


async def test_4_bits_answer_and_are_told(tiny_folder: Path) -> None:
    engine = tiny_engine(tiny_folder, dtype="bf16", quantization="int4")
    await engine.start()
    made = await engine.generate(ask(engine, "a"))
    await engine.stop()
    assert made.token_ids
    assert engine.describe().precision == "bf16-int4"


async def test_4_bits_where_they_cannot_be_end_the_start(tiny_folder: Path) -> None:
    with pytest.raises(EngineError, match=r"model\.quantization"):
        await tiny_engine(tiny_folder, quantization="int4").start()
