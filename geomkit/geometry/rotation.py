"""Can one space be laid onto the other by a rotation?"""

from __future__ import annotations

import math

from array_api_compat import array_namespace

from geomkit.geometry.rows import Array, deviations, matched


def procrustes(x: Array, y: Array) -> float:
    """Procrustes correlation r of centred matched rows, in [0, 1]; higher is closer.

    `||Xc^T Yc||_* / (||Xc||_F ||Yc||_F)`, the sum of singular values over the product of norms: the
    best that a rotation (reflections too), a shift and a scale can do. Other conventions are
    functions of r:

        disparity (scipy, torchmetrics)             1 - r^2
        one minus the correlation (anatome)         1 - r
        distance of unit-norm sets (ReSi)           sqrt(2 - 2 r)
        angle (netrep, score of `alpha=1`)          arccos(r)

    The plug-in value grows with `dim / N`: independent wide sets come near 1, so compare it
    between equal N and `dim`, and against shuffled rows.

    Raises:
        UsageError: the rows do not match one to one.
        DegenerateInput: constant rows.

    Reference:
        Schonemann 1966, Psychometrika 31; Williams et al. 2021, arXiv:2110.14739.
    """
    a, b = deviations(x), deviations(y)
    matched(a, b)
    xp = array_namespace(a)
    norms = math.sqrt(float(xp.sum(a * a)) * float(xp.sum(b * b)))
    nuclear = float(xp.sum(xp.linalg.svdvals(_narrow(a).T @ _narrow(b))))
    return min(1.0, nuclear / norms)


def _narrow(c: Array) -> Array:
    """The same rows up to a rotation, in at most N columns; the singular values stay."""
    if c.shape[1] <= c.shape[0]:
        return c
    return array_namespace(c).linalg.qr(c.T).R.T
