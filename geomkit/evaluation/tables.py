"""Results as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.table import Table

from geomkit.evaluation.retrieval import Change, Retrieved, Score
from geomkit.types import Interval

if TYPE_CHECKING:  # it needs mteb
    from geomkit.evaluation.benchmark import Benchmarked


def retrieval_table(found: Retrieved) -> Table:
    """One line a checkpoint, direction and metric, with the change against the first checkpoint."""
    table = Table(header_style="bold", pad_edge=False, box=None)
    for name in ("direction", "metric", "checkpoint"):
        table.add_column(name, no_wrap=True)
    for name in ("value [95 %]", "chance", "change [95 %]", "p (Holm)"):
        table.add_column(name, justify="right", no_wrap=True)
    order = {(s.direction, s.metric): i for i, s in reversed(list(enumerate(found.scores)))}
    changes = {(c.after, c.direction, c.metric): c for c in found.changes}
    for score in sorted(found.scores, key=lambda s: order[s.direction, s.metric]):
        changed = changes.get((score.checkpoint, score.direction, score.metric))
        table.add_row(*_cells(score), *_change(changed))
    return table


def _cells(score: Score) -> tuple[str, ...]:
    chance = "" if score.chance is None else f"{score.chance:.3f}"
    value = f"{score.value:.3f} {_span(score.interval)}"
    return score.direction, score.metric, score.checkpoint, value, chance


def _change(change: Change | None) -> tuple[str, str]:
    if change is None:
        return "", ""
    return f"{change.value:+.3f} {_span(change.interval, '+')}", f"{change.p:.2g}"


def _span(interval: Interval, sign: str = "") -> str:
    return f"[{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"


def benchmark_table(found: Benchmarked) -> Table:
    """One line a task with the main score of every checkpoint, then the two means."""
    table = Table(header_style="bold", pad_edge=False, box=None)
    for name in ("task", "category", "metric"):
        table.add_column(name, no_wrap=True)
    for name in found.checkpoints:
        table.add_column(name, justify="right", no_wrap=True)
    for task, category, metric, cells in _lines(found):
        table.add_row(task, category, metric, *cells)
    return table


def _lines(found: Benchmarked) -> Iterator[tuple[str, str, str, list[str]]]:
    of = {(s.checkpoint, s.task): s for s in found.scores}
    for task in dict.fromkeys(s.task for s in found.scores):
        own = [of.get((name, task)) for name in found.checkpoints]
        one = next(s for s in own if s is not None)
        yield task, one.category, one.metric, [_number(s.value if s else None) for s in own]
        if one.recall_1 is not None and one.metric != "hit_rate_at_1":
            yield "", "", "R@1", [_number(s.recall_1 if s else None) for s in own]
    if found.means:
        count = f"{found.means[0].tasks} tasks"
        yield "mean over tasks", "", count, [_number(m.task_mean) for m in found.means]
        yield "mean over categories", "", count, [_number(m.category_mean) for m in found.means]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
