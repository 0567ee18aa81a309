"""Could partners by lot do as well? p values of a metric of two matched sets of rows.

    permuted         the metric again and again, rows of one side dealt anew
    permutation_p    what share of those draws is at least as high
    pearson_p        no draws: from three exact moments of the null
    cka_p            that, for debiased linear CKA

The question is about pairs: both sides keep their own geometry, only who belongs to whom is
forgotten.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry.nulls import NullMoments
from geomkit.geometry.similarity import linear_cka, linear_cka_null
from geomkit.geometry.skew import linear_cka_skew

Array = Any  # a NumPy array or a torch tensor
Codes = NDArray[np.int64]

LEAST_DEALS = 20
"""Ways to deal below which no p value reaches 5 %."""

TIE = 1e-12  # draws closer than this to the value, relative to it, are equal to it


def permuted(
    metric: Callable[[Array, Array], float],
    x: Array,
    y: Array,
    draws: int = 999,
    seed: int = 0,
    clusters: Codes | None = None,
) -> NDArray[np.float64]:
    """`metric(x, y)` with the rows of `y` dealt anew in each draw, `(draws,)`.

    Rows of equal cluster are the same thing and stay together, in their order: whole clusters trade
    places with clusters of equal size. One whose size no other has stays where it is, true partners
    and all; the p value then still holds, but it is larger than it had to be. Memory is that of one
    call of `metric`.

    Raises:
        UsageError: rows or clusters do not match one to one, or no draws are asked for.
        DegenerateInput: the sizes allow fewer than 20 ways to deal.
    """
    n = int(x.shape[0])
    clusters = np.arange(n) if clusters is None else np.asarray(clusters)
    if int(y.shape[0]) != n or len(clusters) != n:
        raise UsageError(
            f"Expected matched rows, got {n}, {int(y.shape[0])} and {len(clusters)} clusters; keep "
            "the samples that both sides have, in one order."
        )
    if draws < 1:
        raise UsageError(f"Expected at least 1 draw, got {draws}.")
    alike = _alike(clusters)
    _require_deals(alike)
    rng = np.random.default_rng(seed)
    return np.array([float(metric(x, y[_dealt(alike, n, rng)])) for _ in range(draws)])


def permutation_p(observed: float, null: ArrayLike) -> float:
    """One-sided p of a value at least as high as `observed`: `(1 + count) / (1 + draws)`.

    The value itself counts as one more draw, so p is never 0 and the test holds its level exactly.
    For a metric where lower is closer give both with their sign changed.

    Raises:
        DegenerateInput: no draws, or a value that is not finite.

    Reference:
        Phipson and Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9.
    """
    null = np.asarray(null, dtype=np.float64)
    if null.size == 0 or not (np.isfinite(null).all() and math.isfinite(observed)):
        raise DegenerateInput(
            f"Expected a finite value and finite draws, got {observed} among {null.size} draws; "
            "drop what the metric is not defined on."
        )
    return (1 + int((null >= observed - TIE * abs(observed)).sum())) / (1 + null.size)


def pearson_p(observed: float, null: NullMoments, skew: float) -> float:
    """One-sided p of a value at least as high, from the Pearson III law with these moments.

    A shifted gamma distribution; the normal one at `skew` 0. A p value below about 1e-3 is right in
    its order of magnitude, not in its digits.

    Raises:
        DegenerateInput: the null has no spread.

    Reference:
        Mielke and Berry 2007, Permutation Methods; Josse, Pages and Husson 2008, Comput. Stat. Data
        Anal. 53, for the RV coefficient.
    """
    from scipy.stats import pearson3  # half a second, for those who ask

    if not null.variance > 0:
        raise DegenerateInput(
            "Expected a null with spread, got the same value for every pairing of the rows."
        )
    return float(pearson3.sf(observed, skew, loc=null.mean, scale=null.sd))


def cka_p(x: Array, y: Array) -> float:
    """One-sided p of the debiased `linear_cka` against partners by lot, without a single draw.

    Three exact moments over all pairings. Rows must be exchangeable: with groups of rows that are
    the same thing take `permuted` and `permutation_p`.

    Raises:
        UsageError: the rows do not match one to one.
        DegenerateInput: constant rows, fewer than 6, or too few to remove the bias.
    """
    return pearson_p(linear_cka(x, y), linear_cka_null(x, y), linear_cka_skew(x, y))


def _alike(clusters: Codes) -> list[Codes]:
    """For each size of clusters the rows of all clusters of that size, `(clusters, size)`."""
    _, code, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    order = np.argsort(code, kind="stable")
    starts = np.cumsum(sizes) - sizes
    return [order[starts[sizes == s][:, None] + np.arange(s)] for s in np.unique(sizes)]


def _require_deals(alike: list[Codes]) -> None:
    ways = sum(math.lgamma(len(rows) + 1) for rows in alike)
    if ways < math.log(LEAST_DEALS):
        told = ", ".join(f"{len(rows)} of {rows.shape[1]}" for rows in alike)
        raise DegenerateInput(
            f"Expected clusters of equal size to trade places in at least {LEAST_DEALS} ways, got "
            f"clusters of these numbers of rows: {told}; give as many rows of each thing."
        )


def _dealt(alike: list[Codes], n: int, rng: np.random.Generator) -> Codes:
    """Which row of the other side each row gets."""
    partner = np.empty(n, dtype=np.int64)
    for rows in alike:
        partner[rows] = rng.permutation(rows)
    return partner
