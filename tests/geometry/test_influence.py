"""One influence a row: it sums to zero, and its standard error is the spread over fresh samples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry import cca, dimension, mutual_knn, procrustes, rsa, two_nn
from geomkit.geometry.apart import near_apart
from geomkit.geometry.dimension import two_nn_influence
from geomkit.geometry.distances import rsa_influence
from geomkit.geometry.neighbours import mutual_knn_influence
from geomkit.geometry.rotation import procrustes_influence
from geomkit.geometry.rows import deviations, directions
from geomkit.geometry.struck import near, widened
from geomkit.geometry.subspaces import cca_influence

N, DIM = 120, 6
MIX = np.random.default_rng(1).standard_normal((DIM, DIM)) / DIM**0.5
Pair = tuple[float, np.ndarray]


def draw(rng: np.random.Generator, n: int = N) -> tuple[np.ndarray, np.ndarray]:
    x = rng.standard_normal((n, DIM)) * rng.lognormal(0, 0.3, (n, 1))
    return x, x @ MIX + 0.6 * rng.standard_normal((n, DIM))


def knn(x: np.ndarray, y: np.ndarray) -> Pair:
    folds = np.arange(len(x)) % 30
    return mutual_knn_influence((near(directions(x), folds), near(directions(y), folds)))


def dimension_by(which: int) -> Callable[[np.ndarray, np.ndarray], Pair]:
    def found(x: np.ndarray, _: np.ndarray) -> Pair:
        value, *influence = two_nn_influence(near_apart(x, np.arange(len(x)) % 30))
        return (value.linear, value.likelihood)[which], influence[which]

    return found


SMOOTH = {
    "procrustes": (lambda x, y: procrustes_influence(deviations(x), deviations(y)), procrustes),
    "cca": (cca_influence, cca),
    "rsa": (rsa_influence, rsa),
    "rsa of cosines": (
        lambda x, y: rsa_influence(x, y, dissimilarity="cosine"),
        lambda x, y: rsa(x, y, dissimilarity="cosine"),
    ),
}
LOCAL = {
    "mutual_knn": (knn, mutual_knn),
    "two_nn linear": (dimension_by(0), lambda x, _: two_nn(x).linear),
    "two_nn likelihood": (dimension_by(1), lambda x, _: two_nn(x).likelihood),
}
ALL = SMOOTH | LOCAL


@pytest.mark.parametrize("name", ALL)
def test_value_and_sum(name):
    influence, metric = ALL[name]
    pair = draw(np.random.default_rng(0))
    value, each = influence(*pair)
    assert value == pytest.approx(metric(*pair), rel=1e-12)
    assert each.shape == (N,)
    assert each.sum() == pytest.approx(0, abs=1e-9 * np.abs(each).sum())


@pytest.mark.parametrize("name", SMOOTH)
def test_influence_is_what_a_row_moves_the_value_by(name):
    """Leave one row out: the value moves by minus its influence over N, to second order."""
    influence, metric = SMOOTH[name]
    x, y = draw(np.random.default_rng(0), 400)
    value, each = influence(x, y)
    for row in np.random.default_rng(2).choice(400, 12, replace=False):
        rest = np.delete(x, row, 0), np.delete(y, row, 0)
        moved = 399 * (value - metric(*rest))
        assert moved == pytest.approx(each[row], abs=0.15 * each.std())


@pytest.mark.parametrize(
    ("name", "draws"), [*((n, 60) for n in SMOOTH), *((n, 100) for n in LOCAL)]
)
def test_standard_error_is_the_spread_over_samples(name, draws):
    rng = np.random.default_rng(5)
    found = [ALL[name][0](*draw(rng)) for _ in range(draws)]
    spread = np.std([value for value, _ in found])
    error = np.sqrt(np.mean([each.var() / N for _, each in found]))
    assert 0.8 < error / spread < 1.35


def test_groups_leave_their_pairs_out():
    x, y = draw(np.random.default_rng(0), 80)
    groups = [str(i // 2) for i in range(80)]
    value, each = rsa_influence(x, y, groups=groups)
    assert value == pytest.approx(rsa(x, y, groups=groups), rel=1e-12)
    assert each.sum() == pytest.approx(0, abs=1e-9)


def test_ties_share_their_rank_in_the_influence_too():
    """Rows on a grid, many distances equal: against the value without each row."""
    rng = np.random.default_rng(3)
    x = rng.integers(0, 3, (150, 2)).astype(float)
    y = x + rng.integers(0, 2, (150, 2))
    value, each = rsa_influence(x, y)
    left = [149 * (value - rsa(np.delete(x, i, 0), np.delete(y, i, 0))) for i in range(0, 150, 15)]
    assert left == pytest.approx(each[::15], abs=0.03 * each.std())


def test_influence_on_the_line_is_what_a_ratio_moves_it_by():
    """Of independent ratios, one left out: by its place, by the ranks of others, by the cut."""
    ratios = np.random.default_rng(3).exponential(1 / 5, 400)

    def slope(r: np.ndarray) -> float:
        return dimension._slope(np.sort(r)[: dimension._fitted(len(r), 0.1)], len(r))

    each = dimension._linear_influence(ratios, slope(ratios), 0.1)
    left = [399 * (slope(ratios) - slope(np.delete(ratios, i))) for i in range(400)]
    assert np.abs(left - np.mean(left) - each).mean() < 0.01 * each.std()


def test_copies_have_no_influence_on_the_dimension():
    x, _ = draw(np.random.default_rng(0))
    twice = np.concatenate([x, x[:40]])
    plain = two_nn_influence(near_apart(x, np.arange(N) % 30))
    found = two_nn_influence(near_apart(twice, np.arange(N + 40) % 30))
    assert found[0].duplicates == 40
    for ours, alone in zip(found[1:], plain[1:], strict=True):
        kept = ours != 0
        assert kept.sum() == N
        assert ours.sum() == pytest.approx(0, abs=1e-9)
        assert ours[:N].std() == pytest.approx(alone.std() * (N + 40) / N, rel=1e-9)


def test_pairs_that_are_alike_widen_a_sum():
    each = np.array([1.0, 1, -1, -1])
    assert widened(each, np.array([0, 1, 2]), np.array([1, 0, 3])) == pytest.approx(each * 2**0.5)
    unlike = np.array([0]), np.array([2])
    assert widened(each, *unlike) == pytest.approx(each)
    assert widened(np.zeros(4), *unlike) == pytest.approx(0)


def test_what_has_no_influence():
    x, y = draw(np.random.default_rng(0), 60)
    with pytest.raises(UsageError, match="paired rows"):
        procrustes_influence(deviations(x), deviations(y[:-1]))
    with pytest.raises(DegenerateInput, match="spans everything"):
        cca_influence(x[:6], y[:6])
    with pytest.raises(UsageError, match="at most 4096 rows"):
        rsa_influence(*draw(np.random.default_rng(0), 4097))
