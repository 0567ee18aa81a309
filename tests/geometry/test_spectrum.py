from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import linregress

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry import (
    effective_rank,
    effective_rank_ceiling,
    participation_ratio,
    rank_me,
    spectral_decay,
    stable_rank,
)


def power_law(alpha: float, dim: int = 256, n: int = 600) -> np.ndarray:
    """Rows whose covariance spectrum is i^-alpha, with a mean of exactly zero."""
    rng = np.random.default_rng(4)
    basis = np.linalg.qr(np.column_stack([np.ones(n), rng.standard_normal((n, dim))]))[0][:, 1:]
    turn = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
    return basis * np.arange(1, dim + 1) ** (-alpha / 2) @ turn


def spectral_decay_of_30(x: np.ndarray) -> float:
    return spectral_decay(x, 1, 30)


@pytest.mark.parametrize(
    ("alpha", "sigma", "covariance", "participation", "stable"),
    [
        (0.5, 246.4239, 209.0328, 152.6007, 30.57089),
        (1.0, 209.0329, 74.6298, 22.8561, 6.12434),
        (1.5, 142.5326, 15.0918, 5.1476, 2.48750),
    ],
)
def test_power_law_spectra(alpha, sigma, covariance, participation, stable):
    x = power_law(alpha)
    assert rank_me(x) == pytest.approx(sigma, abs=2e-4)
    assert effective_rank(x) == pytest.approx(covariance, abs=2e-4)
    assert participation_ratio(x, debiased=False) == pytest.approx(participation, abs=2e-4)
    assert stable_rank(x) == pytest.approx(stable, abs=2e-5)
    for first, last in ((1, None), (11, 200), (2, 3)):
        assert spectral_decay(x, first, last) == pytest.approx(alpha, abs=1e-7)


def test_one_name_one_spectrum(pair_s):
    x, _ = pair_s
    assert effective_rank(x) == pytest.approx(76.6, abs=0.05)
    assert rank_me(x) == pytest.approx(204.1, abs=0.05)


def test_rank_me_is_uncentred():
    x = np.random.default_rng(7).standard_normal((800, 600))
    assert rank_me(x) == pytest.approx(525.3, abs=0.05)


def test_spectral_decay_is_a_straight_line_in_logarithms(pair_s):
    x, _ = pair_s
    lam = np.sort(np.linalg.eigvalsh(np.cov(x.T)))[::-1]
    fit = linregress(np.log(np.arange(11, 101)), np.log(lam[10:100]))
    assert spectral_decay(x, 11, 100) == pytest.approx(-fit.slope, rel=1e-9)
    assert abs(spectral_decay(x, 1, 400) - spectral_decay(x, 11, 100)) > 0.1  # the range matters


def test_spectral_decay_of_a_range_that_is_none():
    x = np.random.default_rng(0).standard_normal((40, 6))
    for first, last in ((0, 3), (3, 3), (4, 2), (1, 7)):
        with pytest.raises(UsageError, match=rf"= 6, got {first} to {last}"):
            spectral_decay(x, first, last)
    with pytest.raises(DegenerateInput, match="variance up to rank 6, got rank 3"):
        spectral_decay(np.concatenate([x[:, :3], x[:, :3]], axis=1))


METRICS = [effective_rank, rank_me, stable_rank, participation_ratio, spectral_decay_of_30]


@pytest.mark.parametrize("metric", METRICS)
def test_sample_side_equals_feature_side(metric):
    x = np.random.default_rng(0).standard_normal((60, 40)) + 0.3
    wide = np.concatenate([x, np.zeros((60, 200))], axis=1)  # the same rows, now N < dim
    assert metric(wide) == pytest.approx(metric(x), rel=1e-10)


@pytest.mark.parametrize("metric", [effective_rank, rank_me, stable_rank])
def test_rank_one_has_rank_one(metric):
    x = np.outer([1.0, -1, 2, -2], np.ones(5))
    assert metric(x) == pytest.approx(1, abs=1e-9)


def test_effective_rank_reaches_its_ceiling():
    simplex = np.eye(6)  # centred: five equal eigenvalues
    assert effective_rank(simplex) == pytest.approx(effective_rank_ceiling(6, 6), abs=1e-9)
    assert effective_rank_ceiling(500, 128) == 128


def test_participation_ratio_debiased_does_not_grow_with_n():
    rng = np.random.default_rng(0)
    small = np.mean([participation_ratio(rng.standard_normal((40, 64))) for _ in range(40)])
    plug_in = participation_ratio(rng.standard_normal((40, 64)), debiased=False)
    assert small == pytest.approx(64, rel=0.1)
    assert plug_in == pytest.approx(1 / (1 / 64 + 1 / 40), rel=0.1)


def test_participation_ratio_debiased_against_the_u_statistic_over_four_rows():
    x = np.random.default_rng(1).standard_normal((7, 3))
    kernel = [
        ((x[i] - x[j]) @ (x[k] - x[m])) ** 2 / 4
        for i in range(7)
        for j in range(7)
        for k in range(7)
        for m in range(7)
        if len({i, j, k, m}) == 4
    ]
    trace = np.trace(np.cov(x.T))
    assert participation_ratio(x) == pytest.approx(trace**2 / np.mean(kernel), rel=1e-10)


def test_too_few_rows_to_debias():
    with pytest.raises(DegenerateInput, match="at least 4 rows"):
        participation_ratio(np.eye(3))


def test_massive_dimensions_leave_the_centred_spectrum_alone(massive):
    plain = massive.astype(np.float64)
    plain[:, [7, 100]] -= plain[:, [7, 100]].mean(0)
    assert effective_rank(massive) == pytest.approx(effective_rank(plain), rel=1e-6)
    assert participation_ratio(massive) == pytest.approx(participation_ratio(plain), rel=1e-6)
