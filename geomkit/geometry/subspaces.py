"""Which directions do two spaces have in common, as far as linear maps can tell?"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry.rows import RESOLUTION, Array, deviations, matched, on_host, scaled

Rows = NDArray[np.float64]
Side = Literal["samples", "features"]


def cca(x: Array, y: Array, *, variance: float = 1.0) -> float:
    """Mean squared canonical correlation of centred matched rows, in [0, 1]; higher is closer.

    `||Qx^T Qy||_F^2 / min(dx, dy)` with orthonormal bases of the centred columns. Blind to any
    invertible map of the columns of a side; chance is exactly `max(dx, dy) / (N-1)`
    (`chance_cca`). With `variance` below 1 each side first keeps its fewest principal components
    that carry that share (SVCCA); then only rotation, scale and shift leave it alone.

    Raises:
        UsageError: the rows do not match one to one, or `variance` is not in (0, 1].
        DegenerateInput: constant rows; a side with N - 1 or more directions, which spans
            everything; columns that depend on each other to float32 resolution.

    Reference:
        Kornblith et al. 2019, arXiv:1905.00414, table 1; Raghu et al. 2017, arXiv:1706.05806.
    """
    if not 0 < variance <= 1:
        raise UsageError(f"Expected a share of the variance in (0, 1], got {variance}.")
    a, b = scaled(x), scaled(y)
    matched(a, b)
    p, q = _basis(a, variance), _basis(b, variance)
    shared = p.T @ q
    return min(1.0, float(array_namespace(a).sum(shared * shared)) / int(min(shared.shape)))


def cca_influence(x: Rows, y: Rows) -> tuple[float, Rows]:
    """`cca` of matched rows with all their variance, and each row's influence on it, `(samples,)`.

    For orthonormal columns P and Q with `S = P^T Q` a row's part in the first-order change of
    `||S||_F^2` is `2 q S^T p - |S^T p|^2 - |S q|^2`: no second decomposition for the interval
    (`statistics.from_rows`). With `variance` below 1 the kept components move too; take a
    delete-group jackknife with few folds there.

    Raises:
        UsageError, DegenerateInput: as `cca`.
    """
    a, b = scaled(x), scaled(y)
    matched(a, b)
    p, q = _basis(a, 1.0), _basis(b, 1.0)
    shared = p.T @ q
    to_y, to_x = p @ shared, q @ shared.T
    each = 2 * np.sum(to_y * q, axis=1) - np.sum(to_y**2, axis=1) - np.sum(to_x**2, axis=1)
    few = min(shared.shape)
    return min(1.0, float(np.sum(shared**2)) / few), np.asarray(len(each) * each / few)


def chance_cca(n: int, dim_x: int, dim_y: int) -> float:
    """The exact mean of `cca` when the samples of one side are shuffled: `max(dim) / (n - 1)`."""
    return max(dim_x, dim_y) / (n - 1)


def principal_angles(
    x: Array, y: Array, k: int = 10, *, of: Side = "samples"
) -> NDArray[np.float64]:
    """Angles between the leading `k` principal subspaces of two spaces, in [0, pi/2], ascending.

    All 0 when the subspaces are the same. `of="samples"` compares what the top components say
    about the matched samples (left singular vectors of the centred rows), so rotating a side
    changes nothing; `of="features"` compares where they lie in the coordinates (right singular
    vectors), which two checkpoints of one model share. The mean squared cosine of random subspaces
    is `k / (N-1)`, or `k / dim` for features.

    Raises:
        UsageError: `k` below 1, rows that do not match, or unequal columns for features.
        DegenerateInput: constant rows, fewer than `k` directions, or a `k` that cuts through equal
            singular values, where no leading subspace exists.

    Reference:
        Bjorck and Golub 1973, Mathematics of Computation 27.
    """
    if k < 1:
        raise UsageError(f"Expected k of at least 1, got {k}.")
    if of not in get_args(Side):
        raise UsageError(f"Expected of='samples' or of='features', got {of!r}.")
    a, b = deviations(x), deviations(y)
    if of == "samples":
        matched(a, b)
    elif a.shape[1] != b.shape[1]:
        raise UsageError(
            f"Expected the same columns on both sides, got {a.shape[1]} and {b.shape[1]}; "
            'take of="samples".'
        )
    return _angles(_leading(a, k, of), _leading(b, k, of))


def _angles(p: Array, q: Array) -> NDArray[np.float64]:
    """Cosines tell large angles well and sines small ones: each where it is exact."""
    xp = array_namespace(p)
    cross = p.T @ q
    cosine = np.clip(on_host(xp.linalg.svdvals(cross)), 0, 1)
    sine = np.clip(on_host(xp.linalg.svdvals(q - p @ cross))[::-1], 0, 1)
    return np.asarray(np.where(cosine**2 < 0.5, np.arccos(cosine), np.arcsin(sine)))


def _basis(x: Array, variance: float) -> Array:
    """An orthonormal basis of the samples' side: of all columns, or of the top components."""
    xp = array_namespace(x)
    c = x - xp.mean(x, axis=0)
    if variance == 1:
        _require_room(c.shape[0], c.shape[1])
        q, r = xp.linalg.qr(_unit_columns(c, xp.sum(x * x, axis=0)))
        _require_independent(xp.linalg.svdvals(r))
        return q
    values, vectors = _components(c, "samples")
    share = np.cumsum(values) / values.sum()
    kept = int(np.searchsorted(share, variance * (1 - 1e-12))) + 1
    _require_room(c.shape[0], kept)
    return xp.linalg.qr(vectors[:, :kept]).Q


def _unit_columns(c: Array, energy: Array) -> Array:
    """Centred columns at unit length, so that no scale of theirs matters; constant ones are 0."""
    xp = array_namespace(c)
    squares = xp.sum(c * c, axis=0)
    differs = squares > RESOLUTION * energy
    return xp.where(differs, c / xp.sqrt(xp.where(differs, squares, 1.0)), 0.0)


def _leading(c: Array, k: int, of: Side) -> Array:
    values, vectors = _components(c, of)
    if len(values) < k:
        raise DegenerateInput(
            f"Expected at least k = {k} directions, got {len(values)}; "
            "give more samples or a smaller k."
        )
    if len(values) > k and values[k - 1] - values[k] <= 1e-9 * values[0]:
        raise DegenerateInput(
            f"Expected the first {k} directions to stand out, got equal variance in directions "
            f"{k} and {k + 1}; take another k."
        )
    return array_namespace(c).linalg.qr(vectors[:, :k]).Q


def _components(c: Array, of: Side) -> tuple[NDArray[np.float64], Array]:
    """Squared singular values above float32 resolution, descending, and their vectors."""
    xp = array_namespace(c)
    wide = c.shape[1] > c.shape[0]
    values, vectors = xp.linalg.eigh(c @ c.T if wide else c.T @ c)
    descending = np.maximum(on_host(values)[::-1], 0)
    kept = int((descending > RESOLUTION * descending[0]).sum())
    vectors = xp.flip(vectors, axis=1)[:, :kept]
    if wide != (of == "samples"):
        vectors = (c.T if wide else c) @ vectors
    return descending[:kept], vectors


def _require_room(n: int, directions: int) -> None:
    if directions >= n - 1:
        raise DegenerateInput(
            f"Expected more than {directions + 1} rows for {directions} directions, got {n}: a "
            "side that spans everything correlates with everything; give more samples, or keep "
            "fewer directions with variance=0.99."
        )


def _require_independent(singular: Array) -> None:
    values = on_host(singular)
    if values.min() <= RESOLUTION**0.5 * values.max():
        rank = int((values > RESOLUTION**0.5 * values.max()).sum())
        raise DegenerateInput(
            f"Expected independent columns, got {rank} directions in {len(values)} columns to "
            "float32 resolution; drop columns or keep fewer directions with variance=0.99."
        )
