"""Cosines of matched pairs, and of random ones: what alignment and retrieval are made of."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from geomkit.pictures.records import Cosines, Places
from geomkit.types import Row

BINS = 40
STRANGERS = 20
"""Random partners a sample: the samples that follow it in an order that ids decide."""

FLAT = 1e-6
"""Width of the bins' range where all cosines are equal."""

Units = NDArray[np.float64]
Values = NDArray[np.float64]


def cosines(
    site: str,
    spaces: Mapping[str, Units],
    rows: Sequence[Row],
    pairings: Mapping[str, tuple[Places, Places]],
) -> list[Cosines]:
    """Histograms a pair of modalities and checkpoint; `spaces` are unit rows by checkpoint."""
    found: list[Cosines] = []
    for pair, (left, right) in pairings.items():
        first, second = strangers(rows, left, right)
        for name, units in spaces.items() if len(first) else ():
            matched = row_cosines(units, left, right)
            found.append(histogram(pair, site, name, matched, row_cosines(units, first, second)))
    return found


def strangers(rows: Sequence[Row], left: Places, right: Places) -> tuple[Places, Places]:
    """Places of random pairs: one sample in one modality, another in the other.

    Samples of one group are the same thing said twice, so they are no strangers.
    """
    names = [rows[place].id for place in left.tolist()]
    order = sorted(range(len(left)), key=lambda i: hashlib.sha256(names[i].encode()).hexdigest())
    left, right = left[order], right[order]
    groups = np.array([rows[place].group for place in left.tolist()])
    parts = []
    for step in range(1, min(STRANGERS, len(left) - 1) + 1):
        differ = groups != np.roll(groups, -step)
        parts.append((left[differ], np.roll(right, -step)[differ]))
    if not parts:
        return left[:0], right[:0]
    return np.concatenate([a for a, _ in parts]), np.concatenate([b for _, b in parts])


def row_cosines(units: Units, left: Places, right: Places) -> Values:
    """Cosines of listed pairs of unit rows, a block at a time."""
    steps = range(0, len(left), 4096)
    parts = [
        np.einsum("ij,ij->i", units[left[s : s + 4096]], units[right[s : s + 4096]]) for s in steps
    ]
    return np.concatenate([np.zeros(0), *parts]).clip(-1, 1)


def histogram(pair: str, site: str, name: str, matched: Values, random: Values) -> Cosines:
    """Both in the same bins, which reach from the lowest to the highest cosine of the two."""
    low = float(min(matched.min(), random.min()))
    high = float(max(matched.max(), random.max()))
    high = high if high > low else low + FLAT
    return Cosines(
        pair, site, name, low, high,
        counts(matched, low, high), counts(random, low, high),
        float(matched.mean()), float(random.mean()), wins(matched, random),
    )  # fmt: skip


def counts(values: Values, low: float, high: float) -> tuple[int, ...]:
    """How many values fall into each of `BINS` equal bins."""
    return tuple(np.histogram(values, BINS, (low, high))[0].tolist())


def wins(matched: Values, random: Values) -> float:
    """The chance that a matched pair is closer than a random one, a tie counting half."""
    ordered = np.sort(random)
    below = np.searchsorted(ordered, matched, "left").sum()
    tied = np.searchsorted(ordered, matched, "right").sum() - below
    return float((below + tied / 2) / (len(matched) * len(random)))
