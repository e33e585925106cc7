"""Is a request one that an engine may touch? Asked before the model sees anything.

A request that fails here can never work and ends as ``RequestRefused``; the message names
the limit and holds none of the text.
"""

import math
from collections.abc import Sequence

from model.engine import DeadlineExceeded, GenerationRequest, RequestRefused, Sampling


def check_request(request: GenerationRequest, *, vocabulary: int, context_length: int) -> None:
    """Raise ``RequestRefused`` unless the request can be answered, ``DeadlineExceeded`` where it
    comes too late already.

    ``vocabulary``: ids run from 0 to this, excluded. A prompt must leave room for one token
    in ``context_length``; a reply that then fills the context ends with ``length``.
    """
    ids = request.prompt.token_ids
    if not ids:
        raise RequestRefused("The prompt is empty.")
    if len(ids) >= context_length:
        raise RequestRefused(
            f"The prompt has {len(ids)} tokens; the model takes {context_length - 1} at most, "
            "so that one is left for the reply. Give it less context."
        )
    _check_ids("prompt", ids, vocabulary)
    check_sampling(request.sampling)
    if request.deadline is not None:
        _check_deadline(request.deadline)


def check_recorded(
    prompt_ids: Sequence[int],
    output_ids: Sequence[int],
    sampling: Sampling,
    *,
    vocabulary: int,
    context_length: int,
) -> None:
    """Raise ``RequestRefused`` unless the recorded reply can be scored: none longer than an engine
    of this ``context_length`` would have made."""
    if not prompt_ids or not output_ids:
        raise RequestRefused(f"The {'recorded reply' if prompt_ids else 'prompt'} is empty.")
    if len(prompt_ids) + len(output_ids) > context_length:
        raise RequestRefused(
            f"Prompt and recorded reply have {len(prompt_ids)} and {len(output_ids)} tokens; "
            f"the model takes {context_length} together. Set a longer context."
        )
    _check_ids("prompt", prompt_ids, vocabulary)
    _check_ids("recorded reply", output_ids, vocabulary)
    check_sampling(sampling)


def _check_ids(what: str, ids: Sequence[int], vocabulary: int) -> None:
    if min(ids) < 0 or max(ids) >= vocabulary:
        raise RequestRefused(f"The {what} has ids outside the vocabulary of {vocabulary} tokens.")


def _check_deadline(seconds: float) -> None:
    if math.isnan(seconds):
        raise RequestRefused("The deadline is not a number of seconds.")
    if seconds <= 0:
        raise DeadlineExceeded("The request's deadline passed before it was submitted.")


def check_sampling(sampling: Sampling) -> None:
    """Raise ``RequestRefused`` where a sampling value has no meaning."""
    for name, good, wanted in _sampling_rules(sampling):
        if not good:
            raise RequestRefused(f"Sampling: {name} must be {wanted}.")


def _sampling_rules(s: Sampling) -> tuple[tuple[str, bool, str], ...]:
    penalty = s.repetition_penalty
    return (
        ("max_tokens", s.max_tokens >= 1, "1 or more"),
        ("temperature", s.temperature >= 0 and math.isfinite(s.temperature), "0 or more"),
        ("top_k", s.top_k >= 0, "0 (off) or more"),
        ("top_p", 0 < s.top_p <= 1, "above 0, and 1 (off) at most"),
        ("min_p", 0 <= s.min_p <= 1, "between 0 (off) and 1"),
        ("repetition_penalty", penalty > 0 and math.isfinite(penalty), "above 0 (1 is off)"),
        ("stop", all(s.stop), "made of strings that are not empty"),
    )
