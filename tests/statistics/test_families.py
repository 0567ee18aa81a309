"""Families of estimates of the same clusters: bands and adjusted p values."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
from scipy import special, stats

from geomkit.errors import DegenerateInput, UsageError
from geomkit.statistics import (
    bands,
    difference,
    families,
    from_rows,
    from_scores,
    holm,
    interval,
    max_t,
    p_value,
)

RNG = np.random.default_rng(11)


def mean_of(x):
    return from_rows(x.mean(), x - x.mean(), np.arange(len(x)))


def sites(rng, groups=40, count=12, common=0.8, shift=0.0):
    """Changes at the sites of one model: groups move together."""
    move = np.sqrt(common) * rng.standard_normal((groups, 1))
    move = move + np.sqrt(1 - common) * rng.standard_normal((groups, count)) + shift
    return [mean_of(column) for column in move.T]


def widths(intervals):
    return np.array([i.high - i.low for i in intervals])


def test_holm_against_the_definition():
    p = {"a": 0.001, "b": 0.02, "c": 0.02, "d": 0.5}
    assert holm(p) == pytest.approx({"a": 0.004, "b": 0.06, "c": 0.06, "d": 0.5})
    assert list(holm({"late": 0.9, "early": 0.8})) == ["late", "early"]
    assert holm({"late": 0.9, "early": 0.8})["early"] == 1
    assert holm({}) == {}


def test_an_empty_family():
    assert bands([]) == []
    assert max_t([]) == []


def test_a_family_of_one_has_its_own_interval_and_p():
    one = sites(RNG, count=1)
    alone = interval(one[0])
    (got,) = bands(one)
    assert (got.low, got.high, got.level) == (alone.low, alone.high, 0.95)
    assert max_t(one) == [p_value(one[0])]


def test_copies_of_one_estimate_cost_nothing():
    column = RNG.standard_normal(30) + 0.4
    family = [mean_of(scale * column) for scale in (1.0, -2.0, 1e-6, 7.0)]
    for got, estimate in zip(bands(family), family, strict=True):
        alone = interval(estimate)
        assert (got.low, got.high) == pytest.approx((alone.low, alone.high), rel=1e-9)
    alone = p_value(family[0])
    assert max_t(family) == pytest.approx([alone] * 4, abs=0.01)
    assert all(max_t(family, draws=199, seed=seed)[0] >= alone * (1 - 1e-9) for seed in range(20))


@pytest.mark.parametrize("common", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("groups", [6, 12, 200])
def test_between_the_single_interval_and_bonferronis(groups, common):
    family = sites(np.random.default_rng(groups), groups, 20, common)
    got = widths(bands(family))
    assert (got >= widths([interval(e) for e in family])).all()
    assert (got <= widths([interval(e, 1 - 0.05 / 20) for e in family]) * (1 + 1e-9)).all()
    p, alone = max_t(family), [p_value(e) for e in family]
    together = list(holm({str(i): value for i, value in enumerate(alone)}).values())
    assert all(a <= b <= c for a, b, c in zip(alone, p, together, strict=True))


def test_the_more_sites_move_together_the_shorter():
    size = [
        widths(bands(f)).mean() / widths([interval(e) for e in f]).mean()
        for f in (sites(np.random.default_rng(3), 60, 25, common) for common in (0.0, 0.7, 0.95))
    ]
    assert all(a > b + 0.05 for a, b in pairwise(size))


def test_level_against_the_multivariate_normal():
    """With many groups the critical value is that of the largest of correlated normals."""
    family = sites(np.random.default_rng(2), 4000, 8, 0.6)
    shares = np.stack([e.shares for e in family])
    draws = np.random.default_rng(9).multivariate_normal(np.zeros(8), np.corrcoef(shares), 200_000)
    want = np.quantile(abs(draws).max(axis=1), 0.95)
    got = widths(bands(family, draws=20_000)) / 2 / [e.standard_error for e in family]
    assert got == pytest.approx(want, rel=0.01)


def test_few_groups_by_every_pattern_of_signs():
    """Of 8 groups there are 256 patterns: the adjusted p is a count of them."""
    family = sites(np.random.default_rng(4), 8, 5, 0.5, shift=0.7)
    shares = np.stack([e.shares - e.shares.mean() for e in family])
    patterns = np.array(list(product([-1, 1], repeat=8)))
    totals = patterns @ shares.T
    t = abs(totals) / np.sqrt(8 / 7 * ((shares**2).sum(axis=1) - totals**2 / 8))
    seen = np.array([abs(e.value) / e.standard_error for e in family])
    got, order = max_t(family, draws=40_000), np.argsort(-seen)
    worst = 0.0
    for place, i in enumerate(order):
        worst = max(worst, np.mean(t[:, order[place:]].max(axis=1) >= seen[i]))
        low, high = p_value(family[i]), (5 - place) * p_value(family[i])
        assert got[i] == pytest.approx(np.clip(worst, low, max(high, low)), abs=0.01)


@pytest.mark.parametrize("common", [0.0, 0.9])
@pytest.mark.parametrize("groups", [10, 30])
def test_all_bands_hold_at_once(groups, common):
    """1000 families without any change; with ten groups bands are a little wide, at most 97 %.

    The region is binomial around 95 to 97 %: 999 such tables of 1000 lie in it.
    """
    rng = np.random.default_rng(12)
    held = rejected = 0
    for draw in range(1000):
        family = sites(rng, groups, 10, common)
        held += all(b.low <= 0 <= b.high for b in bands(family, draws=499, seed=draw))
        rejected += min(max_t(family, draws=499, seed=draw)) <= 0.05
    low, high = stats.binom.ppf([0.0005, 0.9995], 1000, [0.95, 0.97])
    assert low <= held <= high
    assert low <= 1000 - rejected <= high


def test_true_changes_do_not_hide_behind_each_other():
    """Step-down: once the clear ones are out of the race, the rest compete among themselves."""
    rng = np.random.default_rng(6)
    strong = sites(rng, 50, 9, 0.0, shift=3.0)
    weak = mean_of(np.tile([-1.0, 1.85], 25))
    assert p_value(weak) < 0.05
    assert max_t([*strong, weak])[-1] == pytest.approx(p_value(weak), abs=0.01)
    assert bands([*strong, weak])[-1].low < 0


def test_equal_seeds_equal_bytes_and_blocks_do_not_show(monkeypatch):
    family = sites(RNG, 50, 6)
    assert bands(family) == bands(family)
    assert max_t(family) == max_t(family)
    assert bands(family, seed=1) != bands(family)
    whole = widths(bands(family))
    monkeypatch.setattr(families, "BLOCK_ENTRIES", 1000)
    assert widths(bands(family)) == pytest.approx(whole, rel=0.03)


def test_memory_is_bounded_by_the_block(monkeypatch):
    monkeypatch.setattr(families, "BLOCK_ENTRIES", 5000)
    for rows, signs in families._signs(999, 700, 0):
        assert signs.size <= 5000
        assert signs.shape[0] == rows.stop - rows.start
        assert set(np.unique(signs)) == {-1.0, 1.0}
    assert rows.stop == 999


def test_scale_of_one_estimate_does_not_matter():
    plain = sites(np.random.default_rng(1), 30, 4)
    scaled = [
        from_rows(e.value * s, e.shares * 30 * s, np.arange(30))
        for e, s in zip(plain, (1e-9, 1.0, 1e6, -3.0), strict=True)
    ]
    assert max_t(scaled) == pytest.approx(max_t(plain))
    units = widths(bands(scaled)) / [abs(e.standard_error) for e in scaled]
    assert units == pytest.approx(widths(bands(plain)) / [e.standard_error for e in plain])


def test_band_around_a_change_of_scores():
    hits = [from_scores(np.arange(60) % 7 < n, np.arange(60)) for n in (1, 2, 2, 4)]
    family = [difference(hits[0], after) for after in hits]
    got = bands(family)
    assert (widths(got) >= widths([interval(e) for e in family])).all()
    assert got[0].low < 0 < got[0].high  # no query changed: no certainty
    assert max_t(family)[0] == 1


def test_bands_of_scores_are_wilsons():
    hits = [from_scores(RNG.integers(0, 2, 50), np.arange(50)) for _ in range(4)]
    for got, one in zip(bands(hits), hits, strict=True):
        assert 0 <= got.low < interval(one).low < interval(one).high < got.high <= 1
        assert got.method == "Wilson, 50 groups, simultaneous over 4"


def test_an_estimate_without_any_error_stays_a_point():
    flat = from_rows(0.0, np.zeros(30), np.arange(30))
    got = bands([flat, *sites(RNG, 30, 3)])
    assert got[0].low == got[0].high == 0
    assert max_t([flat, *sites(RNG, 30, 3)])[0] == 1
    sure = from_rows(1.0, np.zeros(30), np.arange(30))
    assert max_t([sure, *sites(RNG, 30, 3)])[0] == 0


def test_signs_that_agree_with_all_shares_stay_finite():
    equal = [mean_of(np.array([1.0, 1, 1, -1, -1, -1]) * s) for s in (1, 2)]
    assert np.isfinite(widths(bands(equal))).all()


@pytest.mark.parametrize("rule", [bands, max_t])
def test_a_family_of_other_rows(rule):
    with pytest.raises(UsageError, match="same rows"):
        rule([*sites(RNG, 30, 2), *sites(RNG, 31, 1)])


@pytest.mark.parametrize("rule", [bands, max_t])
def test_a_family_of_other_names(rule):
    x = RNG.standard_normal(6)
    named = [from_rows(0.0, x, np.arange(6), names=tuple(names)) for names in ("abcdef", "abcdeg")]
    with pytest.raises(UsageError, match="groups of different names"):
        rule(named)


def test_few_groups_have_no_band():
    with pytest.raises(DegenerateInput, match="at least 5 groups for an interval, got 4"):
        bands(sites(RNG, 4, 3))


def test_the_level_is_stated():
    family = sites(RNG, 40, 3)
    got = bands(family, level=0.9)
    assert {b.level for b in got} == {0.9}
    assert got[0].method == "row means, 40 groups, simultaneous over 3"
    assert got[0].groups == 40
    assert special.stdtrit(39, 0.95) * family[0].standard_error * 2 < widths(got)[0]
