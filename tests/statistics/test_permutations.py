"""p values of pairing: draws against exact moments, exact moments against draws."""

from __future__ import annotations

from itertools import permutations as orders

import numpy as np
import pytest
from scipy import stats

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry import (
    linear_cka,
    linear_cka_null,
    linear_cka_skew,
    mutual_knn,
    mutual_knn_null,
)
from geomkit.geometry.nulls import NullMoments
from geomkit.statistics import cka_p, pearson_p, permutation_p, permuted

RNG = np.random.default_rng(21)


@pytest.mark.parametrize(
    ("metric", "moments"),
    [
        (linear_cka, linear_cka_null),
        (
            lambda x, y: linear_cka(x, y, debiased=False),
            lambda x, y: linear_cka_null(x, y, debiased=False),
        ),
        (lambda x, y: mutual_knn(x, y, 4), lambda x, y: mutual_knn_null(x, y, 4)),
    ],
    ids=["debiased cka", "plug-in cka", "mutual kNN"],
)
def test_draws_have_the_exact_moments(metric, moments):
    """Within four standard errors of 2000 draws, though the sides are strongly paired."""
    x = RNG.standard_normal((40, 6)) * np.linspace(2, 0.5, 6)
    y = x + 0.3 * RNG.standard_normal((40, 6))
    drawn, null = permuted(metric, x, y, 2000), moments(x, y)
    assert drawn.mean() == pytest.approx(null.mean, abs=4 * null.sd / 2000**0.5)
    fourth = ((drawn - null.mean) ** 4).mean()
    slack = 4 * ((fourth - null.variance**2) / 2000) ** 0.5
    assert ((drawn - null.mean) ** 2).mean() == pytest.approx(null.variance, abs=slack)
    assert metric(x, y) > drawn.max()
    assert permutation_p(metric(x, y), drawn) == 1 / 2001


def test_every_deal_of_four_rows_is_as_likely():
    x = np.arange(4.0)[:, None]
    drawn = permuted(lambda a, b: float(a[:, 0] @ 10 ** b[:, 0]), x, x, 24_000, seed=3)
    want = [float(np.arange(4.0) @ 10.0 ** np.array(order)) for order in orders(range(4))]
    values, counts = np.unique(drawn, return_counts=True)
    assert values == pytest.approx(np.sort(want))
    assert stats.chisquare(counts).pvalue > 1e-3


def test_groups_stay_together_and_trade_with_groups_of_their_size():
    clusters = np.array([5, 5, 9, 2, 2, 2, 9, 7, 7, 7, 0, 4, 4, 3, 3])
    seen = []

    def metric(_, y):
        seen.append(y[:, 0].astype(int))
        return 0.0

    permuted(metric, np.zeros((15, 1)), np.arange(15)[:, None], 60, clusters=clusters)
    pairs = {(0, 1), (2, 6), (11, 12), (13, 14)}
    for partner in seen:
        dealt = {tuple(partner[clusters == c]) for c in np.unique(clusters)}
        assert dealt == pairs | {(3, 4, 5), (7, 8, 9), (10,)}
        assert partner[10] == 10
    assert {tuple(p[[0, 1]]) for p in seen} == pairs
    assert {tuple(p[[3, 4, 5]]) for p in seen} == {(3, 4, 5), (7, 8, 9)}


def test_copies_of_rows_are_no_evidence_of_pairing():
    """Twelve things seen four times each, and no pairing at all: row by row p is far too small."""
    clusters, rejected = np.repeat(np.arange(12), 4), {"rows": 0, "groups": 0}
    for draw in range(60):
        rng = np.random.default_rng(draw)
        x, y = (
            np.repeat(rng.standard_normal((12, 3)), 4, 0) + 0.1 * rng.standard_normal((48, 3))
            for _ in range(2)
        )
        value = linear_cka(x, y)
        for name, by in (("rows", None), ("groups", clusters)):
            null = permuted(linear_cka, x, y, 99, draw, by)
            rejected[name] += permutation_p(value, null) <= 0.05
    assert rejected["rows"] > 20
    assert rejected["groups"] <= stats.binom.ppf(0.9995, 60, 0.05)


def test_p_is_uniform_without_pairing():
    found = []
    for draw in range(400):
        x, y = np.random.default_rng(draw).standard_normal((2, 15, 3))
        found.append(permutation_p(linear_cka(x, y), permuted(linear_cka, x, y, 19, draw)))
    counts = [sum(p == pytest.approx(k / 20) for p in found) for k in range(1, 21)]
    assert sum(counts) == 400
    assert stats.chisquare(counts).pvalue > 1e-3


def test_equal_seeds_equal_draws():
    x, y = RNG.standard_normal((2, 20, 3))
    assert (permuted(linear_cka, x, y, 9) == permuted(linear_cka, x, y, 9)).all()
    assert (permuted(linear_cka, x, y, 9) != permuted(linear_cka, x, y, 9, seed=1)).any()


def test_p_counts_the_value_itself():
    assert permutation_p(3.0, [1.0, 2.0, 3.0, 4.0]) == 3 / 5
    assert permutation_p(9.0, np.zeros(999)) == 1 / 1000
    assert permutation_p(-9.0, np.zeros(999)) == 1
    assert permutation_p(0.1 + 0.2, [0.3]) == 1  # equal but for rounding
    assert permutation_p(0.3, [0.1 + 0.2]) == 1


@pytest.mark.parametrize(
    ("value", "null"), [(np.nan, [1.0]), (1.0, []), (1.0, [1.0, np.nan]), (np.inf, [1.0])]
)
def test_p_needs_numbers(value, null):
    with pytest.raises(DegenerateInput, match="finite value and finite draws"):
        permutation_p(value, null)


def test_sides_that_do_not_match():
    x = RNG.standard_normal((20, 3))
    with pytest.raises(UsageError, match="matched rows, got 20, 19 and 20 clusters"):
        permuted(linear_cka, x, x[:19])
    with pytest.raises(UsageError, match="matched rows, got 20, 20 and 3 clusters"):
        permuted(linear_cka, x, x, clusters=np.arange(3))
    with pytest.raises(UsageError, match="at least 1 draw, got 0"):
        permuted(linear_cka, x, x, 0)


def test_groups_that_cannot_trade_places():
    x = RNG.standard_normal((10, 3))
    with pytest.raises(DegenerateInput, match=r"at least 20 ways, got .*: 1 of 1, 1 of 2, 1 of 3"):
        permuted(linear_cka, x, x, clusters=np.repeat([0, 1, 2, 3], [1, 2, 3, 4]))
    with pytest.raises(DegenerateInput, match="3 of 3"):
        permuted(linear_cka, x[:9], x[:9], clusters=np.repeat([0, 1, 2], 3))


@pytest.mark.parametrize("skew", [-1.3, 0.0, 1e-9, 0.4, 2.8])
@pytest.mark.parametrize("away", [-1.0, 0.0, 0.5, 2.0, 5.0])
def test_pearson_is_a_shifted_gamma(skew, away):
    got = pearson_p(3 + 0.2 * away, NullMoments(3.0, 0.04), skew)
    if abs(skew) < 1e-6:
        assert got == pytest.approx(stats.norm.sf(away), rel=1e-6)
        return
    shape = 4 / skew**2
    gamma = stats.gamma(shape, scale=1 / shape**0.5, loc=-(shape**0.5))
    want = gamma.sf(away) if skew > 0 else gamma.cdf(-away)
    assert got == pytest.approx(want, rel=1e-8, abs=1e-300)


def test_a_null_without_spread_has_no_p():
    with pytest.raises(DegenerateInput, match="null with spread"):
        pearson_p(1.0, NullMoments(0.0, 0.0), 0.0)


TAILS = {
    "one direction": lambda rng: rng.standard_normal((60, 1)),
    "three directions": lambda rng: rng.standard_normal((60, 3)),
    "a massive direction": lambda rng: rng.standard_normal((60, 30)) * [50, *[1] * 29],
    "many directions": lambda rng: rng.standard_normal((60, 30)),
    "heavy tails": lambda rng: rng.standard_t(2.5, (60, 2)),
}


@pytest.mark.parametrize("data", TAILS.values(), ids=TAILS.keys())
def test_tails_of_the_exact_moments_are_those_of_draws(data):
    """20 000 pairings: p of 5 % and 1 % are right within a fifth and a third of themselves."""
    rng = np.random.default_rng(2)
    x, y = data(rng), data(rng)
    a, b = _doubly_centred(x), _doubly_centred(y)
    order = (rng.permutation(60) for _ in range(20_000))
    drawn = np.array([(a * b[p][:, p]).sum() for p in order])
    null, skew = linear_cka_null(x, y), linear_cka_skew(x, y)
    for level, slack in ((0.05, 0.2), (0.01, 0.35)):
        cut = stats.pearson3.isf(level, skew, null.mean, null.sd)
        assert pearson_p(cut, null, skew) == pytest.approx(level)
        assert np.mean(drawn >= cut) == pytest.approx(level, rel=slack)
    assert drawn.std() == pytest.approx(null.sd, rel=0.05)


def _doubly_centred(x):
    """The matrix whose products with another are debiased CKA, from its definition."""
    n, gram = len(x), x @ x.T
    np.fill_diagonal(gram, 0)
    out = gram - gram.sum(0) / (n - 2) - gram.sum(1)[:, None] / (n - 2)
    out += gram.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(out, 0)
    return out / np.linalg.norm(out)


@pytest.mark.parametrize("pairing", [0.0, 0.1, 0.2, 0.3])
def test_p_of_cka_without_draws_is_that_of_draws(pairing):
    """Within four standard errors of 3000 draws."""
    x, y = np.random.default_rng(17).standard_normal((2, 50, 4))
    y += pairing * x
    drawn = permutation_p(linear_cka(x, y), permuted(linear_cka, x, y, 3000))
    assert cka_p(x, y) == pytest.approx(drawn, abs=4 * (drawn * (1 - drawn) / 3000) ** 0.5)


def test_a_normal_law_would_call_chance_a_finding():
    """Why the skewness: one direction a side, a value that 1 pairing of 100 reaches."""
    x, y = RNG.standard_normal((2, 60, 1))
    null, skew = linear_cka_null(x, y), linear_cka_skew(x, y)
    value = stats.pearson3.isf(0.01, skew, null.mean, null.sd)
    assert stats.norm.sf(value, null.mean, null.sd) < 0.001
