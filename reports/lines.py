"""Lines over an axis that is not the decoder's depth: training steps, or checkpoints in a row.

One panel has one unit; its lines are modalities, each with its colour, its shape and its dashes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from geomkit.types import MODALITIES, Interval
from reports.book import known, padded, reach
from reports.figures import SYMBOLS, Figure, axis, figure, plain
from reports.static import LAYER_SIZE, Point, line, mark, path, svg, text, tick_label, ticks
from reports.words import clip, number, with_interval

MARKED = 12
"""Up to so many points a line they are drawn as marks too."""
PLAIN_DASHES = ("solid", "dash", "dot", "dashdot")
"""Of lines of one family, in turn: directions, and pairs."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line; a place without a value breaks it."""

    name: str
    family: str
    places: tuple[float, ...]
    values: tuple[float | None, ...]
    intervals: tuple[Interval | None, ...] = ()

    @property
    def points(self) -> tuple[tuple[float, float, Interval | None], ...]:
        """The places that have a value."""
        spans = self.intervals or (None,) * len(self.places)
        whole = zip(self.places, self.values, spans, strict=True)
        return tuple((at, value, span) for at, value, span in whole if value is not None)


@dataclass(frozen=True, slots=True)
class LinesPanel:
    """Lines of one unit on shared axes; `names` are the places that have a name of their own."""

    key: str
    title: str
    hint: str
    lines: tuple[Line, ...]
    names: tuple[str, ...] = ()  # of places 0, 1, 2 ...; empty where places are numbers

    @property
    def range(self) -> tuple[float, float]:
        """The values and intervals of all lines, with room."""
        ends = [v for one in self.lines for _, y, span in one.points for v in reach(y, span)]
        return padded(min(ends), max(ends)) if ends else (0.0, 1.0)

    @property
    def span(self) -> tuple[float, float]:
        """The first and the last place."""
        places = [p for one in self.lines for p in one.places]
        low, high = (min(places), max(places)) if places else (0.0, 1.0)
        return (low, high) if high > low else (low - 0.5, high + 0.5)


def ordered(lines: Sequence[Line]) -> tuple[Line, ...]:
    """Lines with a value, in canonical order of modalities."""
    own = [one for one in lines if one.points]
    return tuple(sorted(own, key=lambda one: MODALITIES.index(known(one.family))))


def dash_of(panel: LinesPanel, at: int) -> int:
    """How many lines of the same family stand before this one: its dashes."""
    own = panel.lines[at].family
    return sum(one.family == own for one in panel.lines[:at]) % len(PLAIN_DASHES)


def line_names(panels: Sequence[LinesPanel]) -> tuple[tuple[str, str, int], ...]:
    """Name, family and dashes of every line, each once, for a legend."""
    named = (
        (one.name, one.family, dash_of(panel, i))
        for panel in panels
        for i, one in enumerate(panel.lines)
    )
    return tuple(dict.fromkeys(named))


def lines_figure(panel: LinesPanel) -> Figure:
    """The panel for plotly."""
    low, high = panel.span
    room = (high - low) * (0.12 if panel.names else 0.02)
    places = axis(range=[low - room, high + room], nticks=5, showgrid=False)
    if panel.names:
        places |= {"tickvals": list(range(len(panel.names))), "ticktext": shortened(panel.names)}
    return figure(
        [line_trace(panel, i) for i in range(len(panel.lines))],
        margin={"l": 46, "r": 8, "t": 8, "b": 24},
        xaxis=places,
        yaxis=axis(range=list(panel.range), nticks=5, tickformat="~g"),
        hovermode="x unified" if len(panel.lines) > 1 else "closest",
    )


def line_trace(panel: LinesPanel, at: int) -> Figure:
    """One line of the panel, its intervals as whiskers."""
    one = panel.lines[at]
    ink, points = f"@{one.family}", one.points
    trace: Figure = {
        "type": "scatter",
        "mode": "lines+markers" if len(points) <= MARKED else "lines",
        "x": [x for x, _, _ in points],
        "y": [y for _, y, _ in points],
        "name": plain(one.name, 40),
        "customdata": [with_interval(y, span) for _, y, span in points],
        "hovertemplate": "%{customdata}"
        + ("" if len(panel.lines) > 1 else f"<extra>{'' if panel.names else 'step %{x}'}</extra>"),
        "line": {"color": ink, "width": 2, "dash": PLAIN_DASHES[dash_of(panel, at)]},
        "marker": {"symbol": SYMBOLS[one.family], "size": 8, "color": ink},
    }
    if any(span for _, _, span in points):
        trace["error_y"] = {
            "type": "data", "symmetric": False, "color": ink, "thickness": 1.5, "width": 0,
            "array": [span.high - y if span else 0.0 for _, y, span in points],
            "arrayminus": [y - span.low if span else 0.0 for _, y, span in points],
        }  # fmt: skip
    return trace


def lines_svg(panel: LinesPanel) -> str:
    """The panel as a drawing."""
    width, height = LAYER_SIZE
    left, right, top, bottom = 46, width - 8, 8, height - 24
    (first, last), (low, high) = panel.span, panel.range
    room = 26 if panel.names else 4

    def at(x: float, y: float) -> Point:
        share = (x - first) / (last - first)
        return left + room + share * (right - left - 2 * room), bottom - (y - low) / (
            high - low
        ) * (bottom - top)

    body = []
    for tick in ticks(low, high):
        body.append(line((left, at(first, tick)[1]), (right, at(first, tick)[1]), "grid"))
        body.append(text(left - 6, at(first, tick)[1] + 4, tick_label(tick), "tick", "end"))
    for x, name in place_names(panel):
        body.append(text(at(x, low)[0], bottom + 16, name, "tick", "middle"))
    for i, one in enumerate(panel.lines):
        spots = [at(x, y) for x, y, _ in one.points]
        body.append(f'<g class="m-{one.family}">{path(spots, f"curve s{dash_of(panel, i)}")}')
        for x, _, span in one.points:
            body += [line(at(x, span.low), at(x, span.high), "whisker")] if span else []
        if len(spots) <= MARKED:
            body += [mark(one.family, *spot, 3.6, "solid") for spot in spots]
        body.append("</g>")
    return svg(width, height, f"{panel.title}: {panel.hint}", body)


def place_names(panel: LinesPanel) -> list[tuple[float, str]]:
    """What stands under the axis."""
    if panel.names:
        return list(enumerate(shortened(panel.names)))
    return [(tick, number(int(tick)) if tick == int(tick) else "") for tick in ticks(*panel.span)]


def shortened(names: Sequence[str]) -> list[str]:
    """Names that fit side by side under one panel; where there are many, the first and the last."""
    width = max(4, 42 // max(1, len(names)))
    if len(names) > 8:
        return [clip(n, 8) if i in (0, len(names) - 1) else "" for i, n in enumerate(names)]
    return [clip(name, width) for name in names]
