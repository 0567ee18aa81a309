from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import cosine_similarity

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry import (
    cross_mean_cosine,
    iso_score,
    mean_cosine,
    mean_norm_share,
    partition_isotropy,
    rows,
)


def off_diagonal_mean(x: np.ndarray) -> float:
    cosine = cosine_similarity(x.astype(np.float64))
    return float(cosine[~np.eye(len(x), dtype=bool)].mean())


def test_mean_cosine_equals_the_mean_over_all_pairs(pair_s, pair_q):
    for x in (*pair_s, *pair_q):
        assert mean_cosine(x) == pytest.approx(off_diagonal_mean(x), abs=1e-12)


def test_mean_cosine_of_pair_s(pair_s):
    assert mean_cosine(pair_s[0]) == pytest.approx(0.4924, abs=5e-5)


def test_mean_cosine_keeps_zero_cosines():
    x = np.eye(50)
    x[1] = x[0]  # one equal pair among orthogonal rows
    assert mean_cosine(x) == pytest.approx(2 / (50 * 49), abs=1e-15)


def test_mean_cosine_of_orthogonal_and_of_opposite_rows():
    assert mean_cosine(np.eye(5)) == pytest.approx(0, abs=1e-15)
    assert mean_cosine(np.array([[1.0, 0], [-1, 0]])) == pytest.approx(-1)


def test_mean_cosine_under_massive_dimensions(massive):
    exact = off_diagonal_mean(massive)
    assert exact > 0.9999
    assert mean_cosine(massive) == pytest.approx(exact, abs=1e-12)


def test_mean_cosine_leaves_out_pairs_of_one_group():
    x = np.random.default_rng(0).standard_normal((40, 6)) + 0.5
    groups = [str(i // 3) for i in range(40)]
    apart = np.array(groups)[:, None] != np.array(groups)[None]
    assert mean_cosine(x, groups) == pytest.approx(cosine_similarity(x)[apart].mean(), abs=1e-12)


def test_an_empty_group_is_no_group():
    x = np.random.default_rng(0).standard_normal((10, 4))
    for groups in ([""] * 10, np.array([""] * 10)):
        assert mean_cosine(x, groups) == pytest.approx(mean_cosine(x), abs=1e-14)


def test_one_group_has_no_distinct_pair():
    with pytest.raises(DegenerateInput, match="at least two groups"):
        mean_cosine(np.eye(4), ["a"] * 4)


def test_groups_must_fit_the_rows():
    with pytest.raises(UsageError, match="one group a row, got 3 groups for 4 rows"):
        mean_cosine(np.eye(4), ["a"] * 3)


def test_cross_mean_cosine_with_and_without_pairs(pair_q):
    x, y = pair_q
    cosine = cosine_similarity(x, y)
    apart = ~np.eye(len(x), dtype=bool)
    assert cross_mean_cosine(x, y) == pytest.approx(cosine.mean(), abs=1e-12)
    assert cross_mean_cosine(x, y, paired=True) == pytest.approx(cosine[apart].mean(), abs=1e-12)
    assert cross_mean_cosine(x, y[:60]) == pytest.approx(cosine[:, :60].mean(), abs=1e-12)
    with pytest.raises(UsageError, match="paired rows, got 100 and 60"):
        cross_mean_cosine(x, y[:60], paired=True)


def test_mean_norm_share_is_the_share_of_the_mean(pair_q):
    x, _ = pair_q
    mean = x.mean(0)
    within = ((x - mean) ** 2).sum(1).mean()
    assert mean_norm_share(x) == pytest.approx(mean @ mean / (mean @ mean + within), abs=1e-12)


@pytest.mark.parametrize(("axes", "score"), [(1, 0.0), (2, 0.5), (3, 1.0)])
def test_iso_score_of_equal_axes(axes, score):
    x = np.concatenate([np.eye(3)[:axes], -np.eye(3)[:axes]])
    assert iso_score(x, debiased=False) == pytest.approx(score, abs=1e-12)


def test_iso_score_equals_the_published_procedure():
    x = np.random.default_rng(0).standard_normal((500, 50)) * np.linspace(1, 5, 50)
    assert iso_score(x, debiased=False) == pytest.approx(0.627253155040354, abs=1e-12)


def test_debiased_iso_score_of_few_isotropic_rows():
    x = np.random.default_rng(0).standard_normal((128, 512))
    assert iso_score(x, debiased=False) == pytest.approx(0.197, abs=0.01)
    assert iso_score(x) == pytest.approx(1, abs=0.05)


def test_iso_score_of_one_column():
    with pytest.raises(DegenerateInput, match="at least 2 columns"):
        iso_score(np.arange(6.0)[:, None])


def brute_partition(x: np.ndarray) -> float:
    """Every row against every eigenvector of both signs, one at a time."""
    _, axes = np.linalg.eigh(x.T @ x)
    z = [sum(np.exp(sign * (row @ c)) for row in x) for c in axes.T for sign in (1, -1)]
    return float(min(z) / max(z))


@pytest.mark.parametrize(("n", "dim"), [(60, 7), (7, 12)])
def test_partition_isotropy_equals_the_sums_one_at_a_time(n, dim):
    x = np.random.default_rng(0).standard_normal((n, dim)) * np.linspace(1, 0.2, dim) + 0.1
    assert partition_isotropy(x) == pytest.approx(brute_partition(x), rel=1e-9)


def test_partition_isotropy_of_a_cross_and_of_a_cone():
    cross = np.concatenate([np.eye(4), -np.eye(4)])
    assert partition_isotropy(cross) == pytest.approx(1, abs=1e-9)
    cone = np.random.default_rng(0).standard_normal((200, 6)) * 0.1 + np.eye(6)[0] * 5
    assert partition_isotropy(cone) == pytest.approx(np.exp(-10), rel=0.2)


def test_partition_isotropy_of_a_known_spread():
    """Rows at +-a on one axis and +-b on another: Z is (cosh a + 1)/2 and (cosh b + 1)/2."""
    x = np.array([[2.0, 0], [-2, 0], [0, 1], [0, -1]])
    assert partition_isotropy(x) == pytest.approx((np.cosh(1) + 1) / (np.cosh(2) + 1), rel=1e-12)


def test_an_axis_on_which_all_rows_are_zero_counts():
    """Four independent rows in five columns, about 0 on every axis: Z is least, 4, off it."""
    spread = np.eye(4) - 0.5  # orthogonal
    x = np.column_stack([spread * [5, 6, 7, 8], np.zeros(4)])
    largest = np.exp(-4) + 3 * np.exp(4)
    assert partition_isotropy(x) == pytest.approx(4 / largest, rel=1e-12)
    assert partition_isotropy(x) == pytest.approx(brute_partition(x), rel=1e-12)


def test_partition_isotropy_neither_overflows_nor_depends_on_blocks(massive, monkeypatch):
    assert partition_isotropy(massive) == 0.0  # exp(-16000), below every float
    x = massive.astype(np.float64) / 3000
    whole = partition_isotropy(x)
    assert 0 < whole < 0.01
    monkeypatch.setattr(rows, "BLOCK_ENTRIES", 1000)
    assert partition_isotropy(x) == pytest.approx(whole, rel=1e-9)
    assert partition_isotropy(torch.tensor(x)) == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize(("length", "cosine"), [(1, 0.078), (4, 0.254), (16, 0.577), (64, 0.845)])
def test_mean_pooling_over_more_tokens_raises_the_mean_cosine(length, cosine):
    """Means of `length` tokens of unit noise about mu: |mu|^2 / (|mu|^2 + dim / length)."""
    dim, rng = 1024, np.random.default_rng(0)
    mu = rng.standard_normal(dim)
    mu *= 0.29 * np.sqrt(dim) / np.linalg.norm(mu)
    pooled = mu + rng.standard_normal((300, dim)) / np.sqrt(length)
    law = mu @ mu / (mu @ mu + dim / length)
    assert law == pytest.approx(cosine, abs=0.004)
    assert mean_cosine(pooled) == pytest.approx(law, abs=0.004)


@pytest.mark.parametrize("k", [1, 2, 5, 8])
def test_iso_score_of_k_axes_in_eight_dimensions(k):
    cross = np.concatenate([np.eye(8)[:k], -np.eye(8)[:k]])
    assert iso_score(cross, debiased=False) == pytest.approx((k - 1) / 7, abs=1e-12)


def test_iso_score_is_the_published_procedure_step_by_step(pair_q):
    """Principal variances, at length sqrt(dim), their distance from ones, and its scale."""
    for x in (pair_q[0], pair_q[1] * np.linspace(1, 9, 10)):
        variances, dim = PCA().fit(x).explained_variance_, x.shape[1]
        scaled = np.sqrt(dim) * variances / np.linalg.norm(variances)
        defect = np.linalg.norm(scaled - 1) / np.sqrt(2 * (dim - np.sqrt(dim)))
        share = (dim - defect**2 * (dim - np.sqrt(dim))) ** 2 / dim**2
        expected = (dim * share - 1) / (dim - 1)
        assert iso_score(x, debiased=False) == pytest.approx(expected, rel=1e-12)
