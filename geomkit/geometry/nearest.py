"""Which items are the nearest of a row, by cosine?

When several tie for the last place (closer than `TIE`) each takes an equal part of it: what
breaking the ties by lot would give on average, so no order of rows can move it.

On the CPU coarse products pick candidates (see `candidates`), float64 decides among them. On other
devices, and where ties leave too many candidates, float64 does all of it, a block at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from array_api_compat import array_namespace, device, is_numpy_namespace, is_torch_namespace
from numpy.typing import NDArray

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry import rows as blocks_of
from geomkit.geometry.candidates import Candidates, barred, candidates
from geomkit.geometry.rows import TIE, Array, on_device, on_host

Ints = NDArray[np.int64]
Rows = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Lists:
    """Which `item` is a neighbour `of` which row and with what `share` of a place, row by row."""

    of: Ints
    item: Ints
    share: Rows


def neighbour_lists(
    u: Array, v: Array, k: int, codes: tuple[Ints, Ints] | None = None
) -> Iterator[Lists]:
    """The `k` nearest items `v` of the rows `u`, all at unit length, a block of rows at a time.

    With `codes` a row never has an item of its own code.
    """
    found = None
    if str(device(u)) == "cpu":
        host = on_host(u)
        found = candidates(host, host if u is v else on_host(v), k, codes)
    step = max(1, blocks_of.BLOCK_ENTRIES // v.shape[0])
    for start in range(0, u.shape[0], step):
        rows = slice(start, min(start + step, u.shape[0]))
        yield _decided(u, v, rows, k, found) if found else _whole(u, v, rows, k, codes)


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


def share_places(of: Ints, score: Rows, k: int | Ints) -> Rows:
    """`membership` of entries that stand row by row, best first, at least `k` a row.

    `k` may be another number for every row.
    """
    counts = np.bincount(of)
    listed, k = counts > 0, np.broadcast_to(k, max(len(counts), np.size(k)))[: len(counts)]
    last = np.zeros(len(counts))
    last[listed] = score[(np.cumsum(counts) - counts + k - 1)[listed]]
    sure, tied = score > last[of] + TIE, abs(score - last[of]) <= TIE
    places = k - np.bincount(of, sure)
    ties = np.bincount(of, tied)
    return np.asarray(sure + tied * places[of] / ties[of])


def require_enough(n: int, k: int, code: Ints, leave_out: int = 0) -> None:
    """Refuses `n` items where some row has no more than `k` to choose from.

    Of its own `code` a row has none (an empty one bars nothing), and `leave_out` are set aside. One
    more than k must remain: where all others are neighbours the share is 1 whatever the data, every
    fold says the same, and a jackknife would call that certain.
    """
    if k < 1:
        raise UsageError(f"Expected k of at least 1, got {k}.")
    barred = int(np.bincount(code).max()) if len(code) else 0
    others = n - barred - leave_out - 1
    if others < k:
        spare = f", with {leave_out + 1} to spare" + " for the interval" * (leave_out > 0)
        raise DegenerateInput(
            f"Expected at least k = {k} rows of other groups for every row{spare}, got "
            f"{max(others, 0)} of {n} rows; give more samples or a smaller k."
        )


def kth_largest(values: Array, k: int) -> Array:
    """The `k`-th largest value of each row, `(rows, 1)`."""
    xp = array_namespace(values)
    if is_numpy_namespace(xp):
        return np.partition(values, -k, axis=1)[:, -k, None]
    if is_torch_namespace(xp):
        return xp.topk(values, k, dim=1).values[:, -1:]
    return xp.sort(values, axis=1, descending=True)[:, k - 1 : k]


def pair_cosines(u: Rows, v: Rows, of: Ints, item: Ints) -> Rows:
    """The cosines of listed pairs of unit rows."""
    step = max(1, blocks_of.CACHE_ENTRIES // u.shape[1])
    parts = (slice(start, start + step) for start in range(0, len(of), step))
    return np.concatenate(
        [np.zeros(0), *(np.einsum("ij,ij->i", u[of[p]], v[item[p]]) for p in parts)]
    )


def _whole(u: Array, v: Array, rows: slice, k: int, codes: tuple[Ints, Ints] | None) -> Lists:
    cosine = u[rows, :] @ v.T
    if codes is not None:
        own = barred(codes, rows, slice(None))
        xp = array_namespace(cosine)
        cosine = xp.where(on_device(own, cosine), -xp.inf, cosine)
    share = on_host(membership(cosine, k))
    of, item = np.nonzero(share)
    return Lists(of + rows.start, item, share[of, item])


def _decided(u: Array, v: Array, rows: slice, k: int, found: Candidates) -> Lists:
    """Who is not sure to be near has the places that are left, by true cosines."""
    some = slice(*np.searchsorted(found.of, [rows.start, rows.stop]))
    of, item, sure = found.of[some], found.item[some], found.sure[some]
    share, at = np.ones(len(of)), np.flatnonzero(~sure)
    score = pair_cosines(on_host(u), on_host(v), of[at], item[at])
    order = np.lexsort((-score, of[at]))
    left = k - np.bincount(of[sure], minlength=rows.stop)
    share[at[order]] = share_places(of[at[order]], score[order], left)
    taken = share > 0
    return Lists(of[taken], item[taken], share[taken])
