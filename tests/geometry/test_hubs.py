from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.stats import skew
from sklearn.neighbors import NearestNeighbors

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry import Hubness, hubness, rows


def counts(x: np.ndarray, gallery: np.ndarray | None, k: int) -> np.ndarray:
    """How often each item is found by a search of another library."""
    items = x if gallery is None else gallery
    search = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(items)
    found = search.kneighbors(None if gallery is None else x, return_distance=False)
    return np.bincount(found.ravel(), minlength=len(items))


def pairwise_gini(o: np.ndarray) -> float:
    """By its definition: mean absolute difference of all pairs over twice the mean."""
    return float(np.abs(o[:, None] - o[None, :]).mean() / (2 * o.mean()))


@pytest.mark.parametrize("k", [1, 10])
def test_hubness_equals_a_neighbour_search(pair_s, pair_q, k):
    for x, y in (pair_s, pair_q):
        for found, want in (
            (hubness(x, k=k), counts(x, None, k)),
            (hubness(x, y, k), counts(x, y, k)),
        ):
            assert found.occurrences == pytest.approx(want, abs=1e-9)
            assert found.skewness == pytest.approx(skew(want), rel=1e-10)
            assert found.gini == pytest.approx(pairwise_gini(want), rel=1e-10)
            assert found.anti_hub_rate == np.mean(want == 0)
            moved = np.maximum(want - want.mean(), 0).sum() / want.sum()
            assert found.robin_hood == pytest.approx(moved, rel=1e-10)


def test_one_item_takes_all():
    found = Hubness(np.array([12.0, 0, 0, 0]), k=1, lists=12)
    assert found.robin_hood == pytest.approx(0.75)
    assert found.gini == pytest.approx(0.75)
    assert found.anti_hub_rate == 0.75
    assert found.skewness == pytest.approx(skew([12, 0, 0, 0]))


def test_equal_occurrences_have_no_skewness():
    angle = 2 * np.pi * np.arange(12) / 12
    found = hubness(np.stack([np.cos(angle), np.sin(angle)], axis=1), k=2)  # a ring: no hubs
    assert found.occurrences == pytest.approx(2)
    assert found.robin_hood == pytest.approx(0, abs=1e-12)
    assert found.gini == pytest.approx(0, abs=1e-12)
    assert found.anti_hub_rate == 0
    with pytest.raises(DegenerateInput, match="one count for all"):
        _ = found.skewness


def test_lists_filled_by_lot_are_at_chance():
    rng = np.random.default_rng(0)
    drawn = [
        np.concatenate([rng.choice(39, 3, replace=False) for _ in range(40)]) for _ in range(300)
    ]
    found = [Hubness(np.bincount(d, minlength=39).astype(float), 3, 40) for d in drawn]
    rate = np.mean([f.anti_hub_rate for f in found])
    assert rate == pytest.approx(found[0].chance_anti_hub_rate, rel=0.1)
    # The sample skewness of 39 counts is biased down by about 5 %.
    assert np.mean([f.skewness for f in found]) == pytest.approx(found[0].chance_skewness, rel=0.2)


def test_hubs_of_high_dimension():
    """Distances concentrate: isotropic rows far from the mean crowd nobody, near ones everybody."""
    x = np.random.default_rng(0).standard_normal((400, 200)) + 0.3
    assert hubness(x).skewness > 3 * hubness(x).chance_skewness


def test_ties_are_shared_whatever_the_order():
    tied = np.concatenate([np.tile([1.0, 0, 0], (4, 1)), [[0.0, 1, 0], [0.0, 0.9, 0.1]]])
    want = hubness(tied, k=1).occurrences
    assert want == pytest.approx([1, 1, 1, 1, 1, 1])
    for order in itertools.islice(itertools.permutations(range(6)), 0, 720, 60):
        assert hubness(tied[list(order)], k=1).occurrences == pytest.approx(want[list(order)])


def test_hubness_in_blocks_and_in_torch(pair_q, monkeypatch):
    x, y = pair_q
    whole, across = hubness(x).occurrences, hubness(x, y).occurrences
    assert hubness(torch.tensor(x)).occurrences == pytest.approx(whole)
    monkeypatch.setattr(rows, "BLOCK_ENTRIES", 730)
    assert hubness(x).occurrences == pytest.approx(whole)
    assert hubness(x, y).occurrences == pytest.approx(across)


def test_a_group_is_in_none_of_its_lists(pair_q):
    x = np.concatenate([pair_q[0], pair_q[0] + 1e-4])
    groups = [str(i % 100) for i in range(200)]
    assert hubness(x, k=1).occurrences == pytest.approx(1, abs=1)
    alone = counts(pair_q[0], None, 1)
    assert hubness(x, k=1, groups=groups).occurrences.reshape(2, -1).sum(0) == pytest.approx(
        2 * alone, abs=2
    )


def test_what_hubness_refuses(pair_q):
    x, y = pair_q
    with pytest.raises(DegenerateInput, match="k = 10 rows of other groups"):
        hubness(x[:11])
    with pytest.raises(DegenerateInput, match="more than k = 10 items, got 10"):
        hubness(x, y[:10])
    with pytest.raises(UsageError, match="k of at least 1"):
        hubness(x, y, k=0)
    with pytest.raises(UsageError, match="a query is no item"):
        hubness(x, y, groups=["a"] * 100)
    with pytest.raises(UsageError, match="10 and 3 columns"):
        hubness(x, y[:, :3])
