"""What share of a change is another change? A ratio of two paired changes, with its interval.

Reference: Fieller 1954, J. R. Statist. Soc. B 16; it holds its level also when the change below the
line is barely clear, where the usual interval of a ratio is far too short.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import stdtrit

from geomkit.errors import DegenerateInput
from geomkit.statistics import Estimate
from geomkit.types import Interval


def fraction(above: Estimate, below: Estimate, level: float = 0.95) -> tuple[float, Interval]:
    """`above / below` of two differences on the same rows, and Fieller's interval of it.

    Raises:
        DegenerateInput: `below` is not clear at `level`, so there is nothing to have a share of.
    """
    half = float(stdtrit(len(below.shares) - 1, (1 + level) / 2))
    if abs(below.value) <= half * below.standard_error:
        raise DegenerateInput(
            f"Expected a clear change to have a share of, got {below.value:+.3g} with a standard "
            f"error of {below.standard_error:.2g}; give more samples."
        )
    low, high = _fieller(above, below, half)
    method = f"Fieller, {len(below.shares)} groups"
    return above.value / below.value, Interval(low, high, level, method, len(below.shares))


def _fieller(above: Estimate, below: Estimate, half: float) -> tuple[float, float]:
    """Both roots `f` of `(above - f below)^2 = half^2 Var(above - f below)`."""
    noise = half * half * np.cov(above.shares, below.shares) * len(below.shares)
    # The standard error of scores has more in it than the spread of their shares.
    noise[0, 0] = (half * above.standard_error) ** 2
    noise[1, 1] = (half * below.standard_error) ** 2
    a = below.value**2 - noise[1, 1]
    b = above.value * below.value - noise[0, 1]
    c = above.value**2 - noise[0, 0]
    root = math.sqrt(max(0.0, b * b - a * c))
    return float((b - root) / a), float((b + root) / a)
