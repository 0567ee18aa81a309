"""Do samples keep the same neighbours, and lie as close to them, in two spaces?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomkit.errors import DegenerateInput
from geomkit.geometry.hsic import LEAST
from geomkit.geometry.nearest import Lists, neighbour_lists, pair_cosines, require_enough
from geomkit.geometry.rows import (
    Array,
    Groups,
    codes,
    directions,
    matched,
    on_host,
)
from geomkit.geometry.struck import MOST_ENTRIES, Near, require_alike, same_places

Ints = NDArray[np.int64]
Rows = NDArray[np.float64]


def cknna(x: Array, y: Array, k: int = 10, groups: Groups | None = None) -> float:
    """Debiased CKA on the cosines of shared `k` nearest neighbours; 1 is equal, higher is closer.

    `h(M K, M L) / sqrt(h(Mx K, Mx K) h(My L, My L))` with cosine matrices K and L, the mask Mx of
    neighbours in one space, My in the other, M in both, and h Song's U-statistic, as the authors'
    code computes it but without its epsilon; their text centres before it masks. The masks are not
    symmetric, so exchanging the sides moves the value a little; here it is the mean of both orders.
    Independent sides are near 0, below `k / (N-1)`; with all rows as neighbours it would be the
    debiased linear CKA of unit rows.

    Raises:
        UsageError: the rows do not match one to one, or `k` is below 1.
        DegenerateInput: one side points one way only, no more than `k` other rows, so many ties
            that there are no neighbourhoods, or neighbours that say nothing beyond sampling noise.

    Reference:
        Huh et al. 2024, arXiv:2405.07987.
    """
    u, v = directions(x, LEAST), directions(y, LEAST)
    code = codes(u.shape[0], groups)
    matched(u, v)
    require_enough(int(u.shape[0]), k, code)
    (of_x, item_x, *x_values), (of_y, item_y, *y_values) = _listed(u, k, code), _listed(v, k, code)
    graphs = _graphs(int(u.shape[0]), (of_x, item_x), (of_y, item_y))
    return graphs.closeness(x_values, y_values, int(u.shape[0]))


def cknna_without(sides: tuple[Near, Near]) -> Rows:
    """`cknna` of two spaces, whole and then without each fold, `(1 + folds,)`; exact.

    `sides` are `struck.near` of each, the ones that `mutual_knn_without` reads. A jackknife of
    these is wide, up to 1.9 times the true spread: neighbours do not settle when rows are struck.

    Raises:
        UsageError: the two are not of the same samples in the same folds, or differ in `k`.
        DegenerateInput: as `cknna`, whole or without a fold.
    """
    x, y = sides
    require_alike(x, y)
    graphs = _graphs(x.n, (x.of, x.item), (y.of, y.item))
    return np.array(
        [
            graphs.closeness((x.shares(f), x.score), (y.shares(f), y.score), x.left(f))
            for f in x.strikes()
        ]
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Pairs:
    """A matrix of few entries: their rows and items, and which entry is which turned over."""

    rows: int
    of: Ints
    item: Ints
    here: Ints
    turned: Ints

    def hsic(self, a: Rows, b: Rows, n: int) -> float:
        """Song's statistic of two matrices with an empty diagonal, without its factor 1/(n(n-3)).

        They have the values `a` and `b` at these places; `n` of the rows remain.
        """
        (in_a, in_b), (out_a, out_b) = (
            [np.bincount(at, m, self.rows) for m in (a, b)] for at in (self.item, self.of)
        )
        through = (in_a @ out_b + out_a @ in_b) / 2
        totals = out_a.sum() * out_b.sum() / ((n - 1) * (n - 2))
        return float(a[self.here] @ b[self.turned] + totals - 2 / (n - 2) * through)


@dataclass(frozen=True, slots=True, eq=False)
class _Graphs:
    """The neighbours of two spaces, and those that both have, with their places in each."""

    x: _Pairs
    y: _Pairs
    both: _Pairs
    in_x: Ints
    in_y: Ints

    def closeness(self, x: Sequence[Rows], y: Sequence[Rows], n: int) -> float:
        """`cknna` of the shares and the cosines of the entries of each side, `n` rows in all."""
        (share_x, cosine_x), (share_y, cosine_y) = x, y
        own_x, own_y = share_x * cosine_x, share_y * cosine_y
        energies = self.x.hsic(own_x, own_x, n), self.y.hsic(own_y, own_y, n)
        if min(energies) <= 0:
            raise DegenerateInput(
                "Expected neighbourhoods that say more than sampling noise, got none; "
                "give more samples or another k."
            )
        a, b = own_x[self.in_x] * share_y[self.in_y], own_y[self.in_y] * share_x[self.in_x]
        return float(self.both.hsic(a, b, n) / np.sqrt(energies[0] * energies[1]))


def _graphs(n: int, x: tuple[Ints, Ints], y: tuple[Ints, Ints]) -> _Graphs:
    in_x, in_y = same_places(n, x, y)
    return _Graphs(_pairs(n, *x), _pairs(n, *y), _pairs(n, x[0][in_x], x[1][in_x]), in_x, in_y)


def _pairs(n: int, of: Ints, item: Ints) -> _Pairs:
    return _Pairs(n, of, item, *same_places(n, (of, item), (item, of)))


def _listed(u: Array, k: int, code: Ints) -> tuple[Ints, Ints, Rows, Rows]:
    """Of each neighbour the row, the item, its share of a place and its cosine."""
    parts: list[Lists] = []
    for lists in neighbour_lists(u, u, k, (code, code)):
        parts.append(lists)
        if sum(len(part.of) for part in parts) > MOST_ENTRIES + k * u.shape[0]:
            raise DegenerateInput(
                f"Expected rows with {k} nearest neighbours, got ties of more than "
                f"{MOST_ENTRIES} cosines; drop equal rows or capture in float32."
            )
    of, item, share = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("of", "item", "share")
    )
    return of, item, share, pair_cosines(on_host(u), on_host(u), of, item)
