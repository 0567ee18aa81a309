"""Panels as plotly figures: plain dicts, colours by name, so that the page can re-theme them.

A colour is "@name" or "@name/opacity"; the page's script replaces it with the theme's colour.
Plotly reads a small markup in its texts, so all text from data is escaped for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from geomkit.claims import clearly
from geomkit.types import Difference
from reports.static import (
    FOREST_EDGE,
    FOREST_ENDS,
    FOREST_ROW,
    FOREST_TRACK,
    FOREST_WIDTH,
    FOREST_WORDS,
    end_of,
    forest_words,
    tick_label,
    ticks,
)
from reports.transfer import ForestPanel, ForestRow
from reports.words import clip, number, with_interval

Figure = dict[str, Any]

ENDS = [end / FOREST_WIDTH for end in FOREST_ENDS]
"""Of the axis of a transfer panel, as shares of its width."""
TRACK = [edge / FOREST_ROW for edge in FOREST_TRACK]
"""Of a row of a transfer panel, as shares of its height."""

SYMBOLS = {
    "text": "circle",
    "image": "diamond",
    "audio": "square",
    "video": "triangle-up",
    "floor": "line-ns-open",
}


def plain(content: str, limit: int = 80) -> str:
    """Text that plotly shows as it is."""
    return escape(clip(content, limit), quote=False)


def figure(data: Sequence[Figure], **layout: Any) -> Figure:
    """Traces and a layout on the page's own ground."""
    base: Figure = {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": "@soft", "size": 12},
        "showlegend": False,
        "hoverlabel": {
            "bgcolor": "@panel", "bordercolor": "@line", "align": "left",
            "font": {"color": "@ink", "size": 13},
        },
    }  # fmt: skip
    return {"data": list(data), "layout": base | layout}


def axis(**own: Any) -> Figure:
    """An axis with a faint grid and no line."""
    base = {
        "gridcolor": "@grid",
        "zeroline": False,
        "zerolinecolor": "@soft",
        "fixedrange": False,
        "ticks": "",
        "exponentformat": "e",
    }
    return base | own


# ---------------------------------------------------------------------------------- transfer


def forest_figure(panel: ForestPanel) -> Figure:
    """Rows of words above a track; a dot is filled when its interval excludes zero."""
    rows, levels = panel.rows, ticks(panel.low, panel.high)
    return figure(
        [forest_trace(row, panel, i) for i, row in enumerate(rows)],
        margin={"l": 0, "r": 0, "t": 0, "b": FOREST_EDGE},
        xaxis=axis(
            range=[panel.low, panel.high], tickvals=levels, showgrid=False, domain=ENDS,
            ticktext=[tick_label(tick) for tick in levels], tickangle=0,
        ),
        yaxis={"range": [len(rows), 0], "visible": False, "fixedrange": True},
        shapes=forest_shapes(panel, levels),
        annotations=[*forest_notes(panel), *forest_hint(panel)],
        hovermode="closest",
    )  # fmt: skip


def forest_trace(row: ForestRow, panel: ForestPanel, place: int) -> Figure:
    """One dot; without a value only its note is shown, and an arrow where it is off the axis."""
    change, places = row.difference, panel.places
    beyond = change.value is not None and change.value < panel.low
    ink = "@faint" if row.family == "floor" else f"@{row.family}"
    trace: Figure = {
        "type": "scatter",
        "mode": "markers",
        "x": [panel.low if beyond else change.value],
        "cliponaxis": not beyond,
        "y": [place + sum(TRACK) / 2],
        "marker": {
            "symbol": "triangle-left" if beyond else SYMBOLS[row.family], "size": 11,
            "color": ink if clearly(change) else "@panel", "line": {"color": ink, "width": 2},
        },
        "hovertemplate": f"{plain(row.label)}"
        f"<br>{with_interval(change.value, change.interval, places)}"
        f"<br>{plain(forest_remark(change))}<extra></extra>",
    }  # fmt: skip
    if change.interval is not None and change.value is not None and not beyond:
        trace["error_x"] = {
            "type": "data", "symmetric": False, "color": ink, "thickness": 2, "width": 0,
            "array": [change.interval.high - change.value],
            "arrayminus": [change.value - change.interval.low],
        }  # fmt: skip
    return trace


def forest_remark(change: Difference) -> str:
    """What is said of a dot under its numbers."""
    clear = "clear" if clearly(change) else "not clear"
    return f"{clear} (n = {number(change.n)})" if change.n else change.note or clear


def forest_shapes(panel: ForestPanel, levels: Sequence[float]) -> list[Figure]:
    """Under the marks: a track a row, tinted on its better side, and where zero is."""
    shapes = [tracks(panel, 0, 1, "@track", "paper")]
    if not panel.control and panel.better != "neither":
        edges = (panel.low, 0.0) if panel.better == "lower" else (0.0, panel.high)
        shapes.append(tracks(panel, *edges, "@good/0.1"))
    for values, ink, width in ((levels, "@panel", 1), ((0.0, *panel.lines), "@soft", 1.5)):
        way = "".join(
            f"M{value!r},{i + TRACK[0]:.3f}L{value!r},{i + TRACK[1]:.3f}"
            for i in range(len(panel.rows))
            for value in values
        )
        shapes.append(
            {"type": "path", "path": way, "line": {"color": ink, "width": width}, "layer": "below"}
        )
    return shapes


def tracks(panel: ForestPanel, left: float, right: float, ink: str, across: str = "x") -> Figure:
    """The same box in every row, in one shape."""
    way = "".join(
        f"M{left!r},{i + TRACK[0]:.3f}L{right!r},{i + TRACK[0]:.3f}L{right!r},{i + TRACK[1]:.3f}"
        f"L{left!r},{i + TRACK[1]:.3f}Z"
        for i in range(len(panel.rows))
    )
    return {
        "type": "path", "path": way, "xref": across, "fillcolor": ink, "line": {"width": 0},
        "layer": "below",
    }  # fmt: skip


def forest_notes(panel: ForestPanel) -> list[Figure]:
    """Each row's name and its numbers, at both ends of the line above its track."""
    return [
        {
            "x": x, "xref": "paper", "xanchor": side, "y": i + (FOREST_WORDS - 4) / FOREST_ROW,
            "yanchor": "middle", "text": plain(content), "showarrow": False, "borderpad": 0,
            "font": {"color": ink, "size": size},
        }
        for i, row in enumerate(panel.rows)
        for (x, side, ink, size), content in zip(
            ((0, "left", "@ink", 12), (1, "right", "@soft", 11)),
            forest_words(row, panel.places),
            strict=True,
        )
    ]  # fmt: skip


def forest_hint(panel: ForestPanel) -> list[Figure]:
    """Which way is better, under the axis."""
    under = {"y": 0, "yref": "paper", "yanchor": "top", "yshift": -17, "showarrow": False,
             "font": {"size": 11}}  # fmt: skip
    if panel.lines and not panel.control:
        sides = {"start": "left", "middle": "center", "end": "right"}
        return [
            {"x": value, "xref": "x", "xanchor": sides[end_of(value, panel)], "text": word} | under
            for value, word in zip((0.0, panel.lines[-1]), panel.ends, strict=True)
        ]
    place, side, content = {
        "lower": (0, "left", "\u2190 better"),
        "higher": (1, "right", "better \u2192"),
    }.get(panel.better, (0.5, "center", ""))
    if panel.control:
        place, side, content = 0.5, "center", "expected: no change"
    return [{"x": place, "xref": "paper", "xanchor": side, "text": content} | under]
