"""Probe accuracies as marks on one axis, a direction a row, with chance and majority drawn.

Before is hollow and above, after filled and below. Chance is a dotted stroke, the commonest class a
dashed one: what a probe must beat is on the same track as the probe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from geomkit.types import ProbeResult
from reports.book import Book
from reports.figures import SYMBOLS, Figure, axis, figure, plain
from reports.matrices import ProbeMatrix, probe_matrices
from reports.static import line, mark, svg, text, tick_label
from reports.words import clip, modality_title, number, with_interval

WIDTH, ROW, EDGE = 340, 50, 20
ENDS = (8.0, 332.0)  # of the axis; half a mark has room beyond
WORDS = 14  # below the top of a row: where its words stand, and the track under them
TRACK = (20, 46)
PLACES = (27, 39)  # of the marks before and after
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
LETTERS = 26


@dataclass(frozen=True, slots=True)
class AccuracyRow:
    """One direction: what was read before and after, and what a guess would get."""

    title: str
    family: str  # the modality that is read: its colour and shape
    ends: tuple[ProbeResult | None, ProbeResult | None]
    chance: float
    majority: float

    @property
    def numbers(self) -> str:
        """`0.26 -> 0.82`; one number where there is one checkpoint."""
        known = [r for r in self.ends if r is not None]
        return " \u2192 ".join(
            number(r.accuracy, 2 if r.accuracy is not None else None) for r in known
        )


@dataclass(frozen=True, slots=True)
class AccuracyPanel:
    """One attribute; `names` are the checkpoints before and after, the second empty for one."""

    key: str
    attribute: str
    spoken: bool
    site: str
    names: tuple[str, str]
    rows: tuple[AccuracyRow, ...]

    @property
    def height(self) -> int:
        """Of the drawing, the axis included."""
        return ROW * len(self.rows) + EDGE


def accuracy_panels(book: Book) -> tuple[AccuracyPanel, ...]:
    """One panel an attribute that was read at all, in the order of the matrices."""
    panels = (panel(book, f"accuracy-{i}", m) for i, m in enumerate(probe_matrices(book)))
    return tuple(one for one in panels if one.rows)


def panel(book: Book, key: str, matrix: ProbeMatrix) -> AccuracyPanel:
    """The directions of one matrix that have an accuracy."""
    rows = []
    for train in matrix.train_on:
        for test in matrix.test_on:
            ends = matrix.before.get((train, test)), matrix.after.get((train, test))
            known = [r for r in ends if r is not None and r.accuracy is not None]
            if known:
                title = modality_title(f"{train}->{test}")
                rows.append(AccuracyRow(title, test, ends, known[-1].chance, known[-1].majority))
    names = book.before, book.after
    return AccuracyPanel(key, matrix.attribute, matrix.spoken, matrix.site, names, tuple(rows))


def accuracy_svg(own: AccuracyPanel) -> str:
    """The still drawing."""
    body = []
    for i, row in enumerate(own.rows):
        top = ROW * i
        body.append(f'<g class="m-{row.family}">')
        body.append(text(0, top + WORDS, clip(row.title, LETTERS), "label"))
        body.append(text(WIDTH, top + WORDS, row.numbers, "value", "end"))
        box = f"M0 {top + TRACK[0]}H{WIDTH}v{TRACK[1] - TRACK[0]}H0z"
        body.append(f'<path d="{box}" class="track"/>')
        for guess, css in ((row.chance, "chance"), (row.majority, "majority")):
            x = across(guess)
            body.append(line((x, top + TRACK[0]), (x, top + TRACK[1]), css))
        for result, place, css in zip(row.ends, PLACES, ("hollow", "solid"), strict=True):
            body += accuracy_mark(result, top + place, css, row.family)
        body.append("</g>")
    bottom = ROW * len(own.rows)
    body += [text(across(t), bottom + 13, tick_label(t), "tick", "middle") for t in TICKS]
    return svg(WIDTH, own.height, label(own), body)


def accuracy_mark(result: ProbeResult | None, y: float, css: str, kind: str) -> list[str]:
    """One accuracy with its interval."""
    if result is None or result.accuracy is None:
        return []
    span = result.interval
    whisker = [line((across(span.low), y), (across(span.high), y), "whisker")] if span else []
    return [*whisker, mark(kind, across(result.accuracy), y, 4, css)]


def across(value: float) -> float:
    """Where an accuracy stands."""
    return ENDS[0] + value * (ENDS[1] - ENDS[0])


def label(own: AccuracyPanel) -> str:
    """What the drawing is, for those who do not see it."""
    return f"Accuracy of {clip(own.attribute, 60)} by direction, with chance and majority"


def accuracy_figure(own: AccuracyPanel) -> Figure:
    """The same, live: hover tells the interval and what a guess would get."""
    room = ENDS[0] / (ENDS[1] - ENDS[0])
    return figure(
        [
            accuracy_trace(row, own, (i, late), end)
            for i, row in enumerate(own.rows)
            for late, end in enumerate(row.ends)
            if end is not None and end.accuracy is not None
        ],
        margin={"l": 0, "r": 0, "t": 0, "b": EDGE},
        xaxis=axis(
            range=[-room, 1 + room], tickvals=TICKS, ticktext=[tick_label(t) for t in TICKS],
            showgrid=False, tickangle=0,
        ),
        yaxis={"range": [len(own.rows), 0], "visible": False, "fixedrange": True},
        shapes=[shape for i, row in enumerate(own.rows) for shape in row_shapes(row, i)],
        annotations=[note for i, row in enumerate(own.rows) for note in row_notes(row, i)],
        hovermode="closest",
    )  # fmt: skip


def accuracy_trace(
    row: AccuracyRow, own: AccuracyPanel, place: tuple[int, int], result: ProbeResult
) -> Figure:
    """One accuracy of one checkpoint; `place` is its row, and whether it is before or after."""
    (at, late), ink = place, f"@{row.family}"
    trace: Figure = {
        "type": "scatter", "mode": "markers", "x": [result.accuracy],
        "y": [at + PLACES[late] / ROW],
        "marker": {
            "symbol": SYMBOLS[row.family], "size": 9, "color": ink if late else "@panel",
            "line": {"color": ink, "width": 2},
        },
        "hovertemplate": f"{plain(row.title)}, {plain(own.names[late], 40)}"
        f"<br>{with_interval(result.accuracy, result.interval, 3)} (n = {number(result.n_test)})"
        f"<br>chance {number(row.chance, 3)}, majority {number(row.majority, 3)}<extra></extra>",
    }  # fmt: skip
    if result.interval is not None and result.accuracy is not None:
        trace["error_x"] = {
            "type": "data", "symmetric": False, "color": ink, "thickness": 2, "width": 0,
            "array": [result.interval.high - result.accuracy],
            "arrayminus": [result.accuracy - result.interval.low],
        }  # fmt: skip
    return trace


def row_shapes(row: AccuracyRow, place: int) -> list[Figure]:
    """The track of a row, and on it what a guess would get."""
    top, bottom = place + TRACK[0] / ROW, place + TRACK[1] / ROW
    box: Figure = {
        "type": "rect", "xref": "paper", "x0": 0, "x1": 1, "y0": top, "y1": bottom,
        "fillcolor": "@track", "line": {"width": 0}, "layer": "below",
    }  # fmt: skip
    strokes = [
        {
            "type": "line", "x0": guess, "x1": guess, "y0": top, "y1": bottom, "layer": "below",
            "line": {"color": ink, "width": 1.5, "dash": dash},
        }
        for guess, ink, dash in ((row.chance, "@faint", "dot"), (row.majority, "@soft", "dash"))
    ]  # fmt: skip
    return [box, *strokes]


def row_notes(row: AccuracyRow, place: int) -> list[Figure]:
    """A row's name and its numbers, at both ends of the line above its track."""
    return [
        {
            "x": x, "xref": "paper", "xanchor": side, "y": place + (WORDS - 4) / ROW,
            "yanchor": "middle", "text": plain(content, LETTERS), "showarrow": False,
            "borderpad": 0, "font": {"color": ink, "size": size},
        }
        for x, side, ink, size, content in (
            (0, "left", "@ink", 12, row.title), (1, "right", "@soft", 11, row.numbers),
        )
    ]  # fmt: skip


def sources(panels: Sequence[AccuracyPanel], book: Book) -> dict[str, list[list[Any]]]:
    """The records behind each panel, as the page's downloads name them."""
    names = [book.before, book.after]
    return {
        p.key: [["probes", {"attribute": p.attribute, "site": p.site, "checkpoint": names}]]
        for p in panels
    }
