"""Every metric of one site with its sampling error, each shared product made once.

    space      states of one modality, and the products that its metrics share
    within     a space                         -> mean cosine, uniformity, spectra, ...
    between    two spaces, rows matched        -> alignment, gap, neighbours, CKA
    retrieved  two spaces, rows matched        -> recall and reciprocal rank, both directions
    metric     what is known of a metric before it is measured
    kept       estimates on disk, so that nothing is measured twice

A metric that is not defined on these rows gives its `DegenerateInput` instead of an `Estimate`, so
that one failing metric does not hide the others; at a constant site all of them do. Two results of
the same rows subtract with `statistics.difference`.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

from geomkit.errors import UsageError
from geomkit.estimates.between import BETWEEN, Pair
from geomkit.estimates.metric import Family, Metric, Result
from geomkit.estimates.retrieved import RETRIEVED, searches
from geomkit.estimates.space import (
    CPU,
    NEIGHBOURS,
    Device,
    Outliers,
    Space,
    require_same_samples,
    space,
    take,
)
from geomkit.estimates.within import ROGUE, WITHIN

__all__ = [
    "BETWEEN",
    "CPU",
    "METRICS",
    "NEIGHBOURS",
    "RETRIEVED",
    "ROGUE",
    "WITHIN",
    "Device",
    "Family",
    "Metric",
    "Outliers",
    "Result",
    "Space",
    "between",
    "retrieved",
    "selected",
    "space",
    "take",
    "within",
]

METRICS: Mapping[str, Metric[Any]] = {**WITHIN, **BETWEEN, **RETRIEVED}
"""Every metric that a run is measured by, in the order of a record."""

DEFAULT = frozenset(name for name, metric in METRICS.items() if not metric.costly)
"""Those that are measured unless others are asked for."""

Of = TypeVar("Of")


def within(x: Space, names: Collection[str] = DEFAULT) -> dict[str, Result]:
    """The named metrics of `WITHIN` for one modality."""
    return _flawed(WITHIN, x, names) or _estimated(WITHIN, x, names)


def between(x: Space, y: Space, names: Collection[str] = DEFAULT) -> dict[str, Result]:
    """The named metrics of `BETWEEN` for two modalities of the same samples in the same order."""
    require_same_samples(x, y)
    return _flawed(BETWEEN, x, names, y) or _estimated(BETWEEN, Pair(x, y), names)


def retrieved(
    x: Space, y: Space, names: Collection[str] = DEFAULT
) -> tuple[dict[str, Result], dict[str, Result]]:
    """The named metrics of `RETRIEVED` for queries `x` in gallery `y`, and for `y` in `x`."""
    require_same_samples(x, y)
    if flawed := _flawed(RETRIEVED, x, names, y):
        return flawed, dict(flawed)
    there, back = searches(x, y)
    return _estimated(RETRIEVED, there, names), _estimated(RETRIEVED, back, names)


def selected(words: Sequence[str]) -> frozenset[str]:
    """Metrics by their names, their families, or `all`; without words the default ones.

    Raises:
        UsageError: a word is none of these.
    """
    families = {metric.family for metric in METRICS.values()}
    chosen: set[str] = set() if words else set(DEFAULT)
    for word in words:
        of = {n for n, m in METRICS.items() if word in {"all", n, m.family}}
        if not of:
            known = [*METRICS, *sorted(families), "all"]
            close = difflib.get_close_matches(word, known, 1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise UsageError(
                f"Expected a metric or a family of metrics, got {word!r}: {hint}Families are "
                f"{', '.join(sorted(families))} and all; metrics are {', '.join(METRICS)}."
            )
        chosen |= of
    return frozenset(chosen)


def _flawed(
    known: Mapping[str, Metric[Of]], x: Space, names: Collection[str], *others: Space
) -> dict[str, Result]:
    """Every named metric with the reason why the rows have no geometry; empty when they have."""
    flaw = next((s.flaw for s in (x, *others) if s.flaw is not None), None)
    return {} if flaw is None else {name: flaw for name in known if name in names}


def _estimated(
    known: Mapping[str, Metric[Of]], of: Of, names: Collection[str]
) -> dict[str, Result]:
    return {name: metric.of(of) for name, metric in known.items() if name in names}
