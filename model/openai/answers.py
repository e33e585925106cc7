"""What servers answer, as values: models, pieces of a reply, token counts.

In comes JSON that anybody may have written, out come ``Piece`` and ``Served``, or ``ServerFaulty``
where it is not what the protocol says. Three ways of telling log-probabilities are read: the
protocol's for completions, the one for chats, and llama.cpp's, which has the ids too.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from model.engine import FinishReason
from model.openai.errors import ServerFaulty, of_event

_TOKEN_ID = re.compile(r"token_id:(\d+)")
_BROKEN_OFF = frozenset({"abort", "error", "cancelled"})


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a reply. ``ids`` is None where the server does not tell them; ``finish`` where it
    is the end. Counts are of the whole request, 0 where not told."""

    text: str = ""
    ids: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] = ()
    finish: FinishReason | None = None
    model: str = ""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Served:
    """One entry of ``/v1/models``; what is not told is None or empty."""

    names: tuple[str, ...]
    root: str
    owner: str
    context_length: int | None
    vocabulary: int | None
    facts: tuple[tuple[str, str], ...]


def piece_of(where: str, answer: Any) -> Piece:
    """One event of a stream, or a whole answer. Raises ``ServerFaulty``, or the error that the
    server tells."""
    if not isinstance(answer, dict):
        raise _odd(where, "no JSON object")
    if answer.get("error"):
        raise of_event(where, answer["error"])
    choices = answer.get("choices")
    if not isinstance(choices, list):
        raise _odd(where, "no choices")
    usage = answer.get("usage")
    counted = _counted(usage if isinstance(usage, dict) else {}, _text(answer.get("model")))
    if not choices:
        return counted
    choice = choices[0]
    if not isinstance(choice, dict):
        raise _odd(where, "a choice that is none")
    ids, logprobs = _tokens(choice)
    finish = _finish(where, choice.get("finish_reason"))
    text = _said(where, choice)
    return replace(counted, text=text, ids=ids, logprobs=logprobs, finish=finish)


def served_by(where: str, answer: Any) -> list[Served]:
    """The entries of ``/v1/models``. Raises ``ServerFaulty``."""
    entries = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(entries, list):
        raise _odd(where, "no list of models")
    return [_served(entry) for entry in entries if isinstance(entry, dict) and entry.get("id")]


def metric(page: str, name: str) -> float | None:
    """The sum of a metric over its labels, from a page in Prometheus' format; None if absent."""
    values = re.findall(rf"^{re.escape(name)}(?:{{.*}})?\s+([0-9.eE+-]+)\s*$", page, re.MULTILINE)
    try:
        return sum(map(float, values)) if values else None
    except ValueError:
        return None


def ids_of(where: str, answer: Any) -> list[int]:
    """The ids of ``/tokenize``. Raises ``ServerFaulty``."""
    tokens = answer.get("tokens") if isinstance(answer, dict) else None
    if not isinstance(tokens, list) or not all(isinstance(i, int) for i in tokens):
        raise _odd(where, "no list of token ids")
    return tokens


def _served(entry: Mapping[str, Any]) -> Served:
    aliases = entry.get("aliases")
    names = (entry["id"], *(aliases if isinstance(aliases, list) else ()))
    meta = entry.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    facts = {k: v for k, v in meta.items() if k in {"n_params", "size", "ftype", "n_vocab"}}
    return Served(
        names=tuple(dict.fromkeys(str(name) for name in names)),
        root=_text(entry.get("root")),
        owner=_text(entry.get("owned_by")),
        context_length=_count(entry.get("max_model_len")) or _count(meta.get("n_ctx")),
        vocabulary=_count(meta.get("n_vocab")),
        facts=tuple(sorted((name, str(value)) for name, value in facts.items())),
    )


def _said(where: str, choice: Mapping[str, Any]) -> str:
    for holder in (choice.get("delta"), choice.get("message"), choice):
        if isinstance(holder, dict):
            text = holder.get("text", holder.get("content"))
            if text is None:
                return ""
            if not isinstance(text, str):
                raise _odd(where, "a text that is none")
            return text
    return ""


def _tokens(choice: Mapping[str, Any]) -> tuple[tuple[int, ...] | None, tuple[float, ...]]:
    """Ids and log-probabilities of a piece, as far as they are told."""
    ids = _ids(choice.get("token_ids"))
    probs = choice.get("logprobs")
    if not isinstance(probs, dict):
        return ids, ()
    content = probs.get("content")
    if isinstance(content, list):
        rows = [row for row in content if isinstance(row, dict)]
        found: list[Any] = [row.get("id") for row in rows]
        values: list[Any] = [row.get("logprob") for row in rows]
    else:
        found = [_named_id(token) for token in _list(probs.get("tokens"))]
        values = _list(probs.get("token_logprobs"))
    if ids is None and found:
        ids = _ids(found)
    return ids, _logprobs(values)


def _ids(value: Any) -> tuple[int, ...] | None:
    whole = isinstance(value, list) and all(type(i) is int and i >= 0 for i in value)
    return tuple(value) if whole else None


def _logprobs(values: list[Any]) -> tuple[float, ...]:
    """As many as there are, or none: some servers write infinities as null."""
    whole = all(isinstance(value, int | float) and math.isfinite(value) for value in values)
    return tuple(min(0.0, float(value)) for value in values) if whole else ()


def _named_id(token: Any) -> int | None:
    """vLLM's ``return_tokens_as_token_ids``."""
    found = _TOKEN_ID.fullmatch(token) if isinstance(token, str) else None
    return int(found[1]) if found else None


def _finish(where: str, reason: Any) -> FinishReason | None:
    if reason is None or not isinstance(reason, str):
        return None
    if reason in _BROKEN_OFF:
        raise ServerFaulty(f"{where} broke off a reply. Look at that server's log.")
    return "length" if reason in {"length", "max_tokens"} else "stop"


def _counted(usage: Mapping[str, Any], model: str) -> Piece:
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return Piece(
        model=model,
        prompt_tokens=_count(usage.get("prompt_tokens")) or 0,
        cached_tokens=_count(cached) or 0,
        output_tokens=_count(usage.get("completion_tokens")) or 0,
    )


def _count(value: Any) -> int | None:
    return value if type(value) is int and value > 0 else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _odd(where: str, what: str) -> ServerFaulty:
    return ServerFaulty(
        f"{where} answers with {what}, which is not OpenAI's protocol. Check "
        "model.openai.endpoints, and that server's log."
    )
