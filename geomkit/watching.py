"""A run that grows is looked at again and again, and its report written anew when it changed.

Polling, so that it works on any disk and without a server: what is compared are names, sizes and
times of the plan, the records and the receipts. A checkpoint counts once all its shards are there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from geomkit.errors import GeomkitError

State = tuple[tuple[str, int, int], ...]
"""Name, size and time of every file that tells how far a run is."""

MADE = ("analysis.json", "report.json")
"""Files that are made from a run: they tell nothing of how far it is."""


def watch(
    run: Path,
    render: Callable[[], str],
    tell: Callable[[str], None],
    *,
    every: float,
    wait: Callable[[float], None] = time.sleep,
    rounds: int | None = None,
) -> None:
    """Call `render` now and whenever the run has changed, and tell what it says.

    What is wrong with an unfinished run is told once and tried again after the next change.

    Args:
        run: the run folder; it need not be there yet.
        render: writes the report, and says where.
        tell: takes one line.
        every: seconds between two looks.
        wait: sleeps.
        rounds: looks, or None for ever.
    """
    seen: State | None = None
    said = ""
    for _ in _looks(rounds):
        now = state(run)
        if now and now != seen:
            line = tried(render)
            if line != said:
                tell(line)
            seen, said = now, line
        elif not now and not said:
            said = f"waiting for a run at {run}"
            tell(said)
        wait(every)


def state(run: Path) -> State:
    """How far a run is, as its files tell; empty when there is none."""
    if not run.is_dir():
        return ()
    return tuple(sorted(_files(run)))


def _files(run: Path) -> Iterator[tuple[str, int, int]]:
    for path in run.glob("*/*.json"):
        if not path.parent.name.startswith("."):
            yield from _stamp(path, run)
    for path in run.glob("*.json"):
        if path.name not in MADE and not path.name.startswith((".", "umap-")):
            yield from _stamp(path, run)


def _stamp(path: Path, run: Path) -> Iterator[tuple[str, int, int]]:
    """Nothing for a file that is gone by now: another process writes here."""
    try:
        told = path.stat()
    except OSError:
        return
    yield str(path.relative_to(run)), told.st_size, told.st_mtime_ns


def tried(render: Callable[[], str]) -> str:
    """What `render` says, or what is wrong."""
    try:
        return render()
    except GeomkitError as flaw:
        return f"not yet: {flaw}"


def _looks(rounds: int | None) -> Iterator[int]:
    done = 0
    while rounds is None or done < rounds:
        yield done
        done += 1
