from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry import (
    modality_gap,
    modality_gap_null,
    modality_gap_unbiased,
    relative_modality_gap,
    retrieval,
)


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


def brute_relative_gap(x: np.ndarray, y: np.ndarray) -> float:
    apart = ~np.eye(len(x), dtype=bool)
    inside = [(1 - cosine_similarity(side))[apart].mean() for side in (x, y)]
    across = (1 - cosine_similarity(x, y).diagonal()).mean()
    return across / (across + np.mean(inside))


def test_relative_gap_equals_its_definition(pair_s, pair_q):
    for pair in (pair_s, pair_q):
        assert relative_modality_gap(*pair) == pytest.approx(brute_relative_gap(*pair), abs=1e-12)


def test_relative_gap_at_its_ends():
    x = np.random.default_rng(0).standard_normal((40, 8))
    assert relative_modality_gap(x, 3 * x) == pytest.approx(0, abs=1e-15)
    cone = x * 0.01 + 1
    assert relative_modality_gap(cone, -cone) > 0.999
    # A partner as far as any row of one's own side: one half.
    y = np.random.default_rng(1).standard_normal((400, 64))
    assert relative_modality_gap(y, np.roll(y, 1, axis=0)) == pytest.approx(0.5, abs=0.01)


def test_relative_gap_leaves_out_groups(pair_q):
    x, y = (np.concatenate([side, side]) for side in pair_q)
    groups = [str(i % 100) for i in range(200)]
    want = relative_modality_gap(*pair_q)
    assert relative_modality_gap(x, y, groups) == pytest.approx(want, abs=1e-12)
    with pytest.raises(DegenerateInput, match="got one group"):
        relative_modality_gap(x, y, ["a"] * 200)


@pytest.mark.parametrize(
    "metric",
    [modality_gap, modality_gap_unbiased, modality_gap_null, relative_modality_gap, retrieval],
)
def test_both_sides_lie_in_one_space(pair_q, metric):
    with pytest.raises(UsageError, match="10 and 3 columns"):
        metric(pair_q[0], pair_q[1][:, :3])


def test_only_the_unpaired_gap_takes_unequal_rows(pair_q):
    x, y = pair_q
    for metric in (modality_gap_unbiased, relative_modality_gap, modality_gap_null):
        with pytest.raises(UsageError, match="paired rows"):
            metric(x, y[:-1])
    assert modality_gap_unbiased(x, y[:-1], paired=False) > 0
    assert modality_gap(x, y[:-1]) > 0
