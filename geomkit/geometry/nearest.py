"""Which items are the nearest of a row, by cosine?

When several tie for the last place (closer than `TIE`) each takes an equal part of it: what
breaking the ties by lot would give on average, so no order of rows can move it.

On the CPU float32 picks the candidates at half the cost and float64 decides among them, so nothing
is decided by float32: its error has a bound, and whatever lies within it is a candidate. The means
are taken away first, else the bound of a narrow cone would be wider than the cone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from array_api_compat import array_namespace, device, is_numpy_namespace, is_torch_namespace
from numpy.typing import NDArray

from geomkit.geometry import rows as blocks_of
from geomkit.geometry.rows import Array, on_device, on_host, similarity_blocks

Rows = NDArray[np.float64]
Mask = NDArray[np.bool_]

TIE = 1e-12
"""Cosines closer than this are equal: float64 rounding, far below any float32 difference."""

SPARE = 64
"""Candidates a row may have beyond four times k; with more of them float64 does all of a block."""


def neighbour_blocks(
    u: Array, v: Array, k: int, codes: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
) -> Iterator[tuple[slice, Array]]:
    """For rows `u` the `membership` of items `v`, a block of rows at a time, all at unit length.

    With `codes` a row never has an item of its own code.
    """
    if str(device(u)) != "cpu":
        own = None if codes is None else [on_device(code, u) for code in codes]
        for rows, cosine in similarity_blocks(u, v):
            yield rows, membership(cosine if own is None else _barred(cosine, rows, *own), k)
        return
    screen = _screen(on_host(u), on_host(v))
    step = max(1, blocks_of.BLOCK_ENTRIES // v.shape[0])
    for start in range(0, u.shape[0], step):
        rows = slice(start, min(start + step, u.shape[0]))
        yield rows, on_device(screen.membership(rows, k, codes), u)


def membership(cosine: Array, k: int) -> Array:
    """Is an item among the `k` nearest of its row?

    1 for a sure neighbour, a part of 1 for one that ties for the last place, else 0.
    """
    last = kth_largest(cosine, k)
    return shares(cosine > last + TIE, abs(cosine - last) <= TIE, k)


def shares(sure: Array, tied: Array, k: int) -> Array:
    """1 for those that are sure; what is left of `k` places in equal parts for those that tie."""
    xp = array_namespace(sure)
    sure, tied = xp.astype(sure, xp.float64), xp.astype(tied, xp.float64)
    places = k - xp.sum(sure, axis=1, keepdims=True)
    return sure + tied * places / xp.sum(tied, axis=1, keepdims=True)


def kth_largest(values: Array, k: int) -> Array:
    """The `k`-th largest value of each row, `(rows, 1)`."""
    xp = array_namespace(values)
    if is_numpy_namespace(xp):
        return np.partition(values, -k, axis=1)[:, -k, None]
    if is_torch_namespace(xp):
        return xp.topk(values, k, dim=1).values[:, -1:]
    return xp.sort(values, axis=1, descending=True)[:, k - 1 : k]


def pair_cosines(u: Rows, v: Rows, of: NDArray[np.int64], item: NDArray[np.int64]) -> Rows:
    """The cosines of listed pairs of unit rows."""
    step = max(1, blocks_of.BLOCK_ENTRIES // (2 * u.shape[1]))
    parts = (slice(start, start + step) for start in range(0, len(of), step))
    return np.concatenate([np.einsum("ij,ij->i", u[of[part]], v[item[part]]) for part in parts])


@dataclass(frozen=True, slots=True)
class _Screen:
    """`left @ right.T` is the cosine up to a constant a row, within `error` of that row."""

    u: Rows
    v: Rows
    left: NDArray[np.float32]
    right: NDArray[np.float32]
    error: Rows

    def membership(
        self, rows: slice, k: int, codes: tuple[NDArray[np.int64], NDArray[np.int64]] | None
    ) -> Rows:
        """`membership` of the rows of one block, `(block, items)`."""
        score = self.left[rows] @ self.right.T
        if codes is not None:
            score = _barred(score, rows, *codes)
        # One error for the k-th, one for the candidate, and what counts as a tie; rounded down.
        least = kth_largest(score, k) - (2 * self.error[rows, None] + TIE)
        maybe = score >= np.nextafter(least.astype(np.float32), np.float32(-np.inf))
        if int(np.count_nonzero(maybe, axis=1).max()) > 4 * k + SPARE:
            cosine = self.u[rows] @ self.v.T
            whole = cosine if codes is None else _barred(cosine, rows, *codes)
            return np.asarray(membership(whole, k))
        return self._decide(rows, maybe, k)

    def _decide(self, rows: slice, maybe: Mask, k: int) -> Rows:
        of, item = np.nonzero(maybe)
        counts = np.bincount(of, minlength=len(maybe))
        place = np.arange(len(of)) - (np.cumsum(counts) - counts)[of]
        table = np.full((len(maybe), int(counts.max())), -np.inf)
        table[of, place] = pair_cosines(self.u, self.v, of + rows.start, item)
        member = np.zeros(maybe.shape)
        member[of, item] = membership(table, k)[of, place]
        return member


def _screen(u: Rows, v: Rows) -> _Screen:
    """The cosine is `(u - a)(v - b) + a(v - b)` and what only the row knows, for any a and b."""
    a, b = u.mean(axis=0), v.mean(axis=0)
    along = v @ a
    along -= along.mean()
    left = np.ones((len(u), u.shape[1] + 1), np.float32)
    right = np.empty((len(v), v.shape[1] + 1), np.float32)
    np.subtract(u, a, out=left[:, :-1], casting="same_kind")
    np.subtract(v, b, out=right[:, :-1], casting="same_kind")
    right[:, -1] = along
    lengths = [np.linalg.norm(side[:, :-1], axis=1) for side in (left, right)]
    steps = (u.shape[1] + 6) * 2.0**-24  # a product of n terms in any order, and the casts
    error = steps * (lengths[0] * float(lengths[1].max()) + float(np.abs(along).max()))
    return _Screen(u, v, left, right, error.astype(np.float64))


def _barred(score: Array, rows: slice, of_row: Array, of_item: Array) -> Array:
    xp = array_namespace(score)
    return xp.where(of_row[rows][:, None] == of_item[None, :], -xp.inf, score)
