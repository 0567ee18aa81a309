from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry import distances, linear_cka, rsa
from tests.geometry.conftest import unit

NAMES = {"euclidean": "sqeuclidean", "cosine": "cosine", "correlation": "correlation"}


@pytest.mark.parametrize("name", NAMES)
def test_spearman_of_the_distances_of_scipy(pair_s, pair_q, name):
    for x, y in (pair_q, (pair_s[0][:80], pair_s[1][:80])):
        want = spearmanr(pdist(x, NAMES[name]), pdist(y, NAMES[name])).statistic
        assert rsa(x, y, dissimilarity=name) == pytest.approx(want, abs=1e-10)
        tensors = torch.tensor(x), torch.tensor(y)
        assert rsa(*tensors, dissimilarity=name) == pytest.approx(want, abs=1e-9)


def test_spearman_of_squares_is_that_of_distances(pair_q):
    want = spearmanr(*(pdist(side) for side in pair_q)).statistic
    assert rsa(*pair_q) == pytest.approx(want, abs=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_whitened_cosine_by_its_definition(name):
    """The cosine of two vectors of distances under the inverse covariance of their entries.

    For rows with independent noise that covariance is the square, entry by entry, of C C^T, where
    C has a row of +1 and -1 for each pair.
    """
    x, y = np.random.default_rng(0).standard_normal((2, 9, 5))
    pairs = list(itertools.combinations(range(9), 2))
    contrast = np.zeros((len(pairs), 9))
    for row, (i, j) in enumerate(pairs):
        contrast[row, [i, j]] = 1, -1
    white = np.linalg.inv((contrast @ contrast.T) ** 2)
    a, b = (pdist(side, NAMES[name]) for side in (x, y))
    want = (a @ white @ b) / np.sqrt((a @ white @ a) * (b @ white @ b))
    got = rsa(x, y, dissimilarity=name, comparison="whitened")
    assert got == pytest.approx(want, abs=1e-12)


def test_whitened_cosine_is_linear_cka(pair_s, pair_q):
    for pair in (pair_s, pair_q):
        want = linear_cka(*pair, debiased=False)
        assert rsa(*pair, comparison="whitened") == pytest.approx(want, abs=1e-12)
    want = linear_cka(*map(unit, pair_q), debiased=False)
    got = rsa(*pair_q, dissimilarity="cosine", comparison="whitened")
    assert got == pytest.approx(want, abs=1e-12)


def test_ties_share_their_rank_even_after_rounding():
    """Rows on a grid: equal distances come out of the Gram matrix unequal in the last digit."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 3, (2, 40, 6)) / 3
    want = spearmanr(np.round(pdist(x, "sqeuclidean"), 9), np.round(pdist(y, "sqeuclidean"), 9))
    assert rsa(x, y) == pytest.approx(want.statistic, abs=1e-10)
    turn = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    assert rsa(x @ turn, y + 100) == pytest.approx(want.statistic, abs=1e-10)


def test_pairs_inside_a_group_are_left_out(pair_q):
    x, y = pair_q
    groups = np.arange(100) // 2
    pairs = np.array(list(itertools.combinations(range(100), 2)))
    apart = groups[pairs[:, 0]] != groups[pairs[:, 1]]
    want = spearmanr(pdist(x)[apart], pdist(y)[apart]).statistic
    assert rsa(x, y, groups=groups) == pytest.approx(want, abs=1e-10)


def test_what_rsa_refuses(pair_q, monkeypatch):
    x, y = pair_q
    with pytest.raises(DegenerateInput, match="one distance for all"):
        rsa(np.eye(6), y[:6])
    with pytest.raises(DegenerateInput, match="at least 3 rows"):
        rsa(x[:2], y[:2])
    with pytest.raises(DegenerateInput, match="got 1 of 100 with one value in all columns"):
        rsa(np.concatenate([x[:-1], np.full((1, 10), 0.1)]), y, dissimilarity="correlation")
    with pytest.raises(DegenerateInput, match="one distance for all"):
        rsa(x, y, groups=["a"] * 100)
    with pytest.raises(UsageError, match="paired rows"):
        rsa(x, y[:-1])
    with pytest.raises(UsageError, match="got 'pearson'"):
        rsa(x, y, comparison="pearson")
    with pytest.raises(UsageError, match="got 'l1'"):
        rsa(x, y, dissimilarity="l1")
    with pytest.raises(UsageError, match="which takes all pairs"):
        rsa(x, y, comparison="whitened", groups=["a"] * 100)
    monkeypatch.setattr(distances, "MOST", 99)
    with pytest.raises(UsageError, match="at most 99 rows"):
        rsa(x, y)
    assert rsa(x, y, comparison="whitened") > 0
