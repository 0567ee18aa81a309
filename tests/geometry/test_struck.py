"""What is left of the neighbours without a fold is what a search among the rest would find."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry import cknna, gride, hubness, mutual_knn, rows, struck, two_nn
from geomkit.geometry.apart import near_apart
from geomkit.geometry.closeness import cknna_without
from geomkit.geometry.dimension import gride_without, two_nn_influence
from geomkit.geometry.hubs import hubness_without
from geomkit.geometry.neighbours import mutual_knn_without
from geomkit.geometry.rows import directions
from geomkit.geometry.struck import near

N, K, FOLDS = 60, 4, 6


def sides(kind: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    if kind == "ties":
        x = rng.integers(0, 2, (N, 4)) + 0.1
        return x, x + rng.integers(0, 2, (N, 4))
    x = rng.standard_normal((N, 6))
    if kind == "folds that cluster":  # a fold is what lies close together: lists must reach deep
        x += 4 * np.repeat(np.eye(6), N // 6, axis=0)
    return x, x + rng.standard_normal((N, 6))


def folds_of(kind: str) -> np.ndarray:
    return np.arange(N) // (N // FOLDS) if kind == "folds that cluster" else np.arange(N) // 2 % 6


KINDS = ("free", "ties", "folds that cluster")
CODE = np.arange(N) // 2
SOURCES = {
    "screened": lambda *_: {},
    "from cosines": lambda u, v: {"cosines": u @ v.T},
}


def rest(folds: np.ndarray) -> list[np.ndarray]:
    return [np.ones(N, bool), *(folds != f for f in range(FOLDS))]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("make", [np.asarray, torch.tensor])
def test_within_one_space(kind, source, make):
    pair, folds = sides(kind), folds_of(kind)
    both = [
        near(u, folds, K, code=CODE, **SOURCES[source](u, u))
        for u in (directions(make(side)) for side in pair)
    ]
    kept = rest(folds)
    want = [mutual_knn(pair[0][r], pair[1][r], K, CODE[r]) for r in kept]
    assert mutual_knn_without((both[0], both[1])) == pytest.approx(want, abs=1e-12)
    want = [cknna(pair[0][r], pair[1][r], K, CODE[r]) for r in kept]
    assert cknna_without((both[0], both[1])) == pytest.approx(want, rel=1e-10, abs=1e-12)
    for r, found in zip(kept, hubness_without(both[0]), strict=True):
        whole = hubness(pair[0][r], k=K, groups=CODE[r])
        assert found.occurrences == pytest.approx(whole.occurrences, abs=1e-12)
        assert (found.k, found.lists) == (K, whole.lists)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kind", KINDS)
def test_across_two_modalities(kind, source):
    pair, folds = sides(kind), folds_of(kind)
    u, v = map(directions, pair)
    found = hubness_without(near(u, folds, K, items=v, **SOURCES[source](u, v)))
    for r, one in zip(rest(folds), found, strict=True):
        whole = hubness(pair[0][r], pair[1][r], K)
        assert one.occurrences == pytest.approx(whole.occurrences, abs=1e-12)
        assert one.skewness == pytest.approx(whole.skewness, rel=1e-10)
        assert one.lists == whole.lists


def gram(x: np.ndarray) -> np.ndarray:
    """Of the centred rows at another scale, as a caller may have it."""
    c = x - x.mean(axis=0)
    return 9 * c @ c.T


@pytest.mark.parametrize("products", [None, gram], ids=["searched", "from products"])
@pytest.mark.parametrize("kind", ["free", "folds that cluster"])
@pytest.mark.parametrize("make", [np.asarray, torch.tensor])
def test_by_distance(kind, products, make):
    x, folds = sides(kind)[0] * 3, folds_of(kind)
    given = None if products is None else products(x)
    scales = gride_without(near_apart(make(x), folds, 8, products=given))
    for r, some in zip(rest(folds), scales, strict=True):
        for scale, alone in zip(some, gride(x[r], furthest=8), strict=True):
            assert scale.dimension == pytest.approx(alone.dimension, rel=1e-8)
            assert scale.radius == pytest.approx(alone.radius, rel=1e-9)
            assert scale.rows == alone.rows == r.sum()
    value, want = two_nn_influence(near_apart(make(x), folds, products=given))[0], two_nn(x)
    assert (value.linear, value.likelihood) == pytest.approx((want.linear, want.likelihood))


@pytest.mark.parametrize("products", [None, gram], ids=["searched", "from products"])
def test_copies_in_one_fold_are_removed_once(products):
    x = sides("free")[0]
    x[1::10] = x[::10]
    folds = folds_of("free")
    found = gride_without(near_apart(x, folds, products=products and products(x)))
    for r, (one,) in zip(rest(folds), found, strict=True):
        assert (one.rows, one.duplicates) == (two_nn(x[r]).rows, 6)
        assert one.dimension == pytest.approx(two_nn(x[r]).likelihood, rel=1e-9)


def test_lists_are_little_longer_than_k_and_in_blocks_the_same(monkeypatch):
    x, folds = sides("free")[0], folds_of("free")
    whole = near(directions(x), folds, K)
    assert len(whole.of) < N * (K + 4)
    monkeypatch.setattr(rows, "BLOCK_ENTRIES", 700)
    cut = near(directions(x), folds, K)
    assert np.array_equal(whole.item, cut.item)
    assert np.array_equal(near_apart(x, folds, 9).item, near_apart(x, folds, 9).item)


def test_only_rows_whose_neighbours_share_a_fold_are_searched_again(monkeypatch):
    asked: list[int] = []
    listed = struck._listed

    def watch(block, some, depth, step):
        asked.append(len(some))
        return listed(block, some, depth, step)

    monkeypatch.setattr(struck, "_listed", watch)
    near(directions(sides("free")[0]), folds_of("free"), 10)
    assert asked == []
    x, folds = sides("folds that cluster")[0], folds_of("folds that cluster")
    near(directions(x[:40]), np.append(folds[:30], np.arange(10) % 3), 2)
    assert len(asked) == 1
    assert 0 < asked[0] <= 30


def test_what_may_be_asked(monkeypatch):
    x, folds = sides("free")[0], folds_of("free")
    u = directions(x)
    with pytest.raises(DegenerateInput, match="11 to spare for the interval, got 47 of 60 rows"):
        near(u, folds, 48, code=CODE)
    with pytest.raises(DegenerateInput, match="got 49 of 60 rows"):
        near(u, folds, 50, items=u)
    with pytest.raises(UsageError, match="k of at least 1"):
        near(u, folds, 0)
    with pytest.raises(UsageError, match="paired rows, got 60 and 59"):
        near(u, folds, 2, items=u[:-1])
    a, b = near(u, folds, 3), near(u, folds, 4)
    for metric in (mutual_knn_without, cknna_without):
        with pytest.raises(UsageError, match="k = 3 of 60 rows and k = 4 of 60"):
            metric((a, b))
        with pytest.raises(UsageError, match="one k and one `folds`"):
            metric((a, near(u, folds[::-1], 3)))
    monkeypatch.setattr(struck, "MOST_ENTRIES", 100)
    with pytest.raises(DegenerateInput, match="ties of more than 100 cosines"):
        near(directions(np.eye(60)[:, :8] + 1.0), folds, 2, cosines=np.ones((60, 60)))


@pytest.mark.parametrize("fold", [0, 5])
def test_a_fold_of_copies_may_be_empty_in_the_end(fold):
    """Copies of another fold's rows: without them nothing changes."""
    x, folds = sides("free")[0], folds_of("free")
    first = np.flatnonzero(folds != fold)[: (folds == fold).sum()]
    x[folds == fold] = x[first]
    values = [one.dimension for (one,) in gride_without(near_apart(x, folds))]
    assert len(values) == 1 + FOLDS
    assert values[0] == pytest.approx(two_nn(x).likelihood, rel=1e-9)
