"""What share of one change is another? A ratio of two estimates, with an interval that holds.

Reference: Fieller 1954, J. R. Statist. Soc. B 16; it keeps its level also where the denominator is
barely clear of zero, where value +- t sd is far too short.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import stdtrit

from geomkit.errors import DegenerateInput, UsageError
from geomkit.statistics.intervals import require_groups
from geomkit.statistics.shares import Estimate
from geomkit.types import Interval


def ratio(numerator: Estimate, denominator: Estimate, level: float = 0.95) -> Interval:
    """Fieller's interval: every `r` at which `numerator - r denominator` is not clear of zero.

    The two may be of different rows. Named groups that both have bring in their covariance; groups
    that one of them lacks are independent of all others. Where neither has names (folds), any
    correlation is possible and the interval is the widest of them. Student's t has the degrees of
    freedom of the side with fewer groups.

    Raises:
        UsageError: one side names its groups and the other does not.
        DegenerateInput: too few groups, or the denominator is not clear of zero at `level`, where
            the interval has no bounds.
    """
    require_groups(numerator)
    require_groups(denominator)
    groups = min(len(numerator.shares), len(denominator.shares))
    t = float(stdtrit(groups - 1, (1 + level) / 2))
    above, below = t * numerator.standard_error, t * denominator.standard_error
    if abs(denominator.value) <= below:
        raise DegenerateInput(
            f"Expected a denominator clear of zero at {level:.0%}, got {denominator.value:.3g} +- "
            f"{below:.2g}, under which a ratio has no bounds; give more samples, or compare the "
            "two changes themselves."
        )
    if not numerator.names and not denominator.names:
        low, high = _widest(numerator.value, denominator.value, above, below)
        return Interval(low, high, level, f"Fieller, {groups} folds, any correlation", groups)
    common = t * t * covariance(numerator, denominator)
    low, high = _roots(numerator.value, denominator.value, (above, below), common)
    return Interval(low, high, level, f"Fieller, {groups} groups", groups)


def covariance(one: Estimate, other: Estimate) -> float:
    """Covariance of the errors of two estimates, from the named groups that both have.

    Raises:
        UsageError: names are missing on one side, or name two groups alike.
    """
    places = [{name: i for i, name in enumerate(e.names)} for e in (one, other)]
    for estimate, place in zip((one, other), places, strict=True):
        if len(place) != len(estimate.shares):
            raise UsageError(
                f"Expected a name of its own for each of {len(estimate.shares)} groups, got "
                f"{len(place)}; make both estimates with the names of their groups."
            )
    shared = [name for name in places[0] if name in places[1]]
    product = 1.0
    sides = []
    for estimate, place in zip((one, other), places, strict=True):
        groups = len(estimate.shares)
        centred = estimate.shares - estimate.shares.mean()
        sides.append(centred[[place[name] for name in shared]])
        product *= groups / (groups - 1)
    return math.sqrt(product) * float(np.dot(*sides))


def _roots(
    above: float, below: float, half: tuple[float, float], common: float
) -> tuple[float, float]:
    """Both `r` with `(above - r below)^2 = half_0^2 - 2 r common + r^2 half_1^2`."""
    a = below**2 - half[1] ** 2
    b = above * below - common
    c = above**2 - half[0] ** 2
    root = math.sqrt(max(0.0, b * b - a * c))
    return _around(above / below, (b - root) / a, (b + root) / a)


def _widest(
    above: float, below: float, half_above: float, half_below: float
) -> tuple[float, float]:
    """The ends of all such intervals: `|above - r below| <= half_above + |r| half_below`."""
    sign = math.copysign(1.0, below)
    above, below = sign * above, abs(below)
    ends = [
        bound / (below - side * half_below)
        for bound in (above - half_above, above + half_above)
        for side in (-1, 1)
    ]
    return _around(above / below, min(ends), max(ends))


def _around(value: float, low: float, high: float) -> tuple[float, float]:
    """The ends, which rounding may not push past the value."""
    return min(low, value), max(high, value)
