"""A run -> everything that the page draws from its states, each site read once."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from geomkit.pictures.changes import changes
from geomkit.pictures.closeness import K_ACROSS, closeness, partner_cosine
from geomkit.pictures.layouts import layout, sites_of
from geomkit.pictures.pairs import cosines
from geomkit.pictures.partners import pairings, partners
from geomkit.pictures.records import OWN_SHOWN, Album, Closeness, Cosines, Floats, Layout, Spectrum
from geomkit.pictures.spectra import spectra
from geomkit.progress import Progress, silent
from geomkit.projection import (
    LIMIT,
    Frame,
    SiteMap,
    flip_to_match,
    frame,
    projection_of,
    site_map,
)

if TYPE_CHECKING:
    from geomkit.store import Run

NEIGHBOUR_BYTES = 220_000
"""Bytes that nearest rows may take in the page, two each; all sites where they fit."""
COLD = "umap (compiles for about 20 s first)"


def make_album(
    run: Run,
    *,
    pooling: str = "last",
    limit: int = LIMIT,
    umap: bool = False,
    progress: Progress = silent,
) -> Album:
    """Maps, neighbours, pairs and spectra of a run; `umap` adds layouts of a few sites.

    Raises:
        DegenerateInput: no checkpoint is complete, or no row was read in all of them.
    """
    shown = frame(run, pooling=pooling, limit=limit)
    rows = [run.plan.rows[i] for i in shown.rows]
    partner, pairing = partners(rows), pairings(rows)
    near_at = near_sites(shown)
    maps: list[SiteMap] = []
    cosine: list[Floats] = []
    near: list[Closeness] = []
    pairs: list[Cosines] = []
    widths: list[Spectrum] = []
    for done, site in enumerate(shown.sites):
        progress("pictures", done, len(shown.sites))
        states = shown.states(run, site)
        maps.append(flip_to_match(site_map(site, states), maps))
        if maps[-1].coordinates is None:
            cosine.append(np.full(states.shape[:2], np.nan, np.float32))
            continue
        units = unit(states)
        spaces = dict(zip(shown.checkpoints, units, strict=True))
        cosine.append(np.stack([partner_cosine(u, partner) for u in units]))
        pairs.extend(cosines(site, spaces, rows, pairing))
        widths.extend(spectra(site, spaces, rows))
        if site in near_at:
            near.append(closeness(site, list(units), rows, partner))
    progress("pictures", len(shown.sites), len(shown.sites))
    last = near[-1] if near and len(shown.checkpoints) > 1 else None
    return Album(
        projection_of(shown, maps), partner, np.stack(cosine), tuple(near), tuple(pairs),
        tuple(widths), changes(last, rows) if last else (), last.site if last else "",
        layouts(run, shown, maps, progress) if umap else (),
    )  # fmt: skip


def near_sites(shown: Frame) -> frozenset[str]:
    """Sites whose nearest rows are kept: the deepest, and others evenly while they fit."""
    each = 2 * (OWN_SHOWN + K_ACROSS + 1) * len(shown.rows) * len(shown.checkpoints)
    count = int(np.clip(NEIGHBOUR_BYTES // each, 1, len(shown.sites)))
    at = np.linspace(len(shown.sites) - 1, 0, count + 1).round()[:count]
    if count == len(shown.sites):
        return frozenset(shown.sites)
    return frozenset(shown.sites[int(i)] for i in at)


def unit(states: NDArray[np.float32]) -> NDArray[np.float64]:
    """Rows at unit length; a site with a zero row is no map and does not come here."""
    wide = states.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=-1, keepdims=True)
    return wide


def layouts(
    run: Run, shown: Frame, maps: Sequence[SiteMap], progress: Progress
) -> tuple[Layout, ...]:
    """UMAP of a few sites; what is not kept from before is made, and the wait is said."""
    chosen = [m for m in maps if m.site in sites_of(maps)]
    found = []
    for done, pca in enumerate(chosen):
        states = unit(shown.states(run, pca.site))
        found.append(layout(run, pca, states, partial(progress, COLD, done, len(chosen))))
    return tuple(entry for entry in found if entry is not None)
