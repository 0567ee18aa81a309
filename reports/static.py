"""Panels as SVG text, drawn here: what the page shows without scripts, in print, and at first.

Colours are classes, so the drawings follow the page's theme. All text from data is escaped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from geomkit.claims import clearly
from geomkit.types import Row
from reports.transfer import ForestPanel, ForestRow
from reports.words import clip, number, with_interval

LAYER_SIZE = (340, 200)
FOREST_WIDTH = 340
FOREST_ENDS = (8, 332)  # of the axis; half a mark has room beyond
FOREST_ROW = 46
FOREST_WORDS = 14  # below the top of a row: where its words stand, and the track under them
FOREST_TRACK = (22, 40)
FOREST_EDGE = 34  # axis below the rows
LETTERS = 54  # of a name and its numbers that fit side by side
NUMBERS = 28  # of them for a difference and its interval
MAP_SIDE = 340
MAP_SHOWN = 100
"""Points a modality in the static map; the live one shows them all."""

OUTLINES = {
    "text": "m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0z",
    "image": "m0-4l4 4-4 4-4-4z",
    "audio": "m-3-3h6v6h-6z",
    "video": "m0-4l4 7h-8z",
}
"""A mark about a point, as steps of a path."""

Point = tuple[float, float]
Scale = Callable[[float], float]


def svg(width: float, height: float, title: str, body: Sequence[str]) -> str:
    """One drawing with its name for screen readers."""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title)}">'
        f"{''.join(body)}</svg>"
    )


def text(x: float, y: float, content: str, css: str = "", anchor: str = "start") -> str:
    """A line of text."""
    place = f'x="{x:.1f}" y="{y:.1f}" class="{css}" text-anchor="{anchor}"'
    return f"<text {place}>{escape(content)}</text>"


def line(a: Point, b: Point, css: str) -> str:
    """A straight line."""
    return f'<line x1="{a[0]:.1f}" y1="{a[1]:.1f}" x2="{b[0]:.1f}" y2="{b[1]:.1f}" class="{css}"/>'


def path(points: Sequence[Point], css: str, *, closed: bool = False) -> str:
    """A broken line, or an area."""
    steps = "L".join(f"{x:.1f} {y:.1f}".replace(".0", "") for x, y in points)
    return f'<path d="M{steps}{"Z" if closed else ""}" class="{css}"/>'


def mark(kind: str, x: float, y: float, radius: float, css: str) -> str:
    """The shape of a modality: circle text, diamond image, square audio, triangle video."""
    if kind == "floor":
        return line((x, y - radius * 1.3), (x, y + radius * 1.3), "whisker")
    if kind == "text":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}" class="{css}"/>'
    r = radius * {"image": 1.3, "audio": 0.9}.get(kind, 1.1)
    corners = {
        "image": [(0, -r), (r, 0), (0, r), (-r, 0)],
        "audio": [(-r, -r), (r, -r), (r, r), (-r, r)],
    }.get(kind, [(0, -r), (r, r), (-r, r)])
    return path([(x + dx, y + dy) for dx, dy in corners], css, closed=True)


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers in a range."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** np.floor(np.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw)
    first = np.ceil(low / step)
    return [float(step * i) for i in np.arange(first, np.floor(high / step) + 1)]


def tick_label(value: float) -> str:
    """A tick without trailing zeros."""
    return f"{value + 0.0:.6g}".replace("-", "\u2212")  # adding zero turns -0 into 0


# ---------------------------------------------------------------------------------- transfer


def forest_height(panel: ForestPanel) -> int:
    """Height of a transfer panel: a row each, and the axis."""
    return FOREST_ROW * len(panel.rows) + FOREST_EDGE


def forest_svg(panel: ForestPanel) -> str:
    """Rows of words above a track; on it a dot with its interval, and where zero is."""
    height, (left, right) = forest_height(panel), FOREST_ENDS
    bottom = height - FOREST_EDGE

    def across(value: float) -> float:
        return left + (value - panel.low) / (panel.high - panel.low) * (right - left)

    levels = ticks(panel.low, panel.high)
    body = [
        tracks(panel, [(0, FOREST_WIDTH)], "track"),
        tracks(panel, better_side(panel, across), "better"),
        tracks(panel, [(across(tick) - 0.5, across(tick) + 0.5) for tick in levels], "rung"),
        tracks(panel, [(across(v) - 0.75, across(v) + 0.75) for v in (0.0, *panel.lines)], "zero"),
        *(text(across(tick), bottom + 14, tick_label(tick), "tick", "middle") for tick in levels),
    ]
    for i, row in enumerate(panel.rows):
        body.extend(forest_row(row, panel, FOREST_ROW * i, across))
    body.extend(better_arrow(panel, across, height - 3))
    return svg(
        FOREST_WIDTH, height, f"{panel.title}: {panel.hint or 'change from before to after'}", body
    )


def tracks(panel: ForestPanel, spans: Sequence[tuple[float, float]], css: str) -> str:
    """Boxes of the height of a track, the same in every row, in one path."""
    top, bottom = FOREST_TRACK
    way = "".join(
        f"M{a:.1f} {FOREST_ROW * i + top}H{b:.1f}v{bottom - top}H{a:.1f}z"
        for i in range(len(panel.rows))
        for a, b in spans
    )
    return f'<path d="{way}" class="{css}"/>' if way else ""


def forest_row(row: ForestRow, panel: ForestPanel, top: float, across: Scale) -> list[str]:
    """One name, its numbers and its mark; an interval ends where the axis does."""
    change, y = row.difference, top + sum(FOREST_TRACK) / 2
    places, low, high = panel.places, panel.low, panel.high
    label, numbers = forest_words(row, places)
    body = [
        f'<g class="m-{row.family}">',
        text(0, top + FOREST_WORDS, label, "label"),
        text(FOREST_WIDTH, top + FOREST_WORDS, numbers, "value", "end"),
    ]
    if change.interval is not None and change.interval.high > low:
        ends = (across(max(change.interval.low, low)), across(min(change.interval.high, high)))
        body.append(line((ends[0], y), (ends[1], y), "whisker"))
    if change.value is not None and change.value < low:
        body.append(text(across(low) - 7, y + 4, "\u25c2", "beyond"))
    elif change.value is not None:
        css = "solid" if clearly(change) else "hollow"
        body.append(mark(row.family, across(change.value), y, 5, css))
    return [*body, "</g>"]


def forest_words(row: ForestRow, places: int) -> tuple[str, str]:
    """A row's name, as long as its numbers let it be, and its numbers."""
    numbers = forest_numbers(row, places)
    return clip(row.label, LETTERS - len(numbers)), numbers


def forest_numbers(row: ForestRow, places: int) -> str:
    """The difference and its interval if they fit; why there is none is in the table."""
    change = row.difference
    if change.value is None:
        return "not measured"
    if change.interval and change.interval.low == change.interval.high:
        return number(change.value)  # the same in every row: an interval would say nothing
    whole = with_interval(change.value, change.interval, places)
    return whole if len(whole) <= NUMBERS else number(change.value, places)


def better_side(panel: ForestPanel, across: Scale) -> list[tuple[float, float]]:
    """The half of the axis where a change is an improvement; a control has none."""
    if panel.control or panel.better == "neither":
        return []
    zero = across(0.0)
    return [(0, zero) if panel.better == "lower" else (zero, FOREST_WIDTH)]


def better_arrow(panel: ForestPanel, across: Scale, y: float) -> list[str]:
    """Which way is better, at that end of the axis; a control has no better way."""
    if panel.control:
        return [text(FOREST_WIDTH / 2, y, "expected: no change", "hint", "middle")]
    if panel.lines:
        named = zip((0.0, panel.lines[-1]), panel.ends, strict=True)
        return [text(across(value), y, word, "hint", end_of(value, panel)) for value, word in named]
    if panel.better == "lower":
        return [text(0, y, "\u2190 better", "hint")]
    right = text(FOREST_WIDTH, y, "better \u2192", "hint", "end")
    return [right] if panel.better == "higher" else []


def end_of(value: float, panel: ForestPanel) -> str:
    """Where a word under the axis is held, so that none leaves the drawing."""
    share = (value - panel.low) / (panel.high - panel.low)
    return "start" if share < 0.05 else "end" if share > 0.95 else "middle"


# -------------------------------------------------------------------------------------- map


def map_svg(name: str, coordinates: NDArray[np.float32], rows: Sequence[Row], limit: float) -> str:
    """Up to `MAP_SHOWN` points a modality of one checkpoint at one site, in one path each."""
    half, scale = MAP_SIDE / 2, MAP_SIDE * 0.47 / limit
    ways: dict[str, list[str]] = {}
    for (x, y), row in zip(coordinates.tolist(), rows, strict=True):
        way = ways.setdefault(row.modality, [])
        if len(way) < MAP_SHOWN:
            way.append(f"M{half + x * scale:.0f} {half - y * scale:.0f}{OUTLINES[row.modality]}")
    body = [f'<path d="{"".join(way)}" class="m-{kind} point"/>' for kind, way in ways.items()]
    return svg(MAP_SIDE, MAP_SIDE, f"Map of {clip(name, 60)}: a sample of the points", body)
