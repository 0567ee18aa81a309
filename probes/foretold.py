"""What maps foretell for rows that none of them saw, set against what happened to those rows.

map_of        the map of one modality's rows
errors        squared error of every held-out row, one array a predictor
r2            the share of the change that a predictor explains
foretold      the held-out rows as each predictor has them, beside before and after
METRICS       mean cosine and uniformity of such states
found         recall of such states from captions
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomkit.errors import DegenerateInput
from geomkit.geometry import isotropy, ranking, sphere
from geomkit.geometry.rows import RESOLUTION, codes
from geomkit.statistics import Estimate, from_rows, from_scores
from geomkit.types import Modality, Row
from probes.affine import AffineMap, Rows, fit_affine, require_groups, shift_only
from probes.split import group_of

Clusters = NDArray[np.int64]

SUBSPACE = 0.95
"""Share of the variance of text rows that "the subspace of text" holds."""


@dataclass(frozen=True, slots=True, eq=False)
class Moved:
    """The rows of one modality at one site, before and after; a part of them is in float64."""

    modality: Modality
    before: NDArray[np.floating]  # (rows, dim)
    after: NDArray[np.floating]
    rows: tuple[Row, ...]
    held_out: NDArray[np.bool_]

    def part(self, which: NDArray[np.bool_]) -> Moved:
        """Some of the rows."""
        rows = tuple(row for row, chosen in zip(self.rows, which, strict=True) if chosen)
        before, after = self.before[which], self.after[which]
        ends = before.astype(np.float64), after.astype(np.float64)
        return Moved(self.modality, *ends, rows, self.held_out[which])

    @property
    def groups(self) -> list[str]:
        """The group of each row."""
        return [group_of(row) for row in self.rows]

    @property
    def clusters(self) -> Clusters:
        """The group of each row, as a number."""
        return codes(len(self.rows), self.groups)

    @property
    def change(self) -> Rows:
        """After minus before, `(rows, dim)`."""
        return np.asarray(self.after - self.before, dtype=np.float64)

    @property
    def noise(self) -> float:
        """Squared deviations this small are float32 rounding of the states."""
        return RESOLUTION * float(
            np.vdot(self.before, self.before) + np.vdot(self.after, self.after)
        )


def map_of(moved: Moved) -> AffineMap:
    """The affine map of all these rows; of rank zero when all of them moved by one shift.

    Raises:
        DegenerateInput: too few groups, or equal states that changed differently.
    """
    require_groups(moved.clusters)
    change = moved.change
    if np.sum((change - change.mean(axis=0)) ** 2) <= moved.noise:
        return shift_only(moved.before, change)
    return fit_affine(moved.before, change, moved.clusters)


@dataclass(frozen=True, slots=True, eq=False)
class Foretold:
    """Held-out rows of one modality with what two maps foretell for them; all else reads this."""

    tested: Moved
    text: AffineMap
    own: AffineMap
    at: Rows  # (rows, rank) the rows on the axes of text's map
    linear: Rows  # (rows, dim) the linear part of the change, by text's map
    by_own: Rows  # (rows, dim) the change, by the modality's own map

    def states(self) -> Iterator[tuple[str, Rows]]:
        """The rows before, after, and as each predictor has them; made one at a time."""
        before = np.asarray(self.tested.before, dtype=np.float64)
        yield "before", before
        yield "after", np.asarray(self.tested.after, dtype=np.float64)
        yield "text", before + self.linear + self.text.shift
        if self.own is not self.text:
            yield "own", before + self.by_own
        yield "shift", before + self.text.shift


def foretell(tested: Moved, text: AffineMap, own: AffineMap) -> Foretold:
    """What the map under test and the modality's own map foretell for these rows."""
    at = text.coordinates(tested.before)
    linear = text.linear(at)
    by_own = linear + text.shift if own is text else own.change(tested.before)
    return Foretold(tested, text, own, at, linear, by_own)


def errors(given: Foretold, *, centred: bool = False) -> Mapping[str, Rows]:
    """Squared error of the foretold change of each row, by predictor; under "own mean" the unit.

    With `centred` the modality's own training means, of states and of changes, are given to all.
    "turned" is the exact mean over all orthogonal turns of the map's output, "shuffled" over all
    orders of the changes it was fitted on, at the penalty of the map itself.
    """
    text, own, change = given.text, given.own, given.tested.change
    at, linear, shift = given.at, given.linear, text.shift
    if centred:
        offset = text.coordinates(own.mean[None])  # the map is linear: moving the origin is enough
        at, linear, shift = at - offset, linear - text.linear(offset), own.shift
    left = change - shift
    rest = _squares(left)
    return {
        "own mean": _squares(change - own.shift),
        "text": _squares(left - linear),
        "own": _squares(change - given.by_own),
        "shift": rest,
        "turned": rest + _squares(linear),
        "shuffled": rest + _squares(at) * text.energy / (text.fitted - 1),
    }


def r2(tested: Moved, error: Rows, unit: Rows) -> Estimate:
    """`1 - error / unit`, summed over rows; 1 is all of the change, 0 as good as `unit`.

    Raises:
        DegenerateInput: the rows changed by one shift or not at all.
    """
    if unit.sum() <= tested.noise:
        raise DegenerateInput(
            "Expected changes that differ from row to row, got none or one shift of all rows (to "
            "float32 resolution); there is no linear part to foretell."
        )
    return _share(unit - error, unit, tested.clusters)


def reach(given: Foretold) -> Mapping[str, Estimate]:
    """The share of the rows' variance, before, that lies in the subspace of text, by predictor.

    "text": in the leading axes that hold `SUBSPACE` of the variance of text rows; "own": in as many
    leading axes of the modality itself; "turned": in as many random ones, on average.

    Raises:
        DegenerateInput: no axes, because nothing but a shift happened, or equal states.
    """
    count = min(given.text.count(SUBSPACE), len(given.own.spread))
    x = given.tested.before - given.own.mean
    total = _squares(x)
    if count == 0 or total.sum() <= given.tested.noise:
        raise DegenerateInput(
            "Expected states that differ and a change that is no mere shift, got none; there is no "
            "map whose axes could hold them."
        )
    inside = {
        "text": _squares(x @ given.text.leading(count)),
        "own": _squares(x @ given.own.leading(count)),
        "turned": total * count / x.shape[1],
    }
    clusters = given.tested.clusters
    return {name: _share(part, total, clusters) for name, part in inside.items()}


def mean_cosine(u: Rows, clusters: Clusters) -> Estimate:
    """Mean cosine of unit rows of distinct groups, with its sampling error."""
    return from_rows(*_pairs(*isotropy.cosine_sums(u, _shared(clusters))), clusters)


def uniformity(u: Rows, clusters: Clusters) -> Estimate:
    """Uniformity of unit rows of distinct groups, with its sampling error."""
    near, slope = _pairs(*sphere.potential_sums(u, groups=_shared(clusters)))
    return from_rows(math.log(near), slope / near, clusters)


METRICS: Mapping[str, Callable[[Rows, Clusters], Estimate]] = {
    "mean_cosine": mean_cosine,
    "uniformity": uniformity,
}
"""Metrics of one set of unit rows."""


def recall(query: Rows, gallery: Rows, query_groups: list[str], groups: list[str]) -> Estimate:
    """Share of the queries whose nearest item of the gallery is of their group; unit rows."""
    ranks = ranking.rank_answers(query, gallery, query_groups, groups)
    return from_scores(ranks.hits(1), codes(len(query_groups), query_groups))


def _share(part: Rows, total: Rows, clusters: Clusters) -> Estimate:
    """The ratio of two sums over rows, with its first-order sampling error."""
    value = float(part.sum() / total.sum())
    return from_rows(value, (part - value * total) / total.mean(), clusters)


def _shared(clusters: Clusters) -> Clusters | None:
    """None when every row is a group of its own, which is cheaper to count."""
    return None if len(np.unique(clusters)) == len(clusters) else clusters


def _squares(x: Rows) -> Rows:
    """Squared length of each row."""
    return np.asarray(np.einsum("ij,ij->i", x, x))


def _pairs(sums: Rows, counts: Rows) -> tuple[float, Rows]:
    """Mean over pairs, and each row's influence on it: twice its row mean minus the mean."""
    value = isotropy.ratio(sums, counts)
    return value, 2 * len(sums) * (sums - value * counts) / counts.sum()
