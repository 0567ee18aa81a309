"""Where published code gives another number than its definition: by their formula, then ours.

Each test writes the other project's formula down in our words, shows what it returns, and that we
return what the definition says.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist, squareform
from sklearn.metrics.pairwise import cosine_similarity

from geomkit.geometry import (
    curvature,
    lidar,
    mean_cosine,
    moments_of,
    partition_isotropy,
    rank_me,
    spectral_decay,
    vendi_score,
)
from geomkit.geometry.apart import neighbour_distances


def exp_entropy(p: np.ndarray, epsilon: float = 0.0) -> float:
    p = p / p.sum() + epsilon
    p = p[p > 0]
    return float(np.exp(-(p * np.log(p)).sum()))


def test_lco_embedding_drops_cosines_that_are_zero():
    """Its anisotropy divides by the NON-ZERO entries below the diagonal: 1.0 for 0.000816."""
    x = np.eye(50)
    x[1] = x[0]
    below = np.tril(cosine_similarity(x), -1)
    assert below.sum() / np.count_nonzero(below) == 1.0
    assert mean_cosine(x) == pytest.approx(2 / (50 * 49)) == pytest.approx(0.000816, abs=5e-7)


def test_contextual_draws_pairs_of_a_row_with_itself(pair_q):
    """kawine/contextual draws both sides freely; the mean it estimates is too high by (1-a)/N."""
    x, _ = pair_q
    with_itself, ours = cosine_similarity(x).mean(), mean_cosine(x)
    assert with_itself == pytest.approx(ours + (1 - ours) / 100, rel=1e-12)
    assert with_itself - ours > 0.005


def test_torchmetrics_divides_by_all_rows(pair_q):
    """Its pairwise cosine with a zeroed diagonal and reduction="mean" is (N-1)/N of the mean."""
    x, _ = pair_q
    cosine = cosine_similarity(x)
    np.fill_diagonal(cosine, 0)
    assert cosine.mean(axis=1).mean() == pytest.approx(mean_cosine(x) * 99 / 100, rel=1e-12)


def test_isoscore_partition_multiplies_entry_by_entry():
    """Its partition function runs over ROWS of the eigenvector matrix and sums exp(c_d x_d).

    On rows that Z separates by exp(10) it sees almost nothing.
    """
    x = np.random.default_rng(0).standard_normal((200, 6)) * 0.1 + np.eye(6)[0] * 5
    _, axes = np.linalg.eigh(x.T @ x)
    entries = [np.exp(c * x).sum() for c in axes]
    assert min(entries) / max(entries) > 0.02
    assert partition_isotropy(x) < 1e-4


def test_reptrix_rank_me_takes_eigenvalues_of_the_centred_covariance():
    """Its get_rankme gives 411.8 here; RankMe, of singular values as they are, is 525.3."""
    x = np.random.default_rng(7).standard_normal((800, 600))
    theirs = exp_entropy(np.linalg.eigvalsh(np.cov(x.T)), epsilon=1e-7)
    assert theirs == pytest.approx(411.8, abs=0.05)
    assert rank_me(x) == pytest.approx(525.3, abs=0.05)


def test_an_epsilon_moves_rank_me():
    """The published +1e-7 on each share adds entropy: it is no guard, and it moves the value."""
    x = np.random.default_rng(0).standard_normal((1000, 1024))
    s = np.linalg.svd(x, compute_uv=False)
    published = exp_entropy(s, epsilon=1e-7)
    assert rank_me(x) == pytest.approx(exp_entropy(s), rel=1e-10)
    assert published / rank_me(x) - 1 == pytest.approx(6e-4, abs=1e-4)


@pytest.mark.parametrize(("alpha", "theirs"), [(0.5, 0.7313), (1.0, 1.4626), (1.5, 2.194)])
def test_google_alpha_req_fits_no_power_law(alpha, theirs):
    """Its alpha_req fits log singular values on a straight line from 1 to 0, not on log rank."""
    basis = np.linalg.qr(
        np.column_stack([np.ones(600), np.random.default_rng(4).standard_normal((600, 256))])
    )[0][:, 1:]
    x = basis * np.arange(1, 257) ** (-alpha / 2)
    s = np.linalg.svd(x, compute_uv=False)
    line = np.polyfit(np.linspace(1, 0, 256), np.log(s), 1)[0]
    assert line == pytest.approx(theirs, abs=5e-4)
    assert spectral_decay(x) == pytest.approx(alpha, abs=1e-7)


def test_reptrix_moves_the_range_it_is_given():
    """Its fit adds 1 to the caller's ranks in place, so a second call fits another range."""
    x = np.random.default_rng(0).standard_normal((90, 40)) * np.linspace(3, 0.1, 40)
    ranks = np.arange(10, 30)
    ranks += 1
    assert ranks[0] == 11  # what the caller finds after one call
    assert spectral_decay(x, 11, 30) == spectral_decay(x, 11, 30)


def test_reptrix_lidar_takes_principal_components_of_the_lda_matrix():
    """It centres the rows of Sw^-1/2 Sb Sw^-1/2 and takes THEIR variances: 7.15 for 13.04."""
    rng = np.random.default_rng(3)
    samples, views, dim = 50, 4, 24
    means = rng.standard_normal((samples, 1, dim)) * np.linspace(2, 0.2, dim)
    rows = means + 0.5 * rng.standard_normal((samples, views, dim))
    centres = rows.mean(axis=1)
    within = sum((r - c).T @ (r - c) for r, c in zip(rows, centres, strict=True)) / samples
    values, axes = np.linalg.eigh(within + 1e-6 * np.eye(dim))
    root = axes * values**-0.5 @ axes.T
    lda = root @ np.cov(centres.T) @ root * (samples - 1)
    assert exp_entropy(np.linalg.eigvalsh(np.cov(lda.T)), 1e-7) == pytest.approx(7.154, abs=1e-3)
    assert exp_entropy(np.linalg.eigvalsh(lda)) == pytest.approx(13.0437, abs=1e-3)
    labels = np.repeat(np.arange(samples), views)
    ours = lidar(rows.reshape(-1, dim), labels, ridge=1e-7)
    assert ours == pytest.approx(13.0437, abs=1e-3)


def test_information_flow_takes_the_angle_between_places():
    """Its curvature is the angle between adjacent STATES: a straight line is not straight."""
    line = np.arange(1, 30)[:, None] * np.array([[0.1, 0.0]]) + [0.0, 1.0]
    unit = line / np.linalg.norm(line, axis=1, keepdims=True)
    theirs = np.arccos((unit[1:] * unit[:-1]).sum(1)).mean()
    assert theirs > 0.04
    assert curvature(line) == pytest.approx(0, abs=1e-7)
    walk = np.random.default_rng(0).standard_normal((200, 64)).cumsum(axis=0) + 200
    unit = walk / np.linalg.norm(walk, axis=1, keepdims=True)
    assert np.arccos((unit[1:] * unit[:-1]).sum(1)).mean() < 0.05
    assert curvature(walk) == pytest.approx(math.pi / 2, abs=0.02)


def test_information_flow_gives_nan_where_rounding_passes_one():
    """Its arccos is not clipped: a float32 cosine of 1 + 2^-23 is nan; ours needs no arccos."""
    with np.errstate(invalid="ignore"):
        assert np.isnan(np.arccos(np.float32(1) + np.float32(2**-23)))
    straight = np.outer(np.arange(9), np.random.default_rng(0).standard_normal(300))
    assert curvature(straight.astype(np.float32)) < 1e-6


def test_information_flow_clamps_the_matrix_and_not_its_spectrum():
    """Negative ENTRIES set to 0 before the entropy: 4.99 from N x N, 4.11 from dim x dim."""
    x = np.random.default_rng(0).standard_normal((300, 64))
    u = x / np.linalg.norm(x, axis=1, keepdims=True)

    def clamped(matrix: np.ndarray) -> float:
        eigenvalues = np.clip(np.linalg.eigvalsh(np.clip(matrix, 0, None)), 0, None)
        return math.log(exp_entropy(eigenvalues))

    assert clamped(u @ u.T) == pytest.approx(4.99, abs=0.03)
    assert clamped(u.T @ u) == pytest.approx(4.11, abs=0.01)
    true = math.log(exp_entropy(np.linalg.eigvalsh(u.T @ u)))
    assert true == pytest.approx(4.059, abs=0.01)
    assert math.log(vendi_score(x)) == pytest.approx(true, abs=1e-10)
    wide = np.concatenate([x, np.zeros((300, 300))], axis=1)  # now from the N x N side
    assert math.log(vendi_score(wide)) == pytest.approx(true, abs=1e-10)


def test_repitl_divides_by_the_side_of_the_matrix(pair_s):
    """At order 2 it divides the energy by size^2; from dim x dim that is off by 2 ln(dim/N)."""
    x, _ = pair_s
    energy = ((x.T @ x) ** 2).sum()
    assert -math.log(energy / 512**2) == pytest.approx(1.4267, abs=5e-5)
    assert math.log(vendi_score(x, 2)) == pytest.approx(1.3792, abs=5e-5)


def test_vendi_score_x_ignores_its_order(pair_q):
    """vendi-score's score_X(X, q) hands no q on: it returns order 1 whatever q is."""
    x, _ = pair_q
    p = np.linalg.eigvalsh(cosine_similarity(x) / 100)
    first, second = exp_entropy(p), 1 / (p**2).sum()
    assert vendi_score(x) == pytest.approx(first, rel=1e-9)
    assert vendi_score(x, 2) == pytest.approx(second, rel=1e-9)
    assert first / second > 1.2


def test_unit_rows_made_in_bfloat16_are_no_unit_rows(massive):
    """All in bfloat16 the mean cosine is off in the third digit; kept so but counted in float64
    it is right to the sixth."""
    true = mean_cosine(massive)
    half = torch.tensor(massive).bfloat16()
    unit = half / half.norm(dim=1, keepdim=True)
    n = len(massive)
    theirs = (float((unit @ unit.T).sum()) - n) / (n * (n - 1))
    assert abs(theirs - true) > 3e-4
    assert mean_cosine(half) == pytest.approx(true, abs=2e-6)


def test_google_throws_away_a_spectrum_that_it_is_given(pair_q):
    """In one version every metric has `if s is not None` the wrong way round.

    It fails without a spectrum and makes it again where there is one. Ours take either.
    """

    def peer(x: np.ndarray, s: np.ndarray | None = None) -> float:
        if s is not None:
            s = np.linalg.svd(x, compute_uv=False)
        return exp_entropy(s)

    x, _ = pair_q
    with pytest.raises(AttributeError):
        peer(x)
    assert peer(x, s=np.zeros(3)) == pytest.approx(rank_me(x))
    assert rank_me(moments_of(x)) == pytest.approx(rank_me(x), rel=1e-12)


def test_distances_by_float32_products_of_rows_as_they_are():
    """The Gram trick, as torch.cdist does many rows: up to 2 % off at +8000 and -3000."""
    x = np.random.default_rng(0).standard_normal((300, 2048)).astype(np.float32)
    x[:, 7] += 8000
    x[:, 100] -= 3000
    own = (x * x).sum(axis=1)
    squares = np.maximum(own[:, None] + own[None, :] - 2 * (x @ x.T), 0)
    nearest = np.sort(np.sqrt(squares), axis=1)[:, 1]
    true = np.sort(squareform(pdist(x.astype(np.float64))), axis=1)[:, 1]
    assert np.abs(nearest / true - 1).max() > 0.01
    ours = neighbour_distances(x, 2)[0][:, 0]
    assert ours == pytest.approx(true, rel=1e-6)
