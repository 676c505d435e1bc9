"""Conformal half widths: the quantile by hand, the promised coverage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sejax.evaluation.conformal import half_width


def test_the_quantile_by_hand():
    residuals = np.array([3.0, -1, 2, 5, -4, 7, 6, 9, 8])
    assert half_width(residuals) == 9  # ceil(10 * 0.9) = 9th of 9
    assert half_width(residuals, level=0.5) == 5
    assert half_width(residuals[:8]) is None  # ceil(9 * 0.9) = 9th of 8
    assert half_width(np.zeros(0)) is None
    assert half_width(np.arange(1.0, 100)) == 90  # 90th of 99


@pytest.mark.parametrize("n", [9, 19, 100])
def test_a_new_residual_is_covered_as_often_as_promised(n: int):
    """The share is ceil((n + 1) level) / (n + 1) exactly, on average over exchangeable residuals."""
    rng = np.random.default_rng(n)
    draws = rng.standard_t(3, size=(20_000, n + 1))
    rank = -(-9 * (n + 1) // 10)
    covered = np.mean([abs(row[-1]) <= (half_width(row[:-1]) or 0) for row in draws])
    assert covered == pytest.approx(rank / (n + 1), abs=0.01)


@given(n=st.integers(9, 200), seed=st.integers(0, 99))
def test_the_rank_is_exact(n: int, seed: int):
    residuals = np.random.default_rng(seed).permutation(n) + 1.0
    assert half_width(residuals) == -(-9 * (n + 1) // 10)
