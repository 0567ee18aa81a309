"""Who is near whom, by cosine in the full space: what two axes cannot tell.

Cosines are rounded to nine decimals before they are ordered, so that rows that tie stand in the
order of the plan whatever the rounding of a matrix product was.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geomkit.pictures.records import NONE, Closeness, Floats, Places
from geomkit.types import Row

K = 10
"""Neighbours of a row's own modality."""
K_ACROSS = 3
"""Neighbours in its partner's modality."""
DECIMALS = 1e9
BLOCK = 1024
"""Rows whose cosines are in memory at once."""

Units = NDArray[np.float64]  # (rows, dim), each of length 1


def partner_cosine(units: Units, partner: Places) -> Floats:
    """The cosine of each row and its partner, NaN without one."""
    cosine = np.full(len(units), np.nan, np.float32)
    has = np.flatnonzero(partner != NONE)
    cosine[has] = np.einsum("ij,ij->i", units[has], units[partner[has]])
    return cosine


def closeness(
    site: str, spaces: Sequence[Units], rows: Sequence[Row], partner: Places
) -> Closeness:
    """Nearest rows in each space; `spaces` are unit rows, one array a checkpoint."""
    own, across, ranks = [], [], []
    for units in spaces:
        near, far, rank = _of_space(units, rows, partner)
        own.append(near)
        across.append(far)
        ranks.append(rank)
    return Closeness(site, np.stack(own), np.stack(across), np.stack(ranks))


def _of_space(units: Units, rows: Sequence[Row], partner: Places) -> tuple[Places, Places, Places]:
    kinds = np.array([row.modality for row in rows])
    own = np.full((len(rows), K), NONE, np.int32)
    across = np.full((len(rows), K_ACROSS), NONE, np.int32)
    rank = np.full(len(rows), NONE, np.int32)
    other = np.where(partner == NONE, "", kinds[partner])
    for kind in dict.fromkeys(kinds.tolist()):
        here = np.flatnonzero(kinds == kind)
        own[here] = nearest(units, here, here, K)
        for target in dict.fromkeys(other[here].tolist()) if len(here) else ():
            if not target:
                continue
            asked, there = here[other[here] == target], np.flatnonzero(kinds == target)
            across[asked] = nearest(units, asked, there, K_ACROSS)
            rank[asked] = nearer(units, asked, there, partner[asked])
    return own, across, rank


def nearest(units: Units, asked: NDArray[np.int64], items: NDArray[np.int64], k: int) -> Places:
    """The places of the `k` items nearest to each row asked, nearest first; never itself."""
    found = np.full((len(asked), k), NONE, np.int32)
    most = min(k, len(items) - int(np.isin(asked, items).any()))
    for start in range(0, len(asked) if most else 0, BLOCK):
        block = asked[start : start + BLOCK]
        # Whole numbers that are all different: the cosine first, then the order of the plan.
        score = np.rint(units[block] @ units[items].T * DECIMALS).astype(np.int64) * len(items)
        score -= np.arange(len(items))
        score[block[:, None] == items] = np.iinfo(np.int64).min
        top = np.argpartition(score, -most, axis=1)[:, -most:]
        order = np.argsort(-np.take_along_axis(score, top, axis=1), axis=1)
        found[start : start + BLOCK, :most] = items[np.take_along_axis(top, order, axis=1)]
    return found


def nearer(
    units: Units, asked: NDArray[np.int64], items: NDArray[np.int64], partner: Places
) -> Places:
    """How many items are nearer to each row asked than its partner."""
    counts = np.empty(len(asked), np.int32)
    for start in range(0, len(asked), BLOCK):
        block, mates = asked[start : start + BLOCK], partner[start : start + BLOCK]
        cosine = (units[block] @ units[items].T).round(9)
        at = np.searchsorted(items, mates)
        counts[start : start + BLOCK] = (
            cosine > np.take_along_axis(cosine, at[:, None], axis=1)
        ).sum(axis=1)
    return counts
