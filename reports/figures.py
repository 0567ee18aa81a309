"""Panels as plotly figures: plain dicts, colours by name, so that the page can re-theme them.

A colour is "@name" or "@name/opacity"; the page's script replaces it with the theme's colour.
Plotly reads a small markup in its texts, so all text from data is escaped for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from geomkit.claims import clearly
from geomkit.types import Difference, Measurement
from reports.book import certainty
from reports.layers import LayerPanel, runs
from reports.static import (
    FOREST_EDGE,
    FOREST_WIDTH,
    FOREST_WORDS,
    LABEL,
    forest_numbers,
)
from reports.static_layers import site_ticks
from reports.transfer import ForestPanel, ForestRow
from reports.words import clip, number, site_title, with_interval

Figure = dict[str, Any]

WORDS = FOREST_WORDS / FOREST_WIDTH
"""Share of a transfer panel that its words take."""

DASHES = ("solid", "dot", "dashdot", "longdash")
"""Of the checkpoints between the first and the last, in turn."""

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
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "@faint", "activecolor": "@ink"},
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
    """Dots with intervals, one row each; filled when the interval excludes zero."""
    rows = panel.rows
    return figure(
        [forest_trace(row, panel, i) for i, row in enumerate(rows)],
        margin={"l": 0, "r": 4, "t": 0, "b": FOREST_EDGE},
        xaxis=axis(
            range=[panel.low, panel.high],
            nticks=4,
            domain=[WORDS, 1],
            zeroline=True,
            zerolinewidth=1.5,
        ),
        yaxis={"range": [len(rows) - 0.5, -0.5], "visible": False, "fixedrange": True},
        shapes=forest_shapes(panel),
        annotations=[*forest_notes(panel), *forest_hint(panel)],
        hovermode="closest",
    )


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
        "y": [place],
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


def forest_shapes(panel: ForestPanel) -> list[Figure]:
    """A tint over the better side, or the lines of other reference values."""
    if panel.control or panel.better == "neither":
        return [
            {
                "type": "line", "x0": value, "x1": value, "yref": "paper", "y0": 0, "y1": 1,
                "line": {"color": "@soft", "width": 1.5, "dash": "dot"}, "layer": "below",
            }
            for value in panel.lines
        ]  # fmt: skip
    edge = panel.low if panel.better == "lower" else panel.high
    tint: Figure = {
        "type": "rect", "x0": 0, "x1": edge, "yref": "paper", "y0": 0, "y1": 1,
        "fillcolor": "@good/0.07", "line": {"width": 0}, "layer": "below",
    }  # fmt: skip
    return [tint]


def forest_notes(panel: ForestPanel) -> list[Figure]:
    """Each row's name and numbers, left of the mark."""
    notes = []
    for i, row in enumerate(panel.rows):
        lines = (
            (-0.2, plain(row.label, LABEL), "@ink", 12),
            (0.18, plain(forest_numbers(row, panel.places)), "@soft", 11),
        )
        for offset, content, ink, size in lines:
            notes.append({
                "x": 0, "xref": "paper", "xanchor": "left", "y": i + offset, "yanchor": "middle",
                "text": content, "showarrow": False, "xshift": -2, "align": "left",
                "font": {"color": ink, "size": size},
            })  # fmt: skip
    return notes


def forest_hint(panel: ForestPanel) -> list[Figure]:
    """Which way is better, under the axis."""
    side, content = {
        "lower": ("left", "\u2190 better"),
        "higher": ("right", "better \u2192"),
    }.get(panel.better, ("center", ""))
    if panel.control:
        side, content = "center", "expected: no change"
    if panel.lines:
        return [
            {
                "x": value, "xref": "x", "y": 0, "yref": "paper",
                "xanchor": "right" if value > panel.high * 0.75 else "center",
                "yanchor": "top", "yshift": -17, "text": word, "showarrow": False,
                "font": {"size": 11},
            }
            for value, word in zip((0.0, panel.lines[-1]), panel.ends, strict=True)
        ]  # fmt: skip
    place = {"left": WORDS, "center": (1 + WORDS) / 2, "right": 1}[side]
    return [{
        "x": place, "xref": "paper", "xanchor": side, "y": 0, "yref": "paper", "yanchor": "top",
        "yshift": -17, "text": content, "showarrow": False, "font": {"size": 11},
    }]  # fmt: skip


# ----------------------------------------------------------------------------------- layers


def layer_figure(panel: LayerPanel, names: tuple[str, str]) -> Figure:
    """Before dashed, after solid, bands for intervals, grey where no value exists."""
    traces = [site_trace(panel), chance_trace(panel)]
    for stretch in runs(panel, panel.before):
        traces.extend(stretch_traces(stretch, names[0], panel.family, late=False))
    traces += [
        between_trace(stretch, name, panel.family, i)
        for i, (name, measurements) in enumerate(panel.between)
        for stretch in runs(panel, measurements)
    ]
    for stretch in runs(panel, panel.after):
        traces.extend(stretch_traces(stretch, names[1], panel.family, late=True))
    places, labels = zip(*site_ticks(panel), strict=True) if panel.sites else ((), ())
    edge = panel.places[-1] if panel.places else 0.0
    return figure(
        [trace for trace in traces if trace],
        margin={"l": 46, "r": 8, "t": 8, "b": 24},
        xaxis=axis(
            range=[-0.5, edge + 0.5], tickvals=places, ticktext=labels, showgrid=False,
            tickangle=0,
            unifiedhovertitle={"text": " "},
        ),
        yaxis=axis(range=[panel.low, panel.high], nticks=5),
        shapes=[*gap_shapes(panel), *certainty_shapes(panel)],
        hovermode="x unified",
    )  # fmt: skip


def stretch_traces(
    stretch: Sequence[tuple[float, Measurement]], name: str, kind: str, late: bool
) -> list[Figure]:
    """One unbroken stretch: its band and its line, or a mark and a whisker for a single site."""
    ink = f"@{kind}"
    places = [p for p, _ in stretch]
    curve: Figure = {
        "type": "scatter",
        "mode": "lines" if len(stretch) > 1 else "markers",
        "x": places,
        "y": [m.value for _, m in stretch],
        "name": plain(name, 24),
        "customdata": [with_interval(m.value, m.interval) for _, m in stretch],
        "hovertemplate": "%{customdata}",
        "line": {"color": ink, "width": 2.2, "dash": "solid" if late else "dash"},
        "marker": {
            "symbol": SYMBOLS[kind], "size": 9,
            "color": ink if late else "@panel", "line": {"color": ink, "width": 2},
        },
    }  # fmt: skip
    bounds = [(p, m.interval) for p, m in stretch if m.interval is not None]
    if not bounds:
        return [curve]
    if len(stretch) == 1:
        (_, only), value = bounds[0], stretch[0][1].value or 0.0
        curve["error_y"] = {
            "type": "data", "symmetric": False, "color": ink, "thickness": 1.5, "width": 0,
            "array": [only.high - value], "arrayminus": [value - only.low],
        }  # fmt: skip
        return [curve]
    band: Figure = {
        "type": "scatter", "mode": "lines", "fill": "toself", "hoverinfo": "skip",
        "x": [p for p, _ in bounds] + [p for p, _ in reversed(bounds)],
        "y": [i.high for _, i in bounds] + [i.low for _, i in reversed(bounds)],
        "line": {"width": 0}, "fillcolor": f"{ink}/0.16",
    }  # fmt: skip
    return [band, curve]


def between_trace(
    stretch: Sequence[tuple[float, Measurement]], name: str, kind: str, place: int
) -> Figure:
    """A checkpoint between the first and the last: a thin line without a band."""
    return {
        "type": "scatter",
        "mode": "lines" if len(stretch) > 1 else "markers",
        "x": [p for p, _ in stretch],
        "y": [m.value for _, m in stretch],
        "name": plain(name, 24),
        "customdata": [with_interval(m.value, m.interval) for _, m in stretch],
        "hovertemplate": "%{customdata}",
        "line": {"color": f"@{kind}/0.55", "width": 1.2, "dash": DASHES[place % len(DASHES)]},
        "marker": {"symbol": "line-ew-open", "size": 8, "color": f"@{kind}/0.55"},
    }


def certainty_shapes(panel: LayerPanel) -> list[Figure]:
    """Along the foot: filled where the change is clear at all sites at once, hollow where here."""
    ink = f"@{panel.family}"
    return [
        {
            "type": "rect", "x0": place - 0.16, "x1": place + 0.16, "yref": "paper",
            "y0": 0.006, "y1": 0.03, "layer": "above", "line": {"width": 1, "color": ink},
            "fillcolor": ink if sure == "everywhere" else "rgba(0,0,0,0)",
        }
        for place, change in zip(panel.places, panel.differences, strict=True)
        if (sure := certainty(change)) != "no"
    ]  # fmt: skip


def site_trace(panel: LayerPanel) -> Figure:
    """Nothing to see: it names the site under the pointer, and says why a gap is one.

    The axis counts places, not blocks, so plotly's own title would name the wrong site.
    """
    reasons = dict(panel.gaps)
    names = [
        f"<b>{plain(site_title(site))}</b>"
        + (f": {plain(reasons[site])}" if site in reasons else "")
        for site in panel.sites
    ]
    return {
        "type": "scatter", "mode": "markers", "name": "", "x": list(panel.places),
        "y": [panel.low] * len(names), "marker": {"opacity": 0, "color": "rgba(0,0,0,0)"},
        "customdata": names,
        "hovertemplate": "%{customdata}<extra></extra>",
    }  # fmt: skip


def chance_trace(panel: LayerPanel) -> Figure:
    """The chance level as a dotted line; nothing when the metric states none."""
    levels = [
        (p, m.chance)
        for stretch in runs(panel, panel.after if any(panel.after) else panel.before)
        for p, m in stretch
        if m.chance is not None
    ]
    if not levels:
        return {}
    return {
        "type": "scatter", "mode": "lines", "name": "chance", "x": [p for p, _ in levels],
        "y": [c for _, c in levels], "line": {"color": "@faint", "width": 1.5, "dash": "dot"},
        "customdata": [number(c) for _, c in levels], "hovertemplate": "%{customdata}",
    }  # fmt: skip


def gap_shapes(panel: LayerPanel) -> list[Figure]:
    """A grey column at each site without a value."""
    gaps = {site for site, _ in panel.gaps}
    return [
        {
            "type": "rect", "x0": place - 0.3, "x1": place + 0.3, "yref": "paper", "y0": 0, "y1": 1,
            "fillcolor": "@faint/0.18", "line": {"width": 0}, "layer": "below",
        }
        for site, place in zip(panel.sites, panel.places, strict=True)
        if site in gaps
    ]  # fmt: skip
