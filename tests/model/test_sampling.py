"""Draws are a pure function of logits, sampling, seed and number of the token."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.engine import Sampling
from model.sampling import draw, kept, log_probability, uniform

LOGITS = np.log(np.array([0.5, 0.2, 0.15, 0.1, 0.05], dtype=np.float32))


def ids_kept(logits: np.ndarray, **sampling: float) -> list[int]:
    options = {"temperature": 1.0, **sampling}
    ids, probabilities = kept(logits.astype(np.float64), Sampling(**options))  # type: ignore[arg-type]
    assert math.isclose(probabilities.sum(), 1.0)
    return list(ids)


def test_the_chance_is_pinned_for_ever() -> None:
    # An audit of years ago must draw the same numbers: these never change.
    assert uniform(0, 0) == pytest.approx(0.6736177528149841, abs=1e-15)
    assert uniform(-3, 7) != uniform(3, 7) != uniform(37, 7)


@given(seed=st.integers(), n=st.integers(min_value=0))
def test_the_chance_is_in_range_and_repeats(seed: int, n: int) -> None:
    assert 0 <= uniform(seed, n) < 1
    assert uniform(seed, n) == uniform(seed, n)


def test_greedy_takes_the_best_and_of_equals_the_first() -> None:
    assert draw(np.array([1.0, 3.0, 3.0], dtype=np.float32), Sampling(), 0) == 1


def test_filters_keep_what_they_say() -> None:
    assert ids_kept(LOGITS) == [0, 1, 2, 3, 4]
    assert ids_kept(LOGITS, top_k=2) == [0, 1]
    assert ids_kept(LOGITS, top_k=99) == [0, 1, 2, 3, 4]
    assert ids_kept(LOGITS, top_p=0.45) == [0]
    assert ids_kept(LOGITS, top_p=0.69) == [0, 1]
    assert ids_kept(LOGITS, top_p=0.71) == [0, 1, 2]
    assert ids_kept(LOGITS, min_p=0.25) == [0, 1, 2]
    assert ids_kept(LOGITS, min_p=1.0) == [0]
    assert ids_kept(LOGITS, top_k=3, top_p=0.8) == [0, 1]  # 0.7 of the kept 0.85 is enough


def test_order_does_not_matter_to_the_filters() -> None:
    assert ids_kept(LOGITS[::-1], top_k=2) == [3, 4]
    assert ids_kept(LOGITS[::-1], top_p=0.69) == [3, 4]


def test_ties_at_the_limit_keep_exactly_k_smaller_ids_first() -> None:
    assert ids_kept(np.zeros(6), top_k=2) == [0, 1]
    assert ids_kept(np.zeros(4), top_p=0.5) == [0, 1]
    assert ids_kept(np.zeros(4), min_p=1.0) == [0, 1, 2, 3]


def test_impossible_tokens_are_never_drawn() -> None:
    logits = np.array([-np.inf, 0.0, -np.inf, np.nan], dtype=np.float32)
    sampling = Sampling(temperature=5.0, top_k=3, seed=1)
    assert {draw(logits, sampling, n) for n in range(50)} == {1}
    assert draw(logits, Sampling(), 0) == 1


def test_one_token_left_is_drawn() -> None:
    one = np.array([0.3], dtype=np.float32)
    assert draw(one, Sampling(temperature=1.0, top_p=0.1, min_p=1.0, top_k=1), 3) == 0


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_without_a_finite_logit_there_is_nothing_to_draw(temperature: float) -> None:
    with pytest.raises(ValueError, match="no finite logit"):
        draw(np.array([-np.inf, np.nan]), Sampling(temperature=temperature), 0)


def test_draws_follow_the_distribution() -> None:
    sampling = Sampling(temperature=1.0, seed=5)
    counts = np.bincount([draw(LOGITS, sampling, n) for n in range(4000)], minlength=5)
    assert counts / 4000 == pytest.approx(np.exp(LOGITS), abs=0.03)


def test_temperature_sharpens_and_flattens_without_overflow() -> None:
    flat = kept(LOGITS.astype(np.float64), Sampling(temperature=100.0))[1]
    sharp = kept(LOGITS.astype(np.float64), Sampling(temperature=1e-6))
    assert flat == pytest.approx(np.full(5, 0.2), abs=0.01)
    assert list(sharp[0]) == [0]
    assert draw(np.array([1e4, -1e4]), Sampling(temperature=1e-300, seed=2), 0) == 0


def test_repetition_penalty_lowers_what_was_seen() -> None:
    logits = np.array([2.0, 1.9, -1.0], dtype=np.float32)
    assert draw(logits, Sampling(repetition_penalty=1.5), 0, {0}) == 1
    assert draw(logits, Sampling(repetition_penalty=1.5), 0, set()) == 0
    negative = np.array([-1.0, -1.2], dtype=np.float32)
    assert draw(negative, Sampling(repetition_penalty=2.0), 0, {0}) == 1


def test_top_p_beyond_the_first_look_is_the_same_as_a_whole_sort() -> None:
    generator = np.random.default_rng(3)
    for spread in (0.1, 3.0):
        logits = generator.normal(size=5000) * spread
        ids = ids_kept(logits, top_p=0.9)
        order = np.argsort(-logits, kind="stable")
        mass = np.cumsum(np.exp(logits[order]) / np.exp(logits).sum())
        assert ids == sorted(order[: int(np.searchsorted(mass, 0.9)) + 1])


@given(st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=20), st.data())
def test_a_draw_is_always_one_of_the_kept(values: list[float], data: st.DataObject) -> None:
    logits = np.array(values, dtype=np.float32)
    sampling = Sampling(
        temperature=data.draw(st.floats(0.01, 10)),
        top_k=data.draw(st.integers(0, 25)),
        top_p=data.draw(st.floats(0.01, 1)),
        min_p=data.draw(st.floats(0, 1)),
        seed=data.draw(st.integers()),
    )
    ids, _ = kept(logits.astype(np.float64), sampling)
    assert draw(logits, sampling, data.draw(st.integers(0, 10**6))) in ids


def test_log_probability_is_the_models_own_softmax() -> None:
    assert log_probability(LOGITS + 7, 1) == pytest.approx(math.log(0.2), abs=1e-6)
    assert log_probability(np.array([0.0, -np.inf]), 1) == -math.inf
