"""More than two checkpoints in a row: a trajectory, a comparison of recipes, a ladder of sizes.

Every headline metric at the site that speaks for it, over the checkpoints in the order they were
named; the first is the reference.
"""

from __future__ import annotations

from geomkit.types import MODALITIES, Difference, Measurement
from reports.book import Book, known
from reports.lines import Line, LinesPanel, ordered
from reports.metrics import family_of
from reports.words import direction_title, family, metric_title, modality_title


def ladder_panels(book: Book) -> tuple[LinesPanel, ...]:
    """One panel a headline metric, a line a modality; none for two checkpoints or fewer."""
    if not book.between:
        return ()
    own = [m for m in book.analysis.measurements if family_of(m.metric) == "headline"]
    panels = []
    for i, metric in enumerate(dict.fromkeys(m.metric for m in own)):
        kinds = dict.fromkeys(m.modality for m in own if m.metric == metric)
        lines = ordered([ladder_line(book, metric, kind) for kind in kinds])
        if lines:
            better = next(m.better for m in own if m.metric == metric)
            panels.append(
                LinesPanel(
                    f"ladder-{i}", metric_title(metric), direction_title(better), lines,
                    book.analysis.checkpoints,
                )
            )  # fmt: skip
    return tuple(panels)


def ladder_line(book: Book, metric: str, modality: str) -> Line:
    """One metric of one modality, checkpoint by checkpoint."""
    names = book.analysis.checkpoints
    site = book.site_of(metric, modality)
    found = [book.measurements.get((metric, site, modality, name)) for name in names]
    return Line(
        modality_title(modality),
        family(modality),
        tuple(float(i) for i in range(len(names))),
        tuple(m.value if m else None for m in found),
        tuple(m.interval if m else None for m in found),
    )


def ladder_rows(
    book: Book,
) -> tuple[tuple[str, str, tuple[tuple[Measurement | None, Difference | None], ...]], ...]:
    """Metric, modality and, for every checkpoint, its value and its change from the reference."""
    if not book.between:
        return ()
    names = book.analysis.checkpoints
    changes = {(d.metric, d.site, d.modality, d.after): d for d in book.analysis.differences}
    own = [m for m in book.analysis.measurements if family_of(m.metric) == "headline"]
    rows = []
    for metric, kind in dict.fromkeys((m.metric, m.modality) for m in own):
        key = (metric, book.site_of(metric, kind), kind)
        cells = tuple((book.measurements.get((*key, n)), changes.get((*key, n))) for n in names)
        rows.append((metric, kind, cells))
    order = list(dict.fromkeys(metric for metric, _, _ in rows))
    return tuple(
        sorted(rows, key=lambda r: (order.index(r[0]), MODALITIES.index(known(family(r[1])))))
    )
