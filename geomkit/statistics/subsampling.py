"""An interval for any metric at all: what it is on parts of the rows, drawn without replacement.

No row is ever seen twice, so nothing is its own neighbour. A part has fewer rows than the whole and
so errs more: the deviations are scaled to the whole's size, and are counted about their own mean,
because metrics of ranks and neighbours also change with the number of rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from geomkit.errors import DegenerateInput, UsageError
from geomkit.types import Interval

Codes = NDArray[np.int64]

LEAST_CLUSTERS = 10
"""Clusters below which halves of them are too alike to say anything."""


def subsampled(
    metric: Callable[[Codes], float],
    clusters: Codes,
    *,
    level: float = 0.95,
    share: float = 0.5,
    draws: int = 400,
    seed: int = 0,
) -> Interval:
    """Interval of `metric(rows)` from its values on random parts of the clusters.

    `metric` gets the indices of the rows to look at, so that a change is `lambda rows: after(rows)
    - before(rows)`. A part holds `share` of the clusters, whole. With b of G clusters a deviation
    is scaled by `sqrt(b / (G - b))` to what it would be of the whole, and by Student's t over the
    normal quantile, because G clusters are all that is known.

    Raises:
        UsageError: `share` is not between 0 and 1, or no draws are asked for.
        DegenerateInput: fewer than 10 clusters, or the metric is not defined on a part.

    Reference:
        Politis, Romano and Wolf 1999, Subsampling; the scale without replacement is that of Shao
        and Wu 1989, Ann. Statist. 17 (delete-d jackknife).
    """
    if not 0 < share < 1 or draws < 2:
        raise UsageError(
            f"Expected a share between 0 and 1 and at least 2 draws, got {share} and {draws}."
        )
    code = np.unique(clusters, return_inverse=True)[1]
    count = int(code.max()) + 1 if len(code) else 0
    if count < LEAST_CLUSTERS:
        raise DegenerateInput(
            f"Expected at least {LEAST_CLUSTERS} groups to draw from, got {count}; give more "
            "samples that are not copies of each other."
        )
    part = min(max(1, round(share * count)), count - 1)
    value = float(metric(np.arange(len(code))))
    rng = np.random.default_rng(seed)
    seen = np.array([float(metric(_some(code, part, rng))) for _ in range(draws)])
    t = float(stdtrit(count - 1, (1 + level) / 2)) / float(ndtri((1 + level) / 2))
    error = t * math.sqrt(part / (count - part)) * (seen - seen.mean())
    low, high = np.quantile(error, [(1 - level) / 2, (1 + level) / 2])
    return Interval(
        min(value, value - float(high)),
        max(value, value - float(low)),
        level,
        f"subsampling, {part} of {count} groups",
        count,
    )


def _some(code: Codes, part: int, rng: np.random.Generator) -> Codes:
    """Rows of `part` of the clusters."""
    chosen = np.zeros(code.max() + 1, dtype=bool)
    chosen[rng.permutation(len(chosen))[:part]] = True
    return np.flatnonzero(chosen[code])
