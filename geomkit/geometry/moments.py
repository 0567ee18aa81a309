"""Everything that spectra and mean cosines need of a set of rows, in one pass, chunk by chunk.

    moments_of(chunk)            sums of one chunk: rows and unit rows, about their own means
    a.merge(b), gathered(many)   the sums of all their rows, as if they had come in one piece
    paired_moments(x, y)         the same of two modalities whose rows match, with their products

A metric of this family takes rows or `Moments`, and one of two modalities rows of both or their
`PairedMoments`; the numbers agree. So a run larger than memory is
one pass over its chunks, in any order and of any size, and a few dim x dim matrices in the end.

Merging is exact up to rounding in float64 (see `sums`); chunks of some thousand rows cost least.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import TypeVar

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry.rows import (
    Array,
    Groups,
    all_unit_rows,
    as_rows,
    direction_sum,
    matched,
    peak_of,
    require_directions,
    require_matrix,
    require_spread,
    row_blocks,
    unit_rows,
)
from geomkit.geometry.sums import Products, Sums, products_of, sums_of, total, united

Part = TypeVar("Part", "Moments", "PairedMoments")

WIDEST = 8192
"""Columns up to which a dim x dim matrix is kept: 512 MiB in float64."""


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """What one site of one modality adds up to: `rows` as they are, `units` at unit length.

    `zero` rows have no direction; they are counted, and refused by what asks for directions.
    """

    rows: Sums
    units: Sums
    zero: int

    @property
    def shape(self) -> tuple[int, int]:
        """Samples and columns, as an array of the rows would have them."""
        return self.rows.n, int(self.rows.mean.shape[0])

    def merge(self, other: Moments) -> Moments:
        """The moments of the rows of both; nothing is lost but their order.

        Raises:
            UsageError: the widths differ.
        """
        _same_width(self, other)
        rows, units = self.rows.merge(other.rows), self.units.merge(other.units)
        return Moments(rows, units, self.zero + other.zero)


@dataclass(frozen=True, slots=True, eq=False)
class PairedMoments:
    """Two modalities of the same samples, row by row, and what they add up to together.

    `products` are of the rows, left with right; `cosines` is the sum of the matched cosines, None
    where the widths differ.
    """

    left: Moments
    right: Moments
    products: Products
    cosines: float | None

    @property
    def shape(self) -> tuple[int, int]:
        """Samples, and columns of the left side."""
        return self.left.shape

    def merge(self, other: PairedMoments) -> PairedMoments:
        """The moments of the pairs of both.

        Raises:
            UsageError: the widths differ.
        """
        left, right = self.left.merge(other.left), self.right.merge(other.right)
        sides = (self.left.rows, other.left.rows), (self.right.rows, other.right.rows)
        products = united(self.products, other.products, *sides)
        cosines = None
        if self.cosines is not None and other.cosines is not None:
            cosines = self.cosines + other.cosines
        return PairedMoments(left, right, products, cosines)


def moments_of(x: Array, *, scatter: bool = True, unit_scatter: bool = True) -> Moments:
    """The moments of one chunk of rows `(samples, dim)`; one row is enough.

    `scatter` keeps the dim x dim matrix of the rows (spectra), `unit_scatter` that of the unit rows
    (`vendi_score`, `self_cluster`); without both, memory is a few vectors (mean cosines).

    Raises:
        UsageError: a matrix is asked for beyond `WIDEST` columns.
        DegenerateInput: a value is not finite, or its fourth power is not.
    """
    x = as_rows(x, 1)
    return _moments(x, all_unit_rows(x, 1), scatter, unit_scatter)


def paired_moments(
    x: Array, y: Array, *, scatter: bool = True, unit_scatter: bool = True
) -> PairedMoments:
    """The moments of one chunk of two modalities whose rows match.

    Raises:
        UsageError: the rows do not match one to one, or a side has more than `WIDEST` columns.
        DegenerateInput: a value is not finite, or its fourth power is not.
    """
    x, y = as_rows(x, 1), as_rows(y, 1)
    matched(x, y)
    u, v = all_unit_rows(x, 1), all_unit_rows(y, 1)
    left, right = _moments(x, u, scatter, unit_scatter), _moments(y, v, scatter, unit_scatter)
    products = products_of(x - left.rows.mean, y - right.rows.mean)
    cosines = total(u[0] * v[0]) if x.shape[1] == y.shape[1] else None
    return PairedMoments(left, right, products, cosines)


def gathered(parts: Iterable[Part]) -> Part:
    """The moments of all parts, in whatever order and size they come.

    Raises:
        DegenerateInput: there is no part.
    """
    waiting = iter(parts)
    first = next(waiting, None)
    if first is None:
        raise DegenerateInput("Expected moments of at least one chunk, got none.")
    return reduce(lambda a, b: a.merge(b), waiting, first)


def pair_moments(
    x: Array | PairedMoments, y: Array | None, groups: Groups | None = None
) -> PairedMoments | None:
    """The moments where `x` has those of both sides; None where `x` and `y` are rows.

    Raises:
        UsageError: one side alone, or rows or groups beside moments, which hold no rows.
    """
    if not isinstance(x, PairedMoments):
        if y is None:
            raise UsageError("Expected rows of both sides or their paired moments, got one side.")
        return None
    if y is not None or groups is not None:
        raise UsageError("Expected paired moments alone, got rows or groups beside them.")
    return x


def row_sums(x: Array | Moments, least: int = 2) -> Sums:
    """Sums of the rows as they are, up to one positive scale; refused without a spread."""
    if isinstance(x, Moments):
        return x.rows.require(least)
    require_matrix(x, least)
    peak = peak_of(x)  # so that no square overflows
    parts = (sums_of(rows / peak, products=False) for rows in row_blocks(x, least))
    return reduce(Sums.merge, parts).require(least)


def unit_sums(x: Array | Moments, least: int = 2) -> Sums:
    """Sums of the rows at unit length; refused where one has no direction, or all the same."""
    if isinstance(x, Moments):
        require_directions(x.zero, x.rows.n)
        return x.units.require(least)
    blocks = (unit_rows(rows) for rows in row_blocks(x, least))
    parts = ((sums_of(units, products=False), zero) for units, zero in blocks)
    whole, zero = reduce(lambda a, b: (a[0].merge(b[0]), a[1] + b[1]), parts)
    require_directions(zero, whole.n)
    return whole.require(least)


def mean_direction(x: Array | Moments, least: int = 2) -> Array:
    """The mean of the rows at unit length; refused as by `unit_sums`."""
    if isinstance(x, Moments):
        return unit_sums(x, least).mean
    parts = [direction_sum(rows) for rows in row_blocks(x, least)]
    mean, n = reduce(operator.add, (part[0] for part in parts)) / x.shape[0], int(x.shape[0])
    require_directions(sum(part[1] for part in parts), n)
    require_spread(n, n - n * total(mean * mean), float(n))
    return mean


def _moments(x: Array, units: tuple[Array, int], scatter: bool, unit_scatter: bool) -> Moments:
    if (scatter or unit_scatter) and x.shape[1] > WIDEST:
        raise UsageError(
            f"Expected at most {WIDEST} columns for a dim x dim matrix, got {x.shape[1]}; "
            "make moments with scatter=False, unit_scatter=False."
        )
    return Moments(sums_of(x, products=scatter), sums_of(units[0], products=unit_scatter), units[1])


def _same_width(a: Moments, b: Moments) -> None:
    if a.shape[1] != b.shape[1]:
        raise UsageError(
            f"Expected moments of equal width, got {a.shape[1]} and {b.shape[1]} columns; "
            "merge chunks of one site and modality."
        )
