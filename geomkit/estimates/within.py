"""The metrics of one modality, each with its sampling error.

Means over rows and U-statistics over pairs have exact influences; spectra have those of first order
(`geometry.influence`); neighbour metrics are measured again without each fold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from geomkit import statistics
from geomkit.errors import DegenerateInput
from geomkit.estimates.metric import Metric
from geomkit.estimates.space import NEIGHBOURS, Rows, Space, over_pairs
from geomkit.geometry import influence, isotropy, spectrum, sphere
from geomkit.geometry.dimension import two_nn_influence
from geomkit.geometry.influence import Axes
from geomkit.geometry.removals import robin_hood_influence, skewness_influence
from geomkit.geometry.rows import directions, similarity_blocks
from geomkit.statistics import Estimate

ROGUE = 3
"""Dimensions that count as rogue: language models have one to three."""


def mean_cosine(x: Space) -> Estimate:
    """Of distinct samples, by their sums."""
    return _cone(x.inside, x)


def mean_cosine_ablated(x: Space) -> Estimate:
    """Without the dimensions that carry most of the reference checkpoint's."""
    left = np.asarray(directions(x.states[:, x.without(x.outliers.cosine)]))
    return _cone(over_pairs(*isotropy.cosine_sums(left, x.clusters)), x)


def cosine_contribution(x: Space) -> Estimate:
    """The share of the three largest dimensions."""
    if x.dim <= ROGUE:
        raise DegenerateInput(f"Expected more than {ROGUE} columns to share out, got {x.dim}.")
    n, mean = x.n, x.unit.mean(axis=0)
    parts = (x.unit.sum(axis=0) ** 2 - (x.unit**2).sum(axis=0)) / (n * (n - 1))
    total = float(parts.sum())
    if total <= 0:
        raise DegenerateInput(
            f"Expected a positive mean cosine to share out, got {total:.2g}; the shares of "
            "dimensions say nothing there."
        )
    top = np.argsort(-parts, kind="stable")[:ROGUE]
    share = float(parts[top].sum()) / total
    moved = 2 * (x.unit - mean) * mean  # what a row adds to each part
    slope = (moved[:, top].sum(axis=1) - share * moved.sum(axis=1)) / total
    return from_rows(x, share, slope, chance=ROGUE / x.dim)


def mean_norm_share(x: Space) -> Estimate:
    """From the squared mean and the energy about it."""
    offset, own = float(x.mean @ x.mean), np.einsum("ij,ij->i", x.centred, x.centred)
    energy = float(own.mean())
    slope = energy * 2 * (x.centred @ x.mean) - offset * (own - energy)
    total = offset + energy
    return from_rows(x, offset / total, slope / total**2, chance=1 / x.n)


def uniformity(x: Space) -> Estimate:
    """From each row's mean potential."""
    sums, counts = sphere.potential_sums(x.unit, 2.0, x.clusters, x.cosines)
    mean, slope = over_pairs(sums, counts)
    floor = sphere.uniformity_floor(x.dim)
    return from_rows(x, math.log(mean), slope / mean, chance=floor)


def self_cluster(x: Space) -> Estimate:
    """The mean squared cosine of distinct rows, carried to 0 at chance and 1 for equal rows."""
    if x.dim < 2:
        raise DegenerateInput("Expected at least 2 columns, got 1; on one axis all rows clump.")
    blocks = similarity_blocks(x.unit, x.unit, x.cosines)
    sums = np.concatenate([np.einsum("ij,ij->i", block, block) for _, block in blocks]) - 1
    mean, slope = over_pairs(sums, np.full(x.n, x.n - 1.0))
    scale = 1 - 1 / x.dim
    return from_rows(x, (mean - 1 / x.dim) / scale, slope / scale, chance=0.0)


def participation_ratio(x: Space) -> Estimate:
    """Debiased."""
    value, slope = influence.participation_ratio_influence(x.centred, x.squares)
    return from_rows(x, value, slope, chance=float(x.dim))


def iso_score(x: Space) -> Estimate:
    """The participation ratio carried to 0 for one axis and 1 for all."""
    if x.dim < 2:
        raise DegenerateInput("Expected at least 2 columns, got 1; one axis has no isotropy.")
    value, slope = influence.participation_ratio_influence(x.centred, x.squares)
    return from_rows(x, (value - 1) / (x.dim - 1), slope / (x.dim - 1), chance=1.0)


def effective_rank(x: Space) -> Estimate:
    """Of the centred spectrum."""
    return _rank(x, x.axes, centred=True)


def rank_me(x: Space) -> Estimate:
    """Of the singular values of the rows as they are."""
    return _rank(x, x.raw_axes, power=0.5)


def vendi_score(x: Space) -> Estimate:
    """Of the spectrum of unit rows."""
    return _rank(x, x.unit_axes)


def stable_rank(x: Space) -> Estimate:
    """Of the rows as they are."""
    value, pull = influence.stable_rank_pull(x.raw_axes.values)
    return from_rows(x, value, x.raw_axes.influence(pull), chance=_ceiling(x, centred=False))


def spectral_decay(x: Space) -> Estimate:
    """Over the upper half of the ranks there can be: the rest bends with the number of rows."""
    last = spectrum.effective_rank_ceiling(x.n, x.dim) // 2
    value, pull = influence.spectral_decay_pull(x.axes.values, last)
    return from_rows(x, value, x.axes.influence(pull), chance=0.0)


def hubness(x: Space) -> Estimate:
    """The skewness of how often a row is another's neighbour, counted again without each group."""
    found, slope = skewness_influence(x.near, x.clusters)
    return from_rows(x, found.skewness, slope, chance=found.chance_skewness)


def robin_hood(x: Space) -> Estimate:
    """The share of neighbour places that would have to move to make all rows alike."""
    found, slope = robin_hood_influence(x.near, x.clusters)
    return from_rows(x, found.robin_hood, slope, chance=None)


def two_nn(x: Space) -> Estimate:
    """The likelihood estimate, from each row's ratio of distances."""
    found, _, slope = two_nn_influence(x.apart)
    return from_rows(x, found.likelihood, slope, chance=None)


def from_folds(x: Space, values: Sequence[float] | Rows, *, chance: float | None) -> Estimate:
    """An estimate of the value with all rows and without each fold."""
    return statistics.from_jackknife(np.asarray(values), x.folds, chance=chance)


def from_rows(x: Space, value: float, slope: Rows, *, chance: float | None) -> Estimate:
    """An estimate of one influence a row, whose shares know their groups."""
    return statistics.from_rows(value, slope, x.clusters, chance=chance, names=x.groups)


def _cone(mean: tuple[float, Rows], x: Space) -> Estimate:
    return from_rows(x, *mean, chance=isotropy.CHANCE_MEAN_COSINE)


def _rank(x: Space, axes: Axes, *, power: float = 1.0, centred: bool = False) -> Estimate:
    value, pull = influence.effective_rank_pull(axes.values, power)
    return from_rows(x, value, axes.influence(pull), chance=_ceiling(x, centred=centred))


def _ceiling(x: Space, *, centred: bool) -> float:
    return float(min(x.n - centred, x.dim))


UNBOUND = math.inf
RANKS = (1.0, UNBOUND)

WITHIN: Mapping[str, Metric[Space]] = {
    "mean_cosine": Metric(
        mean_cosine, "cone", "lower", (-1.0, 1.0), "Ethayarajh 2019, arXiv:1909.00512"
    ),
    "mean_cosine_ablated": Metric(
        mean_cosine_ablated,
        "cone",
        "lower",
        (-1.0, 1.0),
        "Timkey and van Schijndel 2021, arXiv:2109.04404",
        f"without the {ROGUE} dimensions that carry most of the first checkpoint's mean cosine",
    ),
    "cosine_contribution": Metric(
        cosine_contribution,
        "cone",
        "lower",
        (-UNBOUND, UNBOUND),
        "Timkey and van Schijndel 2021, arXiv:2109.04404",
        f"share of the mean cosine in its {ROGUE} largest dimensions; chance: all alike",
    ),
    "mean_norm_share": Metric(
        mean_norm_share,
        "cone",
        "lower",
        (0.0, 1.0),
        "Mu and Viswanath 2018, arXiv:1702.01417",
        "share of the energy that is in the common mean; chance: no common mean",
    ),
    "uniformity": Metric(
        uniformity,
        "cone",
        "lower",
        (-8.0, 0.0),
        "Wang and Isola 2020, arXiv:2005.10242",
        "chance: the uniform distribution on the sphere",
    ),
    "self_cluster": Metric(
        self_cluster, "cone", "lower", (-1.0, 1.0), "Tsitsulin et al. 2023, arXiv:2305.16562"
    ),
    "effective_rank": Metric(
        effective_rank,
        "spectrum",
        "higher",
        RANKS,
        "Roy and Vetterli 2007",
        "chance: the ceiling min(n - 1, dim)",
    ),
    "participation_ratio": Metric(
        participation_ratio,
        "spectrum",
        "higher",
        RANKS,
        "Gao et al. 2017",
        "debiased; chance: the ceiling dim",
    ),
    "iso_score": Metric(
        iso_score,
        "spectrum",
        "higher",
        (-UNBOUND, UNBOUND),
        "Rudman et al. 2022, arXiv:2108.07344",
        "debiased; chance: all axes alike",
    ),
    "rank_me": Metric(
        rank_me,
        "spectrum",
        "higher",
        RANKS,
        "Garrido et al. 2023, arXiv:2210.02885",
        "not centred; chance: the ceiling min(n, dim)",
    ),
    "stable_rank": Metric(
        stable_rank,
        "spectrum",
        "higher",
        RANKS,
        "Rudelson and Vershynin 2007",
        "not centred; chance: the ceiling min(n, dim)",
    ),
    "spectral_decay": Metric(
        spectral_decay,
        "spectrum",
        "neither",
        (-UNBOUND, UNBOUND),
        "Agrawal et al. 2022",
        "over the upper half of the ranks; 0 is isotropic",
    ),
    "vendi_score": Metric(
        vendi_score,
        "spectrum",
        "higher",
        RANKS,
        "Friedman and Dieng 2023, arXiv:2210.02410",
        "unit rows, not centred; chance: the ceiling min(n, dim)",
    ),
    "hubness": Metric(
        hubness,
        "neighbours",
        "lower",
        (-UNBOUND, UNBOUND),
        "Radovanovic et al. 2010",
        f"skewness of {NEIGHBOURS}-occurrences; chance: lists filled by lot",
    ),
    "robin_hood": Metric(
        robin_hood,
        "neighbours",
        "lower",
        (0.0, 1.0),
        "Feldbauer et al. 2018",
        f"share of {NEIGHBOURS}-occurrences that would have to move to make all rows alike",
    ),
    "two_nn": Metric(
        two_nn,
        "dimension",
        "neither",
        (0.0, UNBOUND),
        "Facco et al. 2017; Denti et al. 2022",
        "likelihood estimate, by Euclidean distance",
    ),
}
"""Metrics of one modality, by name, in the order in which they are recorded."""
