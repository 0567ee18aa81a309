from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from geomkit import estimates, statistics
from geomkit.errors import DegenerateInput, UsageError
from geomkit.estimates import space, within
from geomkit.geometry import effective_rank, mean_cosine, uniformity
from geomkit.geometry.rows import codes
from geomkit.statistics import difference, from_jackknife, from_rows, from_scores, interval

RNG = np.random.default_rng(0)


def test_interval_of_a_mean_is_students():
    x = RNG.exponential(size=40)
    got = interval(from_rows(x.mean(), x - x.mean(), np.arange(40)))
    want = stats.t.interval(0.95, 39, x.mean(), stats.sem(x))
    assert (got.low, got.high) == pytest.approx(want)
    assert got.method == "row means, 40 groups"


def test_copies_are_not_evidence():
    x = RNG.standard_normal(30)
    thrice, groups = np.repeat(x, 3), np.repeat(np.arange(30), 3)
    alone = from_rows(x.mean(), x - x.mean(), np.arange(30))
    together = from_rows(x.mean(), thrice - x.mean(), groups)
    assert together.standard_error == pytest.approx(alone.standard_error)
    naive = from_rows(x.mean(), thrice - x.mean(), np.arange(90))
    assert naive.standard_error < 0.7 * alone.standard_error


def test_jackknife_of_a_mean_is_exact_even_with_unequal_folds():
    x = RNG.standard_normal(50)
    folds = np.repeat([0, 1, 2, 3, 4, 5, 6], [5, 6, 7, 8, 9, 7, 8])
    values = np.array([x.mean(), *(x[folds != f].mean() for f in range(7))])
    by_rows = from_rows(x.mean(), x - x.mean(), folds)
    assert from_jackknife(values, folds).shares == pytest.approx(by_rows.shares)


def test_jackknife_equals_the_textbook_form():
    x = RNG.standard_normal(60)
    folds = np.arange(60) % 12
    left = np.array([np.log(x[folds != f].var()) for f in range(12)])
    got = from_jackknife(np.array([np.log(x.var()), *left]), folds).standard_error
    assert got == pytest.approx(np.sqrt(11 / 12 * ((left - left.mean()) ** 2).sum()))


@pytest.mark.parametrize("hits", [0, 1, 7, 20])
def test_proportions_get_wilsons_interval(hits):
    scores = np.arange(20) < hits
    got = interval(from_scores(scores, np.arange(20)))
    want = stats.binomtest(hits, 20).proportion_ci(method="wilson")
    assert (got.low, got.high) == pytest.approx((want.low, want.high), abs=1e-12)


def test_clustered_hits_are_worth_fewer():
    hits = np.repeat(RNG.integers(0, 2, 25), 4)
    alone = interval(from_scores(hits, np.arange(100)))
    together = interval(from_scores(hits, np.repeat(np.arange(25), 4)))
    assert together.high - together.low > 1.5 * (alone.high - alone.low)


def test_all_hits_are_not_certainty():
    got = interval(from_scores(np.ones(20), np.repeat(np.arange(5), 4)))
    assert got.high == 1
    assert got.low < interval(from_scores(np.ones(20), np.arange(20))).low < 1


def test_scores_lie_between_zero_and_one():
    with pytest.raises(UsageError, match=r"scores in \[0, 1\]"):
        from_scores([0.5, 2.0], np.arange(2))


def test_difference_is_paired():
    common = RNG.standard_normal(200) * 10
    before, after = common + RNG.standard_normal(200), common + RNG.standard_normal(200) + 1
    one, two = (from_rows(x.mean(), x - x.mean(), np.arange(200)) for x in (before, after))
    change = difference(one, two)
    want = stats.ttest_rel(after, before).confidence_interval()
    got = interval(change)
    assert (got.low, got.high) == pytest.approx((want.low, want.high))
    assert statistics.p_value(change) == pytest.approx(stats.ttest_rel(after, before).pvalue)


@pytest.mark.parametrize(("changed", "clear"), [(3, False), (5, False), (6, True), (12, True)])
def test_a_few_changed_hits_agree_with_mcnemar(changed, clear):
    """All changes go one way; the exact sign test is below 5 % from six on."""
    before, after = np.zeros(100), (np.arange(100) < changed).astype(float)
    made = [from_scores(x, np.arange(100)) for x in (before, after)]
    assert (interval(difference(*made)).low > 0) == clear
    assert (stats.binomtest(changed, changed).pvalue < 0.05) == clear


def test_no_change_is_not_clear():
    same = from_scores([1, 0, 1, 0], np.arange(4))
    got = interval(difference(same, same))
    assert got.low < 0 < got.high


def test_difference_of_other_rows():
    small, large = (from_rows(0.0, np.zeros(n), np.arange(n)) for n in (4, 5))
    with pytest.raises(UsageError, match="same rows"):
        difference(small, large)


def test_shares_keep_the_names_of_their_groups():
    clusters, names = np.array([1, 0, 1, 2]), ("a", "b", "c")
    hits = from_scores([1, 0, 0, 1], clusters, names=names)
    rows = from_rows(0.0, [1.0, 2.0, 3.0, 4.0], clusters, names=list(names))
    assert hits.names == difference(hits, hits).names == rows.names == names
    assert dict(zip(names, rows.shares, strict=True)) == {"a": 0.5, "b": 1.0, "c": 1.0}
    assert from_jackknife(np.zeros(3), np.array([0, 1, 0, 1])).names == ()


def test_names_that_are_too_few():
    with pytest.raises(UsageError, match="one name a group, got 2 names for 3 groups"):
        from_rows(0.0, np.zeros(3), np.arange(3), names=("a", "b"))


def test_difference_of_other_groups():
    one, two = (from_rows(0.0, np.zeros(2), np.arange(2), names=tuple(n)) for n in ("ab", "ac"))
    with pytest.raises(UsageError, match="groups of different names"):
        difference(one, two)


def test_one_group_has_no_interval():
    with pytest.raises(DegenerateInput, match="at least 2 groups"):
        interval(from_scores(np.ones(5), np.zeros(5, int)))


def test_few_groups_have_no_interval():
    for n in (1, 4):
        with pytest.raises(DegenerateInput, match=f"at least 5 groups for an interval, got {n}"):
            interval(from_rows(0.0, np.ones(n), np.arange(n)))
    assert interval(from_rows(0.0, np.ones(5), np.arange(5))).groups == 5


@pytest.mark.parametrize("n", [2, 3, 4, 5, 12])
def test_few_rows_never_make_a_change_certain(n):
    """No true change: shares that are equal by construction must not give a width of zero."""
    rng = np.random.default_rng(n)
    before, after = (estimates.space(rng.standard_normal((n, 8), np.float32)) for _ in range(2))
    pairs = [(estimates.within(before)[m], estimates.within(after)[m]) for m in estimates.WITHIN]
    pairs.append(tuple(estimates.between(before, s)["mutual_knn"] for s in (before, after)))
    for old, new in pairs:
        if isinstance(old, DegenerateInput) or isinstance(new, DegenerateInput):
            continue
        try:
            span = interval(difference(old, new))
        except DegenerateInput:
            continue
        assert span.high - span.low > 1e-3


def test_interval_is_cut_to_the_range():
    wide = from_rows(0.9, [-5.0, 5.0, 1.0, 0.0, 0.0], np.arange(5))
    assert interval(wide, within=(0, 1)).high == 1
    assert interval(wide, within=(0, 1)).low == 0


def test_a_value_beyond_its_range_stays_in_its_interval():
    beyond = from_rows(1.01, [-0.1, 0.1, 0.0, 0.0, 0.0], np.arange(5))
    assert interval(beyond, within=(0, 1)).low < interval(beyond, within=(0, 1)).high == 1.01


def test_p_value_without_spread():
    flat = from_rows(1.0, np.zeros(4), np.arange(4))
    assert statistics.p_value(flat) == 0
    assert statistics.p_value(flat, null=1.0) == 1


def test_folds_never_split_a_group_and_are_even():
    clusters = codes(200, [str(i * i % 37) for i in range(200)])
    folds = statistics.folds_of(clusters, 10)
    assert all(len(set(folds[clusters == c])) == 1 for c in set(clusters))
    sizes = np.bincount(folds)
    assert len(sizes) == 10
    assert sizes.max() - sizes.min() <= np.bincount(clusters).max()
    assert statistics.folds_of(np.arange(3)).tolist() == [0, 1, 2]


def test_mean_cosine_error_equals_its_jackknife(pair_of_spaces):
    x, _ = pair_of_spaces
    made = within(space(x))["mean_cosine"]
    one_out = np.arange(len(x))
    values = np.array([mean_cosine(x), *(mean_cosine(np.delete(x, i, 0)) for i in one_out)])
    assert made.standard_error == pytest.approx(
        from_jackknife(values, one_out).standard_error, rel=0.02
    )


def test_uniformity_error_equals_its_jackknife(pair_of_spaces):
    x, _ = pair_of_spaces
    folds = np.arange(len(x))
    values = np.array([uniformity(x), *(uniformity(np.delete(x, i, 0)) for i in folds)])
    want = from_jackknife(values, folds).standard_error
    assert within(space(x))["uniformity"].standard_error == pytest.approx(want, rel=0.03)


@pytest.fixture
def pair_of_spaces():
    rng = np.random.default_rng(3)
    shared = rng.standard_normal((90, 10))
    return tuple(shared + rng.standard_normal((90, 10)) + shift for shift in (0.4, -0.3))


def test_a_real_change_is_seen():
    rng = np.random.default_rng(1)
    shared = rng.standard_normal((100, 12)) * np.linspace(2, 0.4, 12)
    before, after = space(shared + 0.8), space(shared + 0.5)
    change = interval(difference(within(before)["mean_cosine"], within(after)["mean_cosine"]))
    assert change.high < 0


def test_effective_rank_value_is_the_plain_one(pair_of_spaces):
    x, _ = pair_of_spaces
    assert within(space(x))["effective_rank"].value == pytest.approx(effective_rank(x))
