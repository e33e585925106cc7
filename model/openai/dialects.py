"""One request in the words of each kind of server.

The protocol names temperature, top_p, seed and max_tokens; the rest is each server's own. What a
server cannot do is never left out in silence: ``cannot`` names it, and the engine refuses it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from model.engine import EngineError, Sampling

SEEDS = 2**32 - 1  # llama.cpp and torch take 32 bits, and llama.cpp's last one means "any"


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one kind of server wants to be asked.

    ``words``: its names for what the protocol has none for; ``fixed``: fields that make it do as
    our own engine does. ``health``: the page that answers while it works. ``waiting``,
    ``running``: the metrics of requests without a slot there, and with one.
    """

    kind: str
    words: Mapping[str, str]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    top_k_off: int = 0
    health: str = "/health"
    tokenizes: bool = False
    waiting: str = ""
    running: str = ""


_SAME = {"top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repetition_penalty"}

DIALECTS = {
    "vllm": Dialect(
        "vllm",
        _SAME,
        top_k_off=-1,
        tokenizes=True,
        waiting="vllm:num_requests_waiting",
        running="vllm:num_requests_running",
    ),
    "sglang": Dialect(
        "sglang",
        _SAME,
        top_k_off=-1,
        tokenizes=True,
        waiting="sglang:num_queue_reqs",
        running="sglang:num_running_reqs",
    ),
    "llama.cpp": Dialect(
        "llama.cpp",
        {**_SAME, "repetition_penalty": "repeat_penalty"},
        # The penalty looks at all tokens, and the filters come in the order of our own engine.
        {
            "repeat_last_n": 65_536,  # tokens; it takes memory for as many
            "samplers": ["penalties", "temperature", "top_k", "top_p", "min_p"],
            "cache_prompt": True,
        },
        tokenizes=True,
        waiting="llamacpp:requests_deferred",
        running="llamacpp:requests_processing",
    ),
    "transformers": Dialect("transformers", _SAME),
    "other": Dialect("other", {}, health="/v1/models"),
}


def cannot(dialect: Dialect, sampling: Sampling) -> tuple[str, ...]:
    """Which values of the sampling this kind of server cannot do."""
    wanted = {
        "top_k": sampling.top_k != 0,
        "min_p": sampling.min_p != 0,
        "repetition_penalty": sampling.repetition_penalty != 1,
    }
    return tuple(name for name, is_on in wanted.items() if is_on and name not in dialect.words)


def require_sampling(where: str, dialect: Dialect, sampling: Sampling) -> None:
    """Raises ``EngineError`` where that kind of server cannot do it."""
    if lacks := cannot(dialect, sampling):
        names = " and ".join(f"model.{name}" for name in lacks)
        raise EngineError(
            f"{where} ({dialect.kind}) does not know {', '.join(lacks)}. Switch {names} off "
            "(top_k 0, min_p 0, repetition_penalty 1), or name the server in model.openai.kind if "
            "it is another one."
        )


def sampling_words(dialect: Dialect, sampling: Sampling, room: int) -> dict[str, Any]:
    """The fields of a request; values that are off are said too, as servers have defaults of
    their own. ``room``: tokens that fit behind the prompt. Stop strings are not sent: the engine
    watches for them, so that they mean the same everywhere."""
    ours = {
        "top_k": sampling.top_k or dialect.top_k_off,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
    }
    theirs = {name: ours[our] for our, name in dialect.words.items()}
    if dialect.kind == "transformers":
        theirs = _generation_config(sampling, theirs)
    return {
        "max_tokens": min(sampling.max_tokens, room),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed % SEEDS,
        **theirs,
        **dialect.fixed,
    }


def _generation_config(sampling: Sampling, words: Mapping[str, Any]) -> dict[str, Any]:
    """``transformers serve`` takes such words as JSON within JSON, and does not draw, whatever the
    temperature, unless it is told to."""
    config = {"do_sample": sampling.temperature > 0, **words, "min_p": sampling.min_p or None}
    return {"generation_config": json.dumps(config)}


def body_of_ids(model: str, ids: Sequence[int]) -> dict[str, Any]:
    """The prompt of ``/v1/completions``."""
    return {"model": model, "prompt": list(ids)}


def body_of_messages(model: str, messages: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """The prompt of ``/v1/chat/completions``."""
    return {"model": model, "messages": list(messages)}


# What an answer may tell besides its text, the richest first; a look at the server takes the first
# that it accepts.
EXTRAS_OF_IDS: tuple[dict[str, Any], ...] = (
    {"return_token_ids": True, "logprobs": 1},
    {"logprobs": 1},
    {},
)
EXTRAS_OF_CHAT: tuple[dict[str, Any], ...] = (
    {"return_token_ids": True, "logprobs": True},
    {"logprobs": True},
    {},
)


def tokenize_body(dialect: Dialect, model: str, text: str) -> dict[str, Any]:
    """The question of ``/tokenize``: a text as somebody's words, without special tokens."""
    if dialect.kind == "llama.cpp":
        return {"content": text, "add_special": False, "parse_special": False}
    return {"model": model, "prompt": text, "add_special_tokens": False}
