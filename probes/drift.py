"""How far did the states of the same rows move between two checkpoints?

    drift_cka      debiased linear CKA of before and after: 1 when rows are arranged as they were
    drift_overlap  mean squared cosine of the principal angles between the two leading subspaces
    drift_angle    the angle with that squared cosine, in degrees

CKA is blind to a rotation of the space. The angles are not: they lie in the coordinates that two
checkpoints of one model share. Intervals are clustered by group; that of the angles comes from how
each row turns its leading subspace, to first order, so one decomposition a side is enough.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from geomkit.errors import DegenerateInput
from geomkit.geometry.rows import codes, deviations
from geomkit.geometry.similarity import linear_cka_without
from geomkit.statistics import Estimate, folds_of, from_jackknife, from_rows, interval
from geomkit.types import Activations, Drift, Interval, Modality
from probes.affine import decompose
from probes.split import group_of

Rows = NDArray[np.float64]
Clusters = NDArray[np.int64]

LEADING = 10
"""Principal axes of a leading subspace."""

_GAP = 1e-9  # two variances closer than this share of the largest have no order


def drifts(
    before: Mapping[Modality, Activations], after: Mapping[Modality, Activations]
) -> tuple[Drift, ...]:
    """Drift of every modality at one site; a number that is not defined says why."""
    return tuple(d for modality in before for d in drift(before[modality], after[modality]))


def drift(before: Activations, after: Activations) -> tuple[Drift, ...]:
    """The drift of one modality at one site."""
    clusters = codes(len(before.rows), [group_of(row) for row in before.rows])
    return tuple(
        Drift(
            metric=metric,
            before=before.checkpoint,
            after=after.checkpoint,
            site=before.site,
            modality=before.modality,
            value=number,
            interval=span,
            chance=chance,
            n=len(clusters),
            note=note,
        )
        for metric, (number, span, chance, note) in _measured(
            before.states.astype(np.float64), after.states.astype(np.float64), clusters
        )
    )


def similarity(x: Rows, y: Rows, clusters: Clusters) -> Estimate:
    """Debiased linear CKA of matched rows; 0 for unrelated states.

    Raises:
        DegenerateInput: constant rows, or too few.
    """
    folds = folds_of(clusters)
    values = linear_cka_without((deviations(x), deviations(y)), folds)
    return from_jackknife(values, folds, chance=0.0)


def overlap(x: Rows, y: Rows, clusters: Clusters, leading: int = LEADING) -> Estimate:
    """Mean squared cosine of the principal angles between leading subspaces of the columns.

    Chance, for subspaces that have nothing to do with each other, is `leading / dim`. Sampled axes
    scatter: the value lies below that of many rows by something of order 1/rows, not in the
    interval.

    Raises:
        DegenerateInput: constant rows, too few directions, or equal variances at the cut.
    """
    (at_x, own_x, axes_x), (at_y, own_y, axes_y) = (_principal(s, leading) for s in (x, y))
    cross = axes_x.T @ axes_y
    value = float(np.sum(cross[:leading, :leading] ** 2)) / leading
    turn = _turned(at_x, own_x, cross, leading) + _turned(at_y, own_y, cross.T, leading)
    return from_rows(value, turn / leading, clusters, chance=leading / x.shape[1])


def _measured(
    x: Rows, y: Rows, clusters: Clusters
) -> list[tuple[str, tuple[float | None, Interval | None, float | None, str]]]:
    cka = _told(lambda: similarity(x, y, clusters), (-1.0, 1.0))
    shared = _told(lambda: overlap(x, y, clusters), (0.0, 1.0))
    value, span, chance, note = shared
    angle = None if span is None else Interval(
        _degrees(span.high), _degrees(span.low), span.level, span.method, span.groups
    )  # fmt: skip
    ends = (None if number is None else _degrees(number) for number in (value, chance))
    turned = next(ends), angle, next(ends), note
    return [("drift_cka", cka), ("drift_overlap", shared), ("drift_angle", turned)]


def _told(
    measure: Callable[[], Estimate], within: tuple[float, float]
) -> tuple[float | None, Interval | None, float | None, str]:
    try:
        found = measure()
        return found.value, interval(found, within=within), found.chance, ""
    except DegenerateInput as flaw:
        return None, None, None, str(flaw)


def _degrees(squared_cosine: float) -> float:
    return math.degrees(math.acos(math.sqrt(min(1.0, max(0.0, squared_cosine)))))


def _principal(x: Rows, leading: int) -> tuple[Rows, Rows, Rows]:
    """Rows on their principal axes `(n, r)`, variances `(r,)`, axes `(dim, r)`; largest first."""
    left, s, axes = decompose(x - x.mean(axis=0), float(np.sum(x * x)))
    left, s, axes = left[:, ::-1], s[::-1], axes[:, ::-1]
    variances = s * s / len(x)
    if len(s) < leading:
        raise DegenerateInput(
            f"Expected at least {leading} directions, got {len(s)}; give more samples."
        )
    if len(s) > leading and variances[leading - 1] - variances[leading] <= _GAP * variances[0]:
        raise DegenerateInput(
            f"Expected the first {leading} directions to stand out, got equal variance in "
            f"directions {leading} and {leading + 1}."
        )
    return left * s, variances, axes


def _turned(at: Rows, variances: Rows, cross: Rows, leading: int) -> Rows:
    """Each row's influence on `trace(P Q)` by turning the leading subspace P of its own side.

    First-order perturbation: a row with coordinates `c` mixes a leading axis `a` with another `b`
    by `c_a c_b / (variance_a - variance_b)`.
    """
    through = cross[:leading, :leading] @ cross[leading:, :leading].T  # a' Q b
    rate = 2 * through / (variances[:leading, None] - variances[None, leading:])
    return np.asarray(
        np.einsum("ia,ab,ib->i", at[:, :leading], rate, at[:, leading:], optimize=True)
    )
