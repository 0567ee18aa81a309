"""How sure is a number, and is a change a change?

One idea carries the file. To first order the error of any of our metrics is a sum over clusters of
rows, `value - truth = sum of shares`, and an `Estimate` keeps those shares:

    from_rows        exact first-order shares of means and U-statistics, from one influence per row
    from_scores      the same for means of hits and other scores in [0, 1]
    from_jackknife   shares of everything else, from the value without each fold of rows
    difference       after minus before ON THE SAME ROWS: subtract the values, subtract the shares
    interval         value +- t sd(shares); Wilson's rule for scores in [0, 1]

So before and after get one paired interval, whatever the metric. Clusters are groups of rows that
are the same thing; a fold never splits one. There is no bootstrap with replacement here: copies of
a row bias every metric that looks at pairs (metrics of rank, neighbours, uniformity).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtr, stdtrit

from geomkit.errors import DegenerateInput, UsageError
from geomkit.types import Interval

FOLDS = 30
"""Folds of the jackknife: enough degrees of freedom (t 2.05), few enough to be cheap."""

LEAST_GROUPS = 5
"""Groups below which shares say nothing of the error: two rows make one cosine, three rows without
one make a rank of 1, so every share is the same and the interval would have no width."""

Method = Literal["row means", "delete-group jackknife", "scores", "paired scores"]


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """A value, and for each cluster of rows its share of the value's sampling error.

    `n` counts rows (queries, pairs). `chance` is the value under the null or the bound the metric
    has, None for a difference.
    """

    value: float
    shares: NDArray[np.float64]
    n: int
    method: Method
    chance: float | None = None

    @property
    def spread(self) -> float:
        """Sum of squared deviations of the shares."""
        if len(self.shares) < 2:
            raise DegenerateInput(
                f"Expected at least 2 groups for an interval, got {len(self.shares)}; give more "
                "samples that are not copies of each other."
            )
        return float(np.sum((self.shares - self.shares.mean()) ** 2))

    @property
    def standard_error(self) -> float:
        """Cluster-robust: sqrt(G/(G-1) sum (share - mean share)^2) over G clusters."""
        clusters, spread = len(self.shares), self.spread
        # Two opposite made-up queries keep a change of a few hits from looking certain
        # (Bonett and Price 2012, Stat. Methods Med. Res. 21).
        invented = 2 / self.n**2 if self.method == "paired scores" else 0.0
        return math.sqrt(clusters / (clusters - 1) * spread + invented)


def from_rows(
    value: float,
    influence: ArrayLike,
    clusters: NDArray[np.int64],
    *,
    chance: float | None = None,
) -> Estimate:
    """Estimate from one influence a row: `value - truth` is about `mean(influence)`.

    The influence of a plain mean is `x - mean`; of a U-statistic over pairs, twice the row mean
    minus the value; of a function of either, that times the derivative.
    """
    influence = np.asarray(influence, dtype=np.float64)
    shares = np.bincount(clusters, weights=influence) / len(influence)
    return Estimate(value, shares, len(influence), "row means", chance)


def from_jackknife(
    values: NDArray[np.float64], folds: NDArray[np.int64], *, chance: float | None = None
) -> Estimate:
    """Estimate from `values`: the metric on all rows, then without each fold.

    A fold's share is what the value loses with it, `(N - n_f)/N (whole - without)`; for equal folds
    the standard error is the delete-group jackknife's.

    Reference:
        Busing, Meijer and van der Leeden 1999, Stat. and Computing 9.
    """
    n = len(folds)
    left = n - np.bincount(folds)
    return Estimate(
        float(values[0]),
        left / n * (values[0] - values[1:]),
        n,
        "delete-group jackknife",
        chance,
    )


def from_scores(
    scores: ArrayLike, clusters: NDArray[np.int64], *, chance: float | None = None
) -> Estimate:
    """Estimate of a mean of scores in [0, 1]: hits, reciprocal ranks, right answers of a probe.

    Raises:
        UsageError: a score is outside [0, 1].
    """
    scores = np.asarray(scores, dtype=np.float64)
    if not ((scores >= 0) & (scores <= 1)).all():
        raise UsageError("Expected scores in [0, 1]; use from_rows for a mean without bounds.")
    value = float(scores.mean())
    return replace(from_rows(value, scores - value, clusters, chance=chance), method="scores")


def difference(before: Estimate, after: Estimate) -> Estimate:
    """After minus before on the same rows in the same clusters; its interval is paired.

    Raises:
        UsageError: the two were not made from the same rows, clusters and method.
    """
    made = [(e.n, len(e.shares), e.method) for e in (before, after)]
    if made[0] != made[1]:
        raise UsageError(
            f"Expected two estimates of the same rows, got (rows, clusters, method) {made[0]} and "
            f"{made[1]}; measure both on the rows that both checkpoints have."
        )
    method: Method = "paired scores" if before.method == "scores" else before.method
    return Estimate(after.value - before.value, after.shares - before.shares, before.n, method)


def interval(
    estimate: Estimate,
    level: float = 0.95,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> Interval:
    """Confidence interval: Wilson's for scores, else Student's t over clusters, cut to `within`.

    The value itself is never cut off: a debiased metric may pass its range a little.

    Raises:
        DegenerateInput: fewer than two clusters, or than `LEAST_GROUPS` where rows make pairs.
    """
    clusters = len(estimate.shares)
    if estimate.method == "scores":
        low, high = _wilson(estimate, level)
        return Interval(low, high, level, f"Wilson, {clusters} groups", clusters)
    if estimate.method != "paired scores" and clusters < LEAST_GROUPS:
        raise DegenerateInput(
            f"Expected at least {LEAST_GROUPS} groups for an interval, got {clusters}; give more "
            "samples that are not copies of each other."
        )
    half = float(stdtrit(clusters - 1, (1 + level) / 2)) * estimate.standard_error
    return Interval(
        min(estimate.value, max(estimate.value - half, within[0])),
        max(estimate.value, min(estimate.value + half, within[1])),
        level,
        f"{estimate.method}, {clusters} groups",
        clusters,
    )


def p_value(estimate: Estimate, null: float = 0.0) -> float:
    """Two-sided p of `value = null` by Student's t over clusters, in [0, 1]; for `holm`."""
    error = estimate.standard_error
    away = abs(estimate.value - null)
    if error == 0:
        return 1.0 if away == 0 else 0.0
    return float(2 * stdtr(len(estimate.shares) - 1, -away / error))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm-adjusted p values of one family; each is comparable with the family's level.

    Reference:
        Holm 1979, Scand. J. Statist. 6.

    Example:
        >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
        {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    adjusted: dict[str, float] = {}
    worst = 0.0
    for done, name in enumerate(sorted(p_values, key=lambda n: p_values[n])):
        worst = max(worst, min(1.0, (len(p_values) - done) * p_values[name]))
        adjusted[name] = worst
    return {name: adjusted[name] for name in p_values}


def folds_of(clusters: NDArray[np.int64], count: int = FOLDS) -> NDArray[np.int64]:
    """A fold for each row, at most `count`, as even as whole clusters allow; deterministic.

    The largest cluster goes first, each to the fold that is lightest so far.
    """
    sizes = np.bincount(clusters)
    heap = [(0, fold) for fold in range(min(count, len(sizes)))]
    fold_of = np.empty(len(sizes), dtype=np.int64)
    for cluster in np.argsort(-sizes, kind="stable"):
        weight, fold = heapq.heappop(heap)
        fold_of[cluster] = fold
        heapq.heappush(heap, (weight + int(sizes[cluster]), fold))
    return fold_of[clusters]


def _wilson(estimate: Estimate, level: float) -> tuple[float, float]:
    """Wilson's interval of a mean of scores, with as many rows as the clusters are worth."""
    p, clusters = estimate.value, len(estimate.shares)
    single = clusters == estimate.n
    z = float(ndtri((1 + level) / 2) if single else stdtrit(clusters - 1, (1 + level) / 2))
    n = _worth(estimate)
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
    return (0.0 if p == 0 else max(0.0, centre - half)), (
        1.0 if p == 1 else min(1.0, centre + half)
    )


def _worth(estimate: Estimate) -> float:
    """How many independent hits would have this spread; for single rows of 0 and 1 it is `n`."""
    p, spread = estimate.value, estimate.spread
    if p in {0.0, 1.0}:
        return len(estimate.shares)  # no spread to learn from: one vote a cluster
    return estimate.n if spread == 0 else p * (1 - p) / spread
