"""Subsampling without replacement, against Student's t and the delete-group jackknife."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry import effective_rank, hubness, mutual_knn
from geomkit.statistics import folds_of, from_jackknife, interval, subsampled

RNG = np.random.default_rng(33)


def width(one):
    return one.high - one.low


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_of_a_mean_it_is_students_t(share):
    x = RNG.standard_normal(60)
    got = subsampled(lambda rows: x[rows].mean(), np.arange(60), share=share, draws=4000)
    want = stats.t.interval(0.95, 59, x.mean(), stats.sem(x))
    assert (got.low, got.high) == pytest.approx(want, abs=0.04)
    assert got.method == f"subsampling, {60 * share:.0f} of 60 groups"
    assert (got.level, got.groups) == (0.95, 60)


def test_skew_points_the_other_way():
    """A metric that overshoots upwards has more room below it."""
    x = RNG.exponential(size=40) ** 3
    got = subsampled(lambda rows: x[rows].mean(), np.arange(40), share=0.1, draws=4000)
    assert x.mean() - got.low > got.high - x.mean()


def test_groups_are_drawn_whole():
    clusters = np.repeat(np.arange(20), [1, 2, 3, 4] * 5)
    seen = []
    subsampled(lambda rows: seen.append(rows) or float(len(rows)), clusters, draws=30)
    assert len(seen[0]) == 50
    for rows in seen[1:]:
        kept, sizes = np.unique(clusters[rows], return_counts=True)
        assert len(kept) == 10
        assert (sizes == np.bincount(clusters)[kept]).all()
        assert len(set(rows)) == len(rows)


def test_copies_are_not_evidence():
    x = RNG.standard_normal(40)
    alone = subsampled(lambda rows: x[rows].mean(), np.arange(40), draws=2000)
    thrice, clusters = np.repeat(x, 3), np.repeat(np.arange(40), 3)
    together = subsampled(lambda rows: thrice[rows].mean(), clusters, draws=2000)
    assert width(together) == pytest.approx(width(alone), rel=0.1)


CLOUD = RNG.standard_normal((200, 8)) * np.linspace(2, 0.4, 8)
OTHER = CLOUD + RNG.standard_normal((200, 8))
PLACES = {
    "mutual_knn": lambda rows: mutual_knn(CLOUD[rows], OTHER[rows]),
    "hubness": lambda rows: hubness(CLOUD[rows], k=5).skewness,
    "effective_rank": lambda rows: effective_rank(CLOUD[rows]),
}
WIDTHS = {"mutual_knn": (0.45, 1.05), "hubness": (0.45, 1.2), "effective_rank": (0.7, 1.2)}


@pytest.mark.parametrize("metric", PLACES)
def test_beside_the_delete_group_jackknife(metric):
    """Equal for smooth metrics; of neighbours, which jump, the jackknife is the wider one."""
    everything = np.arange(200)
    folds = folds_of(everything)
    value = PLACES[metric]
    values = [value(everything), *(value(np.flatnonzero(folds != f)) for f in range(30))]
    wide = interval(from_jackknife(np.array(values), folds))
    got = subsampled(value, everything, draws=300)
    low, high = WIDTHS[metric]
    assert low < width(got) / width(wide) < high
    assert got.low <= values[0] <= got.high


def test_equal_seeds_equal_intervals():
    x = RNG.standard_normal(30)
    one, two, other = (
        subsampled(lambda rows: x[rows].mean(), np.arange(30), seed=seed) for seed in (0, 0, 1)
    )
    assert one == two != other


@pytest.mark.parametrize("factor", [1e-8, 3.0, 1e8])
def test_scale_and_shift_pass_through(factor):
    x = RNG.standard_normal(30)
    plain = subsampled(lambda rows: x[rows].mean(), np.arange(30))
    moved = subsampled(lambda rows: factor * (x[rows].mean() + 5), np.arange(30))
    want = (factor * (plain.low + 5), factor * (plain.high + 5))
    assert (moved.low, moved.high) == pytest.approx(want, rel=1e-9)


@pytest.mark.parametrize(("share", "draws"), [(0.0, 100), (1.0, 100), (0.5, 1)])
def test_parts_that_are_none(share, draws):
    with pytest.raises(UsageError, match="share between 0 and 1 and at least 2 draws"):
        subsampled(np.mean, np.arange(30), share=share, draws=draws)


def test_few_groups():
    with pytest.raises(DegenerateInput, match="at least 10 groups to draw from, got 9"):
        subsampled(np.mean, np.repeat(np.arange(9), 5))
    with pytest.raises(DegenerateInput, match="got 0"):
        subsampled(np.mean, np.array([], dtype=int))


def test_a_part_on_which_the_metric_is_not_defined():
    with pytest.raises(DegenerateInput, match="k = 10"):
        subsampled(lambda rows: mutual_knn(CLOUD[rows], OTHER[rows]), np.arange(14))
