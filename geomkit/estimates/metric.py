"""What is known of a metric before it is measured, and how an estimate is made of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from geomkit.errors import DegenerateInput
from geomkit.statistics import Estimate
from geomkit.types import Better

Of = TypeVar("Of")

Family = Literal["cone", "spectrum", "neighbours", "dimension", "gap", "similarity", "retrieval"]
Result = Estimate | DegenerateInput
"""An estimate, or why there is none."""


@dataclass(frozen=True, slots=True)
class Metric(Generic[Of]):
    """A metric as readers know it, and the function that estimates it.

    `note` says what chance is, or how to read the number. A `costly` one is left out unless asked
    for by name or family.
    """

    estimate: Callable[[Of], Estimate]
    family: Family
    better: Better
    range: tuple[float, float]
    reference: str
    note: str = ""
    costly: bool = False

    def of(self, subject: Of) -> Result:
        """The estimate, or the reason why the metric is not defined there."""
        try:
            return self.estimate(subject)
        except DegenerateInput as flaw:
            return flaw.kept()
