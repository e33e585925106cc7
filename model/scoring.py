"""Would the model draw a recorded reply again? The pure half of re-scoring.

In come the logits at each place of a recorded reply (one forward pass over prompt and reply gives
them all) and the sampling it was made with; out comes a ``Score``. Each token is drawn anew from
the logits at its place by (seed, n). One that is not the recorded one is a divergence, unless it
is so close that numeric noise explains it: another batch shape or another length of the pass adds
the same numbers in another order. ``docs/reproducible.md`` tells what was measured. Pure
functions; no logit is changed.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from model.engine import Sampling, Score
from model.sampling import Floats, Logits, draw, log_probability, penalised, uniform

_NEAR = 8  # tokens on either side of a filter's limit that noise may let in or keep out


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What counts as noise: ``logits`` where sampling is greedy, ``probability`` where it draws."""

    logits: float
    probability: float


# From the distribution of docs/reproducible.md, by the precision an engine describes itself with.
TOLERANCES = {
    "fp32": Tolerance(logits=1e-3, probability=1e-3),
    "fp16": Tolerance(logits=0.1, probability=0.05),
    "bf16": Tolerance(logits=0.5, probability=0.1),
}


def tolerance_of(precision: str) -> Tolerance:
    """The noise to expect of a precision; of one that was never measured, that of bf16."""
    return TOLERANCES.get(precision, TOLERANCES["bf16"])


class Scorer:
    """Judges one recorded reply, token by token, the logits before each as they come.

    Raises ``ValueError`` where no logit is finite.
    """

    def __init__(
        self,
        prompt_ids: Sequence[int],
        output_ids: Sequence[int],
        sampling: Sampling,
        tolerance: Tolerance,
    ) -> None:
        self._seen = set(prompt_ids)
        self._output_ids, self._sampling = output_ids, sampling
        self._noise = noise(sampling, tolerance)
        self._logprobs: list[float] = []
        self._diverged: tuple[int, float] | None = None

    def add(self, logits: Logits) -> None:
        """The logits, shape (vocabulary,), that the next token of the reply was drawn from."""
        n = len(self._logprobs)
        token = self._output_ids[n]
        self._logprobs.append(log_probability(logits, token))
        if self._diverged is None:
            off = margin(logits, token, self._sampling, n, self._seen)
            self._diverged = (n, off) if off > self._noise else None
        self._seen.add(token)

    def score(self) -> Score:
        """The verdict; a reply that noise alone tells apart is ``identical``."""
        if self._diverged is None:
            return Score(tuple(self._logprobs), "identical")
        return Score(tuple(self._logprobs), "diverged", *self._diverged)


def score_reply(
    rows: Iterable[Logits],
    prompt_ids: Sequence[int],
    output_ids: Sequence[int],
    sampling: Sampling,
    tolerance: Tolerance,
) -> Score:
    """All at once: ``rows`` are the logits before each of ``output_ids``. Raises ``ValueError``
    where no logit is finite."""
    scorer = Scorer(prompt_ids, output_ids, sampling, tolerance)
    for logits in rows:
        scorer.add(logits)
    return scorer.score()


def noise(sampling: Sampling, tolerance: Tolerance) -> float:
    """The largest margin that is no divergence, in the unit of ``margin``."""
    return tolerance.logits if sampling.temperature == 0 else tolerance.probability


def margin(logits: Logits, token: int, sampling: Sampling, n: int, seen: set[int]) -> float:
    """How far ``token`` is from being the ``n``-th one drawn; 0 where it is.

    Greedy: by how much its logit (after the repetition penalty) falls short of the best. Drawn:
    how much probability would have to move, in the filters and in the draw, for it to come out.
    Infinite for a token that the model holds impossible.
    """
    if draw(logits, sampling, n, seen) == token:
        return 0.0
    scores = penalised(logits, sampling.repetition_penalty, seen)
    if sampling.temperature == 0 or scores[token] == -np.inf:
        return float(scores.max() - scores[token])
    return _moved(scores, token, sampling, uniform(sampling.seed, n))


def _moved(scores: Floats, token: int, sampling: Sampling, chance: float) -> float:
    """The least probability that must move for ``token`` to be the one at ``chance``.

    Every filter keeps the likeliest tokens, up to some rank. So the sets that noise can make of
    them are those that end a little earlier or later; each has its price (what the filter would
    have to be off by) and its own distance between ``chance`` and the token.
    """
    weights = np.exp((scores - scores.max()) / sampling.temperature)
    order = np.argsort(-weights, kind="stable")
    ranked = weights[order] / weights[order[: sampling.top_k or None]].sum()
    rank = int(np.flatnonzero(order == token)[0])
    return min(
        max(price, _distance(order[ranks], ranked[ranks], token, chance))
        for ranks, price in _sets(ranked, rank, sampling)
    )


def _sets(
    ranked: Floats, rank: int, sampling: Sampling
) -> Iterator[tuple[np.typing.NDArray[np.int64], float]]:
    """Sets of ranks that hold ``rank`` and that the filters might have kept, with their price."""
    count = _count(ranked, sampling)
    for size in range(max(1, count - _NEAR), min(len(ranked), count + _NEAR) + 1):
        price = _refusal(ranked, size, sampling) if size < count else 0.0
        price = _admission(ranked, size - 1, sampling) if size > count else price
        if rank < size and np.isfinite(price):
            yield np.arange(size), price
    if rank >= count:  # in the place of the last one that was kept
        yield np.append(np.arange(count - 1), rank), _admission(ranked, rank, sampling)


def _count(ranked: Floats, sampling: Sampling) -> int:
    """How many of the likeliest the filters keep: what ``model.sampling.kept`` does, by rank."""
    count = min(sampling.top_k or len(ranked), len(ranked))
    if sampling.top_p < 1:
        reached = np.searchsorted(np.cumsum(ranked[:count]), sampling.top_p, side="left")
        count = min(count, int(reached) + 1)
    if sampling.min_p > 0:
        count = min(count, int((ranked >= sampling.min_p * ranked[0]).sum()))
    return count


def _refusal(ranked: Floats, rank: int, sampling: Sampling) -> float:
    """What would have to move for this rank, which is kept, to be left out."""
    prices = [np.inf]
    if sampling.top_p < 1:
        prices.append(sampling.top_p - ranked[:rank].sum())
    if sampling.min_p > 0:
        prices.append(ranked[rank] - sampling.min_p * ranked[0])
    return float(max(0.0, min(prices)))


def _admission(ranked: Floats, rank: int, sampling: Sampling) -> float:
    """What would have to move for this rank, which is left out, to be kept."""
    prices = [0.0]
    if sampling.top_p < 1:
        prices.append(ranked[:rank].sum() - sampling.top_p)
    if sampling.min_p > 0:
        prices.append(sampling.min_p * ranked[0] - ranked[rank])
    if 0 < sampling.top_k <= rank:
        prices.append(ranked[sampling.top_k - 1] - ranked[rank])
    return float(max(prices))


def _distance(
    ids: np.typing.NDArray[np.int64], weights: Floats, token: int, chance: float
) -> float:
    """Between ``chance`` and the stretch of probability that is ``token``'s, ids ascending."""
    order = np.argsort(ids)
    ends = np.cumsum(weights[order])
    ends /= ends[-1]
    at = int(np.searchsorted(ids[order], token))
    start = float(ends[at - 1]) if at else 0.0
    return max(0.0, start - chance, chance - float(ends[at]))
