"""Would a server draw a recorded reply again? From the log-probabilities of its prompt tokens.

vLLM tells them as ``prompt_logprobs``, others with ``echo`` as OpenAI's first completions did. Only
greedy replies without a repetition penalty can be judged: a server draws with a generator of its
own, and the penalty works on logits, which no server tells. The difference of two log-probabilities
at one place is that of their logits, so the margin is in logits as the ``Score`` wants it.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from model.engine import NotSupported, RequestRefused, Sampling, Score
from model.openai.answers import piece_of
from model.openai.client import Client
from model.openai.dialects import Dialect
from model.openai.errors import ServerFaulty
from model.openai.probe import Server
from model.scoring import tolerance_of

_WHY = "Score it with the transformers engine, or another server."


def require_scorable(server: Server, sampling: Sampling) -> None:
    """Raises ``NotSupported`` where this server or this sampling leaves no way."""
    if not server.by_ids:
        raise NotSupported(f"{server.dialect.kind} takes no token ids, so it cannot score. {_WHY}")
    if server.dialect.kind in {"llama.cpp", "transformers"}:
        raise NotSupported(f"{server.dialect.kind} tells no prompt log-probabilities. {_WHY}")
    if sampling.temperature > 0 or sampling.repetition_penalty != 1:
        raise NotSupported(
            "A server draws with a generator of its own and applies penalties to logits that it "
            f"does not tell: only greedy replies without a penalty can be scored there. {_WHY}"
        )


@dataclass(frozen=True, slots=True)
class Asked:
    """Which server is asked with which ``body`` of prompt and reply, for ``timeout`` seconds
    in all."""

    client: Client
    dialect: Dialect
    body: dict[str, Any]
    timeout: float


async def rescore(asked: Asked, prompt_length: int) -> Score:
    """One pass over prompt and reply. Raises ``ServerError``, ``RequestRefused``, or
    ``NotSupported`` where the server does not tell what is needed."""
    client, ids = asked.client, asked.body["prompt"]
    loop = asyncio.get_running_loop()
    until = loop.time() + asked.timeout
    body = {**asked.body, "temperature": 0, "max_tokens": 1}
    ways = ({"prompt_logprobs": 1}, {"echo": True, "logprobs": 1})
    for extras in ways if asked.dialect.kind == "vllm" else ways[1:]:
        try:
            answer = await client.post_json(
                "/v1/completions", {**body, **extras}, timeout=until - loop.time()
            )
        except RequestRefused:
            continue
        piece_of(client.where, answer)  # raises what the server tells of itself
        if not answer["choices"]:
            raise ServerFaulty(f"{client.where} answers without a choice. Look at its log.")
        if rows := _rows(client.where, answer["choices"][0], ids):
            return _judged(client.where, rows[prompt_length:])
    raise NotSupported(f"{client.where} tells no log-probabilities of a prompt. {_WHY}")


Row = tuple[float, float]  # of the token at a place, and of the likeliest there


def _rows(where: str, choice: dict[str, Any], ids: Sequence[int]) -> list[Row] | None:
    """One row per id that was sent; None where nothing is told. Raises ``ServerFaulty`` where some
    are left out: rows that are cut off would be read as a reply that is the same."""
    told = choice.get("prompt_logprobs")
    if isinstance(told, list):
        _require_all(where, len(told), len(ids))
        return [_of_ids(row, i) for row, i in zip(told, ids, strict=True)]
    probs = choice.get("logprobs")
    if not isinstance(probs, dict):
        return None
    own, tops = probs.get("token_logprobs"), probs.get("top_logprobs")
    if not isinstance(own, list) or not isinstance(tops, list):
        return None
    if len(own) == 1:  # of the one token that was drawn: it does not know ``echo``
        return None
    count = len(ids)  # behind them is the token that was drawn
    _require_all(where, min(count, len(own), len(tops)), count)
    return [_of_texts(one, top) for one, top in zip(own[:count], tops[:count], strict=True)]


def _require_all(where: str, told: int, sent: int) -> None:
    if told != sent:
        raise ServerFaulty(f"{where} leaves out log-probabilities of a prompt: {told} of {sent}.")


def _of_ids(row: Any, token: int) -> Row:
    """vLLM: ids as strings, each with its logprob; none for the first token of all."""
    told = row if isinstance(row, dict) else {}
    values = {name: _number(entry) for name, entry in told.items()}
    own = values.get(str(token), float("nan"))
    return own, max(values.values(), default=own)


def _of_texts(own: Any, top: Any) -> Row:
    values = [_number(value) for value in top.values()] if isinstance(top, dict) else []
    return _number(own), max([*values, _number(own)])


def _number(entry: Any) -> float:
    value = entry.get("logprob") if isinstance(entry, dict) else entry
    return float(value) if isinstance(value, int | float) else float("nan")


def _judged(where: str, rows: Sequence[Row]) -> Score:
    """A server says nothing of its precision, so noise is what bf16 makes."""
    tolerance = tolerance_of("as served").logits
    logprobs = tuple(own for own, _ in rows)
    if not rows or any(value != value for value in logprobs):  # nan
        raise ServerFaulty(f"{where} leaves out log-probabilities of a prompt.")
    for number, (own, best) in enumerate(rows):
        if best - own > tolerance:
            return Score(logprobs, "diverged", number, best - own)
    return Score(logprobs, "identical")
