"""Where in the decoder things changed: every difference as a cell, metric or modality x site.

Metrics have their own units, so a cell's depth is its difference over the largest one of its
metric, over all modalities and sites; the sign is that of better or worse where there is such. A
change that may claim nothing has neither: no better way, or a distance that the spread explains.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from geomkit.claims import negligible
from geomkit.types import Difference, Status
from reports.book import Certainty, certainty
from reports.layers import LayerGroup
from reports.metrics import family_of
from reports.words import decimals, modality_title, site_title, with_interval

ROUNDING = 1e-6
"""A metric whose largest change is below this share of its values did not change at all."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One difference: `share` in [-1, 1] of the largest of its metric, positive is better."""

    share: float
    certainty: Certainty
    text: str
    judged: bool  # better or worse, not merely more or less


@dataclass(frozen=True, slots=True)
class HeatRow:
    """One metric in one modality over the sites; None where there is no difference."""

    metric: str
    title: str
    family: str  # of the modality: its colour and shape
    modality: str
    headline: bool
    cells: tuple[Cell | None, ...]

    @property
    def still(self) -> bool:
        """Whether no cell has any depth."""
        return not any(c is not None and c.share for c in self.cells)


def heat_rows(groups: Sequence[LayerGroup]) -> tuple[HeatRow, ...]:
    """A row for every panel that has a difference somewhere."""
    rows = []
    for group in groups:
        changes = [d for p in group.panels for d in p.differences if d and d.value is not None]
        largest = max((abs(d.value or 0.0) for d in changes), default=0.0)
        if largest < ROUNDING * level(group):
            largest = 0.0
        places = decimals([d.value or 0.0 for d in changes])
        for panel in group.panels:
            both = zip(panel.differences, panel.told, strict=True)
            cells = tuple(cell(d, told, largest, places) for d, told in both)
            if any(cells):
                rows.append(
                    HeatRow(
                        group.metric, group.title, panel.family, panel.modality,
                        family_of(group.metric) == "headline", cells,
                    )
                )  # fmt: skip
    return tuple(rows)


def level(group: LayerGroup) -> float:
    """The largest value of a metric, before or after: what rounding is a share of."""
    own = (m for p in group.panels for m in (*p.before, *p.after) if m is not None)
    return max((abs(m.value or 0.0) for m in own), default=0.0)


def cell(difference: Difference | None, told: Status, largest: float, places: int) -> Cell | None:
    """One difference as a cell; what rounding can do is none."""
    if difference is None or difference.value is None:
        return None
    better = -1.0 if difference.better == "lower" else 1.0
    still = not largest or negligible(difference)
    share = 0.0 if still else better * difference.value / largest
    shown = with_interval(difference.value, difference.interval, places)
    return Cell(share, "no" if still else certainty(difference), shown, told != "info")


def payload(rows: Sequence[HeatRow], sites: Sequence[str]) -> dict[str, Any]:
    """What the page's script reads: views to choose from, and their rows."""
    marks = {"no": 0, "here": 1, "everywhere": 2}
    return {
        "sites": [{"name": site, "title": site_title(site)} for site in sites],
        "rows": [
            {
                "name": row.metric, "metric": row.title, "modality": row.modality,
                "headline": row.headline,
                "shown": modality_title(row.modality), "family": row.family,
                "cells": [
                    None if c is None else [round(c.share, 3), marks[c.certainty], int(c.judged)]
                    for c in row.cells
                ],
            }
            for row in rows
        ],
    }  # fmt: skip
