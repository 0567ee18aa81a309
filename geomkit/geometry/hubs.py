"""Do a few items crowd the neighbour lists of all others?

Neighbours are by cosine, and ties for the last place are shared (see `nearest`), so an item's
count of occurrences may be a fraction.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry.nearest import Lists, neighbour_lists, require_enough
from geomkit.geometry.rows import (
    Array,
    Groups,
    codes,
    directions,
    same_columns,
)
from geomkit.geometry.struck import Near


@dataclass(frozen=True, slots=True, eq=False)
class Hubness:
    """How often each item is among the `k` nearest of a row, `(items,)`; `lists` could have it.

    Every figure here is 0 when all items occur equally often; lower is better.
    """

    occurrences: NDArray[np.float64]
    k: int
    lists: int

    @property
    def skewness(self) -> float:
        """Third standardised moment of the occurrences (biased, over N); the classic hubness.

        Raises:
            DegenerateInput: all items occur equally often, so it is 0/0.
        """
        off = self.occurrences - self.occurrences.mean()
        second = float((off**2).mean())
        if second <= 1e-18 * self.k**2:
            raise DegenerateInput(
                "Expected items that occur unequally often, got one count for all; "
                "skewness is not defined there."
            )
        return float((off**3).mean() / second**1.5)

    @property
    def robin_hood(self) -> float:
        """The share of occurrences that would have to move to make all equal, in [0, 1)."""
        off = self.occurrences - self.occurrences.mean()
        return float(np.abs(off).sum() / (2 * self.occurrences.sum()))

    @property
    def anti_hub_rate(self) -> float:
        """The share of items that are in nobody's list, in [0, 1)."""
        return float((self.occurrences == 0).mean())

    @property
    def gini(self) -> float:
        """Gini index of the occurrences, in [0, 1): half their mean difference over their mean."""
        o = np.sort(self.occurrences)
        n = len(o)
        return float(((2 * np.arange(1, n + 1) - n - 1) * o).sum() / (n * o.sum()))

    @property
    def chance_skewness(self) -> float:
        """The skewness of lists filled by lot: binomial, so above 0."""
        p = self._odds()
        return float((1 - 2 * p) / (self.lists * p * (1 - p)) ** 0.5)

    @property
    def chance_anti_hub_rate(self) -> float:
        """The anti-hub rate of lists filled by lot."""
        return float((1 - self._odds()) ** self.lists)

    def _odds(self) -> float:
        return float(self.occurrences.sum()) / (len(self.occurrences) * self.lists)


def hubness(
    x: Array, gallery: Array | None = None, k: int = 10, groups: Groups | None = None
) -> Hubness:
    """The `k`-occurrences of each item and their inequality; lower is better.

    Without `gallery` the rows are each other's items, and neither a row nor its group is in its own
    list. With it, rows of `x` are queries and the items are the gallery's (of another modality).

    Raises:
        UsageError: `k` below 1, groups beside a gallery, or unequal columns.
        DegenerateInput: rows that point one way only, or so few items that `k` takes them all.

    Reference:
        Radovanovic et al. 2010, JMLR 11; Feldbauer et al. 2018 for Robin Hood and anti-hubs.
    """
    u = directions(x)
    if gallery is None:
        code = codes(u.shape[0], groups)
        require_enough(int(u.shape[0]), k, code)
        return Hubness(
            _count(neighbour_lists(u, u, k, (code, code)), u.shape[0]), k, int(u.shape[0]) - 1
        )
    if groups is not None:
        raise UsageError("Expected groups without a gallery, got both; a query is no item.")
    v = directions(gallery)
    same_columns(u, v)
    if k < 1:
        raise UsageError(f"Expected k of at least 1, got {k}.")
    if v.shape[0] <= k:
        raise DegenerateInput(
            f"Expected more than k = {k} items, got {v.shape[0]}; give more or a smaller k."
        )
    return Hubness(_count(neighbour_lists(u, v, k), v.shape[0]), k, int(u.shape[0]))


def hubness_without(x: Near) -> list[Hubness]:
    """`hubness`, whole and then without each fold, `1 + folds` of them; exact.

    `x` is `struck.near` of one space (the one that `mutual_knn_without` reads), or of queries and
    the `items` of another modality; a fold leaves both sides. A jackknife of these is wide, the
    more the less the items differ: 1.0 to 2 times the true spread.
    """
    return [
        Hubness(
            np.bincount(x.item, x.shares(fold), minlength=x.n)[x.folds != fold],
            x.k,
            x.left(fold) - (not x.across),
        )
        for fold in x.strikes()
    ]


def _count(blocks: Iterable[Lists], items: int) -> NDArray[np.float64]:
    counts = [np.bincount(lists.item, lists.share, minlength=items) for lists in blocks]
    return np.asarray(np.sum(counts, axis=0))
