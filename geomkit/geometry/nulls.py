"""What would a metric be if the rows of one side were paired with those of the other by lot?"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NullMoments:
    """The exact mean and variance of a metric over all N! pairings of the rows of two sides."""

    mean: float
    variance: float

    @property
    def sd(self) -> float:
        """The standard deviation."""
        return float(self.variance**0.5)
