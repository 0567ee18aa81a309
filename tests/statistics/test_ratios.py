"""A ratio of two changes: Fieller's closed form against inversion by brute force, and coverage."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from geomkit.errors import DegenerateInput, UsageError
from geomkit.statistics import Estimate, difference, from_rows, from_scores, ratio

RNG = np.random.default_rng(5)


def mean_of(x, names=None) -> Estimate:
    names = [f"g{i:04d}" for i in range(len(x))] if names is None else names
    return from_rows(x.mean(), x - x.mean(), np.arange(len(x)), names=names)


def inverted(clear, value):
    """Both ends of the `r` around `value` at which `clear(r)` is not above zero."""
    reach = 1e-6 * (1 + abs(value))
    while clear(value - reach) < 0 or clear(value + reach) < 0:
        reach *= 2
    return (
        optimize.brentq(clear, value - reach, value, xtol=1e-13),
        optimize.brentq(clear, value, value + reach, xtol=1e-13),
    )


@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
@pytest.mark.parametrize("slope", [-0.8, 0.0, 1.4])
def test_same_groups_equal_the_inverted_t_test(slope, level):
    b = RNG.standard_normal(40) + 1.5
    a = slope * b + RNG.exponential(size=40) - 1

    def clear(r):
        return abs(stats.ttest_1samp(a - r * b, 0).statistic) - stats.t.isf((1 - level) / 2, 39)

    got = ratio(mean_of(a), mean_of(b), level)
    assert (got.low, got.high) == pytest.approx(inverted(clear, a.mean() / b.mean()), rel=1e-6)
    assert (got.level, got.groups, got.method) == (level, 40, "Fieller, 40 groups")


@pytest.mark.parametrize("shared", [0, 1, 12, 25])
def test_some_shared_groups_equal_inversion_by_brute_force(shared):
    """Rows of one cloud, of which the two sides see a part each; the union is profiled."""
    b = RNG.standard_normal(25) * 0.4 + 1
    a = np.concatenate([b[25 - shared :], RNG.standard_normal(35 - shared)]) + 0.3
    names_b = [f"{i:03d}" for i in range(25)]
    names_a = [f"{i:03d}" for i in range(25 - shared, 60 - shared)]
    one, two = mean_of(a, names_a), mean_of(b, names_b)

    def clear(r):
        total = 0.0
        for name in set(names_a) | set(names_b):
            move = 0.0
            if name in names_a:
                move += math.sqrt(35 / 34) * one.shares[names_a.index(name)]
            if name in names_b:
                move -= r * math.sqrt(25 / 24) * two.shares[names_b.index(name)]
            total += move**2
        return abs(one.value - r * two.value) - stats.t.isf(0.025, 24) * math.sqrt(total)

    got = ratio(one, two)
    want = inverted(clear, one.value / two.value)
    assert (got.low, got.high) == pytest.approx(want, rel=1e-6)
    assert got.groups == 25


def test_a_change_is_the_whole_of_itself():
    x = mean_of(RNG.standard_normal(30) + 2)
    got = ratio(x, x)
    assert (got.low, got.high) == pytest.approx((1, 1), abs=1e-6)


def test_shared_groups_make_it_shorter_when_both_move_together():
    b = RNG.standard_normal(50) + 2
    a = 0.7 * b + 0.1 * RNG.standard_normal(50)
    together = ratio(mean_of(a), mean_of(b))
    apart = ratio(mean_of(a), mean_of(b, [f"other {i:03d}" for i in range(50)]))
    assert apart.high - apart.low > 3 * (together.high - together.low)


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("above", [-3.0, -0.1, 0.0, 0.2, 4.0])
def test_without_names_it_is_the_widest_of_all_correlations(above, sign):
    e = RNG.standard_normal((2, 30))
    e -= e.mean(axis=1, keepdims=True)
    e[1] -= e[0] * (e[0] @ e[1]) / (e[0] @ e[0])
    e /= np.linalg.norm(e, axis=1, keepdims=True)
    folds = [Estimate(v, s, 300, "row means") for v, s in ((above, e[0]), (5.0 * sign, e[1]))]
    widest = ratio(*folds)
    lows, highs = [], []
    names = tuple(f"{i:02d}" for i in range(30))
    for angle in np.linspace(0, np.pi, 201):
        turned = replace(folds[1], shares=np.cos(angle) * e[0] + np.sin(angle) * e[1], names=names)
        one = ratio(replace(folds[0], names=names), turned)
        lows.append(one.low)
        highs.append(one.high)
    assert widest.low == pytest.approx(min(lows), rel=1e-6)
    assert widest.high == pytest.approx(max(highs), rel=1e-6)
    assert widest.method == "Fieller, 30 folds, any correlation"


@given(above=st.floats(1e-3, 1e3), below=st.floats(1e-3, 1e3), flip=st.sampled_from([-1, 1]))
def test_scale_and_sign_pass_through(above, below, flip):
    rng = np.random.default_rng(8)
    b = rng.standard_normal(20) * 0.3 + 1
    a = b + rng.standard_normal(20) * 0.4
    plain = ratio(mean_of(a), mean_of(b))
    got = ratio(mean_of(a * above * flip), mean_of(b * below))
    want = np.sort([flip * end * above / below for end in (plain.low, plain.high)])
    assert (got.low, got.high) == pytest.approx(tuple(want), rel=1e-7)


def test_order_of_groups_does_not_matter():
    a, b = RNG.standard_normal((2, 30)) + 2
    names = np.array([f"{i:02d}" for i in range(30)])
    deal = RNG.permutation(30)
    one = ratio(mean_of(a, names), mean_of(b, names))
    two = ratio(mean_of(a[deal], names[deal]), mean_of(b, names))
    assert (one.low, one.high) == pytest.approx((two.low, two.high))
    crossed = ratio(mean_of(a[deal], names), mean_of(b, names))
    assert one.high != pytest.approx(crossed.high, rel=1e-3)


def test_changes_of_scores_carry_their_made_up_queries():
    hits = [from_scores(np.arange(40) < n, np.arange(40), names=range_names(40)) for n in (5, 30)]
    change = difference(*hits)
    some = ratio(difference(hits[0], hits[0]), change)
    assert some.low < 0 < some.high
    assert change.names == range_names(40)


def range_names(n):
    return tuple(f"{i:03d}" for i in range(n))


DRAWS = 2000
COVERS = stats.binom.ppf([0.0005, 0.9995], DRAWS, 0.95)
"""How often an exact 95 % interval covers, in 999 of 1000 such tables."""


@pytest.mark.parametrize("setting", ["same groups", "some shared", "none shared", "few groups"])
def test_coverage_over_draws(setting):
    """The denominator is six standard errors from zero: it is clear in every draw."""
    rng = np.random.default_rng(1)
    n, shared = {
        "same groups": (60, 60), "some shared": (60, 25), "none shared": (60, 0),
        "few groups": (12, 12),
    }[setting]  # fmt: skip
    below = 6 / math.sqrt(n)
    inside = 0
    for _ in range(DRAWS):
        cloud = rng.standard_normal((2 * n - shared, 2)) @ [[1, 0.7], [0, 0.7]]
        a, b = cloud[:n, 0] + 0.8 * below, cloud[n - shared :, 1] + below
        names = [f"{i:03d}" for i in range(len(cloud))]
        got = ratio(mean_of(a, names[:n]), mean_of(b, names[n - shared :]))
        inside += got.low <= 0.8 <= got.high
    assert COVERS[0] <= inside <= COVERS[1]


def test_an_unclear_denominator_has_no_ratio():
    unclear = mean_of(np.tile([-1.0, 1.2], 25))
    with pytest.raises(DegenerateInput, match=r"denominator clear of zero at 95%, got .* \+- .*"):
        ratio(mean_of(RNG.standard_normal(50)), unclear)


def test_a_denominator_of_nothing_has_no_ratio():
    nothing = mean_of(np.zeros(20))
    with pytest.raises(DegenerateInput, match="denominator clear of zero"):
        ratio(nothing, nothing)


def test_a_certain_denominator_scales_the_interval():
    a = RNG.standard_normal(30)
    got = ratio(mean_of(a), mean_of(np.full(30, 2.0)))
    want = stats.t.interval(0.95, 29, a.mean() / 2, stats.sem(a) / 2)
    assert (got.low, got.high) == pytest.approx(want)


def test_few_groups_have_no_ratio():
    with pytest.raises(DegenerateInput, match="at least 5 groups for an interval, got 4"):
        ratio(mean_of(np.arange(4.0)), mean_of(np.arange(9.0) + 50))


def test_one_side_without_names():
    named = mean_of(RNG.standard_normal(20) + 3)
    with pytest.raises(UsageError, match="a name of its own for each of 20 groups, got 0"):
        ratio(replace(named, names=()), named)


def test_two_groups_of_one_name():
    twice = mean_of(RNG.standard_normal(20) + 3, ["same"] * 20)
    with pytest.raises(UsageError, match="a name of its own for each of 20 groups, got 1"):
        ratio(twice, twice)
