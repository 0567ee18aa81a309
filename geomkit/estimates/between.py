"""The metrics of two modalities whose rows are the same samples in the same order.

Distances and their means have exact influences; neighbours and kernels are measured again without
each fold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from geomkit.errors import DegenerateInput
from geomkit.estimates.metric import Metric
from geomkit.estimates.space import NEIGHBOURS, Rows, Space, over_pairs
from geomkit.estimates.within import ROGUE, UNBOUND, from_folds, from_rows
from geomkit.geometry import (
    distances,
    gap,
    isotropy,
    neighbours,
    rotation,
    similarity,
    sphere,
    subspaces,
)
from geomkit.geometry.closeness import cknna_without
from geomkit.geometry.removals import excess, shared_removals
from geomkit.statistics import Estimate


@dataclass(frozen=True, eq=False)
class Pair:
    """Two spaces of the same samples: `x` of a medium, `y` of text; what is shared is cached."""

    x: Space
    y: Space

    @cached_property
    def matched(self) -> Rows:
        """Squared distance of each sample's two rows, `(samples,)`."""
        return np.asarray(sphere.squared_distances(self.x.unit, self.y.unit))

    @cached_property
    def across(self) -> tuple[float, Rows]:
        """Mean cosine of rows of different samples of the two sides, and each row's influence."""
        x, y, clusters = self.x.unit, self.y.unit, self.x.clusters
        sums, counts, back = isotropy.cross_cosine_sums(x, y, True, clusters)
        return over_pairs((sums + back) / 2, counts)


def alignment(of: Pair) -> Estimate:
    """From the squared distances of matched rows."""
    value, mismatched = float(of.matched.mean()), of.across[0]
    return from_rows(of.x, value, of.matched - value, chance=2 - 2 * mismatched)


def gap_plug_in(of: Pair) -> Estimate:
    """The distance of the means; it has no slope where they are equal."""
    x, y = of.x.unit, of.y.unit
    offset = gap.mean_offset(x, y)
    value = float(np.linalg.norm(offset))
    if value == 0:
        raise DegenerateInput(
            "Expected two clouds that differ, got equal means, where the gap has no slope; "
            "read modality_gap."
        )
    null = math.sqrt(float(of.matched.mean()) / of.x.n)
    return from_rows(of.x, value, (x - y) @ offset / value - value, chance=null)


def gap_unbiased(of: Pair) -> Estimate:
    """From the mean cosines inside the two sides and across."""
    (own_x, slope_x), (own_y, slope_y) = of.x.inside, of.y.inside
    cross, slope = of.across
    return from_rows(of.x, own_x + own_y - 2 * cross, slope_x + slope_y - 2 * slope, chance=0.0)


def relative_gap(of: Pair) -> Estimate:
    """Distance of matched rows over itself plus the distance inside a side."""
    apart = of.matched / 2
    (own_x, slope_x), (own_y, slope_y) = of.x.inside, of.y.inside
    across, inside = float(apart.mean()), 1 - (own_x + own_y) / 2
    total = across + inside
    slope = inside * (apart - across) + across * (slope_x + slope_y) / 2
    return from_rows(of.x, across / total, slope / total**2, chance=0.5)


def mutual_knn(of: Pair) -> Estimate:
    """Shared neighbours, counted again without each group."""
    value, slope = neighbours.mutual_knn_influence((of.x.near, of.y.near), of.x.clusters)
    chance = neighbours.chance_mutual_knn(of.x.n, NEIGHBOURS, of.x.clusters)
    made = from_rows(of.x, value, slope, chance=chance)
    if len(of.x.groups) < of.x.n:
        return made  # rows of one group cannot be exchanged
    return replace(made, chance_sd=neighbours.mutual_knn_null_of((of.x.near, of.y.near)).sd)


def cknna(of: Pair) -> Estimate:
    """Cosines of shared neighbours, compared again without each fold.

    What two rows decide together is in the loss of both, as it is for the neighbours themselves.
    """
    sides = of.x.near, of.y.near
    made = from_folds(of.x, cknna_without(sides), chance=0.0)
    narrower = excess(shared_removals(sides, of.x.clusters), of.x.clusters)
    return replace(made, shares=narrower * made.shares)


def linear_cka(of: Pair) -> Estimate:
    """Debiased, measured again without each fold."""
    return _cka(of, of.x.centred, of.y.centred, (of.x.products, of.y.products))


def linear_cka_ablated(of: Pair) -> Estimate:
    """The same without the dimensions of largest variance in the reference checkpoint."""
    x, y = (side.centred[:, side.without(side.outliers.variance)] for side in (of.x, of.y))
    return _cka(of, x, y)


def procrustes(of: Pair) -> Estimate:
    """From one decomposition of the products between the sides."""
    value, slope = rotation.procrustes_influence(of.x.centred, of.y.centred)
    return from_rows(of.x, value, slope, chance=None)


def cca(of: Pair) -> Estimate:
    """From a basis of each side; undefined unless rows are more than both widths."""
    x, y = (side.states.astype(np.float64) for side in (of.x, of.y))
    value, slope = subspaces.cca_influence(x, y)
    chance = subspaces.chance_cca(of.x.n, of.x.dim, of.y.dim)
    return from_rows(of.x, value, slope, chance=chance)


def rsa(of: Pair) -> Estimate:
    """The rank correlation of Euclidean distances."""
    value, slope = distances.rsa_influence(of.x.states, of.y.states, groups=of.x.clusters)
    return from_rows(of.x, value, slope, chance=0.0)


def _cka(
    of: Pair, x: Rows, y: Rows, products: tuple[Rows | None, Rows | None] = (None, None)
) -> Estimate:
    values = similarity.linear_cka_without((x, y), of.x.folds, products)
    made = from_folds(of.x, values, chance=0.0)
    if len(of.x.groups) < of.x.n:
        return made  # rows of one group cannot be exchanged
    return replace(made, chance_sd=math.sqrt(2 / (of.x.n * (of.x.n - 3))))


BETWEEN: Mapping[str, Metric[Pair]] = {
    "alignment": Metric(
        alignment,
        "gap",
        "lower",
        (0.0, 4.0),
        "Wang and Isola 2020, arXiv:2005.10242",
        "chance: partners shuffled; read with uniformity",
    ),
    "modality_gap": Metric(
        gap_unbiased,
        "gap",
        "lower",
        (-UNBOUND, 4.0),
        "Liang et al. 2022, arXiv:2203.02053",
        "squared distance of the means, bias removed; can fall below 0",
    ),
    "modality_gap_plug_in": Metric(
        gap_plug_in,
        "gap",
        "lower",
        (0.0, 2.0),
        "Liang et al. 2022, arXiv:2203.02053",
        "distance of the means as published; chance: sides swapped by a coin, sample by sample",
    ),
    "relative_modality_gap": Metric(
        relative_gap,
        "gap",
        "lower",
        (0.0, 1.0),
        "Schrodi et al. 2024, arXiv:2404.07983",
        "chance: a partner lies as far as any other row of its own side",
    ),
    "mutual_knn": Metric(
        mutual_knn,
        "neighbours",
        "higher",
        (0.0, 1.0),
        "Huh et al. 2024, arXiv:2405.07987",
        f"{NEIGHBOURS} neighbours",
    ),
    "cknna": Metric(
        cknna,
        "neighbours",
        "higher",
        (-1.0, 1.0),
        "Huh et al. 2024, arXiv:2405.07987",
        f"{NEIGHBOURS} neighbours; chance: near 0, below {NEIGHBOURS}/(n - 1)",
    ),
    "linear_cka": Metric(
        linear_cka,
        "similarity",
        "higher",
        (-1.0, 1.0),
        "Kornblith et al. 2019, arXiv:1905.00414",
        "debiased",
    ),
    "linear_cka_ablated": Metric(
        linear_cka_ablated,
        "similarity",
        "higher",
        (-1.0, 1.0),
        "Kornblith et al. 2019, arXiv:1905.00414",
        f"debiased, without the {ROGUE} dimensions of largest variance in the first checkpoint",
    ),
    "procrustes": Metric(
        procrustes,
        "similarity",
        "higher",
        (0.0, 1.0),
        "Williams et al. 2021, arXiv:2110.14739",
        "cosine of the angle after the best rotation",
        costly=True,
    ),
    "cca": Metric(
        cca,
        "similarity",
        "higher",
        (0.0, 1.0),
        "Hotelling 1936",
        "mean squared canonical correlation; needs more rows than columns",
        costly=True,
    ),
    "rsa": Metric(
        rsa,
        "similarity",
        "higher",
        (-1.0, 1.0),
        "Kriegeskorte et al. 2008",
        "Spearman's correlation of Euclidean distances",
        costly=True,
    ),
}
"""Metrics of two modalities, by name, in the order in which they are recorded."""
