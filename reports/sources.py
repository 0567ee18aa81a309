"""Which records a figure is drawn from: what its CSV and its JSON hold.

    {figure: [[table of the analysis, {field: value, or a list of which any will do}], ...]}

Curves over the sites know their own records; what is not listed saves what it shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reports.book import Book
from reports.transfer import ForestPanel

Source = list[Any]
PAIR = ("before", "after")


def sources(panels: Sequence[ForestPanel], book: Book) -> dict[str, list[Source]]:
    """The records behind each panel of dots with intervals."""
    compared = dict(zip(PAIR, (book.before, book.after), strict=True))
    return {panel.key: [source(panel, compared)] for panel in panels}


def source(panel: ForestPanel, compared: dict[str, str]) -> Source:
    """The table of one panel and what its records have in common."""
    if panel.key == "carried":
        return ["transfers", compared | {"metric": named(panel)}]
    if panel.key == "bound":
        return ["bindings", compared | {"site": panel.site, "quantity": named(panel)}]
    metrics = named(panel)
    table = "probe_differences" if metrics[0].startswith("probe:") else "differences"
    kinds = list(dict.fromkeys(row.difference.modality for row in panel.rows))
    return [table, compared | {"metric": metrics, "modality": kinds, "site": panel.site}]


def named(panel: ForestPanel) -> list[str]:
    """The metrics of a panel, each once."""
    return list(dict.fromkeys(row.difference.metric for row in panel.rows))
