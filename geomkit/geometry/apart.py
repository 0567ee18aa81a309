"""How far are the nearest rows, by Euclidean distance between the rows as they are?

A row that equals another to float32 resolution has no nearest distance: copies are removed first,
and counted. A row is a copy when it lies within 16 float32 steps of its length from one that stays.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from array_api_compat import array_namespace, device, is_torch_array
from numpy.typing import NDArray

from geomkit.errors import DegenerateInput
from geomkit.geometry import rows as blocks_of
from geomkit.geometry.candidates import Candidates, candidates_by_distance
from geomkit.geometry.nearest import require_enough
from geomkit.geometry.rows import (
    RESOLUTION,
    Array,
    deviations,
    on_device,
    on_host,
    peak_of,
    row_blocks,
)
from geomkit.geometry.struck import Entries, Near, deep_enough, rows_of

Ints = NDArray[np.int64]
Rows = NDArray[np.float64]

FEW = 16
"""Neighbours up to which measuring candidates one by one costs less than all products."""


def neighbour_distances(x: Array, k: int) -> tuple[Rows, int]:
    """Distances to the `k` nearest rows, nearest first, among distinct rows; how many were copies.

    Raises:
        DegenerateInput: constant rows, or no more than `k` distinct ones.
    """
    c, size, scale = _placed(x)
    before = c.shape[0]
    while True:
        if c.shape[0] < k + 1:
            raise DegenerateInput(
                f"Expected at least {k + 1} distinct rows, got {c.shape[0]} of {before}; "
                "give more samples."
            )
        squares = _nearest(c, k)
        copies = np.flatnonzero(squares[:, 0] <= RESOLUTION * size)
        if not len(copies):
            return np.sqrt(squares) * scale, before - c.shape[0]
        kept = np.setdiff1d(np.arange(c.shape[0]), _later(c, copies))
        c, size = rows_of(c, kept), size[kept]


def near_apart(x: Array, folds: Ints, k: int = 2, *, products: Rows | None = None) -> Near:
    """The `k` nearest of each row by distance among distinct rows, made once for all folds.

    For `two_nn_influence` (k of at least 2) and `gride_without` (the furthest of its neighbours).
    Copies are removed from all rows, once. `products` is `c @ c.T` of the centred rows, up to a
    scale, where the caller has it. Memory grows with N.

    Raises:
        DegenerateInput: constant rows, or no more than `k` distinct ones without some fold.
    """
    c, size, scale = _placed(x)
    kept, count = np.arange(len(folds)), int(folds.max()) + 1
    if products is not None:
        c = on_host(c)
        products = products * (float((c * c).sum()) / float(np.trace(products)))
    while True:
        of_fold = np.bincount(folds[kept])
        require_enough(len(kept), k, kept, leave_out=int(of_fold.max()))
        found = _near_apart(rows_of(c, kept), folds[kept], k, products)
        nearest = -found.score[np.searchsorted(found.of, np.arange(len(kept)))]
        copies = np.flatnonzero(nearest <= RESOLUTION * size[kept])
        if not len(copies):
            return replace(found, count=count, kept=kept, given=len(folds), scale=scale)
        stay = np.setdiff1d(np.arange(len(kept)), _later(rows_of(c, kept), copies))
        kept, products = kept[stay], None if products is None else products[np.ix_(stay, stay)]


def _near_apart(c: Array, folds: Ints, k: int, products: Rows | None) -> Near:
    xp, n = array_namespace(c), int(c.shape[0])
    own = xp.sum(c * c, axis=1)

    def screened(depth: int) -> Entries | None:
        if depth > FEW or products is not None or str(device(c)) != "cpu":
            return None
        host = on_host(c)
        found = candidates_by_distance(host, depth)
        if found is None:
            return None
        return found.of, found.item, -_pair_squares(host, found)

    def block(some: Ints) -> Array:
        product = rows_of(c, some) @ c.T if products is None else rows_of(products, some)
        score = 2 * product - rows_of(own, some)[:, None] - own[None, :]
        itself = on_device(some[:, None] == np.arange(n)[None, :], c)
        return xp.where(itself, -xp.inf, score)

    return deep_enough(screened, block, folds, k)


def _placed(x: Array) -> tuple[Array, Rows, float]:
    """Rows about their mean at a unit peak, their squared lengths as they came, and that peak."""
    c, scale = deviations(x), peak_of(x)
    xp = array_namespace(c)
    squares = [on_host(xp.sum((rows / scale) ** 2, axis=1)) for rows in row_blocks(x)]
    return c, np.concatenate(squares), scale


def _later(c: Array, copies: NDArray[np.int64]) -> NDArray[np.int64]:
    """Of each copy and what it is nearest to, the later one."""
    step = max(1, blocks_of.BLOCK_ENTRIES // int(c.shape[0]))
    found = []
    for start in range(0, len(copies), step):
        some = copies[start : start + step]
        squares = on_host(_squares(rows_of(c, some), c))
        squares[np.arange(len(some)), some] = np.inf
        found.append(np.maximum(some, squares.argmin(axis=1)))
    return np.concatenate(found)


def _nearest(c: Array, k: int) -> Rows:
    """Squared distances to the `k` nearest other rows, ascending.

    For a few neighbours on the CPU float32 picks candidates, which float64 then measures.
    """
    found = None
    if k <= FEW and str(device(c)) == "cpu":
        found = candidates_by_distance(on_host(c), k)
    return _nearest_of_all(c, k) if found is None else _nearest_of(on_host(c), found, k)


def _nearest_of(c: Rows, found: Candidates, k: int) -> Rows:
    counts = np.bincount(found.of, minlength=len(c))
    place = np.arange(len(found.of)) - (np.cumsum(counts) - counts)[found.of]
    squares = np.full((len(c), int(counts.max())), np.inf)
    squares[found.of, place] = _pair_squares(c, found)
    return np.sort(squares, axis=1)[:, :k]


def _pair_squares(c: Rows, found: Candidates) -> Rows:
    """The squared distances of listed pairs."""
    step = max(1, blocks_of.BLOCK_ENTRIES // (2 * c.shape[1]))
    squares = np.empty(len(found.of))
    for start in range(0, len(found.of), step):
        pairs = slice(start, start + step)
        apart = c[found.of[pairs]] - c[found.item[pairs]]
        squares[pairs] = np.einsum("ij,ij->i", apart, apart)
    return squares


def _nearest_of_all(c: Array, k: int) -> Rows:
    """The same in float64 throughout: a block of rows meets only those from itself on.

    Both sides learn of it.
    """
    xp, n = array_namespace(c), c.shape[0]
    found = xp.full((n, k), xp.inf, dtype=xp.float64, device=device(c))
    step = max(1, blocks_of.BLOCK_ENTRIES // n)
    for start in range(0, n, step):
        stop = min(start + step, n)
        squares = _squares(c[start:stop, :], c[start:, :])
        own = xp.arange(stop - start)
        squares[own, own] = xp.inf
        sides = (slice(start, stop), squares), (slice(stop, n), squares[:, stop - start :].T)
        for rows, seen in sides:
            near = xp.concat([found[rows, :], _smallest(seen, k)], axis=1)
            found[rows, :] = _smallest(near, k)
    return np.asarray(np.maximum(on_host(found), 0.0))


def _squares(a: Array, b: Array) -> Array:
    """Squared distances of each row of `a` to each of `b`, of rows that lie about 0."""
    xp = array_namespace(a)
    own, other = xp.sum(a * a, axis=1), xp.sum(b * b, axis=1)
    return own[:, None] + other[None, :] - 2 * (a @ b.T)


def _smallest(values: Array, k: int) -> Array:
    """The `k` smallest of each row, ascending; all where there are fewer."""
    k = min(k, values.shape[1])
    if is_torch_array(values):
        return values.topk(k, dim=1, largest=False).values
    return np.sort(np.partition(values, k - 1, axis=1)[:, :k] if k else values, axis=1)
