"""On how many dimensions do the rows lie, near each of them? By ratios of neighbour distances.

Distances are Euclidean, between the rows as they are. A row that equals another to float32
resolution has no nearest distance: copies are removed first, and counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from array_api_compat import array_namespace, device, is_torch_array
from numpy.typing import NDArray
from scipy.optimize import brentq

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry.candidates import Candidates, candidates_by_distance
from geomkit.geometry.rows import (
    BLOCK_ENTRIES,
    RESOLUTION,
    Array,
    as_rows,
    deviations,
    on_device,
    on_host,
)

Rows = NDArray[np.float64]

FEW = 8
"""Neighbours up to which measuring candidates one by one costs less than all products."""


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
    distances, duplicates = neighbour_distances(x, 2)
    ratios = np.sort(np.log(distances[:, 1] / distances[:, 0]))
    n = len(ratios)
    _require_ratios(ratios, 1)
    kept = min(max(int(n * (1 - discard)), 1), n - 1)
    return TwoNN(_slope(ratios[:kept], n), (n - 1) / float(ratios.sum()), n, duplicates)


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
    distances, duplicates = neighbour_distances(x, furthest)
    scales = [2**i for i in range(int(math.log2(furthest)))]
    found = []
    for near in scales:
        inner, outer = distances[:, near - 1], distances[:, 2 * near - 1]
        value, error = _likeliest(np.log(outer / inner), near)
        radius = float((inner + outer).mean() / 2)
        found.append(Scale(near, value, error, radius, len(distances), duplicates))
    return tuple(found)


def neighbour_distances(x: Array, k: int) -> tuple[Rows, int]:
    """Distances to the `k` nearest rows, nearest first, among distinct rows; how many were copies.

    A row is a copy when it lies within 16 float32 steps of its length from one that stays.
    """
    rows = as_rows(x)
    scale = float(array_namespace(rows).max(abs(rows))) or 1.0
    c, size = deviations(x), on_host(array_namespace(rows).sum((rows / scale) ** 2, axis=1))
    before = c.shape[0]
    while True:
        if c.shape[0] < k + 1:
            raise DegenerateInput(
                f"Expected at least {k + 1} distinct rows, got {c.shape[0]} of {before}; "
                "give more samples."
            )
        squares = _nearest(c, k)
        copies = np.flatnonzero(squares[:, 0] <= RESOLUTION * size)
        if not len(copies):
            return np.sqrt(squares) * scale, before - c.shape[0]
        kept = np.setdiff1d(np.arange(c.shape[0]), _later(c, copies))
        c, size = array_namespace(c).take(c, on_device(kept, c), axis=0), size[kept]


def _later(c: Array, copies: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of each copy and what it is nearest to, the later one."""
    step = max(1, BLOCK_ENTRIES // int(c.shape[0]))
    found = []
    for start in range(0, len(copies), step):
        some = copies[start : start + step]
        squares = on_host(_squares(array_namespace(c).take(c, on_device(some, c), axis=0), c))
        squares[np.arange(len(some)), some] = np.inf
        found.append(np.maximum(some, squares.argmin(axis=1)))
    return np.concatenate(found)


def _nearest(c: Array, k: int) -> Rows:
    """Squared distances to the `k` nearest other rows, ascending.

    For a few neighbours on the CPU float32 picks candidates, which float64 then measures.
    """
    found = None
    if k <= FEW and str(device(c)) == "cpu":
        found = candidates_by_distance(on_host(c), k)
    return _nearest_of_all(c, k) if found is None else _nearest_of(on_host(c), found, k)


def _nearest_of(c: Rows, found: Candidates, k: int) -> Rows:
    step = max(1, BLOCK_ENTRIES // (2 * c.shape[1]))
    counts = np.bincount(found.of, minlength=len(c))
    place = np.arange(len(found.of)) - (np.cumsum(counts) - counts)[found.of]
    squares = np.full((len(c), int(counts.max())), np.inf)
    for start in range(0, len(found.of), step):
        pairs = slice(start, start + step)
        apart = c[found.of[pairs]] - c[found.item[pairs]]
        squares[found.of[pairs], place[pairs]] = np.einsum("ij,ij->i", apart, apart)
    return np.sort(squares, axis=1)[:, :k]


def _nearest_of_all(c: Array, k: int) -> Rows:
    """The same in float64 throughout: a block of rows meets only those from itself on.

    Both sides learn of it.
    """
    xp, n = array_namespace(c), c.shape[0]
    found = xp.full((n, k), xp.inf, dtype=xp.float64, device=device(c))
    step = max(1, BLOCK_ENTRIES // n)
    for start in range(0, n, step):
        stop = min(start + step, n)
        squares = _squares(c[start:stop, :], c[start:, :])
        own = xp.arange(stop - start)
        squares[own, own] = xp.inf
        sides = (slice(start, stop), squares), (slice(stop, n), squares[:, stop - start :].T)
        for rows, seen in sides:
            near = xp.concat([found[rows, :], _smallest(seen, k)], axis=1)
            found[rows, :] = _smallest(near, k)
    return np.asarray(np.maximum(on_host(found), 0.0))


def _squares(a: Array, b: Array) -> Array:
    """Squared distances of each row of `a` to each of `b`, of rows that lie about 0."""
    xp = array_namespace(a)
    own, other = xp.sum(a * a, axis=1), xp.sum(b * b, axis=1)
    return own[:, None] + other[None, :] - 2 * (a @ b.T)


def _smallest(values: Array, k: int) -> Array:
    """The `k` smallest of each row, ascending; all where there are fewer."""
    k = min(k, values.shape[1])
    if is_torch_array(values):
        return values.topk(k, dim=1, largest=False).values
    return np.sort(np.partition(values, k - 1, axis=1)[:, :k] if k else values, axis=1)


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
