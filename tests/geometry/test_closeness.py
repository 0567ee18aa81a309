from __future__ import annotations

import numpy as np
import pytest
import torch

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry import chance_mutual_knn, cknna, closeness, linear_cka, rows
from tests.geometry.conftest import unit


def song(k: np.ndarray, m: np.ndarray) -> float:
    """Song's statistic on whole matrices, the rows of the first against the columns of the second.

    Only for symmetric matrices is the order of no matter.
    """
    n = len(k)
    k, m = k * (1 - np.eye(n)), m * (1 - np.eye(n))
    return float(
        (k * m.T).sum() + k.sum() * m.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k @ m).sum()
    )


def masked(cosine: np.ndarray, k: int) -> np.ndarray:
    off = cosine - 10 * np.eye(len(cosine))
    return (off >= np.sort(off, axis=1)[:, -k, None]).astype(float)


def brute(x: np.ndarray, y: np.ndarray, k: int) -> float:
    """The published code's formula, N x N, without its epsilon."""
    gram_x, gram_y = unit(x) @ unit(x).T, unit(y) @ unit(y).T
    near_x, near_y = masked(gram_x, k), masked(gram_y, k)
    both = near_x * near_y
    own = song(near_x * gram_x, near_x * gram_x) * song(near_y * gram_y, near_y * gram_y)
    return song(both * gram_x, both * gram_y) / own**0.5


@pytest.mark.parametrize("k", [3, 10])
def test_cknna_is_the_mean_of_both_orders_of_the_formula(pair_s, pair_q, k):
    for x, y in (pair_s, pair_q):
        want = (brute(x, y, k) + brute(y, x, k)) / 2
        assert cknna(x, y, k) == pytest.approx(want, rel=1e-10)
        assert cknna(y, x, k) == pytest.approx(want, rel=1e-10)


def test_a_space_with_itself(pair_q):
    assert cknna(pair_q[0], pair_q[0] * 3) == pytest.approx(1, abs=1e-12)


def test_with_all_rows_as_neighbours_it_is_the_debiased_cka_of_unit_rows(pair_q, monkeypatch):
    monkeypatch.setattr(closeness, "require_enough", lambda *_: None)
    want = linear_cka(*map(unit, pair_q))
    assert cknna(*pair_q, k=99) == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_independent_sides_are_between_zero_and_the_chance_of_neighbours(offset):
    rng = np.random.default_rng(0)
    draws = [cknna(*(rng.standard_normal((2, 120, 16)) + offset)) for _ in range(20)]
    assert 0 < np.mean(draws) < chance_mutual_knn(120)


def test_cknna_in_blocks_and_in_torch(pair_q, monkeypatch):
    whole = cknna(*pair_q)
    assert cknna(*map(torch.tensor, pair_q)) == pytest.approx(whole, rel=1e-9)
    monkeypatch.setattr(rows, "BLOCK_ENTRIES", 730)
    assert cknna(*pair_q) == pytest.approx(whole, rel=1e-12)


def test_groups_are_no_neighbours(pair_q):
    x, y = (np.concatenate([a, a]) for a in pair_q)
    groups = [str(i % 100) for i in range(200)]
    assert cknna(x, y, k=1) > 0.95  # copies find their copies
    assert cknna(x, y, k=1, groups=groups) < 0.6


def test_what_cknna_refuses(pair_q, monkeypatch):
    x, y = pair_q
    with pytest.raises(DegenerateInput, match="k = 10 rows of other groups"):
        cknna(x[:11], y[:11])
    with pytest.raises(UsageError, match="paired rows"):
        cknna(x, y[:-1])
    with pytest.raises(UsageError, match="k of at least 1"):
        cknna(x, y, k=0)
    cross = np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]])  # every neighbour at a right angle
    with pytest.raises(DegenerateInput, match="neighbourhoods that say more"):
        cknna(cross, x[:4], k=2)
    monkeypatch.setattr(closeness, "MOST_ENTRIES", 500)
    tied = np.eye(100)[:, :12] + 1.0  # 88 equal rows
    with pytest.raises(DegenerateInput, match="ties of more than 500 cosines"):
        cknna(tied, y)
