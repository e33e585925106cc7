"""One request in the words of each kind of server.

The protocol names temperature, top_p, seed and max_tokens; the rest is each server's own. What a
server cannot do is never left out in silence: ``cannot`` names it, and the engine refuses it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model.engine import Sampling

SEEDS = 2**32 - 1  # llama.cpp and torch take 32 bits, and llama.cpp's last one means "any"


@dataclass(frozen=True, slots=True)
class Dialect:
    """``words``: server's names of ours, for what the protocol has no name for. ``draws``: False
    where a temperature alone does not make it draw."""

    kind: str
    words: Mapping[str, str]
    off: Mapping[str, Any]
    fixed: Mapping[str, Any]
    whole: bool = False  # an answer in one piece tells more than a stream does
    tokenize: str = ""  # the field for the text of /tokenize
    waiting: str = ""  # the metric of requests that have no slot there


_VLLM = {"top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repetition_penalty"}

DIALECTS = {
    "vllm": Dialect(
        "vllm", _VLLM, {"top_k": -1}, {}, tokenize="prompt", waiting="vllm:num_requests_waiting"
    ),
    "sglang": Dialect(
        "sglang", _VLLM, {"top_k": -1}, {}, tokenize="prompt", waiting="sglang:num_queue_reqs"
    ),
    "llama.cpp": Dialect(
        "llama.cpp",
        {"top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repeat_penalty"},
        {},
        # The penalty looks at all tokens, and the filters come in the order of our own engine.
        {
            "repeat_last_n": -1,
            "samplers": ["penalties", "temperature", "top_k", "top_p", "min_p"],
            "cache_prompt": True,
        },
        # In a stream it keeps only the last id of a character of several tokens.
        whole=True,
        tokenize="content",
        waiting="llamacpp:requests_deferred",
    ),
    # Its stream has no logprobs and no ids, and its penalty is called by another one's name.
    "transformers": Dialect("transformers", {"repetition_penalty": "frequency_penalty"}, {}, {}),
    "other": Dialect("other", {}, {}, {}),
}


def cannot(dialect: Dialect, sampling: Sampling) -> tuple[str, ...]:
    """Which values of the sampling this kind of server cannot do."""
    wanted = {
        "top_k": sampling.top_k != 0,
        "min_p": sampling.min_p != 0,
        "repetition_penalty": sampling.repetition_penalty != 1,
    }
    return tuple(name for name, is_on in wanted.items() if is_on and name not in dialect.words)


def sampling_words(dialect: Dialect, sampling: Sampling, room: int) -> dict[str, Any]:
    """The fields of a request; values that are off are said too, as servers have defaults of
    their own. ``room``: tokens that fit behind the prompt. Stop strings are not sent: the engine
    watches for them, so that they mean the same everywhere."""
    ours = {
        "top_k": sampling.top_k or dialect.off.get("top_k", 0),
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
    }
    words = {
        "max_tokens": min(sampling.max_tokens, room),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed % SEEDS,
        **{theirs: ours[name] for name, theirs in dialect.words.items()},
        **dialect.fixed,
    }
    if dialect.kind == "transformers":
        words["frequency_penalty"] = sampling.repetition_penalty - 1
    return words


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
