"""How fast an engine writes: tokens a second at several numbers of requests in flight.

In comes a started engine, out come ``Speed`` values as they are measured. Each request is a
question of its own and writes a fixed number of tokens; what is told is what a caller sees,
reading of the prompts included.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from model.engine import ChatMessage, Engine, GenerationRequest, Part, Sampling

ROUNDS = 2  # measured; one more before them warms up


@dataclass(frozen=True, slots=True)
class Speed:
    """``tokens_per_s``: of all together; ``first_token_s``: median until a request's first token,
    0 where the engine does not tell."""

    in_flight: int
    tokens_per_s: float
    first_token_s: float
    tokens: int


async def speeds(
    engine: Engine, in_flight: Sequence[int], tokens: int, rounds: int = ROUNDS
) -> AsyncIterator[Speed]:
    """Measure ``engine``, which must have as many slots as the largest number in flight."""
    await _round(engine, max(in_flight), min(tokens, 8), "warm")
    for count in in_flight:
        found = [await _round(engine, count, tokens, f"{count}-{n}") for n in range(rounds)]
        yield max(found, key=lambda speed: speed.tokens_per_s)


async def _round(engine: Engine, count: int, tokens: int, name: str) -> Speed:
    requests = [_request(engine, f"bench-{name}-{n}", n, tokens) for n in range(count)]
    started = time.monotonic()
    made = await asyncio.gather(*(engine.generate(request) for request in requests))
    seconds = time.monotonic() - started
    written = sum(len(reply.token_ids) for reply in made)
    first = sorted(reply.timings.first_token_s for reply in made)[count // 2]
    return Speed(count, written / max(seconds, 1e-9), first, written)


def _request(engine: Engine, name: str, number: int, tokens: int) -> GenerationRequest:
    asked = f"Tell me a long story about the number {number}, with many people in it."
    chat = [ChatMessage("user", (Part(asked),))]
    return GenerationRequest(name, engine.tokenizer.encode_chat(chat), Sampling(max_tokens=tokens))
