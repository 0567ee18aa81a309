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
FOREST_WORDS = 152  # width of the names and numbers left of the marks
FOREST_ROW = 40
FOREST_EDGE = 34  # axis below the rows
LABEL = 27  # letters of a name that fit
NUMBERS = 28  # letters of a difference and its interval that fit
MAP_SIDE = 340
MAP_SHOWN = 100
"""Points a modality in the static map; the live one shows them all."""

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
    steps = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
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
    """Dots with intervals, one row each, its name and numbers to the left; a zero line."""
    height, left, right = forest_height(panel), FOREST_WORDS, FOREST_WIDTH - 4
    bottom = height - FOREST_EDGE

    def across(value: float) -> float:
        return left + (value - panel.low) / (panel.high - panel.low) * (right - left)

    zero = across(0.0)
    body = [better_side(panel.better, left, zero, right, bottom) if not panel.control else ""]
    body.append(line((left, bottom), (right, bottom), "axis"))
    for tick in ticks(panel.low, panel.high):
        body.append(line((across(tick), 0), (across(tick), bottom), "grid"))
        body.append(text(across(tick), bottom + 14, tick_label(tick), "tick", "middle"))
    body.append(line((zero, 0), (zero, bottom), "zero"))
    body += [line((across(v), 0), (across(v), bottom), "zero whole") for v in panel.lines]
    for i, row in enumerate(panel.rows):
        body.extend(forest_row(row, panel, FOREST_ROW * i, across))
    body.extend(better_arrow(panel, left, right, height - 3))
    return svg(
        FOREST_WIDTH, height, f"{panel.title}: {panel.hint or 'change from before to after'}", body
    )


def forest_row(row: ForestRow, panel: ForestPanel, top: float, across: Scale) -> list[str]:
    """One name, its numbers and its mark; an interval ends where the axis does."""
    change, y = row.difference, top + FOREST_ROW / 2
    places, low, high = panel.places, panel.low, panel.high
    body = [
        f'<g class="m-{row.family}">',
        text(0, y - 4, clip(row.label, LABEL), "label"),
        text(0, y + 11, forest_numbers(row, places), "value"),
    ]
    if change.interval is not None and change.interval.high > low:
        ends = (across(max(change.interval.low, low)), across(min(change.interval.high, high)))
        body.append(line((ends[0], y), (ends[1], y), "whisker"))
    if change.value is not None and change.value < low:
        body.append(text(across(low) + 1, y + 4, "\u25c2", "beyond"))
    elif change.value is not None:
        css = "solid" if clearly(change) else "hollow"
        body.append(mark(row.family, across(change.value), y, 5, css))
    return [*body, "</g>"]


def forest_numbers(row: ForestRow, places: int) -> str:
    """The difference and its interval if they fit; why there is none is in the table."""
    change = row.difference
    if change.value is None:
        return "not measured"
    if change.interval and change.interval.low == change.interval.high:
        return number(change.value)  # the same in every row: an interval would say nothing
    whole = with_interval(change.value, change.interval, places)
    return whole if len(whole) <= NUMBERS else number(change.value, places)


def better_side(better: str, left: float, zero: float, right: float, bottom: float) -> str:
    """A tint over the half where a change is an improvement."""
    if better == "neither":
        return ""
    start, end = (left, zero) if better == "lower" else (zero, right)
    return (
        f'<rect x="{start:.1f}" y="0" width="{end - start:.1f}" height="{bottom}" class="better"/>'
    )


def better_arrow(panel: ForestPanel, left: float, right: float, y: float) -> list[str]:
    """Which way is better, at that end of the axis; a control has no better way."""
    if panel.control:
        return [text((left + right) / 2, y, "expected: no change", "hint", "middle")]
    if panel.lines:
        return [
            text(left + (value - panel.low) / (panel.high - panel.low) * (right - left), y, word,
                 "hint", anchor)
            for value, word, anchor in (
                (0.0, panel.ends[0], "middle"),
                (panel.lines[-1], panel.ends[1], "middle" if panel.lines[-1] < panel.high * 0.85
                 else "end"),
            )
        ]  # fmt: skip
    if panel.better == "lower":
        return [text(left, y, "\u2190 better", "hint")]
    return [text(right, y, "better \u2192", "hint", "end")] if panel.better == "higher" else []


# -------------------------------------------------------------------------------------- map


def map_svg(name: str, coordinates: NDArray[np.float32], rows: Sequence[Row], limit: float) -> str:
    """Up to `MAP_SHOWN` points a modality of one checkpoint at one site."""
    body, drawn = [], dict.fromkeys((row.modality for row in rows), 0)
    half, scale = MAP_SIDE / 2, MAP_SIDE * 0.47 / limit
    for (x, y), row in zip(coordinates.tolist(), rows, strict=True):
        if drawn[row.modality] < MAP_SHOWN:
            drawn[row.modality] += 1
            css = f"m-{row.modality} point"
            body.append(mark(row.modality, half + x * scale, half - y * scale, 3.2, css))
    return svg(MAP_SIDE, MAP_SIDE, f"Map of {clip(name, 60)}: a sample of the points", body)
