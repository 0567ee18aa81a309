"""The map: coordinates, cosines and neighbours of the rows shown, as the page reads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geomkit.pictures.records import OWN_SHOWN, Album
from geomkit.projection import Projection, SiteMap
from geomkit.types import MODALITIES, Row
from reports import arrays, static, words

CAPTION = 200


@dataclass(frozen=True)
class Shown:
    """What the map shows: rows in the projection's order; no slots, because it keeps its arrays.

    Without an album there are points and captions, but neither neighbours nor cosines.
    """

    projection: Projection
    rows: tuple[Row, ...]
    album: Album | None = None
    webgl: bool = False

    def pair(self) -> tuple[int, ...]:
        """Places of the first and the last checkpoint."""
        last = len(self.projection.checkpoints) - 1
        return (0, last) if last > 0 else (0,)

    @cached_property
    def drawn(self) -> tuple[SiteMap, ...]:
        """The sites that have a map."""
        return tuple(s for s in self.projection.sites if s.coordinates is not None)

    @property
    def by_need(self) -> tuple[Row, ...]:
        """The rows in the order in which readers look for their media: the gallery's first.

        Its samples, then their neighbours, each in all its views, then the rest.
        """
        changes = self.album.changes if self.album else ()
        first = (c.place for c in changes)
        then = (place for c in changes for place in (*c.before, *c.after))
        wanted = dict.fromkeys(self.rows[place].id for place in (*first, *then))
        order = {name: i for i, name in enumerate(wanted)}
        return tuple(sorted(self.rows, key=lambda row: order.get(row.id, len(order))))

    # ------------------------------------------------------------------------ for the script

    @cached_property
    def packed(self) -> tuple[dict[str, Any], str]:
        """Every array of the map as one text, and where in it each is."""
        found: dict[str, NDArray[Any]] = {
            "pca": stacked(
                [
                    arrays.coordinates(framed(s.coordinates))
                    for s in self.drawn
                    if s.coordinates is not None
                ],
                np.uint16,
            )
        }
        if self.album is not None:
            kinds = np.array([MODALITIES.index(row.modality) for row in self.rows])
            found |= album_arrays(self.album, self.drawn, kinds)
        return arrays.packed_arrays(found)

    @property
    def points(self) -> str:
        """The arrays as text, for the page."""
        return self.packed[1]

    def payload(self) -> dict[str, Any]:
        """What the page's script reads besides the arrays."""
        names = self.projection.checkpoints
        return {
            "checkpoints": [words.clip(name, 60) for name in names],
            "left": self.pair()[0], "right": self.pair()[-1],
            "sites": [self.site(s) for s in self.projection.sites],
            "samples": samples(self.rows),
            "rows": row_columns(self.rows),
            "arrays": self.packed[0],
            "levels": {"pca": arrays.COORDINATE_LEVELS, "cosine": arrays.COSINE_LEVELS},
            "webgl": self.webgl,
        }  # fmt: skip

    def site(self, site: SiteMap) -> dict[str, Any]:
        """One stop of the slider; `pca`, `umap` and `near` say where in the arrays it is."""
        found: dict[str, Any] = {
            "name": words.clip(site.site, 60),
            "title": words.site_title(site.site),
            "note": words.clip(site.note),
            "explained": [words.number(share * 100) for share in site.explained],
            "pca": place_of(site.site, [s.site for s in self.drawn]),
        }
        if self.album is not None:
            at = [s.site for s in self.projection.sites].index(site.site)
            low, high, _ = arrays.cosine_steps(self.album.cosine[at])
            found["cosine"] = [low, high]
            found["umap"] = place_of(site.site, [entry.site for entry in self.album.layouts])
            found["near"] = place_of(site.site, [entry.site for entry in self.album.closeness])
        return found

    # ------------------------------------------------------------------------- without script

    def drawings(self) -> list[tuple[str, str]]:
        """Static panels of the deepest site that can be drawn."""
        if not self.drawn or self.drawn[-1].coordinates is None:
            return []
        shares, names = framed(self.drawn[-1].coordinates), self.projection.checkpoints
        return [
            (names[i], static.map_svg(names[i], shares[i].astype(np.float32), self.rows, 1.0))
            for i in self.pair()
        ]


def framed(coordinates: NDArray[np.float32]) -> NDArray[np.float64]:
    """All checkpoints of a site in one square from -1 to 1, both axes at one scale."""
    wide = coordinates.astype(np.float64)
    low, high = wide.min(axis=(0, 1)), wide.max(axis=(0, 1))
    return np.asarray((wide - (low + high) / 2) / (float((high - low).max()) / 2 or 1.0))


def album_arrays(
    album: Album, drawn: Sequence[SiteMap], kinds: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    """Layouts, cosines and neighbours: a site, then a checkpoint, then a row.

    Two views of one sample have one cosine, told once. Neighbours are counted among the rows of
    their own modality, which packs better than among all.
    """
    sites = [s.site for s in album.projection.sites]
    near, told = album.closeness, arrays.firsts(album.partner)
    return {
        "umap": stacked(
            [arrays.coordinates(framed(e.coordinates)) for e in album.layouts], np.uint16
        ),
        "cosine": stacked(
            [arrays.cosine_steps(album.cosine[sites.index(s.site)])[2][:, told] for s in drawn],
            np.uint8,
        ),
        "partner": arrays.places(album.partner),
        "own": stacked(
            [arrays.places(arrays.within(n.own[:, :, :OWN_SHOWN], kinds)) for n in near], np.uint16
        ),
        "across": stacked([arrays.places(arrays.within(n.across, kinds)) for n in near], np.uint16),
        "rank": stacked([arrays.places(n.rank) for n in near], np.uint16),
    }


def stacked(parts: Sequence[NDArray[Any]], kind: type[np.generic]) -> NDArray[Any]:
    """Parts as one array; an empty one when there are none."""
    return np.stack(parts) if parts else np.zeros(0, kind)


def place_of(name: str, names: Sequence[str]) -> int | None:
    """Where a name stands, or None."""
    return names.index(name) if name in names else None


def samples(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """What people read of each sample, once for all its views."""
    return [
        {
            "id": words.clip(row.id, 80),
            "caption": words.clip(row.text, CAPTION),
            "labels": {words.clip(k, 40): words.clip(v, 40) for k, v in row.labels.items()},
            "controls": {words.clip(k, 40): words.clip(v, 40) for k, v in row.controls.items()},
        }
        for row in {row.id: row for row in reversed(rows)}.values()
    ][::-1]


def row_columns(rows: Sequence[Row]) -> dict[str, list[int]]:
    """Each row's plan index, modality and sample, a column each; as steps from the row before."""
    ids = [row.id for row in {row.id: row for row in reversed(rows)}.values()][::-1]
    places = {name: i for i, name in enumerate(ids)}
    return {
        "index": steps([row.index for row in rows]),
        "modality": [MODALITIES.index(row.modality) for row in rows],
        "sample": steps([places[row.id] for row in rows]),
    }


def steps(values: Sequence[int]) -> list[int]:
    """The first, and how far each next one is from it: mostly the same few numbers."""
    return [b - a for a, b in zip((0, *values), values, strict=False)]
