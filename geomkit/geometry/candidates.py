"""Which items can be among the `k` nearest of a row, as far as coarse products can tell?

A coarse product (see `factors`) costs half of a float64 one or less, and among rows of one set half
of the products are the other half turned over. Its error has a bound, so whatever it puts within
that bound of the k-th item is a candidate, and nothing that belongs to the nearest can be missed.
The means are taken away first, else the bound of a narrow cone would be wider than the cone. Memory
grows with N: a tile at a time, of which only what can still be a candidate is kept.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geomkit.geometry import rows as blocks_of
from geomkit.geometry.factors import STEP, Factor, factor
from geomkit.geometry.rows import TIE

Ints = NDArray[np.int64]
Rows = NDArray[np.float64]
Half = NDArray[np.float32]
LOWEST = np.float32(-1e30)
"""Below every score; what is barred is below even this."""

SPARE = 64
"""Candidates that a row may have beside four times k, on average; with more there are ties."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """Pairs of a row (`of`) and an `item`, by row: all that can be neighbours, at least k a row.

    Those that are `sure` are; of the others, which there are only where a row has more than k, some
    have the places that are left.
    """

    of: Ints
    item: Ints
    sure: NDArray[np.bool_]


def candidates(u: Rows, v: Rows, k: int, codes: tuple[Ints, Ints] | None) -> Candidates | None:
    """The candidates of the unit rows `u` among `v`; None where ties leave too many."""
    return _listed(_screen(u, v), k, codes)


def candidates_by_distance(x: Rows, k: int) -> Candidates | None:
    """The same of rows `x` among each other by Euclidean distance; best when they lie about 0.

    Half of what a row does not know alone of `-||x - y||^2` is `x . y - ||y||^2 / 2`.
    """
    rows = factor(x, np.zeros(x.shape[1]), len(x))
    own = np.arange(len(x))
    return _listed(_screen_of(rows, rows, np.einsum("ij,ij->i", x, x) / -2), k, (own, own))


def _listed(screen: _Screen, k: int, codes: tuple[Ints, Ints] | None) -> Candidates | None:
    one_set, counts = screen.left is screen.right, (len(screen.error), len(screen.along))
    kept = _Kept(counts[0], k, 2 * screen.error + TIE)
    for rows, items in tiles(counts[0], None if one_set else counts[1]):
        score = screen.tile(rows, items)
        if codes is not None:
            np.copyto(score, -np.inf, where=barred(codes, rows, items))
        both = one_set and items.start > rows.start
        if not kept.take(rows, items, score) or (both and not kept.take(items, rows, score.T)):
            return None
    return kept.candidates()


def barred(codes: tuple[Ints, Ints], rows: slice, items: slice) -> NDArray[np.bool_]:
    """Which items of a tile have the code of the row."""
    return np.asarray(codes[0][rows][:, None] == codes[1][items][None, :])


@dataclass(frozen=True, slots=True)
class _Screen:
    """Factors of the cosines up to a constant a row, and the error of their product.

    The cosine is `(u - a)(v - b) + a(v - b)` and what only the row knows, for any `a` and `b`.
    """

    left: Any  # the factors of both sides are of one kind
    right: Any
    along: Half
    error: Rows

    def tile(self, rows: slice, items: slice) -> Half:
        """The scores of some items; of one set with itself also of the rows, as the items see them.

        What only a row knows does not move the order of its items.
        """
        score: Half = self.left.times(rows, self.right, items)
        score += self.along[items]
        if self.left is self.right:
            score += self.along[rows, None]
        return score


def _screen(u: Rows, v: Rows) -> _Screen:
    a = u.mean(axis=0)
    left = factor(u, a, len(v))
    right = left if u is v else factor(v, v.mean(axis=0), len(u))
    along = v @ a
    return _screen_of(left, right, along - along.mean())


def _screen_of(left: Factor, right: Any, along: Rows) -> _Screen:
    """Beside the product two sums and a cast can be off, of what may be larger than it."""
    error = left.error(right) + 64 * STEP * np.abs(along).max()
    return _Screen(left, right, along.astype(np.float32), error)


@dataclass(slots=True)
class _Kept:
    """What can still be a candidate of each row, after the tiles seen so far.

    `best` are the k largest scores; nothing below `least` can be among the nearest any more.
    """

    n: int
    k: int
    margin: Rows
    best: Half = field(init=False)
    least: Half = field(init=False)
    parts: list[tuple[Ints, Ints, Half]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.best = np.full((self.n, self.k), -np.inf, np.float32)
        self.least = np.full(self.n, LOWEST)

    def take(self, rows: slice, items: slice, score: Half) -> bool:
        """Keeps of a tile what can be a candidate; False where that is too much."""
        most = (4 * self.k + SPARE) * score.shape[0]
        hit = score >= self.least[rows, None]
        if np.count_nonzero(hit) > most:
            own = np.partition(score, -self.k, axis=1)[:, -self.k]
            self._raise(rows, own)
            hit = score >= self.least[rows, None]
            if np.count_nonzero(hit) > most:
                return False
        of, item = _places(hit)
        value = score[of, item]
        self.parts.append((of + rows.start, item + items.start, value))
        counts = np.bincount(of, minlength=score.shape[0])
        table = np.full((score.shape[0], self.k + int(counts.max())), -np.inf, np.float32)
        table[:, : self.k] = self.best[rows]
        table[of, self.k + np.arange(len(of)) - (np.cumsum(counts) - counts)[of]] = value
        self.best[rows] = np.partition(table, -self.k, axis=1)[:, -self.k :]
        self._raise(rows, self.best[rows].min(axis=1))
        return True

    def candidates(self) -> Candidates | None:
        still = [value >= self.least[of] for of, _, value in self.parts]
        kept = [[one[s] for one in part] for part, s in zip(self.parts, still, strict=True)]
        of, item, value = (np.concatenate(part) for part in zip(*kept, strict=True))
        order = np.lexsort((-value, of))
        of, item, value = of[order], item[order], value[order]
        counts = np.bincount(of)
        if int(counts.max()) > 16 * (4 * self.k + SPARE):
            return None
        beyond = np.full(len(counts), -np.inf, np.float32)  # the best that is none of k
        more = counts > self.k
        beyond[more] = value[(np.cumsum(counts) - counts + self.k)[more]]
        return Candidates(of, item, beyond[of] < self._cut(value, self.margin[of]))

    def _raise(self, rows: slice, kth: Half) -> None:
        self.least[rows] = np.maximum(self.least[rows], self._cut(kth, self.margin[rows]))

    def _cut(self, score: Half, margin: Rows) -> Half:
        """Below it is what is surely less: one error for each of the two, and what is a tie."""
        return np.maximum(score - margin, LOWEST).astype(np.float32)


def _places(hit: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """Where it is true, row by row, read in the order that it lies in memory."""
    if hit.flags.c_contiguous:
        of, item = np.divmod(np.flatnonzero(hit), hit.shape[1])
        return of, item
    item, of = np.divmod(np.flatnonzero(hit.T), hit.shape[0])
    order = np.argsort(of, kind="stable")
    return of[order], item[order]


def tiles(n: int, items: int | None = None) -> Iterator[tuple[slice, slice]]:
    """Square tiles of `n` rows by `items`; of one set with itself those below the diagonal are not.

    They are what a tile above says from the other side. Those on the diagonal come first: every row
    has then met some items.
    """
    step = math.isqrt(blocks_of.BLOCK_ENTRIES) // 2
    rows = [slice(start, min(start + step, n)) for start in range(0, n, step)]
    if items is not None:
        across = [slice(start, min(start + step, items)) for start in range(0, items, step)]
        yield from itertools.product(rows, across)
        return
    yield from ((some, some) for some in rows)
    yield from itertools.combinations(rows, 2)
