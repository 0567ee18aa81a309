"""Curves over the sites and the heat map of differences as SVG text, next to `static`."""

from __future__ import annotations

from collections.abc import Sequence

from geomkit.types import Measurement
from reports.book import certainty
from reports.heat import HeatRow
from reports.layers import LayerPanel, runs
from reports.static import LAYER_SIZE, Scale, line, mark, path, svg, text, tick_label, ticks
from reports.words import ARROW, clip, site_title

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

    body = []
    for tick in ticks(panel.low, panel.high):
        body.append(line((left, up(tick)), (right, up(tick)), "grid"))
        body.append(text(left - 6, up(tick) + 4, tick_label(tick), "tick", "end"))
    for place, label in site_ticks(panel):
        body.append(text(across(place), bottom + 16, label, "tick", "middle"))
    gaps = {site for site, _ in panel.gaps}
    body += [
        f'<rect x="{across(p) - 9:.1f}" y="{top}" width="18" height="{bottom - top}" class="gap"/>'
        for s, p in zip(panel.sites, panel.places, strict=True)
        if s in gaps
    ]
    body.append(f'<g class="m-{panel.family}">')
    body.extend(certainty_marks(panel, across, bottom - 4))
    body.extend(layer_curves(panel, across, up))
    body.append("</g>")
    return svg(width, height, f"{panel.metric}, {panel.modality}, over the layers", body)


def layer_curves(panel: LayerPanel, across: Scale, up: Scale) -> list[str]:
    """Chance, the checkpoints in the middle, then before and after on top."""
    last = panel.after if any(panel.after) else panel.before
    levels = [(p, m.chance) for s in runs(panel, last) for p, m in s if m.chance is not None]
    body = [path([(across(p), up(c)) for p, c in levels], "chance")] if levels else []
    for i, (_, measurements) in enumerate(panel.between):
        for stretch in runs(panel, measurements):
            points = [(across(p), up(m.value)) for p, m in stretch if m.value is not None]
            body.append(path(points, f"curve between d{i % 4}"))
    for css, measurements in (("before", panel.before), ("after", panel.after)):
        for stretch in runs(panel, measurements):
            body.extend(layer_stretch(stretch, css, panel.family, across, up))
    return body


def certainty_marks(panel: LayerPanel, across: Scale, top: float) -> list[str]:
    """Along the foot: filled where the change is clear at all sites at once, hollow where here."""
    return [
        f'<rect x="{across(place) - 2.5:.1f}" y="{top:.1f}" width="5" height="3" '
        f'class="sure {"solid" if sure == "everywhere" else "hollow"}"/>'
        for place, change in zip(panel.places, panel.differences, strict=True)
        if (sure := certainty(change)) != "no"
    ]


def layer_stretch(
    stretch: Sequence[tuple[float, Measurement]], css: str, kind: str, across: Scale, up: Scale
) -> list[str]:
    """One unbroken stretch: its band and its line; a single site gets a mark and a whisker."""
    points = [(across(p), up(m.value)) for p, m in stretch if m.value is not None]
    ends = [(across(p), m.interval) for p, m in stretch if m.interval is not None]
    if len(points) == 1:
        whisker = [line((x, up(i.low)), (x, up(i.high)), f"whisker {css}") for x, i in ends]
        return [*whisker, mark(kind, *points[0], 4, "hollow" if css == "before" else "solid")]
    band = [(x, up(i.high)) for x, i in ends] + [(x, up(i.low)) for x, i in reversed(ends)]
    area = [path(band, "band", closed=True)] if band else []
    return [*area, path(points, f"curve {css}")]


def site_ticks(panel: LayerPanel, most: int = 7) -> list[tuple[float, str]]:
    """Short names under the axis: the ends always, the blocks thinned out."""
    blocks = [
        (p, s) for p, s in zip(panel.places, panel.sites, strict=True) if s.startswith("block_")
    ]
    step = max(1, -(-len(blocks) // most))
    named = [(p, site_label(s)) for p, s in blocks[::step]]
    others = [
        (p, site_label(s))
        for p, s in zip(panel.places, panel.sites, strict=True)
        if not s.startswith("block_")
    ]
    return sorted([*named, *others])


# ------------------------------------------------------------------------------------- heat

HEAT_WORDS = 190  # width of the rows' names
HEAT_WIDTH = 1000
HEAT_ROW = 20
HEAT_HEAD = 22


def heat_svg(rows: Sequence[HeatRow], sites: Sequence[str]) -> str:
    """One cell a row and site: deeper is more of the metric's largest change."""
    width = (HEAT_WIDTH - HEAT_WORDS) / max(len(sites), 1)
    body = []
    for i, site in enumerate(sites):
        name = site_label(site)
        if name and (len(sites) <= 16 or i % 2 == 0 or not site.startswith("block_")):
            x = HEAT_WORDS + (i + 0.5) * width
            body.append(text(x, HEAT_HEAD - 8, name, "tick", "middle"))
    for at, row in enumerate(rows):
        top = HEAT_HEAD + at * HEAT_ROW
        body.append(f'<g class="m-{row.family}">{mark(row.family, 6, top + 10, 3.6, "solid")}</g>')
        name = f"{clip(row.title, 20)}, {row.modality.replace('->', ARROW)}"
        body.append(text(16, top + 14, clip(name, 32), "label"))
        for i, one in enumerate(row.cells):
            x = HEAT_WORDS + i * width
            place = f'x="{x + 0.5:.1f}" y="{top + 1}" width="{width - 1:.1f}" height="18"'
            if one is None:
                body.append(f'<rect {place} class="gap"/>')
                continue
            tone = "neutral" if not row.judged else "up" if one.share > 0 else "down"
            body.append(f'<rect {place} class="tone {tone}" style="--d: {depth(one.share):.0f}%"/>')
            if one.certainty != "no":
                css = "solid" if one.certainty == "everywhere" else "hollow"
                body.append(
                    f'<circle cx="{x + width / 2:.1f}" cy="{top + 10}" r="2.4" class="sure {css}"/>'
                )
    height = HEAT_HEAD + HEAT_ROW * len(rows)
    return svg(HEAT_WIDTH, height, "Differences of the headline measures at every site", body)


def depth(share: float) -> float:
    """How deep a cell is coloured, in percent: a small change is still told from none."""
    return 0.0 if share == 0 else 8.0 + 82.0 * abs(share)


def site_label(site: str) -> str:
    """A site's name in a narrow column."""
    if site.startswith("block_"):
        return site.removeprefix("block_").lstrip("0") or "0"
    return {"final_norm": "norm", "embed": "emb"}.get(site, clip(site_title(site), 8))
