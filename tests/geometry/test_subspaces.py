from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.linalg import orth, subspace_angles
from sklearn.cross_decomposition import CCA

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry import cca, chance_cca, principal_angles


def centred(x: np.ndarray) -> np.ndarray:
    return x - x.mean(axis=0)


def test_cca_equals_the_correlations_of_scikit_learn(pair_q):
    x, y = pair_q
    scores = CCA(n_components=10, max_iter=20_000, tol=1e-12).fit_transform(x, y)
    r = [np.corrcoef(a, b)[0, 1] for a, b in zip(scores[0].T, scores[1].T, strict=True)]
    assert cca(x, y) == pytest.approx(np.mean(np.square(r)), abs=1e-5)


def test_cca_equals_the_angles_of_the_column_spaces(pair_q):
    x, y = pair_q
    for a, b in ((x, y), (x, y[:, :3])):
        angles = subspace_angles(centred(a), centred(b))
        assert cca(a, b) == pytest.approx(np.mean(np.cos(angles) ** 2), abs=1e-12)
    assert cca(x, y) == pytest.approx(0.52304, abs=5e-6)


def test_chance_is_the_exact_mean_over_shuffles():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((6, 3)), rng.standard_normal((6, 2))
    orders = [list(p) for p in itertools.permutations(range(6))]
    mean = np.mean([cca(x, y[p]) for p in orders])
    assert mean == pytest.approx(chance_cca(6, 3, 2), abs=1e-12)


def test_a_linear_map_changes_nothing_even_when_it_scales_much(pair_q):
    x = pair_q[0]
    scales = np.logspace(-6, 6, 10)
    assert cca(x * scales, x) == pytest.approx(1, abs=1e-10)
    assert cca(x * scales, pair_q[1]) == pytest.approx(cca(*pair_q), abs=1e-10)


def test_with_as_many_directions_as_rows_everything_correlates():
    x, y = np.random.default_rng(0).standard_normal((2, 20, 19))
    q = [orth(centred(a)) for a in (x, y)]
    assert np.linalg.norm(q[0].T @ q[1]) ** 2 / 19 == pytest.approx(1)  # whatever the data
    for dim in (19, 30):
        wide = np.random.default_rng(1).standard_normal((2, 20, dim))
        with pytest.raises(DegenerateInput, match=f"for {dim} directions, got 20"):
            cca(*wide)
    assert cca(x[:, :18], y[:, :18]) < 1


def test_columns_that_depend_on_each_other(pair_q):
    x, y = pair_q
    twice = np.concatenate([x, x[:, :2] - x[:, 2:4]], axis=1).astype(np.float32)
    with pytest.raises(DegenerateInput, match="got 10 directions in 12 columns"):
        cca(twice, y)
    flat = np.concatenate([x, np.ones((100, 1))], axis=1)
    with pytest.raises(DegenerateInput, match="got 10 directions in 11 columns"):
        cca(flat, y)
    assert cca(twice, y, variance=0.999) > 0


def test_svcca_keeps_the_components_that_carry_the_share(pair_s):
    few = [side[:150] for side in pair_s]
    x, y = (centred(a) for a in few)
    bases = []
    for a in (x, y):
        left, s, _ = np.linalg.svd(a, full_matrices=False)
        kept = int(np.argmax(np.cumsum(s**2) / np.sum(s**2) >= 0.9)) + 1
        bases.append(left[:, :kept])
    shared = np.linalg.norm(bases[0].T @ bases[1]) ** 2 / min(b.shape[1] for b in bases)
    assert cca(*few, variance=0.9) == pytest.approx(shared, abs=1e-10)
    assert cca(*map(torch.tensor, few), variance=0.9) == pytest.approx(shared, abs=1e-10)


@pytest.mark.parametrize("share", [0.0, -1, 1.01, math.nan])
def test_a_share_of_the_variance(pair_q, share):
    with pytest.raises(UsageError, match="share of the variance"):
        cca(*pair_q, variance=share)


@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("of", ["samples", "features"])
def test_principal_angles_equal_those_of_singular_vectors(pair_s, few, of):
    x, y = (a[:60] for a in pair_s) if few else (a[:, :40] for a in pair_s)
    tops = []
    for a in (centred(x), centred(y)):
        left, _, right = np.linalg.svd(a, full_matrices=False)
        tops.append(left[:, :5] if of == "samples" else right[:5].T)
    want = np.sort(subspace_angles(*tops))
    assert principal_angles(x, y, 5, of=of) == pytest.approx(want, abs=1e-9)
    got = principal_angles(torch.tensor(x), torch.tensor(y), 5, of=of)
    assert got == pytest.approx(want, abs=1e-9)


def test_small_angles_keep_their_digits():
    """The arc cosine alone cannot tell 1e-9 from 0."""
    rng = np.random.default_rng(0)
    scores = np.linalg.qr(centred(rng.standard_normal((50, 3))))[0] * [5, 3, 1]
    x, y = np.zeros((2, 50, 4))
    x[:, :3] = y[:, :3] = scores
    y[:, 3] = scores[:, 0] * 1e-9  # the first axis is turned by 1e-9 in the coordinates
    assert principal_angles(x, y, 1, of="features") == pytest.approx([1e-9], rel=1e-5)
    assert principal_angles(x, x, 2) == pytest.approx(0, abs=1e-14)


def test_random_subspaces_are_at_chance():
    rng = np.random.default_rng(0)
    draws = [np.cos(principal_angles(*rng.standard_normal((2, 40, 12)), 4)) ** 2 for _ in range(60)]
    assert np.mean(draws) == pytest.approx(4 / 39, rel=0.1)


def test_angles_need_a_leading_subspace(pair_q):
    x, y = pair_q
    with pytest.raises(DegenerateInput, match="k = 11 directions, got 10"):
        principal_angles(x, y, 11)
    with pytest.raises(DegenerateInput, match="directions 2 and 3; take another k"):
        principal_angles(np.eye(5), np.eye(5), 2)
    thin = np.outer(np.arange(8.0), [1, 2, 3]) + np.eye(8)[:, :3] * 1e-9
    with pytest.raises(DegenerateInput, match="k = 2 directions, got 1"):
        principal_angles(thin, thin, 2)
    with pytest.raises(UsageError, match="k of at least 1"):
        principal_angles(x, y, 0)
    with pytest.raises(UsageError, match="paired rows"):
        principal_angles(x, y[:-1], 2)
    with pytest.raises(UsageError, match="same columns on both sides, got 10 and 3"):
        principal_angles(x, y[:, :3], 2, of="features")
    with pytest.raises(UsageError, match="got 'rows'"):
        principal_angles(x, y, 2, of="rows")
    assert len(principal_angles(x, y[:-1], 2, of="features")) == 2
