"""Do the rows point everywhere, or into one cone?

Mean cosines are closed form, O(N dim): a sum over pairs of unit rows is the square of a sum.
"""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace
from scipy.special import logsumexp

from geomkit.errors import DegenerateInput
from geomkit.geometry.moments import Moments, mean_direction, row_sums
from geomkit.geometry.rows import (
    Array,
    Groups,
    as_rows,
    codes,
    directions,
    matched,
    on_device,
    on_host,
    same_columns,
    scaled,
    similarity_blocks,
)
from geomkit.geometry.spectrum import participation_ratio
from geomkit.geometry.sums import Sums, total

CHANCE_MEAN_COSINE = 0.0
"""The mean cosine of directions drawn uniformly on the sphere, in any dimension."""


def mean_cosine(x: Array | Moments, groups: Groups | None = None) -> float:
    """Anisotropy: the mean cosine of distinct samples, in [-1/(N-1), 1]; lower is more isotropic.

    `(||sum u||^2 - N) / (N (N-1))` for unit rows `u`. Pairs inside one group are left out: two
    copies of a caption are one sample.

    Raises:
        DegenerateInput: all rows point the same way, or all are in one group.
        UsageError: groups with moments, which hold no rows.

    Reference:
        Ethayarajh 2019, arXiv:1909.00512, over all pairs, zero cosines included.
    """
    if groups is not None:
        return ratio(*cosine_sums(directions(x), groups))
    mean, n = mean_direction(x), int(x.shape[0])
    return (n * total(mean * mean) - 1) / (n - 1)


def cross_mean_cosine(
    x: Array | Moments,
    y: Array | Moments,
    *,
    paired: bool = False,
    groups: Groups | None = None,
) -> float:
    """The mean cosine of a row of `x` and a row of `y`, in [-1, 1].

    Over all pairs; with `paired=True` the rows match one to one, and a row meets only partners of
    other groups (without groups: every partner but its own).

    Raises:
        DegenerateInput: one side points one way only.
        UsageError: the widths differ, or pairs are asked of moments (see `paired_moments`).
    """
    if paired:
        return ratio(*cross_cosine_sums(directions(x), directions(y), paired, groups)[:2])
    a, b = mean_direction(x), mean_direction(y)
    same_columns(a[None, :], b[None, :])
    return float(array_namespace(a).sum(a * b))


def column_cosines(units: Sums) -> Array:
    """For each column, its part of the mean cosine of distinct unit rows, `(dim,)`.

    `((sum u_d)^2 - sum u_d^2) / (N (N-1))`, which is the squared mean less its sampling noise.
    """
    return units.mean**2 - units.squares / (units.n * (units.n - 1))


def mean_norm_share(x: Array | Moments) -> float:
    """The share of the energy that is in the common mean, in [0, 1]; lower is more isotropic.

    `||mu||^2 / (||mu||^2 + tr C)` with `C` over N, on the rows as they are. Rows without a common
    mean give 1/N. This is what centring removes; the mean cosine of centred rows says nothing.

    Reference:
        Mu and Viswanath 2018, arXiv:1702.01417.
    """
    rows = row_sums(x)
    return rows.offset / (rows.offset + rows.energy / rows.n)


def iso_score(x: Array | Moments, *, debiased: bool = True) -> float:
    """How evenly the variance fills the space: 0 one axis, 1 all axes; higher is more isotropic.

    `(PR - 1) / (dim - 1)` with the participation ratio PR, which is IsoScore exactly. The plug-in
    form is far too low for few rows (0.2 for isotropic data of 512 columns and 128 rows); the
    debiased form may pass its bounds a little.

    Reference:
        Rudman et al. 2022, arXiv:2108.07344.
    """
    axes, dim = participation_ratio(x, debiased=debiased), int(x.shape[1])
    if dim < 2:
        raise DegenerateInput("Expected at least 2 columns, got 1; one axis has no isotropy.")
    return (axes - 1) / (dim - 1)


def partition_isotropy(x: Array) -> float:
    """The smallest over the largest partition function, in [0, 1]; higher is more isotropic.

    `min Z / max Z` with `Z(c) = sum_i exp(c . x_i)`, over the eigenvectors `c` of `X^T X`, not
    centred, and their opposites: an eigenvector has no sign, `Z` does. The rows are taken as they
    are, so this moves with scale: massive dimensions bring it to 0, tiny rows to 1. An extreme over
    directions has no influence of rows: for an interval take a delete-group jackknife with few
    folds, each of which costs a decomposition again.

    Raises:
        DegenerateInput: constant rows.

    Reference:
        Mu and Viswanath 2018, arXiv:1702.01417, after Arora et al. 2016, arXiv:1502.03520.
    """
    x = as_rows(x)
    axes = eigenvectors(scaled(x))
    xp = array_namespace(x)
    signs = xp.concat([axes, -axes])
    logs = [logsumexp(on_host(along), axis=1) for _, along in similarity_blocks(signs, x)]
    if axes.shape[0] < x.shape[1]:  # an axis on which every row is 0
        logs.append(np.log([x.shape[0]]))
    z = np.concatenate(logs)
    return float(np.exp(z.min() - z.max()))


def eigenvectors(x: Array) -> Array:
    """Eigenvectors of `x^T x` as rows; those of eigenvalue 0 beyond N are left out."""
    xp = array_namespace(x)
    if x.shape[0] < x.shape[1]:
        return xp.linalg.svd(x, full_matrices=False)[2]
    return xp.linalg.eigh(x.T @ x)[1].T


def cosine_sums(u: Array, groups: Groups | None = None) -> tuple[Array, Array]:
    """For each unit row, the sum of its cosines with other groups, and how many they are."""
    own, size = own_sums(u, groups)
    xp = array_namespace(u)
    sums = xp.sum(u * (xp.sum(u, axis=0) - own), axis=1)
    return sums, u.shape[0] - size


def cross_cosine_sums(
    u: Array, v: Array, paired: bool, groups: Groups | None = None
) -> tuple[Array, Array, Array]:
    """For each row of `u` its sum of cosines with `v` and their count, and the same sum for `v`."""
    same_columns(u, v)
    xp = array_namespace(u)
    to_v, to_u = xp.sum(v, axis=0), xp.sum(u, axis=0)
    if not paired:
        return u @ to_v, xp.zeros_like(u[:, 0]) + v.shape[0], v @ to_u
    matched(u, v)
    own_v, size = own_sums(v, groups)
    own_u, _ = own_sums(u, groups)
    sums, back = xp.sum(u * (to_v - own_v), axis=1), xp.sum(v * (to_u - own_u), axis=1)
    return sums, v.shape[0] - size, back


def own_sums(u: Array, groups: Groups | None) -> tuple[Array, Array]:
    """For each row, the sum of the rows of its group, and how many they are."""
    xp = array_namespace(u)
    if groups is None:
        return u, xp.ones_like(u[:, 0])
    code = codes(u.shape[0], groups)
    order = np.argsort(code, kind="stable")
    starts = np.flatnonzero(np.diff(code[order], prepend=-1))
    stack = np.add.reduceat(on_host(u)[order], starts, axis=0)
    size = np.bincount(code).astype(np.float64)
    return on_device(stack[code], u), on_device(size[code], u)


def ratio(sums: Array, counts: Array) -> float:
    """Sum over pairs divided by the number of pairs; refuses when no pair is left."""
    xp = array_namespace(sums)
    pairs = float(xp.sum(counts))
    if pairs <= 0:
        raise DegenerateInput(
            "Expected rows of at least two groups, got one group; "
            "a pair of distinct samples is needed."
        )
    return float(xp.sum(sums)) / pairs
