"""Do samples keep the same neighbours in two spaces?

Neighbours are by cosine. A row is never its own neighbour, nor is any row of its group. Rows that
tie for the last place share it (see `nearest`), so exact chance stays exact.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry.nearest import kth_largest, neighbour_lists, shares
from geomkit.geometry.nulls import NullMoments
from geomkit.geometry.rows import (
    TIE,
    Array,
    Groups,
    codes,
    directions,
    matched,
    similarity_blocks,
)

Rows = NDArray[np.float64]
Lists = NDArray[np.int64]


def mutual_knn(x: Array, y: Array, k: int = 10, groups: Groups | None = None) -> float:
    """Mean share of the `k` nearest neighbours that two spaces have in common, in [0, 1].

    Higher is closer; chance is exactly `k/(N-1)` (`chance_mutual_knn`).

    Raises:
        UsageError: the rows do not match one to one.
        DegenerateInput: one side points one way only, or no more than `k` other rows, where all
            are neighbours and the share is 1 whatever the data.

    Reference:
        Huh et al. 2024, arXiv:2405.07987.
    """
    u, v = directions(x), directions(y)
    return float(shared_neighbours(u, v, k, codes(u.shape[0], groups)).mean())


def chance_mutual_knn(n: int, k: int = 10, groups: Groups | None = None) -> float:
    """The exact mean of `mutual_knn` when the samples of one side are shuffled."""
    code = codes(n, groups)
    return float(np.mean(k / (n - np.bincount(code)[code])))


def mutual_knn_null(x: Array, y: Array, k: int = 10) -> NullMoments:
    """Exact mean and variance of `mutual_knn` over all N! pairings of the rows: no permuting.

    The mean is `k/(N-1)`. The variance depends on the hubs of both sides and on how often
    neighbourhood is mutual, and on nothing else. Without groups, whose rows cannot be exchanged.

    Raises:
        UsageError: the rows do not match one to one.
        DegenerateInput: one side points one way only, no more than `k` other rows, or fewer than 4.

    Reference:
        Mantel 1967, Cancer Research 27, for matrices that are not symmetric.
    """
    u, v = directions(x, 4), directions(y, 4)
    n, code = int(u.shape[0]), codes(u.shape[0], None)
    require_enough(u, v, k, code)
    ways = np.cumprod([n, n - 1, n - 2, n - 3])  # ordered choices of 1, 2, 3 and 4 rows
    products = _pair_sums(u, k, code) * _pair_sums(v, k, code)
    second = float((products / ways[[1, 1, 2, 2, 2, 3]] * [1, 1, 1, 1, 2, 1]).sum()) / (n * k) ** 2
    mean = k / (n - 1)
    return NullMoments(mean, max(0.0, second - mean**2))


def _pair_sums(u: Array, k: int, code: NDArray[np.int64]) -> Rows:
    """Sums of products of two entries of the neighbour matrix, by which rows the entries share.

    The same entry; turned over; one row; one item; the item of one is the row of the other; none.
    """
    n = int(u.shape[0])
    blocks = list(neighbour_lists(u, u, k, (code, code)))
    of, item = (np.concatenate([getattr(b, name) for b in blocks]) for name in ("of", "item"))
    share = np.concatenate([b.share for b in blocks])
    out, into = np.bincount(of, share, n), np.bincount(item, share, n)
    _, there, back = np.intersect1d(
        of * n + item, item * n + of, assume_unique=True, return_indices=True
    )
    same, turned = float((share**2).sum()), float((share[there] * share[back]).sum())
    sums = [same, turned, (out**2).sum() - same, (into**2).sum() - same]
    sums.append((out * into).sum() - turned)
    return np.array([*sums, share.sum() ** 2 - sum(sums) - sums[-1]])


def shared_neighbours(u: Array, v: Array, k: int, code: NDArray[np.int64]) -> Rows:
    """For each matched unit row the share of its neighbours that both spaces have."""
    require_enough(u, v, k, code)
    shared = np.zeros(u.shape[0])
    sides = [neighbour_lists(side, side, k, (code, code)) for side in (u, v)]
    for a, b in zip(*sides, strict=True):
        pairs_a, pairs_b = (lists.of * u.shape[0] + lists.item for lists in (a, b))
        _, in_a, in_b = np.intersect1d(pairs_a, pairs_b, assume_unique=True, return_indices=True)
        both = a.share[in_a] * b.share[in_b] / k
        shared += np.bincount(a.of[in_a], both, minlength=u.shape[0])
    return shared


def mutual_knn_without(
    sides: tuple[Rows, Rows],
    k: int,
    code: NDArray[np.int64],
    folds: NDArray[np.int64],
    cosines: tuple[Rows | None, Rows | None] = (None, None),
) -> Rows:
    """`mutual_knn` of unit rows, whole and then without each fold, `(1 + folds,)`.

    Exact and cheap: lists that reach `k` beyond the largest fold are sorted once, and leaving a
    fold out is striking its entries from them. `cosines` are the products of each side with itself
    where the caller has them.
    """
    largest = int(np.bincount(folds).max())
    require_enough(*sides, k, code, leave_out=largest)
    out = np.arange(-1, folds.max() + 1)  # fold -1 does not exist: nothing left out
    total = np.zeros(len(out))
    blocks = [similarity_blocks(u, u, c) for u, c in zip(sides, cosines, strict=True)]
    for (rows, a), (_, b) in zip(*blocks, strict=True):
        barred = code[rows][:, None] == code[None, :]
        near_a, cos_a = _lists(np.where(barred, -np.inf, a), k + largest)
        near_b, cos_b = _lists(np.where(barred, -np.inf, b), k + largest)
        place = _places(near_a, near_b, a.shape)
        for slot, fold in enumerate(out):
            in_a = _listed(cos_a, folds[near_a] != fold, k)
            in_b = _listed(cos_b, folds[near_b] != fold, k)
            in_b = np.concatenate([in_b, np.zeros((len(in_b), 1))], axis=1)
            shared = (in_a * np.take_along_axis(in_b, place, axis=1)).sum(axis=1) / k
            total[slot] += shared[folds[rows] != fold].sum()
    return np.asarray(total / [(folds != fold).sum() for fold in out])


def require_enough(u: Array, v: Array, k: int, code: NDArray[np.int64], leave_out: int = 0) -> None:
    """Refuses rows of which some have no more than `k` others once `leave_out` are set aside.

    One more than k must remain: where all others are neighbours the share is 1 whatever the data,
    every fold says the same, and a jackknife would call that certain.
    """
    matched(u, v)
    if k < 1:
        raise UsageError(f"Expected k of at least 1, got {k}.")
    others = u.shape[0] - int(np.bincount(code).max()) - leave_out - 1
    if others < k:
        spare = f", with {leave_out + 1} to spare" + " for the interval" * (leave_out > 0)
        raise DegenerateInput(
            f"Expected at least k = {k} rows of other groups for every row{spare}, got "
            f"{max(others, 0)} of {u.shape[0]} rows; give more samples or a smaller k."
        )


def _places(near_a: Lists, near_b: Lists, shape: tuple[int, ...]) -> Lists:
    """Where each neighbour in list a stands in list b; the length of b when it does not."""
    place = np.full(shape, near_b.shape[1])
    np.put_along_axis(place, near_b, np.arange(near_b.shape[1])[None, :], axis=1)
    return np.take_along_axis(place, near_a, axis=1)


def _listed(cosine: Rows, keep: NDArray[np.bool_], k: int) -> Rows:
    """The same on descending lists of which only the entries in `keep` remain."""
    at = (np.cumsum(keep, axis=1) == k).argmax(axis=1)[:, None]
    last = np.take_along_axis(cosine, at, axis=1)
    sure, tied = keep & (cosine > last + TIE), keep & (abs(cosine - last) <= TIE)
    return np.asarray(shares(sure, tied, k))


def _lists(cosine: Rows, depth: int) -> tuple[Lists, Rows]:
    """The nearest `depth` of each row and all that tie with the last, nearest first."""
    last = kth_largest(cosine, depth)
    length = int((cosine >= last - TIE).sum(axis=1).max())
    near = np.argpartition(-cosine, length - 1, axis=1)[:, :length]
    values = np.take_along_axis(cosine, near, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    return np.take_along_axis(near, order, axis=1), np.take_along_axis(values, order, axis=1)
