from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry import linear_cka, linear_cka_null, participation_ratio, rows
from geomkit.geometry.hsic import cross_energy
from geomkit.geometry.rows import deviations
from geomkit.geometry.similarity import linear_cka_without


def song(k: np.ndarray, m: np.ndarray) -> float:
    """Equation 5 of Song et al. 2012, on the sample side, uncentred."""
    n = len(k)
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    one = np.ones(n)
    total = np.trace(k @ m) + (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    return float((total - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3)))


def brute(x: np.ndarray, y: np.ndarray) -> float:
    k, m = x @ x.T, y @ y.T
    return song(k, m) / (song(k, k) * song(m, m)) ** 0.5


def test_debiased_cka_equals_song_on_the_gram_matrices(pair_s, pair_q):
    assert linear_cka(*pair_q) == pytest.approx(0.50807040, abs=5e-9)
    assert linear_cka(*pair_q) == pytest.approx(brute(*pair_q), abs=1e-10)
    assert linear_cka(*pair_s) == pytest.approx(brute(*pair_s), abs=1e-10)
    assert linear_cka(*pair_s) == pytest.approx(0.4980, abs=5e-5)


def test_plug_in_cka_of_known_pairs(pair_s, pair_q):
    assert linear_cka(*pair_s, debiased=False) == pytest.approx(0.5349, abs=5e-5)
    assert linear_cka(*pair_q, debiased=False) == pytest.approx(0.5535, abs=5e-5)


def test_independent_sets_are_at_zero_only_when_debiased():
    x, y = np.random.default_rng(0).standard_normal((2, 128, 1024))
    assert linear_cka(x, y, debiased=False) == pytest.approx(1024 / (1024 + 128), abs=0.01)
    assert linear_cka(x, y) == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize("debiased", [True, False])
def test_scale_does_not_move_cka(pair_q, debiased):
    x, y = pair_q
    whole = linear_cka(x, y, debiased=debiased)
    for factor in (1e-3, 1e-30, 1e12):
        assert linear_cka(x * factor, y, debiased=debiased) == pytest.approx(whole, rel=1e-10)


def test_cka_in_blocks(pair_s, monkeypatch):
    whole = cross_energy(*pair_s)
    monkeypatch.setattr(rows, "BLOCK_ENTRIES", 7300)
    assert cross_energy(*pair_s) == pytest.approx(whole, rel=1e-12)
    assert whole == pytest.approx(np.linalg.norm(pair_s[0].T @ pair_s[1]) ** 2, rel=1e-10)


def test_without_a_fold_equals_computing_on_the_rest(pair_q, monkeypatch):
    x, y = pair_q
    folds = np.arange(100) % 9
    rest = [linear_cka(x[k], y[k]) for k in (folds != f for f in range(-1, 9))]
    sides = deviations(x), deviations(y)
    assert linear_cka_without(sides, folds) == pytest.approx(rest, abs=1e-11)
    monkeypatch.setattr(rows, "BLOCK_ENTRIES", 730)
    assert linear_cka_without(sides, folds) == pytest.approx(rest, abs=1e-11)


def test_a_shared_massive_dimension_makes_independent_sets_alike():
    """The trap that the manual warns of, on record."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 500, 128))
    shared = rng.standard_normal(500) * 60
    x[:, 0] += shared
    y[:, 0] += shared
    assert linear_cka(x, y) > 0.99
    assert linear_cka(x[:, 1:], y[:, 1:]) == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("debiased", [True, False])
def test_null_is_exact_over_all_pairings(debiased):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((6, 3)) + 2, rng.standard_normal((6, 9)) ** 3
    orders = [list(p) for p in itertools.permutations(range(6))]
    values = [linear_cka(x, y[p], debiased=debiased) for p in orders]
    null = linear_cka_null(x, y, debiased=debiased)
    assert null.mean == pytest.approx(np.mean(values), abs=1e-12)
    assert null.variance == pytest.approx(np.var(values), rel=1e-10)
    assert null.sd == pytest.approx(np.std(values), rel=1e-10)


def test_null_of_pair_s(pair_s):
    null = linear_cka_null(*pair_s, debiased=False)
    assert null.mean == pytest.approx(0.073715, abs=5e-7)
    assert null.sd == pytest.approx(0.002625, abs=5e-7)
    ranks = [participation_ratio(side, debiased=False) for side in pair_s]
    assert null.mean == pytest.approx((ranks[0] * ranks[1]) ** 0.5 / 499, rel=1e-12)
    again = linear_cka_null(*map(torch.tensor, pair_s), debiased=False)
    assert again.variance == pytest.approx(null.variance, rel=1e-9)


def test_debiased_null_does_not_look_at_the_data(pair_q):
    assert linear_cka_null(*pair_q).variance == 2 / (100 * 97)
    assert linear_cka_null(*pair_q).mean == 0


def test_what_the_null_refuses(pair_q):
    with pytest.raises(UsageError, match="paired rows"):
        linear_cka_null(pair_q[0], pair_q[1][:-1])
    for debiased in (True, False):
        with pytest.raises(DegenerateInput, match="at least 4 rows"):
            linear_cka_null(np.eye(3), np.eye(3), debiased=debiased)


def test_cka_of_wide_and_of_narrow_sides(pair_s, pair_q):
    """The feature side where columns are few, the sample side where they are many: one value."""
    x, y = pair_s
    for a, b in ((x[:40], y[:40]), (x[:, :20], y[:, :30]), (x[:, :5], y), pair_q):
        assert linear_cka(a, b) == pytest.approx(brute(a, b), abs=1e-9)


def test_too_few_rows_to_debias():
    with pytest.raises(DegenerateInput, match="at least 4 rows"):
        linear_cka(np.eye(3), np.eye(3))
