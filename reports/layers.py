"""Every metric over the sites of the decoder, before and after, gaps included."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from geomkit.claims import LEAST, clearly
from geomkit.types import MODALITIES, Better, Difference, Measurement, Status
from reports.book import FINAL, Book, known, padded, reach
from reports.metrics import FAMILIES, Family, family_of
from reports.words import (
    clip,
    decimals,
    family,
    metric_meaning,
    metric_title,
    modality_title,
    site_title,
)

SET_APART = 1.6
"""Distance, in blocks, of the final norm from the last block: it is another kind of site."""
AXIS, LETTER, APART = 266.0, 6.3, 5.0
"""Widths of the axis and of a letter under it, and between two names, in the drawing's units."""
NUMBERS = re.compile(r"\d+")
FLATTEST = 0.3
"""Least share of an axis that the values keep for themselves when chance is drawn too."""


@dataclass(frozen=True, slots=True)
class LayerPanel:
    """One metric in one modality over the sites, before and after.

    `before` and `after` hold one entry a site, None where nothing was measured; so does each of
    `between`, the checkpoints in the middle; `told` is what each difference may claim; `gaps` names
    the sites without a value and says why; `low` and `high` are shared by the panels of a metric.
    """

    key: str
    metric: str
    modality: str
    family: str
    sites: tuple[str, ...]
    places: tuple[float, ...]
    before: tuple[Measurement | None, ...]
    after: tuple[Measurement | None, ...]
    differences: tuple[Difference | None, ...]
    told: tuple[Status, ...]
    gaps: tuple[tuple[str, str], ...]
    low: float
    high: float
    between: tuple[tuple[str, tuple[Measurement | None, ...]], ...] = ()

    @property
    def places_of_values(self) -> int:
        """Decimals that all its values are written with."""
        own = (m.value for m in (*self.before, *self.after) if m is not None)
        return decimals(v for v in own if v is not None)


@dataclass(frozen=True, slots=True)
class LayerGroup:
    """The panels of one metric."""

    metric: str
    title: str
    meaning: str
    better: Better
    panels: tuple[LayerPanel, ...]
    gaps: tuple[tuple[str, str], ...]
    off_scale: float | None  # a chance level or floor so far off that it would flatten the curves

    @property
    def key(self) -> str:
        """The id of its table's place in the page."""
        return self.panels[0].key.replace("layers", "numbers").rpartition("-")[0]

    @property
    def asked(self) -> tuple[int, int]:
        """At how many sites it was measured, of how many."""
        panel = self.panels[0]
        pairs = zip(panel.before, panel.after, strict=True)
        return sum(any(pair) for pair in pairs), len(panel.sites)

    @property
    def clear(self) -> int:
        """Sites, of all its modalities, where the change is clear."""
        return sum(d is not None and clearly(d) for p in self.panels for d in p.differences)

    @property
    def measured(self) -> int:
        """Sites, of all its modalities, with a change at all."""
        return sum(
            d is not None and d.value is not None for p in self.panels for d in p.differences
        )


@dataclass(frozen=True, slots=True)
class LayerFamily:
    """The metrics that answer one question."""

    family: Family
    groups: tuple[LayerGroup, ...]

    @property
    def clear(self) -> int:
        """Sites where a change is clear, over all its metrics."""
        return sum(group.clear for group in self.groups)

    @property
    def measured(self) -> int:
        """Sites with a change, over all its metrics."""
        return sum(group.measured for group in self.groups)


def layer_families(groups: Sequence[LayerGroup]) -> tuple[LayerFamily, ...]:
    """The groups by the question they answer; families without any are left out."""
    return tuple(
        LayerFamily(one, own)
        for one in FAMILIES
        if (own := tuple(g for g in groups if family_of(g.metric) == one.key))
    )


def layer_groups(book: Book) -> tuple[LayerGroup, ...]:
    """Every metric that was measured at the decoder's sites, in the analysis' order."""
    by_metric: dict[str, list[Measurement]] = {}
    for m in (*book.analysis.measurements, *book.drifts):
        if m.site in book.analysis.sites:
            by_metric.setdefault(m.metric, []).append(m)
    groups = []
    for i, (metric, here) in enumerate(by_metric.items()):
        kinds = sorted(
            dict.fromkeys(m.modality for m in here),
            key=lambda kind: MODALITIES.index(known(family(kind))),
        )
        low, high, off_scale = layer_range(here)
        panels = tuple(
            layer_panel(book, f"layers-{i}-{j}", metric, kind, low, high)
            for j, kind in enumerate(kinds)
        )
        gaps = tuple(dict.fromkeys(gap for panel in panels for gap in panel.gaps))
        known_as = (metric, metric_title(metric), metric_meaning(metric), here[0].better)
        groups.append(LayerGroup(*known_as, panels, gaps, off_scale))
    return tuple(groups)


def common_gaps(groups: Sequence[LayerGroup]) -> list[tuple[str, str]]:
    """Sites where no metric has a value, said once, with the commonest reason."""
    if len(groups) < 2:
        return []
    empty = [{site for site, _ in group.gaps if is_empty(group, site)} for group in groups]
    found = []
    for site in groups[0].panels[0].sites:
        if all(site in own for own in empty):
            reasons = Counter(r for g in groups for s, r in g.gaps if s == site)
            found.append((site, reasons.most_common(1)[0][0]))
    return found


def is_empty(group: LayerGroup, site: str) -> bool:
    """Whether a metric has no value at a site in any modality."""
    return all(any(gap == site for gap, _ in panel.gaps) for panel in group.panels)


def own_gaps(group: LayerGroup, common: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """A metric's gaps that are not common; reasons that differ only in their numbers, once."""
    told = {site for site, _ in common}
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for site, reason in group.gaps:
        if site not in told:
            found.setdefault((site, NUMBERS.sub("#", reason)), (site, reason))
    return list(found.values())


def layer_range(measurements: Sequence[Measurement]) -> tuple[float, float, float | None]:
    """The range of every value and interval end, and of chance unless that flattens the rest."""
    ends = [v for m in measurements for v in reach(m.value, m.interval)]
    if not ends:
        return 0.0, 1.0, None
    levels = [m.chance for m in measurements if m.chance is not None and m.value is not None]
    whole = [*ends, *levels]
    if max(ends) - min(ends) < FLATTEST * (max(whole) - min(whole)):
        return *padded(min(ends), max(ends)), levels[0]
    return *padded(min(whole), max(whole)), None


def layer_panel(
    book: Book, key: str, metric: str, modality: str, low: float, high: float
) -> LayerPanel:
    """One panel; the final norm stands apart from the blocks."""
    sites = book.analysis.sites

    def of(checkpoint: str) -> tuple[Measurement | None, ...]:
        return tuple(book.measurements.get((metric, s, modality, checkpoint)) for s in sites)

    before, after = of(book.before), of(book.after)
    differences = tuple(book.differences.get((metric, s, modality)) for s in sites)
    told: tuple[Status, ...] = tuple(book.status(d) if d else "NOT RUN" for d in differences)
    gaps = tuple(
        (site, reason)
        for site, pair in zip(sites, zip(before, after, strict=True), strict=True)
        if (reason := gap_reason(pair))
    )
    return LayerPanel(
        key, metric, modality, family(modality), sites, site_places(sites), before, after,
        differences, told, gaps, low, high, tuple((name, of(name)) for name in book.between),
    )  # fmt: skip


def gap_reason(pair: Sequence[Measurement | None]) -> str:
    """Why neither checkpoint has a value here; empty when one has, or when nobody asked."""
    if any(m is not None and m.value is not None for m in pair) or not any(pair):
        return ""
    notes = [m.note for m in pair if m is not None and m.note]
    return notes[0] if notes else "not measured"


def site_places(sites: Sequence[str]) -> tuple[float, ...]:
    """Where each site stands on the axis, in blocks."""
    places, place = [], -1.0
    for site in sites:
        place += SET_APART if site == FINAL and place >= 0 else 1.0
        places.append(place)
    return tuple(places)


def payload(groups: Sequence[LayerGroup], book: Book) -> dict[str, Any] | None:
    """What the page's script needs to draw the curves from the records; None without any."""
    if not groups:
        return None
    sites = book.analysis.sites
    return {
        "before": book.before, "after": book.after, "between": list(book.between),
        "sites": [
            {"name": site, "title": site_title(site), "place": place, "apart": site == FINAL}
            for site, place in zip(sites, site_places(sites), strict=True)
        ],
        "ticks": site_ticks(sites),
        "groups": [
            {
                "key": group.key, "title": group.title,
                "panels": [
                    {
                        "key": p.key, "metric": p.metric, "modality": p.modality,
                        "shown": modality_title(p.modality), "family": p.family,
                        "low": p.low, "high": p.high, "least": LEAST.get(p.metric, 0.0),
                    }
                    for p in group.panels
                ],
            }
            for group in groups
        ],
    }  # fmt: skip


def site_ticks(sites: Sequence[str], most: int = 7) -> list[tuple[float, str]]:
    """Short names under the axis: the ends always, the blocks thinned out until none touch."""
    named = list(zip(site_places(sites), sites, strict=True))
    blocks = [(p, s) for p, s in named if s.startswith("block_")]
    step = max(1, -(-len(blocks) // most))
    kept = [(p, site_label(s)) for p, s in named if not s.startswith("block_")]
    place = AXIS / (named[-1][0] or 1.0) if named else 1.0
    for at, site in blocks[::step]:
        label = site_label(site)
        if all(
            abs(at - other) * place > LETTER * (len(label) + len(word)) / 2 + APART
            for other, word in kept
        ):
            kept.append((at, label))
    return sorted(kept)


def site_label(site: str) -> str:
    """A site's name in a narrow column."""
    if site.startswith("block_"):
        return site.removeprefix("block_").lstrip("0") or "0"
    return {FINAL: "norm", "embed": "emb"}.get(site, clip(site_title(site), 8))


def runs(
    panel: LayerPanel, measurements: Sequence[Measurement | None]
) -> list[list[tuple[float, Measurement]]]:
    """Stretches of measured sites with a value; a gap and the final norm each end one.

    A site that was not measured, where others were, is no gap: the line passes it by.
    """
    each = zip(panel.sites, panel.places, measurements, strict=True)
    entries = [(site, place, m) for site, place, m in each if m is not None]

    def stretch(entry: tuple[str, float, Measurement]) -> tuple[bool, bool]:
        site, _, m = entry
        return (m.value is not None, site == FINAL)

    return [
        [(place, m) for _, place, m in group]
        for (valued, _), group in groupby(entries, key=stretch)
        if valued
    ]
