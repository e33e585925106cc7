"""A batch's choice is the choice of each row alone."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.engine import Sampling
from model.sampling import draw, log_probability

pytestmark = pytest.mark.slow  # loads torch, which takes some seconds


class Asked:
    """What a choice needs of a reply."""

    def __init__(self, sampling: Sampling, seen: set[int]) -> None:
        self.request = type("Request", (), {"sampling": sampling})
        self.token_ids = sorted(seen)
        self._seen = seen

    def seen(self) -> set[int]:
        return self._seen


def chosen(rows: list[list[float]], replies: list[Asked]) -> list[Any]:
    import torch

    from model.choosing import choose

    return choose(torch.tensor(rows, dtype=torch.float32), replies)  # type: ignore[arg-type]


LOGITS = st.lists(st.sampled_from([-3.0, -1.0, 0.0, 1.0, 1.05, 2.0, 2.1]), min_size=8, max_size=8)
SAMPLING = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.0, 0.7]),
    repetition_penalty=st.sampled_from([0.9, 1.0, 1.05, 1.5]),
    seed=st.integers(0, 5),
)


@given(st.lists(st.tuples(LOGITS, SAMPLING, st.sets(st.integers(0, 7), min_size=1)), min_size=1))
def test_it_is_what_each_row_would_draw_alone(
    rows: list[tuple[list[float], Sampling, set[int]]],
) -> None:
    got = chosen([logits for logits, _, _ in rows], [Asked(s, seen) for _, s, seen in rows])
    for (logits, sampling, seen), (token, logprob) in zip(rows, got, strict=True):
        plain = np.array(logits, np.float32)
        assert token == draw(plain, sampling, len(seen), seen)
        assert logprob == pytest.approx(log_probability(plain, token), abs=1e-5)


@pytest.mark.parametrize("penalty", [1.0, 1.1])
def test_a_row_without_numbers_is_an_error_and_hurts_no_other(penalty: float) -> None:
    nan = float("nan")
    replies = [Asked(Sampling(repetition_penalty=penalty), {1}) for _ in range(3)]
    astray, fine, odd = chosen([[nan] * 4, [0, 5, 1, 1], [0, 1, nan, 3]], replies)
    assert isinstance(astray, ValueError)
    assert fine[0] == 1
    assert odd[0] == 3
