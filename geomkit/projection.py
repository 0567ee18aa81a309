"""A run -> two coordinates a row and site, for people to look at.

The map is an illustration: no verdict reads it. Rows are scaled to unit length first, because the
metrics compare directions, and one PCA is fitted per site on all checkpoints pooled, so that
"before" and "after" share their axes and their scale.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from geomkit.errors import DegenerateInput
from geomkit.types import MODALITIES, Row

if TYPE_CHECKING:
    from geomkit.store import Run

Coordinates = NDArray[np.float32]

EXACT_DIM = 1024
"""Above this width a seeded randomised solver finds the two axes; below, the exact one does."""

LIMIT = 1000
"""Rows a modality that are shown of two checkpoints: the page stays small."""

FLAT = 1e-12
"""Total variance of unit rows at or below which they are one point up to rounding."""


@dataclass(frozen=True, slots=True, eq=False)
class SiteMap:
    """One site: `coordinates` float32 `(checkpoints, rows, 2)`, or None with the reason in `note`.

    `explained` is the share of the pooled variance on each of the two axes.
    """

    site: str
    coordinates: Coordinates | None
    explained: tuple[float, float]
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """Every site of a run on two axes; `rows` are the plan indexes shown, of `available` rows."""

    method: str
    pooling: str
    checkpoints: tuple[str, ...]
    rows: tuple[int, ...]
    available: int
    sites: tuple[SiteMap, ...]


@dataclass(frozen=True, slots=True)
class Frame:
    """What of a run is shown: checkpoints, sites that all have, and rows by plan index."""

    pooling: str
    checkpoints: tuple[str, ...]
    sites: tuple[str, ...]
    rows: tuple[int, ...]
    available: int

    def states(self, run: Run, site: str) -> NDArray[np.float32]:
        """States of the rows shown, `(checkpoints, rows, dim)`."""
        each = (run.states(name, site, self.pooling)[0] for name in self.checkpoints)
        return np.stack([states[list(self.rows)] for states in each])


def frame(run: Run, *, pooling: str = "last", limit: int = LIMIT) -> Frame:
    """At most `limit` rows a modality, chosen by a hash of the id; fewer with many checkpoints.

    The same ids are chosen in every modality, so pairs stay together; the choice depends on the
    run alone.

    Raises:
        DegenerateInput: no checkpoint is complete, or no row was read in all of them.
    """
    records = run.captured()
    if not records:
        raise DegenerateInput("expected a complete checkpoint to project, got none: run capture")
    names = tuple(record.name for record in records)
    sites = tuple(s for s in records[0].sites if all(s in record.sites for record in records))
    read = np.logical_and.reduce([run.states(name, sites[0], pooling)[1] for name in names])
    chosen = choose(run.plan.rows, read, max(1, limit * 2 // max(2, len(names))))
    if not chosen:
        raise DegenerateInput("expected a row read in every checkpoint, got none: see the skipped")
    return Frame(pooling, names, sites, chosen, int(read.sum()))


def project(run: Run, *, pooling: str = "last", limit: int = LIMIT) -> Projection:
    """PCA coordinates of the rows of a `frame`; the axes depend on the run alone.

    Axes are flipped where that makes a site resemble the one before it.

    Raises:
        DegenerateInput: as `frame`.
    """
    shown = frame(run, pooling=pooling, limit=limit)
    maps: list[SiteMap] = []
    for site in shown.sites:
        maps.append(flip_to_match(site_map(site, shown.states(run, site)), maps))
    return projection_of(shown, maps)


def projection_of(shown: Frame, maps: Sequence[SiteMap]) -> Projection:
    """The maps of every site of a frame."""
    return Projection(
        "pca", shown.pooling, shown.checkpoints, shown.rows, shown.available, tuple(maps)
    )


def choose(rows: Sequence[Row], read: NDArray[np.bool_], limit: int) -> tuple[int, ...]:
    """Plan indexes to show: per modality the `limit` readable rows of smallest id hash."""
    chosen: list[int] = []
    for modality in MODALITIES:
        seen = [i for i, row in enumerate(rows) if row.modality == modality and read[i]]
        seen.sort(key=lambda i: (hashlib.sha256(rows[i].id.encode()).hexdigest(), i))
        chosen.extend(seen[:limit])
    return tuple(sorted(chosen))


def site_map(site: str, states: NDArray[np.float32]) -> SiteMap:
    """PCA of unit rows of `(checkpoints, rows, dim)` pooled over checkpoints, on two axes."""
    checkpoints, rows, dim = states.shape
    pooled = states.reshape(-1, dim).astype(np.float64)
    lengths = np.linalg.norm(pooled, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or not lengths.all():
        return SiteMap(site, None, (0.0, 0.0), "a state is zero or not finite")
    pooled /= lengths
    if pooled.var(axis=0).sum() <= FLAT:
        return SiteMap(site, None, (0.0, 0.0), "all states are equal, so there is nothing to map")
    # One row or one dimension leaves fewer than two axes; the missing ones are zero.
    axes = min(2, len(pooled), dim)
    solver = "full" if dim <= EXACT_DIM else "randomized"
    pca = PCA(axes, svd_solver=solver, random_state=0).fit(pooled)
    flat = np.zeros((len(pooled), 2), dtype=np.float32)
    flat[:, :axes] = pca.transform(pooled)
    shares = [float(share) for share in pca.explained_variance_ratio_]
    first, second = (*shares, 0.0)[:2]
    return SiteMap(site, flat.reshape(checkpoints, rows, 2), (first, second))


def flip_to_match(current: SiteMap, before: Sequence[SiteMap]) -> SiteMap:
    """The map with each axis signed to correlate positively with the last drawn site."""
    drawn = [m.coordinates for m in before if m.coordinates is not None]
    if current.coordinates is None or not drawn:
        return current
    agreement = (current.coordinates * drawn[-1]).sum(axis=(0, 1))
    signs = np.where(agreement < 0, -1, 1).astype(np.float32)
    return SiteMap(current.site, current.coordinates * signs, current.explained, current.note)
