"""The projection as the map shows it: rows, sites and coordinates of the two checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geomkit.projection import Projection, SiteMap
from geomkit.types import Row
from reports import payload, static, words

CAPTION = 200


@dataclass(frozen=True)
class Shown:
    """What the map shows: rows in the projection's order, and the scale of each site."""

    projection: Projection
    rows: tuple[Row, ...]

    def limit(self, coordinates: NDArray[np.float32]) -> float:
        """The largest coordinate of a site, so that all checkpoints share a scale."""
        return float(np.abs(coordinates).max()) or 1.0

    def pair(self) -> tuple[int, ...]:
        """Places of the first and the last checkpoint."""
        last = len(self.projection.checkpoints) - 1
        return (0, last) if last > 0 else (0,)

    def payload(self) -> dict[str, Any]:
        """What the page's script reads."""
        return {
            "checkpoints": [words.clip(self.projection.checkpoints[i], 60) for i in self.pair()],
            "sites": [self.site(s) for s in self.projection.sites],
            "rows": [self.row(row) for row in self.rows],
        }

    def site(self, site: SiteMap) -> dict[str, Any]:
        """One stop of the slider."""
        points: list[str] = []
        if site.coordinates is not None:
            limit = self.limit(site.coordinates)
            points = [payload.quantised(site.coordinates[i], limit) for i in self.pair()]
        return {
            "title": words.site_title(site.site),
            "note": words.clip(site.note),
            "explained": [words.number(share * 100) for share in site.explained],
            "points": points,
        }

    def row(self, row: Row) -> dict[str, Any]:
        """One point."""
        return {
            "index": row.index,
            "id": words.clip(row.id, 80),
            "modality": row.modality,
            "caption": words.clip(row.text, CAPTION),
            "labels": {words.clip(k, 40): words.clip(v, 40) for k, v in row.labels.items()},
            "controls": {words.clip(k, 40): words.clip(v, 40) for k, v in row.controls.items()},
        }

    def drawings(self) -> list[tuple[str, str]]:
        """Static panels of the deepest site that can be drawn."""
        site = next((s for s in reversed(self.projection.sites) if s.coordinates is not None), None)
        if site is None or site.coordinates is None:
            return []
        limit = self.limit(site.coordinates)
        names = self.projection.checkpoints
        return [
            (names[i], static.map_svg(names[i], site.coordinates[i], self.rows, limit))
            for i in self.pair()
        ]
