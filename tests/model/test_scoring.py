"""A recorded reply is judged by the draws that made it, and noise is told from divergence."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.engine import Sampling
from model.sampling import Logits, draw, log_probability, uniform
from model.scoring import TOLERANCES, Tolerance, margin, score_reply, tolerance_of

EXACT = Tolerance(logits=0.0, probability=0.0)
VOCABULARY = 50


def rows_of(seed: int, count: int = 12, size: int = VOCABULARY) -> list[Logits]:
    dice = np.random.default_rng(seed)
    return [dice.normal(scale=2, size=size).astype(np.float32) for _ in range(count)]


def reply_of(rows: list[Logits], sampling: Sampling, prompt: list[int]) -> list[int]:
    """What an engine would have recorded: each token drawn from its logits."""
    made: list[int] = []
    for n, logits in enumerate(rows):
        made.append(draw(logits, sampling, n, {*prompt, *made}))
    return made


def the_chance(wanted: float) -> int:
    """A seed whose first number is near ``wanted``."""
    return min(range(2000), key=lambda seed: abs(uniform(seed, 0) - wanted))


SAMPLINGS = [
    Sampling(),
    Sampling(repetition_penalty=1.3),
    Sampling(temperature=0.7, seed=5),
    Sampling(temperature=1.0, seed=6, top_k=5, repetition_penalty=1.1),
    Sampling(temperature=1.3, seed=7, top_p=0.8),
    Sampling(temperature=1.0, seed=8, min_p=0.1, top_p=0.95, top_k=20),
]


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_what_was_drawn_is_drawn_again_without_any_tolerance(sampling: Sampling) -> None:
    rows = rows_of(1)
    made = reply_of(rows, sampling, [3, 4])
    score = score_reply(iter(rows), [3, 4], made, sampling, EXACT)
    assert (score.verdict, score.diverged_at, score.margin) == ("identical", None, None)
    assert score.logprobs == tuple(log_probability(r, t) for r, t in zip(rows, made, strict=True))


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_another_token_is_a_divergence_at_its_place(sampling: Sampling) -> None:
    rows = rows_of(2)
    made = reply_of(rows, sampling, [])
    made[4] = int(np.argmin(rows[4]))
    score = score_reply(rows, [], made, sampling, EXACT)
    assert (score.verdict, score.diverged_at) == ("diverged", 4)
    assert score.margin is not None
    assert score.margin > 0
    assert len(score.logprobs) == len(made)  # the rest is scored as it stands


def test_only_the_seed_that_drew_it_scores_as_identical() -> None:
    rows = rows_of(3, count=40)
    made = reply_of(rows, Sampling(temperature=1.0, seed=1), [])
    for other in (Sampling(temperature=1.0, seed=2), Sampling(temperature=0.2, seed=1)):
        assert score_reply(rows, [], made, other, TOLERANCES["fp32"]).verdict == "diverged"


def test_the_margin_of_a_greedy_token_is_what_its_logit_lacks() -> None:
    logits = np.array([2.0, 1.5, -1.0], dtype=np.float32)
    assert margin(logits, 0, Sampling(), 0, set()) == 0
    assert margin(logits, 1, Sampling(), 0, set()) == pytest.approx(0.5)
    # With the penalty the first counts 2/2: the second is ahead of it by a half.
    assert margin(logits, 0, Sampling(repetition_penalty=2.0), 0, {0}) == pytest.approx(0.5)


def test_the_margin_of_a_drawn_token_is_the_way_to_its_share() -> None:
    logits = np.log(np.array([0.5, 0.3, 0.2]))
    sampling = Sampling(temperature=1.0, seed=the_chance(0.55))
    chance = uniform(sampling.seed, 0)
    assert margin(logits, 1, sampling, 0, set()) == 0
    assert margin(logits, 0, sampling, 0, set()) == pytest.approx(chance - 0.5)
    assert margin(logits, 2, sampling, 0, set()) == pytest.approx(0.8 - chance)


def test_a_token_at_the_limit_of_top_p_may_have_been_let_in_by_noise() -> None:
    logits = np.log(np.array([0.5, 0.3001, 0.1999]))
    sampling = Sampling(temperature=1.0, top_p=0.8, seed=the_chance(0.9))
    assert draw(logits, sampling, 0) == 1
    assert margin(logits, 2, sampling, 0, set()) == pytest.approx(1e-4, abs=1e-6)


def test_a_token_that_noise_kept_out_moves_the_others() -> None:
    # With three kept, 0.55 falls on the second; with two it would fall on the first.
    logits = np.log(np.array([0.5, 0.2999, 0.2001]))
    sampling = Sampling(temperature=1.0, top_p=0.8, seed=the_chance(0.55))
    assert draw(logits, sampling, 0) == 1
    assert margin(logits, 0, sampling, 0, set()) == pytest.approx(1e-4, abs=1e-6)


def test_a_near_tie_at_top_k_may_have_gone_the_other_way() -> None:
    logits = np.log(np.array([0.4, 0.3001, 0.2999]))
    sampling = Sampling(temperature=1.0, top_k=2, seed=the_chance(0.9))
    assert draw(logits, sampling, 0) == 1
    assert margin(logits, 2, sampling, 0, set()) < 1e-3


def test_min_p_has_its_price_as_well() -> None:
    logits = np.log(np.array([0.6, 0.31, 0.09]))
    sampling = Sampling(temperature=1.0, min_p=0.2, seed=the_chance(0.95))
    assert draw(logits, sampling, 0) == 1
    assert margin(logits, 2, sampling, 0, set()) == pytest.approx(0.03)


def test_what_the_model_holds_impossible_is_never_noise() -> None:
    logits = np.array([0.0, -np.inf, np.nan])
    assert margin(logits, 1, Sampling(), 0, set()) == math.inf
    for token in (1, 2):
        drawn = Sampling(temperature=1.0, top_k=1)
        assert margin(logits, token, drawn, 0, set()) == math.inf


def test_noise_below_the_tolerance_is_no_divergence_and_above_it_is() -> None:
    rows = [np.array([1.0, 1.0 - gap, 0.0]) for gap in (0.1, 0.3)]
    tight, loose = Tolerance(0.2, 0), Tolerance(0.4, 0)
    assert score_reply(rows, [], [1, 1], Sampling(), loose).verdict == "identical"
    score = score_reply(rows, [], [1, 1], Sampling(), tight)
    assert score.diverged_at == 1
    assert score.margin == pytest.approx(0.3)


@given(st.integers(0, 10**6), st.sampled_from(SAMPLINGS[2:]), st.floats(1e-9, 1e-4))
def test_noise_in_the_logits_never_exceeds_its_share_in_the_margin(
    seed: int, sampling: Sampling, size: float
) -> None:
    """Logits off by ``size`` move no share by more than a few ``size`` / temperature."""
    dice = np.random.default_rng(seed)
    logits = dice.normal(scale=2, size=VOCABULARY)
    token = draw(logits + dice.uniform(-size, size, VOCABULARY), sampling, 0, {1})
    assert margin(logits, token, sampling, 0, {1}) <= 8 * size / sampling.temperature


def test_without_a_finite_logit_there_is_no_verdict() -> None:
    with pytest.raises(ValueError, match="no finite logit"):
        score_reply([np.full(3, np.nan)], [], [1], Sampling(), EXACT)


def test_an_unmeasured_precision_gets_the_widest_tolerance_that_was_measured() -> None:
    assert tolerance_of("int4") == tolerance_of("bf16")
    assert tolerance_of("fp32").logits < tolerance_of("bf16").logits
