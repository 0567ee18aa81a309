"""Everything that spectra and mean cosines need of a set of rows, in one pass, chunk by chunk.

    moments_of(chunk)            sums of one chunk: rows and unit rows, about their own means
    a.merge(b), gathered(many)   the sums of all their rows, as if they had come in one piece
    paired_moments(x, y)         the same of two modalities whose rows match, with their products

A metric of this family takes rows or `Moments`; the numbers agree. So a run larger than memory is
one pass over its chunks, in any order and of any size, and a few dim x dim matrices in the end.

Sums are kept about their own mean, in float64: sums of raw squares lose everything when a dimension
is at 8000 and varies by 1. To merge two sets, both are carried to the mean of their union, and
added (Chan, Golub and LeVeque 1983; here up to fourth powers, which the debiased forms need).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import TypeVar

from array_api_compat import array_namespace

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry.rows import (
    Array,
    all_unit_rows,
    as_rows,
    matched,
    require_directions,
    require_matrix,
    require_spread,
    row_blocks,
    unit_rows,
)

Part = TypeVar("Part", "Moments", "PairedMoments")

WIDEST = 8192
"""Columns up to which a dim x dim matrix is kept: 512 MiB in float64."""


@dataclass(frozen=True, slots=True, eq=False)
class Products:
    """Sums over matched rows `a`, `b`, each about its mean; one set alone is the case `b = a`."""

    scatter: Array  # sum a b^T, (dim of a, dim of b)
    left: Array  # sum a |b|^2
    right: Array  # sum |a|^2 b
    fourth: float  # sum |a|^2 |b|^2


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """How many rows, their mean, and for each column the squares about it.

    `products` are those of the set with itself, None where they were not asked for.
    """

    n: int
    mean: Array
    squares: Array
    products: Products | None = None

    @property
    def energy(self) -> float:
        """Squared distances of the rows from their mean, summed."""
        return _total(self.squares)

    @property
    def offset(self) -> float:
        """Squared length of the mean."""
        return _total(self.mean * self.mean)

    def require(self, least: int = 2) -> Sums:
        """Itself, refused where too few rows or rows that do not differ have no geometry."""
        if self.n < least:
            raise DegenerateInput(
                f"Expected at least {least} rows, got {self.n}; give more samples."
            )
        require_spread(self.n, self.energy, self.energy + self.n * self.offset)
        return self

    def second(self, *, centred: bool) -> Array:
        """Sum of `a a^T`, `(dim, dim)`, about the mean or as the rows are."""
        scatter = self.own().scatter
        return scatter if centred else scatter + self.n * _outer(self.mean, self.mean)

    def own(self) -> Products:
        """The products, refused where they were not kept."""
        if self.products is None:
            raise UsageError(
                "Expected moments with their dim x dim matrix, got moments without; "
                "make them with moments_of(rows, scatter=True, unit_scatter=True)."
            )
        return self.products

    def merge(self, other: Sums) -> Sums:
        """The sums of the rows of both."""
        d, f = _to_union(self, other)
        products = None
        if self.products is not None and other.products is not None:
            both = (self, other)
            products = _united(self.products, other.products, both, both)
        n = self.n + other.n
        squares = self.squares + other.squares + self.n * d * d + other.n * f * f
        return Sums(n, self.mean - d, squares, products)


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

    def merge(self, other: PairedMoments) -> PairedMoments:
        """The moments of the pairs of both.

        Raises:
            UsageError: the widths differ.
        """
        left, right = self.left.merge(other.left), self.right.merge(other.right)
        sides = (self.left.rows, other.left.rows), (self.right.rows, other.right.rows)
        products = _united(self.products, other.products, *sides)
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
    products = _products(x - left.rows.mean, y - right.rows.mean)
    cosines = _total(u[0] * v[0]) if x.shape[1] == y.shape[1] else None
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


def row_sums(x: Array | Moments, least: int = 2) -> Sums:
    """Sums of the rows as they are, up to one positive scale; refused without a spread."""
    if isinstance(x, Moments):
        return x.rows.require(least)
    require_matrix(x, least)
    xp = array_namespace(x)
    peak = max(float(xp.max(x)), -float(xp.min(x))) or 1.0  # so that no square overflows
    parts = (_sums(rows / peak, products=False) for rows in row_blocks(x, least))
    return reduce(Sums.merge, parts).require(least)


def unit_sums(x: Array | Moments, least: int = 2) -> Sums:
    """Sums of the rows at unit length; refused where one has no direction, or all the same."""
    if isinstance(x, Moments):
        require_directions(x.zero, x.rows.n)
        return x.units.require(least)
    blocks = (unit_rows(rows) for rows in row_blocks(x, least))
    parts = ((_sums(units, products=False), zero) for units, zero in blocks)
    whole, zero = reduce(lambda a, b: (a[0].merge(b[0]), a[1] + b[1]), parts)
    require_directions(zero, whole.n)
    return whole.require(least)


def _moments(x: Array, units: tuple[Array, int], scatter: bool, unit_scatter: bool) -> Moments:
    if (scatter or unit_scatter) and x.shape[1] > WIDEST:
        raise UsageError(
            f"Expected at most {WIDEST} columns for a dim x dim matrix, got {x.shape[1]}; "
            "make moments with scatter=False, unit_scatter=False."
        )
    return Moments(_sums(x, scatter), _sums(units[0], unit_scatter), units[1])


def _sums(x: Array, products: bool) -> Sums:
    xp = array_namespace(x)
    mean = xp.mean(x, axis=0)
    c = x - mean
    return Sums(int(x.shape[0]), mean, xp.sum(c * c, axis=0), _products(c, c) if products else None)


def _products(a: Array, b: Array) -> Products:
    xp = array_namespace(a)
    k = xp.sum(a * a, axis=1)
    m = k if a is b else xp.sum(b * b, axis=1)
    fourth = float(xp.sum(k * m))
    if not math.isfinite(fourth):
        raise DegenerateInput(
            "Expected rows whose fourth powers are finite, got larger ones; "
            "scale all rows by one factor."
        )
    left = m @ a
    return Products(a.T @ b, left, left if a is b else k @ b, fourth)


def _to_union(a: Sums, b: Sums) -> tuple[Array, Array]:
    """The mean of each, seen from the mean of both together."""
    apart, n = b.mean - a.mean, a.n + b.n
    return -b.n / n * apart, a.n / n * apart


def _united(p: Products, q: Products, a: tuple[Sums, Sums], b: tuple[Sums, Sums]) -> Products:
    """The products of two parts about the means of their union; `a` and `b` are sums per part."""
    (d, f), (g, h) = _to_union(*a), _to_union(*b)
    here, there = _carried(p, a[0], b[0], d, g), _carried(q, a[1], b[1], f, h)
    scatter = p.scatter + q.scatter
    scatter += _outer(a[0].n * a[1].n / (a[0].n + a[1].n) * (f - d), h - g)
    return Products(scatter, here[0] + there[0], here[1] + there[1], here[2] + there[2])


def _carried(p: Products, a: Sums, b: Sums, d: Array, f: Array) -> tuple[Array, Array, float]:
    """All but the scatter about other points, those from which the means are seen at `d`, `f`."""
    dd, ff = _total(d * d), _total(f * f)
    through = p.scatter @ f
    left = p.left + 2 * through + (b.energy + a.n * ff) * d
    right = p.right + 2 * (d @ p.scatter) + (a.energy + a.n * dd) * f
    crossed = _total(f * p.right) + _total(d * p.left) + 2 * _total(d * through)
    own = p.fourth + 2 * crossed + ff * a.energy + dd * (b.energy + a.n * ff)
    return left, right, own


def _outer(d: Array, f: Array) -> Array:
    return d[:, None] * f[None, :]


def _total(values: Array) -> float:
    return float(array_namespace(values).sum(values))


def _same_width(a: Moments, b: Moments) -> None:
    if a.shape[1] != b.shape[1]:
        raise UsageError(
            f"Expected moments of equal width, got {a.shape[1]} and {b.shape[1]} columns; "
            "merge chunks of one site and modality."
        )
