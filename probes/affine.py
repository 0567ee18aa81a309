"""An affine map from states before to their change, by ridge: fitted on some rows, used on others.

The map is `change(x) = (x - mean) W + shift`. It is the CHANGE that is fitted, so the penalty pulls
to "nothing happens but the mean change", not to "the state vanishes": directions that the fitted
rows do not span stay where they were. (A map fitted to the states themselves loses them, and looks
bad on another modality even where nothing was trained.)

One decomposition of the rows serves every penalty, every fold and every target: with `H` the hat
matrix, the residuals of a fold that was left out are `(I - H_GG)^-1 residuals_G`, exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomkit.errors import DegenerateInput
from geomkit.geometry.rows import RESOLUTION
from geomkit.statistics import folds_of

Rows = NDArray[np.float64]

FOLDS = 5
"""Folds of the penalty's cross-validation; whole groups."""

PENALTIES = tuple(10.0**k for k in range(2, -9, -1))
"""Tried, strongest first, in units of the rows' total variance: from "mean change only" down."""

LEAST = 10
"""Groups that a map needs to be fitted on."""

_RANK = 1e-13  # eigenvalues below this share of the largest are rounding


@dataclass(frozen=True, slots=True, eq=False)
class AffineMap:
    """`change(x) = (x - mean) axes diag(gains) loads + shift`, of rank at most rows - 1."""

    mean: Rows  # (dim,) of the states it was fitted on
    axes: Rows  # (dim, rank) principal axes of those states
    spread: Rows  # (rank,) their singular values in those states
    gains: Rows  # (rank,) how far each axis is trusted: s / (s^2 + penalty)
    loads: Rows  # (rank, dim) the change along each axis
    shift: Rows  # (dim,) their mean change
    penalty: float  # in units of the rows' total variance
    fitted: int  # rows it was fitted on
    energy: float  # total squared deviation of their changes from the mean change

    def coordinates(self, states: NDArray[np.floating], mean: Rows | None = None) -> Rows:
        """`(rows, rank)`: the states on the map's axes, from `mean` or from its own."""
        centre = self.mean if mean is None else mean
        return np.asarray((states.astype(np.float64) - centre) @ self.axes * self.gains)

    def leading(self, count: int) -> Rows:
        """The `count` axes along which the fitted states vary most, `(dim, count)`."""
        return self.axes[:, np.argsort(-self.spread, kind="stable")[:count]]

    def count(self, share: float) -> int:
        """How many leading axes hold `share` of the variance of the fitted states; 0 if none."""
        held = np.cumsum(np.sort(self.spread**2)[::-1])
        return int(np.searchsorted(held, share * held[-1])) + 1 if len(held) else 0

    def linear(self, coordinates: Rows) -> Rows:
        """The linear part of the change, `(rows, dim)`, of rows given by `coordinates`."""
        return np.asarray(coordinates @ self.loads)

    def change(self, states: NDArray[np.floating]) -> Rows:
        """The change that the map foretells, `(rows, dim)`."""
        return self.linear(self.coordinates(states)) + self.shift


def fit_affine(
    before: NDArray[np.floating], change: NDArray[np.floating], clusters: NDArray[np.int64]
) -> AffineMap:
    """The ridge map from states to their change; the penalty is cross-validated over clusters.

    Args:
        before: states `(rows, dim)`.
        change: what each of them becomes, minus itself, `(rows, dim)`.
        clusters: rows of equal number stay in one fold.

    Raises:
        DegenerateInput: the states are all equal, or they are of too few groups.
    """
    require_groups(clusters)
    mean, shift = before.mean(axis=0, dtype=np.float64), change.mean(axis=0, dtype=np.float64)
    x, y = before - mean, change - shift
    left, s, right = decompose(x, float(np.sum(before.astype(np.float64) ** 2)))
    total = float(np.sum(s * s))
    target = _compact(y)
    folds = folds_of(clusters, FOLDS)
    tried = left_out(left, s, target, [p * total for p in PENALTIES], folds)
    errors = [float(np.vdot(residual, residual)) for residual in tried]
    best = PENALTIES[int(np.argmin(errors))]
    return AffineMap(
        mean=mean,
        axes=right,
        spread=s,
        gains=s / (s * s + best * total),
        loads=left.T @ y,
        shift=shift,
        penalty=best,
        fitted=len(before),
        energy=float(np.sum(y * y)),
    )


def shift_only(before: NDArray[np.floating], change: NDArray[np.floating]) -> AffineMap:
    """The map without a linear part: everything moves by the mean change."""
    dim = before.shape[1]
    return AffineMap(
        mean=before.mean(axis=0, dtype=np.float64),
        axes=np.empty((dim, 0)),
        spread=np.empty(0),
        gains=np.empty(0),
        loads=np.empty((0, dim)),
        shift=change.mean(axis=0, dtype=np.float64),
        penalty=float("inf"),
        fitted=len(before),
        energy=0.0,
    )


def decompose(x: Rows, energy: float) -> tuple[Rows, Rows, Rows]:
    """Left vectors `(n, r)`, singular values `(r,)` and right vectors `(dim, r)` of centred rows.

    From the smaller of the two products; the penalties stay far above what that rounds off.
    `energy` is the total square of the rows before they were centred.

    Raises:
        DegenerateInput: the rows are equal to float32 resolution.
    """
    wide = x.shape[0] <= x.shape[1]
    values, vectors = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    if values.sum() <= RESOLUTION * energy:
        raise DegenerateInput(
            f"Expected states that differ, got {len(x)} that are equal to float32 resolution; "
            "a map cannot be fitted on them."
        )
    kept = values > _RANK * values[-1]
    s, own = np.sqrt(values[kept]), vectors[:, kept]
    other = (x.T if wide else x) @ own / s
    return (own, s, other) if wide else (other, s, own)


def left_out(
    left: Rows, s: Rows, target: Rows, penalties: Sequence[float], folds: NDArray[np.int64]
) -> Iterator[Rows]:
    """For each penalty, the residual of every row under the ridge fitted without its fold.

    `left` and `s` decompose the centred rows; `target` is centred too. The mean is refitted without
    the fold like all else: the hat matrix has `1/n` in it.
    """
    inner = left.T @ target
    for penalty in penalties:
        shrunk = s * s / (s * s + penalty)
        residual = target - left @ (shrunk[:, None] * inner)
        for fold in range(int(folds.max()) + 1):
            out = folds == fold
            hat = left[out] * shrunk @ left[out].T + 1 / len(left)
            residual[out] = np.linalg.solve(np.eye(len(hat)) - hat, residual[out])
        yield residual


def require_groups(clusters: NDArray[np.int64]) -> None:
    """Refuses rows of too few groups to fit a map on.

    Raises:
        DegenerateInput: fewer than `LEAST`.
    """
    groups = len(np.unique(clusters))
    if groups < LEAST:
        raise DegenerateInput(
            f"Expected {LEAST} groups to fit a map on, got {groups}; give more samples."
        )


def _compact(y: Rows) -> Rows:
    """At most as many columns as rows, with the same products of rows: errors come out the same."""
    if y.shape[1] <= y.shape[0]:
        return y
    values, vectors = np.linalg.eigh(y @ y.T)
    kept = values > max(0.0, _RANK * float(values[-1]))
    return np.asarray(vectors[:, kept] * np.sqrt(values[kept]))
