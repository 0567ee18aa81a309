"""Progress of a long stage on stderr: bars on a terminal, and quiet elsewhere.

Without a terminal nothing is said for half a minute, then a line a tenth: a job's log shows that it
lives, a script's stays empty.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

QUIET = 30.0  # seconds without a word where there is no terminal

Progress = Callable[[str, int, int], None]
"""Called with what is going on, how much of it is done, and how much there is."""


def silent(_stage: str, _done: int, _total: int) -> None:
    """Says nothing: the default in Python."""


@contextmanager
def progress(console: Console) -> Iterator[Progress]:
    """A `Progress` that draws on `console` while the block runs."""
    if not console.is_terminal:
        yield _lines(console)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} {task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        yield _bars(bars)


def _bars(bars: Bars) -> Progress:
    tasks: dict[str, TaskID] = {}
    started: dict[str, float] = {}

    def report(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = bars.add_task(stage, total=total, rate="")
            started[stage] = time.monotonic()
        seconds = time.monotonic() - started[stage]
        rate = f"{done / seconds:.0f}/s" if seconds > 1 else ""
        bars.update(tasks[stage], completed=done, total=total, rate=rate)

    return report


def _lines(console: Console) -> Progress:
    said: dict[str, int] = {}
    started: dict[str, float] = {}

    def report(stage: str, done: int, total: int) -> None:
        seconds = time.monotonic() - started.setdefault(stage, time.monotonic())
        tenth = 10 * done // total if total else 10
        if seconds >= QUIET and tenth > said.get(stage, -1):
            said[stage] = tenth
            console.print(f"{stage}: {done}/{total}, {done / seconds:.1f}/s", markup=False)

    return report
