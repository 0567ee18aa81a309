"""The samples whose neighbours changed most: where to look first."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from geomkit.pictures.records import NONE, Change, Closeness
from geomkit.types import MODALITIES, Row

MOST = 6
"""Samples a modality."""
NEAR = 4
"""Neighbours that are shown of each."""


def changes(near: Closeness, rows: Sequence[Row]) -> tuple[Change, ...]:
    """Per modality the samples that share fewest neighbours, first against last checkpoint.

    Ties, of which there are many at none, go to the sample whose partner moved by most ranks.
    """
    found: list[Change] = []
    for modality in MODALITIES:
        own = [change(near, i) for i, row in enumerate(rows) if row.modality == modality]
        own = [c for c in own if c.k]
        own.sort(key=lambda c: (c.kept / c.k, -moved(c), _hash(rows[c.place].id)))
        found.extend(own[:MOST])
    return tuple(found)


def change(near: Closeness, place: int) -> Change:
    """What became of one sample's neighbours."""
    first, last = near.own[0, place], near.own[-1, place]
    kept = np.intersect1d(first[first != NONE], last[last != NONE])
    ranks = [int(near.rank[c, place]) for c in (0, -1)]
    before, after = (None if r == NONE else r for r in ranks)
    return Change(
        place,
        len(kept),
        int((first != NONE).sum()),
        _shown(first),
        _shown(last),
        before,
        after,
    )


def moved(change: Change) -> int:
    """By how many ranks the partner came nearer or went away."""
    if change.rank_before is None or change.rank_after is None:
        return 0
    return abs(change.rank_before - change.rank_after)


def _shown(places: np.ndarray[tuple[int], np.dtype[np.int32]]) -> tuple[int, ...]:
    return tuple(p for p in places.tolist() if p != NONE)[:NEAR]


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()
