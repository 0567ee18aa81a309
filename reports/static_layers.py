"""Curves over the sites and the heat map of differences as SVG text, next to `static`."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import pairwise

from geomkit.types import Measurement
from reports.book import certainty
from reports.heat import Cell, HeatRow
from reports.layers import LayerPanel, runs, site_label, site_places, site_ticks
from reports.static import LAYER_SIZE, Point, Scale, mark, path, svg, text, tick_label, ticks
from reports.words import ARROW, clip

SITE_AXIS = "site-axis"
FINE = 0.5
"""Steps of a curve, in the drawing's units; `.fine` in the style sheet scales them back."""

# ----------------------------------------------------------------------------------- layers


def layer_svg(panel: LayerPanel) -> str:
    """Before dashed, after solid, bands for intervals, gaps where no value exists."""
    width, height = LAYER_SIZE
    left, right, top, bottom = 46, width - 8, 8, height - 24
    span = max(panel.places[-1], 1.0) if panel.places else 1.0

    def across(place: float) -> float:
        return left + 10 + place / span * (right - left - 20)

    def up(value: float) -> float:
        return bottom - (value - panel.low) / (panel.high - panel.low) * (bottom - top)

    levels = ticks(panel.low, panel.high)
    gaps = {site for site, _ in panel.gaps}
    body = [
        grid(left, right, [up(tick) for tick in levels]),
        words([(left - 6, up(t) + 4, tick_label(t)) for t in levels], "tick end"),
        f'<use href="#{SITE_AXIS}"/>',
        *(
            f'<path d="M{across(p) - 5:.1f} {top}h10v{bottom - top}h-10z" class="gap"/>'
            for s, p in zip(panel.sites, panel.places, strict=True)
            if s in gaps
        ),
        f'<g class="m-{panel.family}">',
        *certainty_marks(panel, across, bottom - 3),
        *layer_curves(panel, across, up),
        "</g>",
    ]
    return svg(width, height, f"{panel.metric}, {panel.modality}, over the layers", body)


def site_axis(sites: Sequence[str]) -> str:
    """The names under the axis, which all panels share: a drawing that is not seen itself.

    What is drawn by reference takes no rule of the style sheet that names its surroundings, so its
    look is in attributes.
    """
    span = max(site_places(sites)[-1], 1.0) if sites else 1.0
    width, height = LAYER_SIZE
    names = [(56 + p / span * (width - 74), height - 8, label) for p, label in site_ticks(sites)]
    look = f'<g id="{SITE_AXIS}" text-anchor="middle" font-size="11"'
    named = words(names, "names").replace("<g", look, 1)
    return f'<span class="static unseen" aria-hidden="true"><svg>{named}</svg></span>'


def grid(left: float, right: float, heights: Sequence[float]) -> str:
    """Level lines, all in one path."""
    return f'<path d="{"".join(f"M{left} {y:.1f}H{right}" for y in heights)}" class="grid"/>'


def words(places: Sequence[tuple[float, float, str]], css: str) -> str:
    """Some short texts of one look."""
    texts = (f'<text x="{x:.0f}" y="{y:.0f}">{escape(content)}</text>' for x, y, content in places)
    return f'<g class="{css}">{"".join(texts)}</g>'


def fine(points: Sequence[Point], css: str, *, closed: bool = False) -> str:
    """A broken line in whole steps of `FINE`, each told from the one before: short text."""
    steps = [(round(x / FINE), round(y / FINE)) for x, y in points]
    moves = (f"{b[0] - a[0]} {b[1] - a[1]}" for a, b in pairwise(steps))
    way = f"M{steps[0][0]} {steps[0][1]}l{' '.join(moves)}".replace(" -", "-")
    return f'<path d="{way}{"z" if closed else ""}" class="fine {css}"/>'


def layer_curves(panel: LayerPanel, across: Scale, up: Scale) -> list[str]:
    """Chance, the checkpoints in the middle, then before and after on top."""
    last = panel.after if any(panel.after) else panel.before
    levels = [(p, m.chance) for s in runs(panel, last) for p, m in s if m.chance is not None]
    body = [path([(across(p), up(c)) for p, c in ends(levels)], "chance")] if levels else []
    for i, (_, measurements) in enumerate(panel.between):
        for stretch in runs(panel, measurements):
            points = [(across(p), up(m.value)) for p, m in stretch if m.value is not None]
            if len(points) == 1:  # a site on its own is a level stroke
                points = [(points[0][0] + side, points[0][1]) for side in (-4, 4)]
            body.append(fine(points, f"curve between d{i % 4}"))
    for css, measurements in (("before", panel.before), ("after", panel.after)):
        for stretch in runs(panel, measurements):
            body.extend(layer_stretch(stretch, css, panel.family, across, up))
    return body


def ends(levels: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """Of a level that is the same everywhere, the two ends; any other as it is."""
    return (levels[0], levels[-1]) if len({level for _, level in levels}) == 1 else levels


def certainty_marks(panel: LayerPanel, across: Scale, top: float) -> list[str]:
    """Along the foot: thick where the change is clear at all sites at once, thin where here."""
    sure = [certainty(change) for change in panel.differences]
    return [
        f'<path d="M{way.removeprefix("m")}" class="sure {css}"/>'
        for css, wanted in (("solid", "everywhere"), ("hollow", "here"))
        if (
            way := dashes(
                [across(p) for p, one in zip(panel.places, sure, strict=True) if one == wanted], top
            )
        )
    ]


def dashes(middles: Sequence[float], height: float) -> str:
    """Short level lines about some places, each told from the one before."""
    starts = [round(x - 2.5) for x in middles]
    moves = (f"m{b - a - 5} 0" for a, b in pairwise(starts))
    first = [f"m{starts[0]} {height:.0f}"] if starts else []
    return "".join(f"{move}h5" for move in (*first, *moves))


def layer_stretch(
    stretch: Sequence[tuple[float, Measurement]], css: str, kind: str, across: Scale, up: Scale
) -> list[str]:
    """One unbroken stretch: its band and its line; a single site gets a mark and a whisker."""
    points = [(across(p), up(m.value)) for p, m in stretch if m.value is not None]
    spans = [(across(p), m.interval) for p, m in stretch if m.interval is not None]
    if len(points) == 1:
        whisker = [
            f'<path d="M{x:.0f} {up(i.low):.1f}V{up(i.high):.1f}" class="whisker {css}"/>'
            for x, i in spans
        ]
        return [*whisker, mark(kind, *points[0], 4, "hollow" if css == "before" else "solid")]
    band = [(x, up(i.high)) for x, i in spans] + [(x, up(i.low)) for x, i in reversed(spans)]
    area = [fine(band, "band", closed=True)] if band else []
    return [*area, fine(points, f"curve {css}")]


# ------------------------------------------------------------------------------------- heat

HEAT_WORDS = 204  # width of the rows' names
HEAT_WIDTH = 1000
HEAT_ROW = 20
HEAT_HEAD = 22
DEEP = 6


def heat_svg(rows: Sequence[HeatRow], sites: Sequence[str]) -> str:
    """One cell a row and site: deeper is more of the metric's largest change."""
    width = (HEAT_WIDTH - HEAT_WORDS) / max(len(sites), 1)
    body = []
    for i, site in enumerate(sites):
        name = site_label(site)
        if name and (len(sites) <= 16 or i % 2 == 0 or not site.startswith("block_")):
            x = HEAT_WORDS + (i + 0.5) * width
            body.append(text(x, HEAT_HEAD - 8, name, "tick", "middle"))
    tones: dict[tuple[str, int], str] = {}
    box = f"h{width - 1:.1f}v18h{1 - width:.1f}z"
    dots = {"everywhere": "", "here": ""}
    for at, row in enumerate(rows):
        top = HEAT_HEAD + at * HEAT_ROW
        body.append(f'<g class="m-{row.family}">{mark(row.family, 6, top + 10, 3.6, "solid")}</g>')
        name = f"{clip(row.title, 20)}, {row.modality.replace('->', ARROW)}"
        body.append(text(16, top + 14, clip(name, 32), "label"))
        for i, one in enumerate(row.cells):
            x = HEAT_WORDS + i * width
            look = tone(one)
            tones[look] = tones.get(look, "") + f"M{x + 0.5:.1f} {top + 1}{box}"
            if one is not None and one.certainty != "no":
                dots[one.certainty] += f"M{x + width / 2:.0f} {top + 10}h0"
    for (css, deep), way in tones.items():
        depth = f' style="--d:{deep}%"' if css != "gap" else ""
        body.append(f'<path d="{way}" class="{css}"{depth}/>')
    body += [
        f'<path d="{way}" class="dots {css}"/>'
        for way, looks in ((dots["everywhere"], ("sure",)), (dots["here"], ("sure", "hole")))
        for css in looks
        if way
    ]
    height = HEAT_HEAD + HEAT_ROW * len(rows)
    return svg(HEAT_WIDTH, height, "Differences of the headline measures at every site", body)


def tone(cell: Cell | None) -> tuple[str, int]:
    """What a cell wears: its class, and how deep it is coloured, in steps of `DEEP` percent."""
    if cell is None:
        return "gap", 0
    way = "neutral" if not cell.judged else "up" if cell.share > 0 else "down"
    return f"tone {way}", DEEP * round(depth(cell.share) / DEEP)


def depth(share: float) -> float:
    """How deep a cell is coloured, in percent: a small change is still told from none."""
    return 0.0 if share == 0 else 8.0 + 82.0 * abs(share)
