"""Drawing a reply's n-th token so that the draw can be repeated.

In come the logits of one row and the request's sampling, out comes a token id. The only chance
is ``uniform(seed, n)``, a hash of the request's seed and the token's number: it does not know
the batch, the device or the library's generator. Pure functions; the sums are in float64.

Order of the steps, as in transformers: repetition penalty (Keskar et al. 2019, CTRL),
temperature, top-k, top-p (Holtzman et al. 2019), min-p (Nguyen et al. 2024), then inverse CDF
over the kept ids in the order of their numbers.
"""

import hashlib
from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from model.engine import Sampling

Floats = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32] | Floats

_FIRST_LOOK = 1024  # ids that are sorted for top-p before the whole vocabulary is


def uniform(seed: int, n: int) -> float:
    """A number in [0, 1) that depends on nothing but (``seed``, ``n``).

    The first 53 bits of SHA-256 over ``"seed:n"`` in decimal.
    """
    digest = hashlib.sha256(f"{seed}:{n}".encode()).digest()
    return float(int.from_bytes(digest[:8], "big") >> 11) * 2.0**-53


def draw(logits: Logits, sampling: Sampling, n: int, seen: Collection[int] = ()) -> int:
    """The id of the ``n``-th token (from 0) of a reply.

    ``logits``: shape (vocabulary,), straight from the model; ``seen``: the ids of prompt and
    reply so far, for the repetition penalty. Of equal logits the smaller id counts as the
    larger one. Raises ``ValueError`` where no logit is finite.
    """
    scores = penalised(logits, sampling.repetition_penalty, seen)
    if sampling.temperature == 0:
        return int(np.argmax(scores))
    ids, probabilities = kept(scores, sampling)
    cumulated = np.cumsum(probabilities)
    at = np.searchsorted(cumulated, uniform(sampling.seed, n) * cumulated[-1], side="right")
    return int(ids[min(int(at), len(ids) - 1)])


def kept(scores: Floats, sampling: Sampling) -> tuple[Ids, Floats]:
    """Ids that may be drawn, ascending, and their probabilities, which add up to 1.

    ``scores``: logits after the penalty; the temperature must be above 0.
    """
    ids = _top_k(scores, sampling.top_k)
    # Subtracting the peak before dividing keeps tiny temperatures from overflowing.
    weights = np.exp((scores[ids] - scores.max()) / sampling.temperature)
    if sampling.top_p < 1:
        ids, weights = _top_p(ids, weights, sampling.top_p)
    if sampling.min_p > 0:
        enough = weights >= sampling.min_p * weights.max()
        ids, weights = ids[enough], weights[enough]
    possible = weights > 0
    ids, weights = ids[possible], weights[possible]
    return ids, weights / weights.sum()


def log_probability(logits: Logits, token_id: int) -> float:
    """Natural log of a token's probability under the model's own softmax.

    Untempered, unfiltered and without penalty: it says how likely the model found the token,
    whatever the sampling was.
    """
    wide = logits.astype(np.float64)
    peak = wide.max()
    return float(wide[token_id] - peak - np.log(np.exp(wide - peak).sum()))


def penalised(logits: Logits, penalty: float, seen: Collection[int]) -> Floats:
    """The logits as they compete: ids that were there before less likely, NaN impossible.

    Raises ``ValueError`` where no logit is finite.
    """
    scores = logits.astype(np.float64)
    scores[np.isnan(scores)] = -np.inf
    if penalty != 1 and seen:
        ids = np.fromiter(seen, np.int64, len(seen))
        old = scores[ids]
        scores[ids] = np.where(old > 0, old / penalty, old * penalty)
    if not np.isfinite(scores.max()):
        raise ValueError("The model gave no finite logit.")
    return scores


def _top_k(scores: Floats, k: int) -> Ids:
    """The ``k`` best ids, ascending; all of them for 0."""
    if k == 0 or k >= len(scores):
        return np.arange(len(scores))
    limit = np.partition(scores, -k)[-k]
    above = np.flatnonzero(scores > limit)
    ties = np.flatnonzero(scores == limit)[: k - len(above)]
    return np.sort(np.concatenate([above, ties]))


def _top_p(ids: Ids, weights: Floats, p: float) -> tuple[Ids, Floats]:
    """The fewest best ids whose probability reaches ``p``, ascending.

    Sorting a whole vocabulary for each token is slow, so a first look takes only the best.
    """
    target = p * weights.sum()
    look = min(_FIRST_LOOK, len(ids))
    best = _top_k(weights, look)
    if weights[best].sum() < target:
        best = np.arange(len(ids))
    order = best[np.argsort(-weights[best], kind="stable")]
    count = int(np.searchsorted(np.cumsum(weights[order]), target, side="left")) + 1
    chosen = np.sort(order[:count])
    return ids[chosen], weights[chosen]
