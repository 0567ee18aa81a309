"""Are the directions spread over the sphere, and do matched ones lie close?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from array_api_compat import array_namespace, device, is_array_api_obj
from numpy.typing import NDArray
from scipy.special import hyp0f1, ive

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry.candidates import tiles
from geomkit.geometry.factors import floats
from geomkit.geometry.isotropy import column_cosines, cross_mean_cosine, ratio
from geomkit.geometry.moments import PairedMoments, mean_direction, pair_moments, unit_sums
from geomkit.geometry.products import exponential, product
from geomkit.geometry.rows import (
    Array,
    Groups,
    codes,
    directions,
    matched,
    on_device,
    on_host,
    row_blocks,
    same_columns,
    similarity_blocks,
    unit_rows,
)
from geomkit.geometry.sums import total

Ints = NDArray[np.int64]
Rows = NDArray[np.float64]

MANY = 2048
"""Rows beyond which the roundings of float32 products settle, and their time matters."""


CLOSE = 0.1
"""Half of the largest t ||u - v||^2 below which terms are taken as what they lack of 1."""


def uniformity(x: Array, t: float = 2.0, groups: Groups | None = None) -> float:
    """Log of the mean exp(-t ||u - v||^2) of unit rows, in [-4t, 0]; lower is more uniform.

    A U-statistic over distinct samples: no row meets itself, and no pair is in one group.
    Blocked: memory does not grow with N squared.

    Raises:
        UsageError: `t` is not positive.
        DegenerateInput: all rows point the same way, all are in one group, or `t` is so large that
            every term vanishes.

    Reference:
        Wang and Isola 2020, arXiv:2005.10242.
    """
    _require_positive(t)
    if _are_many(x):
        code = codes(x.shape[0], groups)
        mean = ratio(_potentials(x, t, code), _others(code))
    else:
        mean = ratio(*potential_sums(directions(x), t, groups))
    if mean <= 0:
        raise DegenerateInput(f"Expected rows close enough for t = {t}, got none; lower t.")
    return math.log(mean)


def uniformity_floor(dim: int, t: float = 2.0) -> float:
    """The uniformity of the uniform distribution on the sphere in `dim` dimensions.

    `-2t + log 0F1(; dim/2; t^2)`; for t = 2 it falls to -4 as `dim` grows. No distribution goes
    lower; a finite sample can, by its noise.

    Raises:
        UsageError: no dimension, or `t` not positive.
    """
    _require_positive(t)
    if dim < 1:
        raise UsageError(f"Expected at least 1 dimension, got {dim}.")
    if t <= dim:
        return -2 * t + math.log(hyp0f1(dim / 2, t * t))
    # The same through the scaled Bessel function, whose size does not grow with t.
    order = dim / 2 - 1
    return math.lgamma(dim / 2) - order * math.log(t) + math.log(ive(order, 2 * t))


def alignment(x: Array | PairedMoments, y: Array | None = None) -> float:
    """Mean ||u - v||^2 of matched unit rows, in [0, 4]; lower is closer.

    `2 - 2 mean paired cosine`. Chance is `alignment_chance`: the same mean over rows that
    do not match.

    Raises:
        UsageError: the rows do not match one to one.
        DegenerateInput: one side points one way only.

    Reference:
        Wang and Isola 2020, arXiv:2005.10242, with exponent 2.
    """
    pair = pair_moments(x, y)
    if pair is not None:
        return 2 - 2 * cosines_of(pair).matched
    gaps = squared_distances(directions(x), directions(y))
    return float(array_namespace(gaps).mean(gaps))


def alignment_chance(
    x: Array | PairedMoments, y: Array | None = None, groups: Groups | None = None
) -> float:
    """The alignment of rows that do not match: `2 - 2 cross_mean_cosine`."""
    pair = pair_moments(x, y, groups)
    if pair is not None:
        return 2 - 2 * cosines_of(pair).apart
    return 2 - 2 * cross_mean_cosine(x, y, paired=True, groups=groups)


@dataclass(frozen=True, slots=True)
class MeanCosines:
    """Of two modalities: inside each side, of matched rows, of rows that do not match, of all."""

    left: float
    right: float
    matched: float
    apart: float
    across: float


def cosines_of(pair: PairedMoments) -> MeanCosines:
    """The mean cosines of paired moments; all that the gap and the alignment are made of.

    Raises:
        UsageError: the widths differ.
        DegenerateInput: one side points one way only.
    """
    u, v = unit_sums(pair.left), unit_sums(pair.right)
    same_columns(u.mean[None, :], v.mean[None, :])
    left, right = total(column_cosines(u)), total(column_cosines(v))
    across, matched = total(u.mean * v.mean), (pair.cosines or 0.0) / u.n
    return MeanCosines(left, right, matched, (u.n * across - matched) / (u.n - 1), across)


def squared_distances(u: Array, v: Array) -> Array:
    """||u_i - v_i||^2 for each matched pair of unit rows."""
    matched(u, v)
    same_columns(u, v)
    return array_namespace(u).sum((u - v) ** 2, axis=1)


def potential_sums(
    u: Array, t: float = 2.0, groups: Groups | None = None, cosines: Array | None = None
) -> tuple[Array, Array]:
    """For each unit row, the sum of exp(-t d^2) to rows of other groups, and how many they are."""
    code = codes(u.shape[0], groups)
    counts = on_device(_others(code), u)
    if cosines is None and _are_many(u):
        return on_device(_potentials(u, t, code), u), counts
    xp, label = array_namespace(u), on_device(code, u)
    sums = []
    for rows, cosine in similarity_blocks(u, u, cosines):
        other = xp.astype(label[rows][:, None] != label[None, :], xp.float64)
        sums.append(xp.sum(xp.exp(2 * t * (cosine - 1)) * other, axis=1))
    return xp.concat(sums), counts


def _are_many(x: Array) -> bool:
    return bool(is_array_api_obj(x) and str(device(x)) == "cpu" and x.shape[0] > MANY)


def _others(code: Ints) -> Rows:
    """For each row how many are of another code."""
    return len(code) - np.bincount(code)[code].astype(np.float64)


def _potentials(x: Array, t: float, code: Ints) -> Rows:
    """The same sums in float32, each pair once, where so many settle their roundings.

    Directions are centred first, so that a product is as small as the distances are. Where all are
    near each other every term is near 1, and what it lacks of 1 is added up instead.
    """
    mean = on_host(mean_direction(x))
    units = (on_host(unit_rows(rows)[0]) for rows in row_blocks(x))
    half = floats((block - mean for block in units), tuple(x.shape))
    c, own = half.rows, (t * half.lengths**2).astype(np.float32)
    c *= math.sqrt(2 * t)
    close = bool(own.max() < CLOSE)
    sums, alone = np.zeros(len(c)), code.max() == len(c) - 1  # no two rows are in one group
    for rows, items in tiles(len(c)):
        term = product(c[rows], c[items].T)
        term -= own[rows, None]
        term -= own[items]
        exponential(term, less_one=close)
        if rows == items or not alone:
            np.copyto(term, 0.0, where=code[rows, None] == code[items])
        sums[rows] += term.sum(axis=1)
        if items.start > rows.start:
            sums[items] += term.sum(axis=0)
    return sums + _others(code) if close else sums


def _require_positive(t: float) -> None:
    if t <= 0:
        raise UsageError(f"Expected t above 0, got {t}.")
