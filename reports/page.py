"""Analysis -> report.html and report.json.

The page holds its data and its code as compressed text and its pictures as SVG; one script, named
by its hash in the content security policy, unpacks and runs them. The same analysis gives the same
bytes.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup
from pydantic import TypeAdapter

from geomkit.carried import STATUSES
from geomkit.cautions import cautions, left_out
from geomkit.claims import clearly
from geomkit.errors import GeomkitError, UsageError
from geomkit.pictures.records import Album
from geomkit.projection import Projection
from geomkit.types import MODALITIES, Analysis, Row
from geomkit.words import because
from reports import (
    accuracies,
    carried,
    columns,
    figures,
    heat,
    ladder,
    layers,
    lines,
    matrices,
    media,
    payload,
    pictures,
    provenance,
    sources,
    static,
    static_layers,
    training,
    transfer,
    verdicts,
    words,
)
from reports.book import HEAD, Book
from reports.mapping import Shown

SCHEMA = "geomkit-report/1"
MAP_SCRIPTS = ("colours.js", "painters.js", "scatter.js", "card.js", "map.js", "pairs.js")
SCRIPTS = (
    *("page.js", "records.js", "downloads.js", "drawing.js", "curves.js", "layers.js"),
    *MAP_SCRIPTS,
)
STYLES = ("style.css", "layers.css", "map.css", "pairs.css")
SKIPPED_SHOWN = 50
DRAWN = 6
"""Digits of what is drawn: more than a screen has pixels."""
BY = ("text", "own", "shift", "turned", "shuffled")
"""Predictors of the binding table, in its order."""
ANALYSIS = TypeAdapter(Analysis)
POLICY = (
    "default-src 'none'; script-src 'sha256-{digest}' blob:; style-src 'unsafe-inline'; "
    "img-src data: blob:; media-src data: blob:; connect-src 'none'; base-uri 'none'; "
    "form-action 'none'"
)


@dataclass(frozen=True, slots=True)
class Target:
    """The file a report is written to, how large it may be, and how often it loads itself anew."""

    path: Path
    most: int = payload.REFUSE_BYTES
    refresh: int = 0  # seconds; 0 for a page that stays as it is


def write_report(
    analysis: Analysis,
    projection: Projection | None,
    rows: tuple[Row, ...],
    media: Mapping[tuple[str, str], Path],
    out: Path | Target,
    *,
    embed_media: bool = False,
    album: Album | None = None,
    webgl: bool = False,
) -> Path:
    """Write the page to `out` and its numbers beside it, as `.json`; give back `out`.

    Media are embedded only on request: samples may be private or licensed. An `album` brings
    neighbours, pairs and spectra; `webgl` draws the map with it where the browser has it.

    Raises:
        UsageError: `out` is a folder.
        GeomkitError: a number is not finite, the page would be too large, or the file beside
            it is some other JSON.
    """
    shown = shown_of(projection, rows, album, webgl=webgl)
    report = Report.of(analysis, shown, rows, media, embed_media=embed_media)
    target = out if isinstance(out, Target) else Target(out)
    page = target.path
    if page.is_dir():
        raise UsageError(f"Expected a file to write the report to, got the folder {page}.")
    beside = page.with_suffix(".json")
    if beside.exists() and SCHEMA not in beside.read_text(encoding="utf-8", errors="replace"):
        raise GeomkitError(
            f"Expected {beside.name} to be free or an earlier report, got another file: "
            "choose another name for the report."
        )
    numbers, text = report.json(), report.html(target)  # the numbers first: they must be finite
    page.parent.mkdir(parents=True, exist_ok=True)
    replace_file(beside, numbers)
    replace_file(page, text)
    return page


def replace_file(path: Path, content: str) -> None:
    """Write under another name, then rename: a reader never sees half a file."""
    fresh = path.with_name(f".{path.name}.tmp")
    try:
        fresh.write_text(content, encoding="utf-8", newline="\n")
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


@dataclass(frozen=True)
class Report:
    """Everything the page needs, still as records."""

    book: Book
    shown: Shown | None
    media: media.Media
    counts: Mapping[str, int]  # rows a modality

    @classmethod
    def of(
        cls,
        analysis: Analysis,
        shown: Shown | None,
        rows: Sequence[Row],
        previews: Mapping[tuple[str, str], Path],
        *,
        embed_media: bool,
    ) -> Report:
        """Gather what is shown; media only of rows on the map, those of the gallery first."""
        visible = shown.by_need if shown else tuple(rows)
        own = media.embed(visible, previews) if embed_media else media.NOTHING
        counts = {m: sum(row.modality == m for row in rows) for m in MODALITIES}
        return cls(Book(as_told(analysis)), shown, own, {m: n for m, n in counts.items() if n})

    @cached_property
    def groups(self) -> tuple[layers.LayerGroup, ...]:
        """Every metric over the sites."""
        return layers.layer_groups(self.book)

    @cached_property
    def heat(self) -> tuple[heat.HeatRow, ...]:
        """Every difference at every site."""
        return heat.heat_rows(self.groups)

    @cached_property
    def lines(self) -> tuple[lines.LinesPanel, ...]:
        """Everything over training steps, and over checkpoints in a row."""
        logged = self.book.analysis.provenance
        return (
            *ladder.ladder_panels(self.book),
            *training.training_panels(logged),
            *training.geometry_panels(logged),
        )

    @cached_property
    def headline_panels(self) -> tuple[transfer.ForestPanel | None, transfer.ForestPanel | None]:
        """What carried over, and the binding test beside it; None where there are no records."""
        return carried.carried_panel(self.book), carried.bound_panel(self.book)

    @cached_property
    def accuracies(self) -> tuple[accuracies.AccuracyPanel, ...]:
        """Probe accuracies with chance and majority, an attribute a panel."""
        return accuracies.accuracy_panels(self.book)

    @cached_property
    def forests(self) -> tuple[transfer.ForestPanel, ...]:
        """Every panel of dots with intervals."""
        head = transfer.head_panel(self.book)
        panels = (*transfer.forest_panels(self.book), head, *self.headline_panels)
        return tuple(panel for panel in panels if panel)

    # ---------------------------------------------------------------------------- numbers

    def numbers(self) -> dict[str, Any]:
        """Every number on the page."""
        analysis = self.book.analysis
        return {
            "schema": SCHEMA,
            "analysis": ANALYSIS.dump_python(analysis, mode="json"),
            "tallies": [
                {
                    "role": t.role,
                    "modality": t.family,
                    "passed": t.passed,
                    "judged": t.judged,
                    "missing": t.missing,
                }
                for t in verdicts.tallies(analysis.verdicts)
            ],
            "rows": dict(self.counts),
            "cautions": list(cautions(analysis, self.counts)),
            "skipped": len(analysis.skipped),
            "media": {
                "thumbnails": len(self.media.thumbnails),
                "sounds": len(self.media.sounds),
                "left_out": self.media.left_out,
            },
            "map": self.map_numbers(),
            **pictures.numbers(self.shown),
        }

    def map_numbers(self) -> dict[str, Any] | None:
        """The map without its points."""
        if self.shown is None:
            return None
        p = self.shown.projection
        return {
            "method": p.method, "pooling": p.pooling, "checkpoints": list(p.checkpoints),
            "shown": len(p.rows), "available": p.available,
            "sites": [
                {
                    "site": s.site, "note": s.note,
                    "explained_percent": [share * 100 for share in s.explained],
                }
                for s in p.sites
            ],
        }  # fmt: skip

    def json(self) -> str:
        """report.json."""
        return payload.strict_json(self.numbers(), indent=1) + "\n"

    # ------------------------------------------------------------------------------- page

    def figures(self) -> dict[str, figures.Figure]:
        """Every live figure by the id of its place in the page."""
        own = {panel.key: figures.forest_figure(panel) for panel in self.forests}
        own |= {panel.key: accuracies.accuracy_figure(panel) for panel in self.accuracies}
        return own | {panel.key: lines.lines_figure(panel) for panel in self.lines}

    def data(self) -> str:
        """What the script reads, as JSON."""
        return payload.strict_json(
            {
                "figures": payload.told(self.figures(), DRAWN),
                "sources": sources.sources(self.forests, self.book)
                | accuracies.sources(self.accuracies, self.book),
                "curves": layers.payload(self.groups, self.book),
                "heat": heat.payload(self.heat, self.book.analysis.sites),
                **columns.packed_report(self.numbers()),
                "map": self.shown.payload() if self.shown else None,
                "media": self.media.payload(),
            }
        )

    def html(self, target: Target) -> str:
        """The page.

        Raises:
            GeomkitError: it would be above `target.most` bytes.
        """
        script, code = asset("boot.js"), payload.packed("".join(map(asset, SCRIPTS)).encode())
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        data, plotly = payload.packed(self.data().encode()), payload.packed_plotly()
        points = self.shown.points if self.shown else ""
        page = (
            environment()
            .get_template("page.html")
            .render(
                **self.context(),
                refresh=target.refresh,
                policy=POLICY.format(digest=digest),
                style=own("".join(map(asset, STYLES))),
                script=own(script),
                code=code,
                data=data,
                points=points,
                plotly=plotly,
            )
        )
        sheet, sounds = len(self.media.sheet), sum(map(len, self.media.sounds.values()))
        payload.check_size(
            {
                "plotly": len(plotly),
                "media": sheet + sounds,
                "map": len(points),
                "data": max(0, len(data) - sounds),
                "text and drawings": len(page.encode())
                - sum(map(len, (plotly, data, points, code)))
                - sheet,
                "code": len(code),
            },
            target.most,
        )
        return page

    def context(self) -> dict[str, Any]:
        """What the template reads."""
        book, analysis = self.book, self.book.analysis
        forests = transfer.forest_panels(book)
        return {
            "book": book,
            "analysis": analysis,
            "counts": self.counts,
            "numbers": self.numbers(),
            "has_losses": any(m.site == HEAD for m in analysis.measurements),
            "left_out": list(left_out(analysis, self.counts)),
            "tallies": verdicts.tallies(analysis.verdicts),
            "verdict_groups": verdicts.verdict_groups(book),
            "forests": [p for p in forests if not p.control],
            "control_forests": [p for p in forests if p.control],
            "headline_panels": self.headline_panels,
            "carried": carried.carried_rows(book),
            "unshared": carried.unshared(book),
            "unseen": [m for m in analysis.modalities if m not in analysis.trained],
            "bound_words": carried.bound_words(book),
            "bindings": carried.bound_rows(book, BY) if analysis.bindings else (),
            "by": BY,
            "other_differences": transfer.other_differences(book),
            "head_panel": transfer.head_panel(book),
            "head_measurements": [m for m in analysis.measurements if m.site == HEAD],
            "layer_families": layers.layer_families(self.groups),
            "common_gaps": layers.common_gaps(self.groups),
            "simultaneous": any(d.band is not None for d in analysis.differences),
            "site_axis": own(static_layers.site_axis(analysis.sites)),
            "heat": [r for r in self.heat if r.headline] or self.heat[:20],
            "matrices": matrices.probe_matrices(book),
            "accuracies": {(p.attribute, p.spoken): p for p in self.accuracies},
            "shown": self.shown,
            "drawings": [(n, own(svg)) for n, svg in self.shown.drawings()] if self.shown else [],
            "media": self.media,
            **pictures.context(self.shown, self.media),
            "skipped_shown": SKIPPED_SHOWN,
            "curves": training.training_panels(analysis.provenance),
            "live_geometry": training.geometry_panels(analysis.provenance),
            "ladders": ladder.ladder_panels(book),
            "ladder_rows": ladder.ladder_rows(book),
            "gates": provenance.gates(analysis.provenance),
            "facts": provenance.facts(analysis.provenance),
            "records": provenance.records(analysis.provenance),
            "prompts": provenance.prompts(analysis.provenance),
            "commands": provenance.commands(analysis.provenance),
            "rest": provenance.the_rest(analysis.provenance),
            "forest_size": lambda p: f"{static.FOREST_WIDTH} / {static.forest_height(p)}",
            "layer_size": "{} / {}".format(*static.LAYER_SIZE),
        }


def shown_of(
    projection: Projection | None, rows: Sequence[Row], album: Album | None, *, webgl: bool
) -> Shown | None:
    """The map's rows, found among the plan's.

    Raises:
        GeomkitError: they are the rows of another run.
    """
    if projection is None:
        return None
    by_index = {row.index: row for row in rows}
    missing = [i for i in projection.rows if i not in by_index]
    if missing:
        raise GeomkitError(
            f"Expected the rows of the projected run, got rows without index {missing[0]}: "
            "pass the rows of the run's plan."
        )
    return Shown(projection, tuple(by_index[i] for i in projection.rows), album, webgl)


def as_told(analysis: Analysis) -> Analysis:
    """The analysis with its numbers as the page and `report.json` tell them."""
    return ANALYSIS.validate_python(payload.told(ANALYSIS.dump_python(analysis, mode="json")))


def asset(name: str) -> str:
    """The text of a file of the page."""
    return files("reports").joinpath("assets", name).read_text(encoding="utf-8")


def own(markup: str) -> Markup:
    """Markup made in this package, where every text from data is escaped already."""
    return Markup(markup)  # noqa: S704  # never called on anything from data


def environment() -> Environment:
    """Jinja2 with everything escaped; drawings and code made here are the only exceptions."""
    env = Environment(
        loader=FunctionLoader(asset),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols"],
    )
    env.filters |= {
        "number": words.number, "places": words.shared_decimals, "metric": words.metric_title,
        "site": words.site_title, "modality": words.modality_title, "clip": words.clip,
        "arrows": words.arrows,
        "family": words.family, "direction": words.direction_title, "way": words.way,
        "clearly": clearly, "because": because,
        "status_of": lambda verdict: STATUSES.get(verdict, "NOT RUN"),
        "own_gaps": layers.own_gaps,
        "told_interval": words.with_interval,
        "decimals_of": lambda values: words.decimals(v for v in values if v is not None),
        "symbol": lambda status: words.STATUS_SYMBOLS.get(status, "?"),
        "accuracy_svg": lambda panel: own(accuracies.accuracy_svg(panel)),
        "forest_svg": lambda panel: own(static.forest_svg(panel)),
        "heat_svg": lambda rows, sites: own(static_layers.heat_svg(rows, sites)),
        "layer_svg": lambda panel: own(static_layers.layer_svg(panel)),
        "line_names": lines.line_names,
        "lines_svg": lambda panel: own(lines.lines_svg(panel)),
    }  # fmt: skip
    env.filters |= pictures.filters()
    return env
