"""Cosines of pairs and spectra as SVG text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from geomkit.pictures.records import Cosines, Spectrum
from reports.pairs import PairPanel, SpectrumPanel
from reports.static import LAYER_SIZE, Point, Scale, line, path, svg, text, tick_label, ticks
from reports.words import clip, site_title

PAIR_SIZE = (340, 220)


def pair_svg(panel: PairPanel) -> str:
    """Matched pairs as areas, random ones as lines; before above after, on one axis."""
    width, height = PAIR_SIZE
    left, right, bottom = 8, width - 8, height - 24
    low = min(c.low for c in panel.shown)
    high = max(c.high for c in panel.shown)

    def across(value: float) -> float:
        return left + (value - low) / (high - low) * (right - left)

    body = [
        part
        for tick in ticks(low, high)
        for part in (
            line((across(tick), 4), (across(tick), bottom), "grid"),
            text(across(tick), bottom + 16, tick_label(tick), "tick", "middle"),
        )
    ]
    body.append(f'<g class="m-{panel.family}">')
    share = bottom / len(panel.shown)
    for i, one in enumerate(panel.shown):
        floor = share * (i + 1)
        body.extend(histogram(one, across, floor, share - 24))
        body.append(line((left, floor), (right, floor), "axis"))
        name = ("before", "after")[i] if len(panel.shown) > 1 else ""
        body.append(text(left, floor - share + 16, name, "label"))
    body.append("</g>")
    return svg(width, height, f"Cosines of {panel.title} pairs, matched and random", body)


def histogram(one: Cosines, across: Scale, floor: float, height: float) -> list[str]:
    """The two densities of a checkpoint, each as high as the space."""
    return [
        path(steps(one, one.random, across, floor, height), "random", closed=True),
        path(steps(one, one.matched, across, floor, height), "matched", closed=True),
    ]


def steps(
    one: Cosines, counts: Sequence[int], across: Scale, floor: float, height: float
) -> list[Point]:
    """The outline of a histogram, from the floor and back to it."""
    width, most = (one.high - one.low) / len(counts), max(*counts, 1)
    points: list[Point] = [(across(one.low), floor)]
    for i, count in enumerate(counts):
        top = floor - height * count / most
        points += [(across(one.low + width * i), top), (across(one.low + width * (i + 1)), top)]
    return [*points, (across(one.high), floor)]


def wins_svg(panel: PairPanel) -> str:
    """How often a matched pair is closer than a random one, over the sites."""
    width, height = LAYER_SIZE
    left, right, top, bottom = 46, width - 8, 8, height - 24
    span = max(panel.places[-1], 1.0)
    values = [v for pair in panel.wins for v in pair if v is not None]
    low, high = min(0.5, *values) - 0.02, 1.0

    def at(place: float, value: float) -> Point:
        x = left + 10 + place / span * (right - left - 20)
        return x, bottom - (value - low) / (high - low) * (bottom - top)

    body = []
    for tick in ticks(low, high):
        y = at(0, tick)[1]
        body.append(line((left, y), (right, y), "grid"))
        body.append(text(left - 6, y + 4, tick_label(tick), "tick", "end"))
    named = ((panel.places[0], panel.sites[0]), (panel.places[-1], panel.sites[-1]))
    for (place, site), anchor in zip(named, ("start", "end"), strict=True):
        x = at(place, low)[0] + (10 if anchor == "end" else -10)
        body.append(text(x, bottom + 16, clip(site_title(site), 16), "tick", anchor))
    body.append(path([at(0, 0.5), at(span, 0.5)], "chance"))
    body.append(f'<g class="m-{panel.family}">')
    for i in range(len(panel.shown)):
        css = "before" if i == 0 and len(panel.shown) > 1 else "after"
        at_sites = zip(panel.places, (v[i] for v in panel.wins), strict=True)
        points = [at(place, value) for place, value in at_sites if value is not None]
        body.append(path(points, f"curve {css}"))
    body.append("</g>")
    return svg(width, height, f"{panel.title}: matched closer than random, over the layers", body)


def spectrum_svg(panel: SpectrumPanel) -> str:
    """Before dashed, after solid, both axes logarithmic."""
    width, height = LAYER_SIZE
    left, right, top, bottom = 46, width - 8, 8, height - 24
    drawn = [s for s in panel.shown if s.values]
    if not drawn:
        note = text(width / 2, height / 2, panel.shown[0].note, "missing", "middle")
        return svg(width, height, f"Spectrum of {panel.modality}: {panel.shown[0].note}", [note])
    most = max(max(s.ranks) for s in drawn)
    ends = [math.log10(v) for s in drawn for v in (s.values[0], s.values[-1])]
    low, high = min(ends) - 0.1, max(ends) + 0.1

    def at(rank: float, value: float) -> Point:
        x = left + math.log(rank) / (math.log(most) or 1.0) * (right - left)
        return x, bottom - (math.log10(value) - low) / (high - low) * (bottom - top)

    body = []
    for power in range(math.ceil(low), math.floor(high) + 1):
        y = at(1, 10.0**power)[1]
        body.append(line((left, y), (right, y), "grid"))
        body.append(text(left - 6, y + 4, tick_label(10.0**power), "tick", "end"))
    decades = (10**power for power in range(int(math.log10(most)) + 1))
    body.extend(text(at(d, 1)[0], bottom + 16, str(d), "tick", "middle") for d in decades)
    body.append(f'<g class="m-{panel.modality}">')
    body.extend(curve(s, at, panel.shown.index(s), len(panel.shown)) for s in drawn)
    body.append("</g>")
    return svg(width, height, f"Spectrum of {panel.modality} states", body)


def curve(spectrum: Spectrum, at: Callable[[float, float], Point], place: int, of: int) -> str:
    """One line of a spectrum."""
    points = [at(r, v) for r, v in zip(spectrum.ranks, spectrum.values, strict=True)]
    return path(points, "curve before" if place == 0 and of > 1 else "curve after")
