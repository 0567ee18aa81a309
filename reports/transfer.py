"""Differences at the final norm, metric by metric: did what was trained carry over?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from geomkit.claims import DISTANCES, clearly
from geomkit.types import MODALITIES, Better, Difference
from reports.book import FINAL, Book, Role, known, padded, reach
from reports.metrics import family_of
from reports.words import decimals, family, metric_title, modality_title


@dataclass(frozen=True, slots=True)
class ForestRow:
    """One dot with its interval."""

    label: str
    role: Role
    family: str
    difference: Difference


@dataclass(frozen=True, slots=True)
class ForestPanel:
    """Differences of one metric on one axis that holds zero."""

    key: str
    title: str
    better: Better
    control: bool
    site: str
    rows: tuple[ForestRow, ...]
    low: float
    high: float
    hint: str = ""  # what the axis counts; the better direction by default
    words: tuple[str, ...] = ()  # what it says, a sentence each
    ends: tuple[str, str] = ("", "")  # what the two reference values mean, 0 and the last line
    lines: tuple[float, ...] = ()  # reference values beside zero

    @property
    def places(self) -> int:
        """Decimals that all its numbers are written with."""
        changes = [row.difference for row in self.rows]
        return decimals([v for d in changes for v in reach(d.value, d.interval)])


def forest_panels(book: Book) -> tuple[ForestPanel, ...]:
    """Differences at the final norm: headline metrics, then probes, then negative controls.

    The other metrics have a table; all of them where none is a headline one.
    """
    differences = [d for (_, site, _), d in book.differences.items() if site == FINAL]
    measured = dict.fromkeys(d.metric for d in differences if not d.metric.startswith("probe:"))
    metrics = [name for name in measured if family_of(name) == "headline"] or list(measured)
    panels = [
        forest_panel(
            book, f"transfer-{i}", metric_title(name), [d for d in differences if d.metric == name]
        )
        for i, name in enumerate(metrics)
    ]
    probes = [d for d in differences if d.metric.startswith("probe:")]
    # Spoken attributes speak of transfer when read across modalities; a control whenever it moves.
    spoken = [d for d in probes if not book.is_control(d.metric) and crosses(d.modality)]
    kinds = dict.fromkeys(family(d.modality) for d in spoken)
    panels += [
        forest_panel(
            book,
            f"transfer-probes-{kind}",
            f"Probes: {kind} and text",
            [d for d in spoken if family(d.modality) == kind],
        )
        for kind in kinds
    ]
    if own := [d for d in probes if book.is_control(d.metric) and telling(d)]:
        panels.append(forest_panel(book, "transfer-controls", "Negative controls", own))
    return tuple(panels)


def other_differences(book: Book) -> tuple[Difference, ...]:
    """Differences at the final norm of the metrics that no panel shows."""
    shown = {row.difference.metric for panel in forest_panels(book) for row in panel.rows}
    return tuple(
        d
        for (metric, site, _), d in book.differences.items()
        if site == FINAL and metric not in shown and not metric.startswith("probe:")
    )


def head_panel(book: Book) -> ForestPanel | None:
    """Differences of the generative loss, or None when there are none."""
    own = [d for (metric, _, _), d in book.differences.items() if metric == "generative_loss"]
    return (
        forest_panel(book, "loss-differences", metric_title("generative_loss"), own)
        if own
        else None
    )


def telling(control: Difference) -> bool:
    """Whether a control is worth a row: text cannot hold it, so its rows count only if it moved."""
    return clearly(control) or "text" not in control.modality.split("->")


def crosses(modality: str) -> bool:
    """Whether a direction leads from one modality to another."""
    first, arrow, second = modality.partition("->")
    return bool(arrow) and first != second


def forest_panel(
    book: Book, key: str, title: str, differences: Sequence[Difference]
) -> ForestPanel:
    """Rows in canonical modality order on one axis from the data, zero always on it."""
    rows = tuple(
        ForestRow(forest_label(book, d), book.role(d.metric, d.modality), family(d.modality), d)
        for d in sorted(differences, key=lambda d: MODALITIES.index(known(family(d.modality))))
    )
    ends = [0.0, *(v for d in differences for v in reach(d.value, d.interval))]
    low, high = padded(min(ends), max(ends))
    control = all(row.role == "control" for row in rows)
    # A distance that the spread of the states explains has no better side to be on.
    explained = any(d.metric in DISTANCES and book.status(d) == "info" for d in differences)
    return ForestPanel(
        key, title, "neither" if explained else differences[0].better, control,
        differences[0].site, rows, low, high, EXPLAINED if explained else "",
    )  # fmt: skip


EXPLAINED = "explained by the spread: no claim"


def forest_label(book: Book, difference: Difference) -> str:
    """The modality, and whether training saw it; with the attribute first for a probe."""
    d, where = difference, modality_title(difference.modality)
    if d.metric.startswith("probe:"):
        return f"{d.metric.removeprefix('probe:')}: {where.replace(' ', '')}"
    known = book.analysis.trained and d.modality in MODALITIES
    return f"{where} ({book.role(d.metric, d.modality)})" if known else where
