"""Do samples keep the same neighbours, and lie as close to them, in two spaces?"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from geomkit.errors import DegenerateInput
from geomkit.geometry.hsic import LEAST
from geomkit.geometry.nearest import Lists, neighbour_lists, pair_cosines
from geomkit.geometry.neighbours import require_enough
from geomkit.geometry.rows import (
    Array,
    Groups,
    codes,
    directions,
    on_host,
)

Graph = Any  # scipy.sparse.csr_array, which has no static type

MOST_ENTRIES = 2**24
"""Neighbours that are kept beside the k of each row: where more tie, there is no neighbourhood."""


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
    require_enough(u, v, k, code)
    (near_x, cos_x), (near_y, cos_y) = _graph(u, k, code), _graph(v, k, code)
    own_x, own_y = near_x * cos_x, near_y * cos_y
    energies = _hsic(own_x, own_x), _hsic(own_y, own_y)
    if min(energies) <= 0:
        raise DegenerateInput(
            f"Expected neighbourhoods of {k} that say more than sampling noise, got none; "
            "give more samples or another k."
        )
    shared = _hsic(own_x * near_y, own_y * near_x)
    return float(shared / (energies[0] * energies[1]) ** 0.5)


def _graph(u: Array, k: int, code: NDArray[np.int64]) -> tuple[Graph, Graph]:
    """Each row's share in its neighbours, and its cosines with them, `(N, N)` with few entries."""
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
    cosine, shape = pair_cosines(on_host(u), on_host(u), of, item), (u.shape[0], u.shape[0])
    return (
        sparse.csr_array((share, (of, item)), shape=shape),
        sparse.csr_array((cosine, (of, item)), shape=shape),
    )


def _hsic(a: Graph, b: Graph) -> float:
    """Song's statistic of two matrices with empty diagonals, without its factor 1/(n(n-3))."""
    n = a.shape[0]
    into, out = [m.sum(axis=0) for m in (a, b)], [m.sum(axis=1) for m in (a, b)]
    through = (into[0] @ out[1] + out[0] @ into[1]) / 2
    totals = out[0].sum() * out[1].sum() / ((n - 1) * (n - 2))
    return float((a * b.T).sum() + totals - 2 / (n - 2) * through)
