"""On how many dimensions do the rows lie, near each of them? By ratios of neighbour distances.

Distances are Euclidean, between the rows as they are. A row that equals another to float32
resolution has no nearest distance: copies are removed first, and counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry.apart import neighbour_distances
from geomkit.geometry.rows import Array
from geomkit.geometry.struck import Near, widened

Rows = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TwoNN:
    """The dimension by both estimators, from `rows` distinct rows; `duplicates` were removed.

    `linear` is the slope through the origin of -log(1 - F) on log(r2/r1), with the largest ratios
    left out; `likelihood` is `(N-1) / sum log(r2/r1)`. They differ most on few rows.
    """

    linear: float
    likelihood: float
    rows: int
    duplicates: int


@dataclass(frozen=True, slots=True)
class Scale:
    """The dimension seen at one scale: from the neighbours `near` and `2 near` of every row.

    `error` is the standard error from the likelihood's curvature (it takes rows as independent);
    `radius` is the mean distance of the two neighbours.
    """

    near: int
    dimension: float
    error: float
    radius: float
    rows: int
    duplicates: int


def two_nn(x: Array, *, discard: float = 0.1) -> TwoNN:
    """Intrinsic dimension from the ratio of each row's two nearest distances; at least 0.

    Local, so low beside the spectrum's count of axes when the rows lie on a curved sheet. The
    `linear` estimate leaves out the share `discard` of the largest ratios.

    Raises:
        DegenerateInput: constant rows, or fewer than 3 distinct ones.

    Reference:
        Facco et al. 2017, Scientific Reports 7; likelihood: Denti et al. 2022.
    """
    if not 0 <= discard < 1:
        raise UsageError(f"Expected a share to discard in [0, 1), got {discard}.")
    return _two_nn(*neighbour_distances(x, 2), discard)


def two_nn_influence(x: Near, *, discard: float = 0.1) -> tuple[TwoNN, Rows, Rows]:
    """`two_nn`, and each row's influence on `linear` and on `likelihood`, `(rows given,)`.

    Distances to neighbours do not settle when rows are left out, so a jackknife is far too wide
    (1.8 times the true spread for 300 rows near 5 dimensions), while rows that are neighbours share
    distances, so that taking them as independent is too narrow (0.85 to 0.97). Here the influence
    of independent rows is widened by what rows near each other have in common (1.0 to 1.08).
    `statistics.from_rows` makes the interval; copies have no influence.

    `x` is `apart.near_apart` of the rows, with k of at least 2.
    """
    distances = x.distances()
    value = _two_nn(distances, x.copies, discard)
    ratios = np.log(distances[:, 1] / distances[:, 0])
    first = np.searchsorted(x.of, np.arange(x.n))
    pairs = np.repeat(np.arange(x.n), 2), x.item[first[:, None] + np.arange(2)].ravel()
    own = value.likelihood * (1 - ratios / ratios.mean())
    both = []
    for each in (_linear_influence(ratios, value.linear, discard), own):
        whole = np.zeros(x.given)
        whole[x.kept] = widened(each, *pairs) * x.given / x.n
        both.append(whole)
    return value, both[0], both[1]


def _linear_influence(ratios: Rows, slope: float, discard: float) -> Rows:
    """Of independent rows: by their own place on the line, by the ranks they give, by the cut."""
    n = len(ratios)
    order = np.argsort(ratios, kind="stable")
    kept = _fitted(n, discard)
    r, below = ratios[order][:kept], np.arange(1, kept + 1) / n
    off = -r * (np.log1p(-below) + slope * r)
    lifted = r / (1 - below)
    each = np.zeros(n)
    each[:kept] = off - off[-1] + np.cumsum(lifted[::-1])[::-1] / n
    influence = np.empty(n)
    influence[order] = (each - each.mean()) * n / (r @ r)
    return influence


def _two_nn(distances: Rows, duplicates: int, discard: float) -> TwoNN:
    ratios = np.sort(np.log(distances[:, 1] / distances[:, 0]))
    n = len(ratios)
    _require_ratios(ratios, 1)
    return TwoNN(
        _slope(ratios[: _fitted(n, discard)], n), (n - 1) / float(ratios.sum()), n, duplicates
    )


def gride(x: Array, *, furthest: int = 64) -> tuple[Scale, ...]:
    """Intrinsic dimension over scale: neighbours 1 and 2, 2 and 4, 4 and 8, up to `furthest`.

    Noise makes the first scales high, curvature the last; a plateau between is the dimension.
    Each is the maximum of Gride's likelihood, with N-1 for its N, so that the first scale is the
    `likelihood` of `two_nn`.

    Raises:
        DegenerateInput: constant rows, or fewer distinct ones than `furthest` + 1.

    Reference:
        Denti et al. 2022, Scientific Reports 12, arXiv:2104.13832.
    """
    if furthest < 2:
        raise UsageError(f"Expected a furthest neighbour of at least 2, got {furthest}.")
    return _gride(*neighbour_distances(x, furthest))


def gride_without(x: Near) -> list[tuple[Scale, ...]]:
    """`gride`, whole and then without each fold, `1 + folds` of them, as far as `x` has neighbours.

    `x` is `apart.near_apart` of the rows; with k = 64 it serves `two_nn_influence` too. A jackknife
    of these is 1.7 to 1.8 times too wide, and `Scale.error` narrow: it takes rows as independent.
    """
    return [_gride(x.distances(fold), x.copies) for fold in x.strikes()]


def _fitted(n: int, discard: float) -> int:
    """How many of the smallest ratios the line is fitted to."""
    return min(max(int(n * (1 - discard)), 1), n - 1)


def _gride(distances: Rows, duplicates: int) -> tuple[Scale, ...]:
    scales = [2**i for i in range(int(math.log2(distances.shape[1])))]
    found = []
    for near in scales:
        inner, outer = distances[:, near - 1], distances[:, 2 * near - 1]
        value, error = _likeliest(np.log(outer / inner), near)
        radius = float((inner + outer).mean() / 2)
        found.append(Scale(near, value, error, radius, len(distances), duplicates))
    return tuple(found)


def _slope(ratios: Rows, n: int) -> float:
    """Slope through the origin of -log(1 - i/n), i from 1, on the sorted log ratios."""
    tail = -np.log1p(-np.arange(1, len(ratios) + 1) / n)
    return float(ratios @ tail / (ratios @ ratios))


def _likeliest(ratios: Rows, near: int) -> tuple[float, float]:
    """The dimension of the largest likelihood of log ratios, and its standard error.

    For neighbours `near` and `2 near` the log likelihood of dimension d is, up to a constant,
    `(N-1) log d + (near-1) sum log(mu^d - 1) - ((2 near - 1) d + 1) sum log mu`: concave in d.
    N-1 stands for N, which takes the bias of the first scale away.
    """
    n, total = len(ratios), float(ratios.sum())
    _require_ratios(ratios, near)
    ratios = np.maximum(ratios, 1e-200)  # at equal distances the terms below have a limit

    def slope(d: float) -> float:
        inner = ratios / -np.expm1(-d * ratios)  # log(mu) mu^d / (mu^d - 1)
        return float((n - 1) / d + (near - 1) * inner.sum() - (2 * near - 1) * total)

    high = 1.0
    while slope(high) > 0:
        high *= 2
    value = float(brentq(slope, 1e-6, high, xtol=1e-12, rtol=1e-14))
    bend = (ratios / np.expm1(-value * ratios)) ** 2 * np.exp(-value * ratios)
    return value, 1 / math.sqrt(n / value**2 + (near - 1) * float(bend.sum()))


def _require_ratios(ratios: Rows, near: int) -> None:
    if not ratios.mean() > 1e-9:  # rounding of equal distances
        raise DegenerateInput(
            f"Expected distances to neighbours {near} and {2 * near} that differ, got equal ones "
            "at all rows; rows on a lattice have no local dimension."
        )
