"""Estimates as records: with their company, and what a reader must know.

A metric that is not defined somewhere (at `embed` under one prompt all last tokens are equal)
becomes a record without a value and with the reason; `DegenerateInput` ends here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from geomkit import statistics
from geomkit.errors import DegenerateInput
from geomkit.estimates import METRICS, Result
from geomkit.statistics import Estimate
from geomkit.types import Difference, Interval, Measurement

Cell = tuple[str, str]
"""Metric, unit."""


def measurement(cell: Cell, result: Result, checkpoint: str, site: str) -> Measurement:
    """One estimate as a record; without a value, and with the reason, when it is not defined."""
    known = METRICS[cell[0]]
    empty = Measurement(
        metric=cell[0],
        checkpoint=checkpoint,
        site=site,
        modality=cell[1],
        value=None,
        interval=None,
        chance=None,
        better=known.better,
        n=0,
        reference=known.reference,
    )
    if isinstance(result, DegenerateInput):
        return replace(empty, note=str(result))
    interval, flaw = _interval(result, known.range)
    return replace(
        empty,
        value=result.value,
        interval=interval,
        chance=result.chance,
        n=result.n,
        note="; ".join(part for part in (known.note, flaw) if part),
        chance_sd=result.chance_sd,
    )


def changed(before: Result, after: Result) -> Result:
    """After minus before, paired, or why there is none."""
    for result in (before, after):
        if isinstance(result, DegenerateInput):
            return result
    return statistics.difference(before, after)  # type: ignore[arg-type]  # both are estimates now


def difference(cell: Cell, change: Result, names: tuple[str, str], site: str) -> Difference:
    """A change as a record; `names` are the two checkpoints."""
    empty = Difference(
        metric=cell[0],
        before=names[0],
        after=names[1],
        site=site,
        modality=cell[1],
        value=None,
        interval=None,
        better=METRICS[cell[0]].better,
        n=0,
    )
    if isinstance(change, DegenerateInput):
        return replace(empty, note=str(change))
    interval, note = _interval(change)
    return replace(empty, value=change.value, interval=interval, n=change.n, note=note)


def banded(changes: Mapping[str, Result]) -> dict[str, Interval]:
    """Simultaneous intervals of the changes of one metric and unit, by site.

    Sites where it is not defined are left out; none where rows are too few for any interval.
    """
    sound = {site: change for site, change in changes.items() if isinstance(change, Estimate)}
    try:
        made = statistics.bands(list(sound.values()))
    except DegenerateInput:
        return {}
    return dict(zip(sound, made, strict=True))


def _interval(
    estimate: Estimate, within: tuple[float, float] = (-float("inf"), float("inf"))
) -> tuple[Interval | None, str]:
    """The interval, or None and the reason."""
    try:
        return statistics.interval(estimate, within=within), ""
    except DegenerateInput as flaw:
        return None, str(flaw)
