"""How much memory a site takes, and how many rows of it fit."""

from __future__ import annotations

from geomkit.errors import UsageError
from geomkit.estimates.space import WHOLE

A_STATE = 4 + 8 + 8 + 8
"""Bytes of one number of a state: as read, as direction, as deviation, and in the making."""
A_PROBED_STATE = 2 * 4 * 6
"""The same where probes are trained: of two checkpoints, and five times that in the making."""

FEWEST, MOST = 100, 2**31


def rows_that_fit(memory: float, dim: int, probed: float = 0.0) -> int:
    """How many rows of the largest modality can be measured in `memory` bytes.

    `probed` is how many rows are probed at once for each of them: those of all modalities.

    Raises:
        UsageError: not even a hundred.
    """
    fits = int(min(memory / (2 * dim * A_STATE), MOST))
    while fits > 1 and need(fits, dim, probed) > memory:
        fits = int(fits * 0.95)
    if fits < FEWEST:
        raise UsageError(
            f"Expected {need(FEWEST, dim, probed) / 2**20:.0f} MiB beside the interpreter, for "
            f"{FEWEST} rows of {dim} columns, got {max(memory, 0) / 2**20:.0f} MiB; raise --memory."
        )
    return fits


def need(rows: int, dim: int, probed: float = 0.0) -> float:
    """Bytes that a site with so many rows in its largest modality takes, measured and probed.

    Of text and of a medium the rows, and up to `WHOLE` rows three products of each two spaces; a
    decomposition with what it works in.
    """
    whole, axes = min(rows, WHOLE), min(rows, dim)
    measured = 2 * rows * dim * A_STATE + 6 * 8 * whole**2 + 6 * 8 * axes**2
    return max(measured, rows * probed * dim * A_PROBED_STATE)
