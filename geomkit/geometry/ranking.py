"""Does a query find its answer in the other modality?

The tie rule: a tie counts against the query. The rank is 1 + the number of wrong items that are at
least as similar as the best right one, so a space in which everything is alike finds nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from geomkit.errors import UsageError
from geomkit.geometry.rows import (
    TIE,
    Array,
    Groups,
    codes,
    directions,
    matched,
    on_device,
    on_host,
    same_columns,
    similarity_blocks,
)


@dataclass(frozen=True, slots=True, eq=False)
class Retrieval:
    """Per query: `ranks` of the best right answer (1 is found at once), `right` answers there are.

    `gallery` is the number of items searched.
    """

    ranks: NDArray[np.int64]
    right: NDArray[np.int64]
    gallery: int

    def hits(self, k: int = 1) -> NDArray[np.float64]:
        """1 for each query whose rank is at most `k`, else 0."""
        return (self.ranks <= k).astype(np.float64)

    def recall(self, k: int = 1) -> float:
        """R@k: the share of queries that find a right answer among the first `k`, in [0, 1]."""
        return float(self.hits(k).mean())

    def mrr(self) -> float:
        """Mean reciprocal rank, in (0, 1]; higher is better."""
        return float((1 / self.ranks).mean())

    def chance_recall(self, k: int = 1) -> float:
        """R@k expected of a gallery in random order; for k = 1 the mean of right/gallery."""
        return float(1 - self._missed(k)[:, -1].mean())

    def chance_mrr(self) -> float:
        """Mean reciprocal rank expected of a gallery in random order."""
        missed = self._missed(self.gallery)
        found = -np.diff(missed, axis=1, prepend=1.0)
        return float((found / np.arange(1, self.gallery + 1)).sum(axis=1).mean())

    def _missed(self, k: int) -> NDArray[np.float64]:
        """P(rank > 1), ..., P(rank > k) at random for each query: draws that are all wrong."""
        drawn = np.arange(min(k, self.gallery))
        right, back = np.unique(self.right, return_inverse=True)
        wrong = np.maximum(self.gallery - right[:, None] - drawn, 0)
        return np.asarray(np.cumprod(wrong / (self.gallery - drawn), axis=1)[back])


def retrieval(
    query: Array,
    gallery: Array,
    query_groups: Groups | None = None,
    gallery_groups: Groups | None = None,
) -> Retrieval:
    """Ranks of the right answers of each query, by cosine; lower ranks are better.

    An item is right when its group is the query's. Without groups query i belongs to item i.

    Raises:
        UsageError: a query has no right answer in the gallery.
        DegenerateInput: one side points one way only.

    Example:
        >>> retrieval(np.eye(3), np.eye(3)).recall(1)
        1.0
    """
    u, v = directions(query), directions(gallery)
    return rank_answers(u, v, query_groups, gallery_groups)


def rank_answers(
    u: Array,
    v: Array,
    query_groups: Groups | None = None,
    gallery_groups: Groups | None = None,
    cosines: Array | None = None,
) -> Retrieval:
    """`retrieval` of rows that are unit rows already, with `u @ v.T` where the caller has it."""
    same_columns(u, v)
    of_query, of_item = _shared_codes(u, v, query_groups, gallery_groups)
    xp = array_namespace(u)
    item = on_device(of_item, u)
    ranks, right = [], []
    for rows, cosine in similarity_blocks(u, v, cosines):
        match = on_device(of_query[rows], u)[:, None] == item[None, :]
        best = xp.max(xp.where(match, cosine, -xp.inf), axis=1, keepdims=True)
        ahead = (cosine >= best - TIE) & ~match
        ranks.append(on_host(1 + xp.sum(xp.astype(ahead, xp.int64), axis=1)))
        right.append(on_host(xp.sum(xp.astype(match, xp.int64), axis=1)))
    return Retrieval(np.concatenate(ranks), np.concatenate(right), v.shape[0])


def _shared_codes(
    u: Array, v: Array, query_groups: Groups | None, gallery_groups: Groups | None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if (query_groups is None) != (gallery_groups is None):
        raise UsageError("Expected groups for both queries and gallery, got one; give both.")
    if query_groups is None or gallery_groups is None:
        matched(u, v)
        return codes(u.shape[0], None), codes(u.shape[0], None)
    if len(query_groups) != u.shape[0] or len(gallery_groups) != v.shape[0]:
        raise UsageError(
            f"Expected one group a row, got {len(query_groups)} and {len(gallery_groups)} groups "
            f"for {u.shape[0]} queries and {v.shape[0]} items."
        )
    both = codes(u.shape[0] + v.shape[0], [*query_groups, *gallery_groups])
    of_query, of_item = both[: u.shape[0]], both[u.shape[0] :]
    lost = int((~np.isin(of_query, of_item)).sum())
    if lost:
        raise UsageError(
            f"Expected a right answer for every query, got {lost} queries whose group is not in "
            "the gallery; drop them or widen the gallery."
        )
    return of_query, of_item
