"""Independent pieces of work over processes, each piece told when it is done.

The pieces keep what they make on disk, so nothing but their end comes back, and what was done when
a crew is interrupted stays done.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import joblib
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships no types

from geomkit.progress import Progress

BASE = 240 * 2**20
"""Bytes of an interpreter with its libraries, before it reads a state."""

Piece = Callable[[], None]


def work(pieces: Sequence[Piece], workers: int, stage: str, progress: Progress) -> None:
    """Do every piece, on `workers` processes; in this one when there is one.

    Whatever a piece raises ends the crew and is raised here.
    """
    if not pieces:
        return
    progress(stage, 0, len(pieces))
    if workers == 1 or len(pieces) < 2:
        for done, piece in enumerate(pieces, 1):
            _alone(piece)
            progress(stage, done, len(pieces))
        return
    crew = joblib.Parallel(n_jobs=workers, batch_size=1, return_as="generator_unordered")
    for done, _ in enumerate(crew(joblib.delayed(_alone)(piece) for piece in pieces), 1):
        progress(stage, done, len(pieces))


def hands(workers: int, memory: float, need: float) -> int:
    """How many processes fit into `memory` bytes when each needs so many, at least 1.

    `workers` is the most, 0 for one a core. More than one have a first one to wait for them.
    """
    return max(1, min(workers or joblib.cpu_count(), int((memory - BASE) / (BASE + need))))


def _alone(piece: Piece) -> None:
    """One piece with one thread: sums in one order whatever the machine, so the same bytes."""
    with threadpool_limits(1):
        piece()
