"""An engine kept busy from an event loop that has work of its own, as a worker's has.

``own``: the engine runs in a process of its own; else in this one. ``slots`` requests are always
in flight, each for ``tokens`` tokens. Beside them the loop decodes mentions, at most so long that
it is busy for ``duty`` of the time, and a task that wants to wake every few milliseconds notes
how late it does. It tells tokens per second, how late the loop was, and memory, after each while.
"""

import asyncio
import gc
import time
from collections.abc import Callable
from typing import Any

import psutil

from bot.settings import BotSettings
from model.engine import ChatMessage, Engine, GenerationRequest, Part, Sampling
from model.loader import build_engine, host_engine
from model.threads import configure_environment
from schemas import codec
from schemas.record import Record
from tests.bench.mentions import some_mention
from tests.bench.programs.toy import spec, tell
from tests.bench.setting import processor_s
from tests.bench.stats import percentile

TICK_S = 0.005
TURN_S = 0.002  # of decoding, then others have their turn
QUESTION = "What would you look at first when requests to one region take twice as long as before?"


async def main() -> None:
    """Warm up, then measure as often as the spec says."""
    asked = spec()
    engine = _engine(asked)
    await engine.start()
    output = some_mention(BotSettings())
    record = Record(
        topic=output.topic,
        partition=0,
        offset=0,
        timestamp_ms=0,
        key=output.key,
        value=output.value,
        headers=output.headers,
    )
    await _while(engine, asked, record, duty=0.0, seconds=asked["seconds"] / 4)
    for duty in asked["duties"]:
        tell("measured", **await _while(engine, asked, record, duty, asked["seconds"]))
    await engine.stop()


def _engine(asked: dict[str, Any]) -> Engine:
    settings = {
        "name": asked.get("model"),
        "slots": asked["slots"],
        "threads": asked["threads"],
        "progress": lambda line: None,
    }
    return (host_engine if asked["own"] else build_engine)("transformers", **settings)


async def _while(
    engine: Engine, asked: dict[str, Any], record: Record, duty: float, seconds: float
) -> dict[str, Any]:
    """One while of load, and what was seen."""
    stopping = asyncio.Event()
    late: list[float] = []
    made = [0]
    tasks = [
        asyncio.create_task(_ask(engine, asked, number, stopping, made))
        for number in range(asked["slots"])
    ]
    tasks += [
        asyncio.create_task(_tick(late, stopping)),
        asyncio.create_task(_decode(record, duty, stopping)),
    ]
    before, started = _tokens(engine), time.monotonic()
    own = psutil.Process()
    used, used_by_all = own.cpu_times(), processor_s(own.pid)
    await asyncio.sleep(seconds)
    elapsed, tokens = time.monotonic() - started, _tokens(engine) - before
    now, all_now = own.cpu_times(), processor_s(own.pid)
    stopping.set()
    await asyncio.gather(*tasks)
    return {
        "duty": duty,
        "tokens_per_s": tokens / elapsed,
        "tokens_per_core_s": tokens / (all_now - used_by_all),
        "late_p50_ms": 1000 * percentile(late, 50),
        "late_p99_ms": 1000 * percentile(late, 99),
        "late_max_ms": 1000 * max(late),
        "our_cores": (now.user + now.system - used.user - used.system) / elapsed,
        "our_mib": _resident_mib(own),
        "engine_mib": sum(_resident_mib(child) for child in own.children()),
    }


def _tokens(engine: Engine) -> int:
    return engine.stats().output_tokens


async def _ask(
    engine: Engine,
    asked: dict[str, Any],
    number: int,
    stopping: asyncio.Event,
    made: list[int],
) -> None:
    """One request after the other. Their lengths differ, so that they end at different times."""
    while not stopping.is_set():
        made[0] += 1
        chat = [ChatMessage("user", (Part(f"{made[0]}: {QUESTION}"),))]
        limit = asked["tokens"] // 2 + made[0] * 7 % asked["tokens"]
        request = GenerationRequest(
            f"{number}/{made[0]}", engine.tokenizer.encode_chat(chat), Sampling(max_tokens=limit)
        )
        await engine.generate(request)


async def _tick(late: list[float], stopping: asyncio.Event) -> None:
    gc.collect()
    while not stopping.is_set():
        due = time.monotonic() + TICK_S
        await asyncio.sleep(TICK_S)
        late.append(time.monotonic() - due)


async def _decode(record: Record, duty: float, stopping: asyncio.Event) -> None:
    """What a worker does all the time, at most for ``duty`` of the time."""
    while not stopping.is_set():
        started = time.monotonic()
        if duty:
            _for(TURN_S, lambda: codec.decode(record))
        await asyncio.sleep((time.monotonic() - started) * (1 / duty - 1) if duty else 0.1)


def _for(seconds: float, work: Callable[[], object]) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        work()


def _resident_mib(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 2**20


if __name__ == "__main__":
    configure_environment()
    asyncio.run(main())
