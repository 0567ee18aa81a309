"""The third moment of CKA over all pairings of the rows."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from scipy import stats

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry import linear_cka, linear_cka_skew, rows

RNG = np.random.default_rng(4)


@pytest.mark.parametrize("n", [6, 7])
@pytest.mark.parametrize("dim", [1, 2, 5, 40])
def test_exact_over_all_pairings(n, dim):
    x, y = RNG.standard_normal((2, n, dim))
    y = np.exp(y)
    try:
        values = [linear_cka(x, y[list(order)]) for order in permutations(range(n))]
    except DegenerateInput:
        pytest.skip("no signal in so few rows")
    assert linear_cka_skew(x, y) == pytest.approx(stats.skew(values), rel=1e-9)


def test_blocks_and_torch_give_the_same(monkeypatch):
    x, y = RNG.standard_normal((2, 90, 7)) * np.linspace(3, 0.2, 7)
    whole = linear_cka_skew(x, y)
    assert linear_cka_skew(torch.tensor(x), torch.tensor(y)) == pytest.approx(whole, rel=1e-10)
    monkeypatch.setattr(rows, "BLOCK_ENTRIES", 700)
    assert linear_cka_skew(x, y) == pytest.approx(whole, rel=1e-10)


def test_what_does_not_move_it():
    x, y = RNG.standard_normal((2, 60, 5)) * [4, 2, 1, 1, 1]
    turn = np.linalg.qr(RNG.standard_normal((5, 5)))[0]
    deal = RNG.permutation(60)
    whole = linear_cka_skew(x, y)
    for other in (x * 1e9 + 3, x @ turn, x[deal], x.astype(np.float64) * 1e-20):
        assert linear_cka_skew(other, y) == pytest.approx(whole, rel=1e-8)
    assert linear_cka_skew(y, x) == pytest.approx(whole, rel=1e-12)
    assert linear_cka_skew(x * [1, 5, 1, 1, 1], y) != pytest.approx(whole, rel=1e-2)


def test_few_directions_are_lopsided_and_many_are_not():
    """One direction on each side: the square of a correlation, so a chi-square of skewness 8^.5."""
    x, y = RNG.standard_normal((2, 1500, 1))
    assert linear_cka_skew(x, y) == pytest.approx(8**0.5, rel=0.05)
    x, y = RNG.standard_normal((2, 400, 300))
    assert abs(linear_cka_skew(x, y)) < 0.05


def test_massive_directions_are_one_direction():
    x, y = RNG.standard_normal((2, 300, 50)).astype(np.float32)
    x[:, 3] *= 8000
    y[:, 3] *= 8000
    want = linear_cka_skew(x[:, 3:4], y[:, 3:4])
    assert linear_cka_skew(x, y) == pytest.approx(want, rel=1e-4)


def test_rows_that_do_not_match():
    with pytest.raises(UsageError, match="paired rows, got 20 and 19"):
        linear_cka_skew(RNG.standard_normal((20, 3)), RNG.standard_normal((19, 3)))


def test_five_rows_are_too_few():
    with pytest.raises(DegenerateInput, match="at least 6 rows"):
        linear_cka_skew(*RNG.standard_normal((2, 5, 3)))


def test_a_constant_side_has_none():
    with pytest.raises(DegenerateInput, match="rows that differ"):
        linear_cka_skew(np.ones((20, 3)), RNG.standard_normal((20, 3)))
