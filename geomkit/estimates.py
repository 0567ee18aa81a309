"""Every metric of one site with its sampling error, each shared product made once.

    space      states of one modality          -> unit rows, cosines, clusters, folds
    within     a space                         -> mean cosine, uniformity, effective rank, ...
    between    two spaces, rows matched        -> alignment, gap, neighbours, CKA
    retrieved  two spaces, rows matched        -> recall and reciprocal rank, both directions

A metric that is not defined on these rows gives its `DegenerateInput` instead of an `Estimate`, so
that one failing metric does not hide the others; at a constant site all of them do. Two results of
the same rows subtract with `statistics.difference`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomkit import statistics
from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry import gap, isotropy, neighbours, ranking, similarity, spectrum, sphere
from geomkit.geometry.rows import BLOCK_ENTRIES, codes, deviations, directions
from geomkit.statistics import Estimate
from geomkit.types import Better

NEIGHBOURS = 10
Rows = NDArray[np.float64]
Result = Estimate | DegenerateInput


@dataclass(frozen=True, slots=True)
class Metric:
    """What a reader of the number must know: its better direction, its range, its source."""

    better: Better
    range: tuple[float, float]
    reference: str


WITHIN: Mapping[str, Metric] = {
    "mean_cosine": Metric("lower", (-1.0, 1.0), "Ethayarajh 2019, arXiv:1909.00512"),
    "uniformity": Metric("lower", (-8.0, 0.0), "Wang and Isola 2020, arXiv:2005.10242"),
    "effective_rank": Metric("higher", (1.0, math.inf), "Roy and Vetterli 2007"),
    "participation_ratio": Metric("higher", (1.0, math.inf), "Gao et al. 2017"),
}
BETWEEN: Mapping[str, Metric] = {
    "alignment": Metric("lower", (0.0, 4.0), "Wang and Isola 2020, arXiv:2005.10242"),
    "modality_gap": Metric("lower", (0.0, 2.0), "Liang et al. 2022, arXiv:2203.02053"),
    "modality_gap_unbiased": Metric("lower", (-math.inf, 4.0), "Liang et al. 2022; squared"),
    "mutual_knn": Metric("higher", (0.0, 1.0), "Huh et al. 2024, arXiv:2405.07987"),
    "linear_cka": Metric("higher", (-1.0, 1.0), "Kornblith et al. 2019, arXiv:1905.00414"),
}
RETRIEVED: Mapping[str, Metric] = {
    "recall@1": Metric("higher", (0.0, 1.0), "Radford et al. 2021, arXiv:2103.00020"),
    "recall@5": Metric("higher", (0.0, 1.0), "Radford et al. 2021, arXiv:2103.00020"),
    "mrr": Metric("higher", (0.0, 1.0), "Voorhees 1999, TREC-8"),
}


@dataclass(frozen=True, slots=True, eq=False)
class Space:
    """One modality at one site of one checkpoint, and what its metrics share.

    `unit` and `centred` are the rows as directions and as deviations; `cosines` and `products` are
    each of them times itself, None above the block size (then products are made block by block).
    `flaw` says why the rows have no geometry; every metric of the space then returns it.
    """

    unit: Rows
    centred: Rows
    clusters: NDArray[np.int64]
    folds: NDArray[np.int64]
    cosines: Rows | None
    products: Rows | None
    flaw: DegenerateInput | None = None

    @property
    def n(self) -> int:
        """Rows of the space."""
        return len(self.clusters)


def space(states: NDArray[np.float32], groups: Sequence[str] | None = None) -> Space:
    """The shared products of one modality's states `(samples, dim)`.

    `groups` names rows that are the same thing, as in `Sample.group`; an empty name is no group.
    """
    clusters = codes(len(states), groups)
    folds = statistics.folds_of(clusters)
    try:
        unit, centred = directions(states), deviations(states)
    except DegenerateInput as flaw:
        none = np.empty((len(states), 0))
        return Space(none, none, clusters, folds, None, None, flaw)
    if unit.shape[0] ** 2 > BLOCK_ENTRIES:
        return Space(unit, centred, clusters, folds, None, None)
    return Space(unit, centred, clusters, folds, unit @ unit.T, centred @ centred.T)


def take(x: Space, rows: NDArray[np.int64]) -> Space:
    """The space of some of its rows, as `space` would make it, from the products there are."""
    clusters = codes(len(rows), x.clusters[rows])
    folds = statistics.folds_of(clusters)
    try:
        if x.flaw is not None:
            raise x.flaw
        directions(x.unit[rows])
        deviations(x.centred[rows])
    except DegenerateInput as flaw:
        none = np.empty((len(rows), 0))
        return Space(none, none, clusters, folds, None, None, flaw)
    centred = x.centred[rows] - x.centred[rows].mean(axis=0)
    corner = np.ix_(rows, rows)
    cosines = None if x.cosines is None else x.cosines[corner]
    products = None if x.products is None else x.products[corner]  # shift invariant where used
    return Space(x.unit[rows], centred, clusters, folds, cosines, products)


def within(x: Space) -> dict[str, Result]:
    """The metrics of `WITHIN` for one modality."""
    return {
        "mean_cosine": _defined(lambda: _mean_cosine(x), x),
        "uniformity": _defined(lambda: _uniformity(x), x),
        "effective_rank": _defined(lambda: _effective_rank(x), x),
        "participation_ratio": _defined(lambda: _participation_ratio(x), x),
    }


def between(x: Space, y: Space) -> dict[str, Result]:
    """The metrics of `BETWEEN` for two modalities of the same samples in the same order."""
    _require_same_samples(x, y)
    return {
        "alignment": _defined(lambda: _alignment(x, y), x, y),
        "modality_gap": _defined(lambda: _gap(x, y), x, y),
        "modality_gap_unbiased": _defined(lambda: _gap_unbiased(x, y), x, y),
        "mutual_knn": _defined(lambda: _mutual_knn(x, y), x, y),
        "linear_cka": _defined(lambda: _linear_cka(x, y), x, y),
    }


def retrieved(x: Space, y: Space) -> tuple[dict[str, Result], dict[str, Result]]:
    """The metrics of `RETRIEVED` for queries `x` in gallery `y`, and for `y` in `x`.

    Queries are the units; the gallery is taken as given, as it is the same before and after.
    """
    _require_same_samples(x, y)
    cosines = None
    if not (x.flaw or y.flaw) and x.n**2 <= BLOCK_ENTRIES:
        cosines = x.unit @ y.unit.T
    return _found(x, y, cosines), _found(y, x, None if cosines is None else cosines.T)


def _mean_cosine(x: Space) -> Estimate:
    sums, counts = isotropy.cosine_sums(x.unit, x.clusters)
    value, influence = _pairs(sums, counts)
    return statistics.from_rows(value, influence, x.clusters, chance=isotropy.CHANCE_MEAN_COSINE)


def _uniformity(x: Space) -> Estimate:
    sums, counts = sphere.potential_sums(x.unit, 2.0, x.clusters, x.cosines)
    mean, influence = _pairs(sums, counts)
    floor = sphere.uniformity_floor(x.unit.shape[1])
    return statistics.from_rows(math.log(mean), influence / mean, x.clusters, chance=floor)


def _effective_rank(x: Space) -> Estimate:
    values = spectrum.effective_rank_without(x.centred, x.folds, x.products)
    ceiling = float(spectrum.effective_rank_ceiling(x.n, x.centred.shape[1]))
    return statistics.from_jackknife(values, x.folds, chance=ceiling)


def _participation_ratio(x: Space) -> Estimate:
    values = spectrum.participation_ratio_without(x.centred, x.folds, x.products)
    return statistics.from_jackknife(values, x.folds, chance=float(x.centred.shape[1]))


def _alignment(x: Space, y: Space) -> Estimate:
    apart = sphere.squared_distances(x.unit, y.unit)
    value = float(apart.mean())
    mismatched = isotropy.ratio(*isotropy.cross_cosine_sums(x.unit, y.unit, True, x.clusters)[:2])
    return statistics.from_rows(value, apart - value, x.clusters, chance=2 - 2 * mismatched)


def _gap(x: Space, y: Space) -> Estimate:
    offset = gap.mean_offset(x.unit, y.unit)
    value = float(np.linalg.norm(offset))
    if value == 0:
        raise DegenerateInput(
            "Expected two clouds that differ, got equal means, where the gap has no slope; "
            "read modality_gap_unbiased."
        )
    influence = (x.unit - y.unit) @ offset / value - value
    null = math.sqrt(float(sphere.squared_distances(x.unit, y.unit).mean()) / x.n)
    return statistics.from_rows(value, influence, x.clusters, chance=null)


def _gap_unbiased(x: Space, y: Space) -> Estimate:
    own_x, slope_x = _pairs(*isotropy.cosine_sums(x.unit, x.clusters))
    own_y, slope_y = _pairs(*isotropy.cosine_sums(y.unit, x.clusters))
    sums, counts, back = isotropy.cross_cosine_sums(x.unit, y.unit, True, x.clusters)
    cross, slope = _pairs((sums + back) / 2, counts)
    influence = slope_x + slope_y - 2 * slope
    return statistics.from_rows(own_x + own_y - 2 * cross, influence, x.clusters, chance=0.0)


def _mutual_knn(x: Space, y: Space) -> Estimate:
    values = neighbours.mutual_knn_without(
        (x.unit, y.unit), NEIGHBOURS, x.clusters, x.folds, (x.cosines, y.cosines)
    )
    chance = neighbours.chance_mutual_knn(x.n, NEIGHBOURS, x.clusters)
    return statistics.from_jackknife(values, x.folds, chance=chance)


def _linear_cka(x: Space, y: Space) -> Estimate:
    sides, products = (x.centred, y.centred), (x.products, y.products)
    values = similarity.linear_cka_without(sides, x.folds, products)
    return statistics.from_jackknife(values, x.folds, chance=0.0)


def _found(query: Space, gallery: Space, cosines: Rows | None) -> dict[str, Result]:
    flaw = query.flaw or gallery.flaw
    if flaw is not None:
        return dict.fromkeys(RETRIEVED, flaw)
    found = ranking.rank_answers(
        query.unit, gallery.unit, query.clusters, gallery.clusters, cosines
    )
    scores = {
        "recall@1": (found.hits(1), found.chance_recall(1)),
        "recall@5": (found.hits(5), found.chance_recall(5)),
        "mrr": (1 / found.ranks, found.chance_mrr()),
    }
    return {
        name: statistics.from_scores(score, query.clusters, chance=chance)
        for name, (score, chance) in scores.items()
    }


def _pairs(sums: Rows, counts: Rows) -> tuple[float, Rows]:
    """Mean over pairs, and each row's influence on it: twice its row mean minus the mean."""
    value = isotropy.ratio(sums, counts)
    return value, 2 * len(sums) * (sums - value * counts) / counts.sum()


def _defined(metric: Callable[[], Estimate], *spaces: Space) -> Result:
    for one in spaces:
        if one.flaw is not None:
            return one.flaw
    try:
        return metric()
    except DegenerateInput as flaw:
        return flaw


def _require_same_samples(x: Space, y: Space) -> None:
    if not np.array_equal(x.clusters, y.clusters):
        raise UsageError(
            f"Expected the same samples in the same order, got {x.n} and {y.n} rows of different "
            "groups; keep the samples that both modalities have."
        )
