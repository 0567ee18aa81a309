"""One estimate alone: its interval, and its p value."""

from __future__ import annotations

import math

from scipy.special import ndtri, stdtr, stdtrit

from geomkit.errors import DegenerateInput
from geomkit.statistics.shares import Estimate
from geomkit.types import Interval

LEAST_GROUPS = 5
"""Groups below which shares say nothing of the error: two rows make one cosine, three rows without
one make a rank of 1, so every share is the same and the interval would have no width."""


def interval(
    estimate: Estimate,
    level: float = 0.95,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> Interval:
    """Confidence interval: Wilson's for scores, else Student's t over clusters, cut to `within`.

    The value itself is never cut off: a debiased metric may pass its range a little.

    Raises:
        DegenerateInput: fewer than two clusters, or than `LEAST_GROUPS` where rows make pairs.
    """
    clusters = len(estimate.shares)
    if estimate.method == "scores":
        low, high = _wilson(estimate, level)
        return Interval(low, high, level, f"Wilson, {clusters} groups", clusters)
    require_groups(estimate)
    half = float(stdtrit(clusters - 1, (1 + level) / 2)) * estimate.standard_error
    return Interval(
        min(estimate.value, max(estimate.value - half, within[0])),
        max(estimate.value, min(estimate.value + half, within[1])),
        level,
        f"{estimate.method}, {clusters} groups",
        clusters,
    )


def require_groups(estimate: Estimate) -> None:
    """Refuses an estimate whose groups are so few that its shares say nothing of its error."""
    clusters = len(estimate.shares)
    if estimate.method != "paired scores" and clusters < LEAST_GROUPS:
        raise DegenerateInput(
            f"Expected at least {LEAST_GROUPS} groups for an interval, got {clusters}; give more "
            "samples that are not copies of each other."
        )


def p_value(estimate: Estimate, null: float = 0.0) -> float:
    """Two-sided p of `value = null` by Student's t over clusters, in [0, 1]; for `holm`."""
    error = estimate.standard_error
    away = abs(estimate.value - null)
    if error == 0:
        return 1.0 if away == 0 else 0.0
    return float(2 * stdtr(len(estimate.shares) - 1, -away / error))


def _wilson(estimate: Estimate, level: float) -> tuple[float, float]:
    """Wilson's interval of a mean of scores, with as many rows as the clusters are worth."""
    p, clusters = estimate.value, len(estimate.shares)
    single = clusters == estimate.n
    z = float(ndtri((1 + level) / 2) if single else stdtrit(clusters - 1, (1 + level) / 2))
    n = _worth(estimate)
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
    return (0.0 if p == 0 else max(0.0, centre - half)), (
        1.0 if p == 1 else min(1.0, centre + half)
    )


def _worth(estimate: Estimate) -> float:
    """How many independent hits would have this spread; for single rows of 0 and 1 it is `n`."""
    p, spread = estimate.value, estimate.spread
    if p in {0.0, 1.0}:
        return len(estimate.shares)  # no spread to learn from: one vote a cluster
    return estimate.n if spread == 0 else p * (1 - p) / spread
