"""A number on its way to paper: a probe's estimate, or why there is none, as a record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from geomkit.errors import DegenerateInput
from geomkit.statistics import Estimate, difference, interval
from geomkit.types import Better, Difference, Measurement

Result = Estimate | DegenerateInput


def recorded(
    found: Mapping[str, Mapping[Cell, Result]],
) -> tuple[tuple[Measurement, ...], tuple[Difference, ...]]:
    """Results by checkpoint, then by what they are of: as measurements and paired differences."""
    first = next(iter(found.values()), {})
    rows = {cell: {name: results[cell] for name, results in found.items()} for cell in first}
    return (
        tuple(m for cell, row in rows.items() for m in cell.measurements(row)),
        tuple(d for cell, row in rows.items() for d in cell.differences(row)),
    )


@dataclass(frozen=True, slots=True)
class Cell:
    """What a number is of; equal for every checkpoint."""

    metric: str
    site: str
    modality: str
    better: Better
    n: int
    reference: str = ""
    note: str = ""

    def measurements(self, found: Mapping[str, Result]) -> Iterator[Measurement]:
        """One for each checkpoint."""
        for checkpoint, result in found.items():
            yield Measurement(
                metric=self.metric,
                checkpoint=checkpoint,
                site=self.site,
                modality=self.modality,
                value=None if isinstance(result, DegenerateInput) else result.value,
                interval=None if isinstance(result, DegenerateInput) else interval(result),
                chance=None if isinstance(result, DegenerateInput) else result.chance,
                better=self.better,
                n=self.n,
                reference=self.reference,
                note=str(result) if isinstance(result, DegenerateInput) else self.note,
            )

    def differences(self, found: Mapping[str, Result]) -> Iterator[Difference]:
        """Each later checkpoint minus the first, paired by row.

        Where neither is better than chance, a change is no loss and no gain: "neither".
        """
        before, *others = found
        for after in others:
            change = _change(found[before], found[after])
            lost = all(self._at_chance(found[name]) for name in (before, after))
            note = "; ".join(s for s in (self.note, lost * "neither is above chance") if s)
            yield Difference(
                metric=self.metric,
                before=before,
                after=after,
                site=self.site,
                modality=self.modality,
                value=None if isinstance(change, DegenerateInput) else change.value,
                interval=None if isinstance(change, DegenerateInput) else interval(change),
                better="neither" if lost else self.better,
                n=self.n,
                note=str(change) if isinstance(change, DegenerateInput) else note,
            )

    def _at_chance(self, result: Result) -> bool:
        """Is the value no better than chance, with a metric of which more is better?"""
        if isinstance(result, DegenerateInput) or result.chance is None:
            return False
        return self.better == "higher" and result.value <= result.chance


def _change(before: Result, after: Result) -> Result:
    if isinstance(before, DegenerateInput):
        return before
    return after if isinstance(after, DegenerateInput) else difference(before, after)
