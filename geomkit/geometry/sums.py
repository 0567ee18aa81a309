"""Sums over rows up to fourth powers, about their own mean, and how two parts become one.

Two parts are carried to the mean of their union, and added (Chan, Golub and LeVeque 1983; here up
to fourth powers, which the debiased forms need). Sums of raw squares would lose everything when a
dimension is at 8000 and varies by 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from array_api_compat import array_namespace

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry.rows import Array, require_spread


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
        return total(self.squares)

    @property
    def offset(self) -> float:
        """Squared length of the mean."""
        return total(self.mean * self.mean)

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
            products = united(self.products, other.products, both, both)
        n = self.n + other.n
        squares = self.squares + other.squares + self.n * d * d + other.n * f * f
        return Sums(n, self.mean - d, squares, products)


def sums_of(x: Array, *, products: bool) -> Sums:
    """The sums of rows in float64."""
    xp = array_namespace(x)
    mean = xp.mean(x, axis=0)
    c = x - mean
    return Sums(
        int(x.shape[0]), mean, xp.sum(c * c, axis=0), products_of(c, c) if products else None
    )


def products_of(a: Array, b: Array) -> Products:
    """The products of matched rows that lie about 0.

    Raises:
        DegenerateInput: a fourth power is not finite.
    """
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


def united(p: Products, q: Products, a: tuple[Sums, Sums], b: tuple[Sums, Sums]) -> Products:
    """The products of two parts about the means of their union; `a` and `b` are sums per part."""
    (d, f), (g, h) = _to_union(*a), _to_union(*b)
    here, there = _carried(p, a[0], b[0], d, g), _carried(q, a[1], b[1], f, h)
    scatter = p.scatter + q.scatter
    scatter += _outer(a[0].n * a[1].n / (a[0].n + a[1].n) * (f - d), h - g)
    return Products(scatter, here[0] + there[0], here[1] + there[1], here[2] + there[2])


def _carried(p: Products, a: Sums, b: Sums, d: Array, f: Array) -> tuple[Array, Array, float]:
    """All but the scatter about other points, those from which the means are seen at `d`, `f`."""
    dd, ff = total(d * d), total(f * f)
    through = p.scatter @ f
    left = p.left + 2 * through + (b.energy + a.n * ff) * d
    right = p.right + 2 * (d @ p.scatter) + (a.energy + a.n * dd) * f
    crossed = total(f * p.right) + total(d * p.left) + 2 * total(d * through)
    own = p.fourth + 2 * crossed + ff * a.energy + dd * (b.energy + a.n * ff)
    return left, right, own


def _outer(d: Array, f: Array) -> Array:
    return d[:, None] * f[None, :]


def total(values: Array) -> float:
    """The sum of all entries."""
    return float(array_namespace(values).sum(values))
