"""The made-up report's pictures: made by the real code from made-up states."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np

from geomkit.pictures.album import make_album
from geomkit.pictures.records import Album, Layout
from geomkit.projection import SiteMap
from geomkit.types import Row
from tests.pictures.worlds import FakeRun
from tests.reports import fixture

DIM = 24
LAYOUTS = ("block_03", "final_norm")


def album(
    rows: tuple[Row, ...] | None = None,
    checkpoints: tuple[str, ...] = (fixture.BEFORE, fixture.AFTER),
    sites: tuple[str, ...] = fixture.SITES,
) -> Album:
    """Labels pull a sample's views together, more so with depth and in later checkpoints."""
    rows = fixture.rows() if rows is None else rows
    rng = np.random.default_rng(5)
    kinds = {kind: rng.standard_normal(DIM) * 2 for kind in ("text", "image", "audio", "video")}
    words: dict[str, Any] = {}
    for value in sorted({v for row in rows for v in row.labels.values()}):
        words[value] = rng.standard_normal(DIM)
    own = {name: rng.standard_normal(DIM) for name in dict.fromkeys(row.id for row in rows)}
    values = {}
    for late, name in enumerate(checkpoints):
        for depth, site in enumerate(sites):
            values[name, site] = np.ones((len(rows), DIM), np.float32)
            if site == "embed":
                continue
            pull = (0.2 + late) * (depth + 1) / len(sites)
            for i, row in enumerate(rows):
                meaning = sum((words[v] for v in row.labels.values()), own[row.id] * 0.6)
                noise = rng.standard_normal(DIM) * 0.7
                values[name, site][i] = kinds[row.modality] / (0.5 + late) + pull * meaning + noise
    return make_album(cast("Any", FakeRun(rows, values, sites=sites)))


def with_layouts(base: Album) -> Album:
    """The same with something in UMAP's place: the first two axes, bent."""
    return replace(base, layouts=tuple(bent(s) for s in base.projection.sites if s.site in LAYOUTS))


def bent(site: SiteMap) -> Layout:
    """A layout that is no projection."""
    assert site.coordinates is not None
    return Layout(site.site, np.tanh(site.coordinates * 3), {"seed": 0})
