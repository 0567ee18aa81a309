from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry import chance_mutual_knn, mutual_knn, mutual_knn_null, rows
from geomkit.geometry.neighbours import mutual_knn_without
from geomkit.geometry.rows import directions
from geomkit.geometry.struck import near


def brute(x: np.ndarray, y: np.ndarray, k: int) -> float:
    near = [
        NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute")
        .fit(a.astype(np.float64))
        .kneighbors(return_distance=False)
        for a in (x, y)
    ]
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(*near, strict=True)]))


def test_mutual_knn_equals_a_neighbour_search(pair_s, pair_q):
    assert mutual_knn(*pair_s) == pytest.approx(0.136, abs=1e-9)
    assert mutual_knn(*pair_s, k=5) == pytest.approx(brute(*pair_s, 5), abs=1e-12)
    assert mutual_knn(*pair_q, k=3) == pytest.approx(brute(*pair_q, 3), abs=1e-12)


def test_mutual_knn_normalises_rows(pair_s):
    length = np.random.default_rng(0).lognormal(0, 1, (500, 1))
    assert mutual_knn(pair_s[0] * length, pair_s[1]) == pytest.approx(0.136, abs=1e-9)


def test_mutual_knn_in_blocks(pair_q, monkeypatch):
    whole = mutual_knn(*pair_q)
    monkeypatch.setattr(rows, "BLOCK_ENTRIES", 730)
    assert mutual_knn(*pair_q) == pytest.approx(whole, abs=1e-12)


def test_chance_is_the_exact_mean_over_shuffles():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 5, 3))
    orders = [np.array(p) for p in itertools.permutations(range(5))]
    mean = np.mean([mutual_knn(x, y[p], k=2) for p in orders])
    assert mean == pytest.approx(chance_mutual_knn(5, 2), abs=1e-12)
    assert chance_mutual_knn(1000, 10) == pytest.approx(10 / 999)


@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("ties", [False, True])
def test_null_is_exact_over_all_pairings(k, ties):
    rng = np.random.default_rng(k)
    x, y = rng.integers(0, 2, (2, 6, 3)) + 0.5 if ties else rng.standard_normal((2, 6, 3))
    orders = [np.array(p) for p in itertools.permutations(range(6))]
    values = [mutual_knn(x, y[p], k=k) for p in orders]
    null = mutual_knn_null(x, y, k)
    assert null.mean == pytest.approx(np.mean(values), abs=1e-12)
    assert null.mean == pytest.approx(chance_mutual_knn(6, k), rel=1e-15)
    assert null.variance == pytest.approx(np.var(values), abs=1e-13)


def test_null_of_pair_s(pair_s):
    rng = np.random.default_rng(0)
    x, y = (side[:120] for side in pair_s)
    values = [mutual_knn(x, y[rng.permutation(120)]) for _ in range(100)]
    null = mutual_knn_null(x, y)
    assert null.sd == pytest.approx(np.std(values), rel=0.2)
    assert mutual_knn(x, y) > null.mean + 10 * null.sd
    with pytest.raises(UsageError, match="paired rows"):
        mutual_knn_null(x, y[:-1])


def test_ties_are_broken_by_lot_on_average():
    """Four copies of one direction against four distinct ones: chance, whatever the row order."""
    tied = np.concatenate([np.tile([1.0, 0, 0], (4, 1)), [[0.0, 1, 0]]])
    free = np.random.default_rng(0).standard_normal((5, 3))
    orders = [np.array([*p, 4]) for p in itertools.permutations(range(4))]
    values = [mutual_knn(tied, free[p], k=1) for p in orders]
    shuffled = [mutual_knn(tied[p], free, k=1) for p in orders]
    assert np.ptp(shuffled) == pytest.approx(0, abs=1e-12)
    near = NearestNeighbors(n_neighbors=1, metric="cosine").fit(free).kneighbors()[1][:, 0]
    expected = [1 / 3 if near[i] < 4 else 0 for i in range(4)] + [1 / 4]
    assert values[0] == pytest.approx(np.mean(expected), abs=1e-12)


def test_a_group_is_never_its_own_neighbour():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 6))
    copies = np.concatenate([x, x + 1e-4 * rng.standard_normal((40, 6))])
    other = rng.standard_normal((40, 6))
    groups = [str(i % 40) for i in range(80)]
    pair = copies, np.concatenate([other, other + 1e-4])
    assert mutual_knn(*pair, k=1) > 0.9  # the copies find each other
    assert mutual_knn(*pair, k=1, groups=groups) < 0.2
    assert chance_mutual_knn(80, 2, groups) == pytest.approx(2 / 78)


def test_no_interval_where_all_others_are_neighbours():
    """Without one of k + 2 rows everything is a neighbour: no fold says anything."""
    rng = np.random.default_rng(2)
    sides = [directions(rng.standard_normal((13, 6))) for _ in range(2)]
    with pytest.raises(DegenerateInput, match="2 to spare for the interval, got 9 of 12 rows"):
        near(sides[0][:12], np.arange(12))
    spaces = near(sides[0], np.arange(13)), near(sides[1], np.arange(13))
    assert np.ptp(mutual_knn_without(spaces)[1:]) > 0


def test_too_few_rows_for_k():
    with pytest.raises(DegenerateInput, match="k = 10 rows of other groups"):
        mutual_knn(np.eye(8), np.eye(8))
    with pytest.raises(UsageError, match="k of at least 1"):
        mutual_knn(np.eye(8), np.eye(8), k=0)


def test_with_all_rows_as_neighbours_the_share_would_be_one_whatever_the_data(pair_q):
    x, y = pair_q[0][:6], pair_q[1][:6]
    with pytest.raises(DegenerateInput, match="with 1 to spare, got 4 of 6 rows"):
        mutual_knn(x, y, k=5)
    assert mutual_knn(x, y, k=4) < 1
