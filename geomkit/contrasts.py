"""A comparison of two checkpoints as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from geomkit.carried import NOTHING, SAME
from geomkit.comparison import Comparison, families
from geomkit.store import records
from geomkit.summary import MARK, difference, number
from geomkit.types import Interval


def to_json(comparison: Comparison) -> str:
    """The comparison as one JSON document."""
    return records.to_json(comparison).decode()


def tables(comparison: Comparison) -> Iterator[Table]:
    """The differences, and what carried over where there is something to set it against."""
    yield contrast_table(comparison)
    if any(t.trained for t in comparison.transfers):
        yield transfer_table(comparison)


def contrast_table(comparison: Comparison) -> Table:
    """Metric x modality: before, after, paired difference with interval, p, status."""
    names = (comparison.before, comparison.after)
    table = _table(("metric", "modality"), (*names, "difference [95 %]", "p"), ("status",))
    for c in comparison.contrasts:
        mark, colour = MARK[c.status]
        d = c.difference
        cells = (d.metric, d.modality, number(c.before), number(c.after), difference(d), small(c.p))
        table.add_row(*(Text(cell) for cell in cells), Text(mark, colour))
    return table


def transfer_table(comparison: Comparison) -> Table:
    """Metric x untrained modality: both changes, both ratios with their intervals, verdict."""
    numbers = ("trained", "untrained", "ratio [95 %]", "of the way [95 %]", "p")
    table = _table(("metric", "from -> to"), numbers, ("verdict",))
    for t in comparison.transfers:
        if t.trained:
            cells = (
                t.metric,
                f"{t.trained} -> {t.untrained}",
                signed(t.change_trained),
                signed(t.change_untrained),
                spanned(t.ratio, t.interval),
                spanned(t.closed_ratio, t.closed_interval),
                small(t.p),
                t.verdict,
            )
            table.add_row(*(Text(cell) for cell in cells))
    return table


def comparison_lines(comparison: Comparison) -> Iterator[str]:
    """What the tables leave out: families, reasons, and the outcome in words."""
    yield families(comparison)
    if any(t.note.startswith(SAME) for t in comparison.transfers):
        yield (
            "trained: its change in the samples of the other side (images are set against their "
            "own captions), so it differs from the first table, which is of all rows"
        )
    for t in comparison.transfers:
        if t.trained and t.ratio is None and t.verdict != NOTHING:
            yield f"{t.metric}, {t.untrained}: {t.verdict} ({t.note.rstrip('.')})"
    yield ""
    yield from comparison.sentences


def _table(names: tuple[str, ...], numbers: tuple[str, ...], words: tuple[str, ...]) -> Table:
    table = Table(header_style="bold", pad_edge=False, box=None)
    for name in names:
        table.add_column(Text(name), no_wrap=True)
    for name in numbers:
        table.add_column(Text(name), justify="right", no_wrap="[" not in name)
    for name in words:
        table.add_column(Text(name))
    return table


def signed(value: float | None) -> str:
    """Three significant digits and always a sign."""
    return "–" if value is None else f"{value:+.3g}".replace("-", "−")


def spanned(value: float | None, interval: Interval | None) -> str:
    """`0.95 [0.94, 0.96]`, or a dash."""
    if value is None or interval is None:
        return "–"
    return f"{value:.2f} [{interval.low:.2f}, {interval.high:.2f}]".replace("-", "−")


def small(p: float | None) -> str:
    """Two significant digits; below 0.0001 only that."""
    if p is None:
        return "–"
    return "<1e-4" if p < 1e-4 else f"{p:.2g}"
