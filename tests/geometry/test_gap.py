from __future__ import annotations

import math

import numpy as np
import pytest

from geomkit.geometry import modality_gap, modality_gap_null, modality_gap_unbiased


def test_gap_of_two_poles():
    x = np.array([[1.0, 0.1], [1, -0.1]])
    assert modality_gap(x, -x) == pytest.approx(2 / math.sqrt(1.01))


def test_gap_of_pair_s(pair_s):
    assert modality_gap(*pair_s) == pytest.approx(1.038, abs=5e-4)
    assert math.sqrt(modality_gap_unbiased(*pair_s)) == pytest.approx(1.0368, abs=5e-5)
    unpaired = modality_gap_unbiased(*pair_s, paired=False)
    assert math.sqrt(unpaired) == pytest.approx(1.0366, abs=5e-5)


def test_unbiased_gap_does_not_move_with_n(pair_s):
    x, y = pair_s
    rng = np.random.default_rng(0)
    picks = [rng.permutation(500)[:10] for _ in range(200)]
    plug_in = np.mean([modality_gap(x[p], y[p]) ** 2 for p in picks])
    unbiased = np.mean([modality_gap_unbiased(x[p], y[p]) for p in picks])
    whole = modality_gap_unbiased(x, y)
    assert unbiased == pytest.approx(whole, rel=0.01)
    assert plug_in > whole * 1.05


def test_without_a_gap_the_plug_in_is_at_its_null():
    rng = np.random.default_rng(0)
    draws = [rng.standard_normal((2, 50, 12)) + 0.5 for _ in range(200)]
    square = np.mean([modality_gap(x, y) ** 2 for x, y in draws])
    null = np.mean([modality_gap_null(x, y) ** 2 for x, y in draws])
    assert square == pytest.approx(null, rel=0.1)
    assert np.mean([modality_gap_unbiased(x, y) for x, y in draws]) == pytest.approx(0, abs=2e-3)


def test_null_is_the_mean_square_over_all_swaps():
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((2, 6, 4))
    u, v = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, y))
    signs = np.array([[1 if b >> i & 1 else -1 for i in range(6)] for b in range(64)])
    squares = (((signs[:, :, None] * (u - v)[None]).mean(1)) ** 2).sum(1)
    assert modality_gap_null(x, y) ** 2 == pytest.approx(squares.mean(), rel=1e-12)


def test_groups_leave_out_their_cross_pairs():
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((2, 30, 5)) + 1
    twice, groups = np.tile(np.arange(30), 2), [str(i % 30) for i in range(60)]
    grouped = modality_gap_unbiased(x[twice], y[twice], groups=groups)
    assert grouped == pytest.approx(modality_gap_unbiased(x, y), abs=1e-12)
