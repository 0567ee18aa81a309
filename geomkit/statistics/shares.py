"""An estimate: a value, and for each cluster of rows its share of the value's sampling error.

To first order `value - truth = sum of shares` for all of our metrics. So a change of two estimates
of the same rows is a subtraction of the values and of the shares, and its error is paired.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geomkit.errors import DegenerateInput, UsageError

FOLDS = 30
"""Folds of the jackknife: enough degrees of freedom (t 2.05), few enough to be cheap."""

Method = Literal["row means", "delete-group jackknife", "scores", "paired scores"]


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """A value, and for each cluster of rows its share of the value's sampling error.

    `n` counts rows (queries, pairs). `chance` is the value under the null or the bound the metric
    has, None for a difference. `names` tell the group behind each share, sorted, so that shares of
    two modalities can be aligned; empty when shares are folds. `chance_sd` is the standard
    deviation of the value under the null, where that is known exactly.
    """

    value: float
    shares: NDArray[np.float64]
    n: int
    method: Method
    chance: float | None = None
    names: tuple[str, ...] = ()
    chance_sd: float | None = None

    def __post_init__(self) -> None:
        if self.names and len(self.names) != len(self.shares):
            raise UsageError(
                f"Expected one name a group, got {len(self.names)} names for {len(self.shares)} "
                "groups; name them in the order of their codes."
            )

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
        return math.sqrt(clusters / (clusters - 1) * spread + self.invented)

    @property
    def invented(self) -> float:
        """Variance of two opposite made-up queries: a change of a few hits must not look certain.

        Reference:
            Bonett and Price 2012, Stat. Methods Med. Res. 21.
        """
        return 2 / self.n**2 if self.method == "paired scores" else 0.0


def from_rows(
    value: float,
    influence: ArrayLike,
    clusters: NDArray[np.int64],
    *,
    chance: float | None = None,
    names: Sequence[str] = (),
) -> Estimate:
    """Estimate from one influence a row: `value - truth` is about `mean(influence)`.

    The influence of a plain mean is `x - mean`; of a U-statistic over pairs, twice the row mean
    minus the value; of a function of either, that times the derivative. `names` are those of the
    clusters, in the order of their codes.
    """
    influence = np.asarray(influence, dtype=np.float64)
    shares = np.bincount(clusters, weights=influence) / len(influence)
    return Estimate(value, shares, len(influence), "row means", chance, tuple(names))


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
    scores: ArrayLike,
    clusters: NDArray[np.int64],
    *,
    chance: float | None = None,
    names: Sequence[str] = (),
) -> Estimate:
    """Estimate of a mean of scores in [0, 1]: hits, reciprocal ranks, right answers of a probe.

    Raises:
        UsageError: a score is outside [0, 1].
    """
    scores = np.asarray(scores, dtype=np.float64)
    if not ((scores >= 0) & (scores <= 1)).all():
        raise UsageError("Expected scores in [0, 1]; use from_rows for a mean without bounds.")
    value = float(scores.mean())
    made = from_rows(value, scores - value, clusters, chance=chance, names=names)
    return replace(made, method="scores")


def difference(before: Estimate, after: Estimate) -> Estimate:
    """After minus before on the same rows in the same clusters; its interval is paired.

    Raises:
        UsageError: the two were not made from the same rows, clusters and method.
    """
    require_alike([before, after])
    method: Method = "paired scores" if before.method == "scores" else before.method
    return Estimate(
        after.value - before.value,
        after.shares - before.shares,
        before.n,
        method,
        names=before.names,
    )


def require_alike(estimates: Sequence[Estimate]) -> None:
    """Refuses estimates of which some were made from other rows, clusters or by another method."""
    first = estimates[0]
    for other in estimates[1:]:
        made = [(e.n, len(e.shares), e.method) for e in (first, other)]
        if made[0] != made[1]:
            raise UsageError(
                "Expected two estimates of the same rows, got (rows, clusters, method) "
                f"{made[0]} and {made[1]}; measure both on the rows that both checkpoints have."
            )
        if first.names != other.names:
            raise UsageError(
                "Expected two estimates of the same rows, got groups of different names; measure "
                "both on the rows that both checkpoints have."
            )


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
