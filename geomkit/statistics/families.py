"""Many estimates tested together: what stays clear when there were many chances to be lucky?

Holm's rule needs the p values alone and holds whatever binds the tests together. Estimates of the
same clusters (one metric at all sites of a model) are strongly bound: `bands` and `max_t` learn how
strongly, by flipping the signs of whole clusters in all estimates at once, and correct for as many
tests as there really are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from geomkit.errors import DegenerateInput
from geomkit.statistics.intervals import interval, p_value
from geomkit.statistics.shares import Estimate, require_alike
from geomkit.types import Interval

DRAWS = 4999
"""Draws of signs: the level of a band is then sure to about 0.3 %."""

BLOCK_ENTRIES = 2**21  # signs drawn at once: 16 MiB
LEFT = 1e-12  # of the variance, when all signs agree with the shares: t stays finite


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm-adjusted p values of one family; each is comparable with the family's level.

    Reference:
        Holm 1979, Scand. J. Statist. 6.

    Example:
        >>> holm({"a": 0.01, "b": 0.04, "c": 0.03})
        {'a': 0.03, 'b': 0.06, 'c': 0.06}
    """
    adjusted: dict[str, float] = {}
    worst = 0.0
    for done, name in enumerate(sorted(p_values, key=lambda n: p_values[n])):
        worst = max(worst, min(1.0, (len(p_values) - done) * p_values[name]))
        adjusted[name] = worst
    return {name: adjusted[name] for name in p_values}


def bands(
    estimates: Sequence[Estimate], level: float = 0.95, draws: int = DRAWS, seed: int = 0
) -> list[Interval]:
    """Intervals that hold all at once with probability `level`; one an estimate, in their order.

    Each is the estimate's own interval at one stricter level, which lies between `level` (all
    estimates move together, or there is only one) and Bonferroni's (none do). Memory is 8 bytes a
    draw and estimate.

    Raises:
        UsageError: the estimates are not of the same rows in the same clusters.
        DegenerateInput: too few groups.

    Reference:
        Westfall and Young 1993, Resampling-Based Multiple Testing; signs after Wu 1986, Ann.
        Statist. 14, and Liu 1988, Ann. Statist. 16.
    """
    if not estimates:
        return []
    alone = _joint_level(estimates, level, draws, seed)
    told = f"simultaneous over {len(estimates)}"
    made = [interval(estimate, alone) for estimate in estimates]
    return [replace(one, level=level, method=f"{one.method}, {told}") for one in made]


def max_t(estimates: Sequence[Estimate], draws: int = DRAWS, seed: int = 0) -> list[float]:
    """Adjusted two-sided p of `value = 0`, one an estimate, by the step-down max-statistic.

    Never above Holm's, which is also what counts where `draws` are too few to tell, and never below
    the p value of the estimate alone.

    Raises:
        UsageError: the estimates are not of the same rows in the same clusters.
        DegenerateInput: fewer than two groups.

    Reference:
        Westfall and Young 1993, Resampling-Based Multiple Testing, algorithm 4.1.
    """
    if not estimates:
        return []
    alone = np.array([p_value(estimate) for estimate in estimates])
    largest = holm({str(i): float(p) for i, p in enumerate(alone)})
    t = _flipped(estimates, draws, seed)
    order = np.argsort(alone, kind="stable")
    # The largest of what is still in the race, from the last place up.
    rivals = np.maximum.accumulate(t[:, order[::-1]], axis=1)[:, ::-1]
    seen = np.array([_errors(estimates[i]) for i in order])
    p = (1 + (rivals >= seen).sum(axis=0)) / (1 + draws)
    adjusted = np.empty(len(alone))
    adjusted[order] = np.maximum.accumulate(np.maximum(p, alone[order]))
    return [min(float(p), largest[str(i)]) for i, p in enumerate(adjusted)]


def _joint_level(estimates: Sequence[Estimate], level: float, draws: int, seed: int) -> float:
    """The level at which each interval alone must be made for all to hold at once with `level`."""
    if len(estimates) == 1:
        return level
    t = _flipped(estimates, draws, seed)
    single = np.quantile(t, level, axis=0)
    t = np.divide(t, single, out=np.zeros_like(t), where=single > 0)  # one unit: clear alone
    wider = float(np.quantile(t.max(axis=1), level))
    freedom = len(estimates[0].shares) - 1
    stricter = 1 - 2 * float(stdtr(freedom, -wider * float(stdtrit(freedom, (1 + level) / 2))))
    return float(np.clip(stricter, level, 1 - (1 - level) / len(estimates)))


def _flipped(estimates: Sequence[Estimate], draws: int, seed: int) -> NDArray[np.float64]:
    """|t| of each estimate as if its value were zero, in each draw of signs, `(draws, family)`."""
    require_alike(estimates)
    if len(estimates[0].shares) < 2:
        raise DegenerateInput(
            "Expected at least 2 groups for a family of tests, got 1; give more samples that are "
            "not copies of each other."
        )
    shares = np.stack([e.shares - e.shares.mean() for e in estimates], axis=1)
    clusters = len(shares)
    squares = (shares**2).sum(axis=0)
    invented = np.array([e.invented for e in estimates])
    t = np.zeros((draws, len(estimates)))
    for rows, signs in _signs(draws, clusters, seed):
        total = signs @ shares
        left = np.maximum(squares - total**2 / clusters, LEFT * squares)
        error = np.sqrt(clusters / (clusters - 1) * left + invented)
        np.divide(np.abs(total), error, out=t[rows], where=error > 0)
    return t


def _signs(draws: int, clusters: int, seed: int) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Random signs, one a draw and cluster, as many draws at a time as memory should hold."""
    rng = np.random.default_rng(seed)
    step = max(1, BLOCK_ENTRIES // clusters)
    for start in range(0, draws, step):
        rows = slice(start, min(start + step, draws))
        yield rows, rng.integers(0, 2, (rows.stop - start, clusters), np.int8) * 2.0 - 1


def _errors(estimate: Estimate) -> float:
    """How many standard errors the value is away from zero."""
    error = estimate.standard_error
    if error == 0:
        return 0.0 if estimate.value == 0 else math.inf
    return abs(estimate.value) / error
