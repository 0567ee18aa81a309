"""What is made for the page, as arrays and numbers. A place is a position among the rows shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomkit.projection import Projection

Places = NDArray[np.int32]
Floats = NDArray[np.float32]

NONE = -1
"""The place of a row that is not there."""

OWN_SHOWN = 5
"""Nearest rows of a row's own modality that the page holds; more are compared."""


@dataclass(frozen=True, slots=True, eq=False)
class Closeness:
    """Who is near whom at one site, by cosine in the full space, among the rows shown.

    `own` and `across` are `(checkpoints, rows, k)`: the nearest rows of the row's own modality and
    of its partner's, nearest first, `NONE` where there are fewer. `rank` is `(checkpoints, rows)`:
    how many rows of the partner's modality are nearer than the partner, `NONE` without a partner.
    """

    site: str
    own: Places
    across: Places
    rank: Places


@dataclass(frozen=True, slots=True)
class Cosines:
    """Cosines of matched and of random pairs as counts in equal bins from `low` to `high`.

    Each checkpoint has its own bins, because a narrow cone would fall into one of a wide one's.
    `wins` is the chance that a matched pair is closer than a random one: 0.5 when they cannot be
    told apart.
    """

    pair: str
    site: str
    checkpoint: str
    low: float
    high: float
    matched: tuple[int, ...]
    random: tuple[int, ...]
    mean_matched: float
    mean_random: float
    wins: float


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Standard deviations along the principal directions of unit rows, at some of their ranks."""

    modality: str
    site: str
    checkpoint: str
    n: int
    ranks: tuple[int, ...]
    values: tuple[float, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """A sample whose neighbours changed: `kept` of `k` are the same in the last checkpoint.

    `before` and `after` are the nearest places of its own modality; a partner's rank counts from
    0, None without a partner.
    """

    place: int
    kept: int
    k: int
    before: tuple[int, ...]
    after: tuple[int, ...]
    rank_before: int | None
    rank_after: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """UMAP at one site: `coordinates` float32 `(checkpoints, rows, 2)`, and how it was made."""

    site: str
    coordinates: Floats
    parameters: Mapping[str, int | float | str]


@dataclass(frozen=True, slots=True, eq=False)
class Album:
    """Everything that the page draws from states.

    `partner` is the place of each row's other view or `NONE`; `cosine` is `(sites, checkpoints,
    rows)`: of each row and its partner, NaN without one. `changes` are of
    `gallery_site`.
    """

    projection: Projection
    partner: Places
    cosine: Floats
    closeness: tuple[Closeness, ...]
    pairs: tuple[Cosines, ...]
    spectra: tuple[Spectrum, ...]
    changes: tuple[Change, ...]
    gallery_site: str
    layouts: tuple[Layout, ...] = ()
