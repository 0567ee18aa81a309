"""Estimates as records: under which name, with which company, and what a reader must know.

A metric that is not defined somewhere (at `embed` under one prompt all last tokens are equal)
becomes a record without a value and with the reason; `DegenerateInput` ends here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from geomkit import estimates, statistics
from geomkit.errors import DegenerateInput
from geomkit.estimates import BETWEEN, RETRIEVED, WITHIN, Metric, Result
from geomkit.statistics import Estimate
from geomkit.types import Difference, Interval, Measurement

Cell = tuple[str, str]
"""The estimate's name, modality."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """The name under which an estimate is recorded, what it is, and what a reader must know."""

    name: str
    metric: Metric
    note: str = ""


RECORDED: Mapping[str, Recorded] = {
    "mean_cosine": Recorded("mean_cosine", WITHIN["mean_cosine"]),
    "uniformity": Recorded(
        "uniformity", WITHIN["uniformity"], "chance: the uniform distribution on the sphere"
    ),
    "effective_rank": Recorded(
        "effective_rank", WITHIN["effective_rank"], "chance: the ceiling min(n - 1, dim)"
    ),
    "alignment": Recorded(
        "alignment", BETWEEN["alignment"], "chance: partners shuffled; read with uniformity"
    ),
    "modality_gap_unbiased": Recorded(
        "modality_gap",
        BETWEEN["modality_gap_unbiased"],
        "squared distance of the means, bias removed; can fall below 0",
    ),
    "mutual_knn": Recorded(
        "mutual_knn", BETWEEN["mutual_knn"], f"{estimates.NEIGHBOURS} neighbours"
    ),
    "recall@1": Recorded(
        "retrieval_r1", RETRIEVED["recall@1"], "equal groups are right answers; a tie is a miss"
    ),
}
"""Estimates that are recorded, by the name `estimates` gives them."""


def measurement(cell: Cell, result: Result, checkpoint: str, site: str) -> Measurement:
    """One estimate as a record; without a value, and with the reason, when it is not defined."""
    known = RECORDED[cell[0]]
    empty = Measurement(
        metric=known.name,
        checkpoint=checkpoint,
        site=site,
        modality=cell[1],
        value=None,
        interval=None,
        chance=None,
        better=known.metric.better,
        n=0,
        reference=known.metric.reference,
    )
    if isinstance(result, DegenerateInput):
        return replace(empty, note=str(result))
    interval, flaw = _interval(result, known.metric.range)
    note = "; ".join(part for part in (known.note, flaw) if part)
    return replace(
        empty, value=result.value, interval=interval, chance=result.chance, n=result.n, note=note
    )


def difference(
    cell: Cell, before: Result, after: Result, names: tuple[str, str], site: str
) -> Difference:
    """After minus before, paired; `names` are the two checkpoints."""
    known = RECORDED[cell[0]]
    empty = Difference(
        metric=known.name,
        before=names[0],
        after=names[1],
        site=site,
        modality=cell[1],
        value=None,
        interval=None,
        better=known.metric.better,
        n=0,
    )
    if isinstance(before, DegenerateInput) or isinstance(after, DegenerateInput):
        flaw = before if isinstance(before, DegenerateInput) else after
        return replace(empty, note=str(flaw))
    change = statistics.difference(before, after)
    interval, note = _interval(change)
    return replace(empty, value=change.value, interval=interval, n=change.n, note=note)


def _interval(
    estimate: Estimate, within: tuple[float, float] = (-float("inf"), float("inf"))
) -> tuple[Interval | None, str]:
    """The interval, or None and the reason."""
    try:
        return statistics.interval(estimate, within=within), ""
    except DegenerateInput as flaw:
        return None, str(flaw)
