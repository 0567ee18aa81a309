"""Which rows are two views of one sample: those of equal id in different modalities."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from geomkit.pictures.records import NONE, Places
from geomkit.types import MODALITIES, Modality, Row


def partners(rows: Sequence[Row]) -> Places:
    """The place of each row's other view: its text, or of a text the first medium there is."""
    views = by_id(rows)
    found = np.full(len(rows), NONE, np.int32)
    for i, row in enumerate(rows):
        others = (views[row.id].get(m) for m in MODALITIES if m != row.modality)
        found[i] = next((place for place in others if place is not None), NONE)
    return found


def pairings(rows: Sequence[Row]) -> dict[str, tuple[Places, Places]]:
    """Pair of modalities, "image-text", to the places of its samples in one and in the other."""
    views = by_id(rows)
    found: dict[str, tuple[Places, Places]] = {}
    for first, second in combinations(MODALITIES, 2):
        both = [v for v in views.values() if first in v and second in v]
        if both:
            left = np.array([v[second] for v in both], np.int32)
            right = np.array([v[first] for v in both], np.int32)
            found[f"{second}-{first}"] = left, right
    return found


def by_id(rows: Sequence[Row]) -> dict[str, dict[Modality, int]]:
    """Sample id to the place of each of its views; where an id repeats, the first counts."""
    views: dict[str, dict[Modality, int]] = {}
    for i, row in enumerate(rows):
        views.setdefault(row.id, {}).setdefault(row.modality, i)
    return views
