"""Everything that is wrong with a run folder, in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from geomkit.errors import GeomkitError
from geomkit.store.folder import open_run
from geomkit.store.run import Run


def verify_run(path: Path) -> tuple[str, ...]:
    """The problems of a run, one sentence each; empty when every byte is as its receipt says."""
    try:
        run = open_run(path)
        names = [record.name for record in run.checkpoints()]
    except GeomkitError as error:
        return (str(error),)
    if not names:
        return (f"{path} holds no checkpoint yet; run the capture again",)
    problems = [problem for name in names for problem in run.problems(name)]
    return (*problems, *(() if problems else _pairing_problems(run)))


def _pairing_problems(run: Run) -> Iterator[str]:
    try:
        run.check_pairing()
        if run.has_analysis():
            run.read_analysis()
    except GeomkitError as error:
        yield str(error)
