"""A change as a share of the way to its reference, and whether two changes have a common measure.

The reference of a metric is where nothing is left to gain: a mean cosine of 0, the uniformity of
the sphere, full rank. A metric whose reference is on the worse side has none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from geomkit import statistics
from geomkit.claims import LEAST
from geomkit.compare import number
from geomkit.errors import DegenerateInput
from geomkit.statistics import Estimate
from geomkit.types import Difference, Interval
from geomkit.words import listed

ANY_COUNT = frozenset(
    {
        "mean_cosine",
        "mean_cosine_ablated",
        "cosine_contribution",
        "mean_norm_share",
        "uniformity",
        "self_cluster",
        "participation_ratio",
        "iso_score",
    }
)
"""Metrics whose expectation does not depend on how many rows there are."""

ALIKE = 0.05
"""References, and counts of rows, that differ by less than this share are the same."""


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """One paired change: the record, and the two results it was made from."""

    record: Difference
    before: Estimate | DegenerateInput
    after: Estimate | DegenerateInput

    @property
    def name(self) -> str:
        """The modality, also of `text@image`."""
        return self.record.modality.partition("@")[0]

    @property
    def moved(self) -> Estimate:
        """After minus before.

        Raises:
            DegenerateInput: one of the two is not defined.
        """
        return statistics.difference(defined(self.before), defined(self.after))


def closed(change: Change) -> Estimate:
    """The share of the way to its reference that a modality went: 0 none, 1 all of it.

    Where it started is uncertain too, so both estimates have a part in the error.

    Raises:
        DegenerateInput: no reference lies on the better side of the start, or the start is there.
    """
    before, after = defined(change.before), defined(change.after)
    way = 0.0 if before.chance is None else before.chance - before.value
    if before.chance is None or (way > 0) != (change.record.better == "higher"):
        raise DegenerateInput(f"{change.name} has no reference better than its start")
    if arrived(change):
        raise DegenerateInput(
            f"{change.name} started at {number(before.value)}, where its reference "
            f"{number(before.chance)} leaves nothing to gain"
        )
    share = (after.value - before.value) / way
    shares = (after.shares - (1 - share) * before.shares) / way
    return replace(before, value=share, shares=shares, chance=None)


def arrived(change: Change) -> bool:
    """Was the modality at its reference before, as far as the samples or rounding can tell?"""
    before = defined(change.before)
    if before.chance is None:
        return False
    span = statistics.interval(before)
    near = abs(before.chance - before.value) < LEAST.get(change.record.metric, 0.0)
    return near or span.low <= before.chance <= span.high


def unfair_reason(change: Change, other: Change) -> str:
    """Why the two changes have no common measure; empty when they have one."""
    names = (other.name, change.name)
    ends = [defined(c.before) for c in (other, change)]
    ways = [e.chance - e.value for e in ends if e.chance is not None]
    if len(ways) == 2 and not _same_reference(ends[0], ends[1], min(map(abs, ways))):
        told = [f"{number(e.chance)} ({name})" for e, name in zip(ends, names, strict=True)]
        return f"the references differ: {listed(told)}"
    if change.record.metric not in ANY_COUNT and not alike(ends[0].n, ends[1].n):
        told = [f"{e.n} ({name})" for e, name in zip(ends, names, strict=True)]
        return f"it depends on the number of rows, and they differ: {listed(told)}"
    return ""


def _same_reference(one: Estimate, other: Estimate, way: float) -> bool:
    """Do the references agree, as measured by themselves or by the shorter way to them?"""
    a, b = one.chance or 0.0, other.chance or 0.0
    return alike(a, b) or abs(a - b) <= ALIKE * way


def alike(a: float, b: float) -> bool:
    """Do two references, or two counts, differ by less than matters?"""
    return abs(a - b) <= ALIKE * max(abs(a), abs(b))


def ratio_of(above: Estimate, below: Estimate) -> tuple[float | None, Interval | None, str]:
    """Value and interval of `above / below`, or the reason why there is none."""
    try:
        return above.value / below.value, statistics.ratio(above, below), ""
    except DegenerateInput as flaw:
        return None, None, str(flaw)


def defined(result: Estimate | DegenerateInput) -> Estimate:
    """The estimate; raises the reason where there is none."""
    if isinstance(result, DegenerateInput):
        raise result
    return result
