"""Geometry of representations: pure functions of `(samples, dim)` arrays, one question a file.

    isotropy     do the rows point everywhere, or into one cone?
    spectrum     how many directions carry the variance?
    sphere       are directions spread over the sphere, do matched ones lie close?
    gap          how far apart do two modalities lie as clouds?
    neighbours   do samples keep the same neighbours in two spaces?
    closeness    do samples keep the same neighbours, and lie as close to them, in two spaces?
    hubs         do a few items crowd the neighbour lists of all others?
    similarity   do two spaces arrange the same samples in the same way?
    rotation     can one space be laid onto the other by a rotation?
    subspaces    which directions do two spaces have in common, as far as linear maps can tell?
    distances    do two spaces put the same distances between the same samples?
    ranking      does a query find its answer in the other modality?

NumPy arrays and torch tensors give the same numbers; all sums are in float64. Rows without geometry
(constant, zero, too few, not finite) raise `DegenerateInput`. `groups` names, row by row, samples
that are the same thing: no pair is ever made inside a group.
"""

from __future__ import annotations

from geomkit.geometry.closeness import cknna
from geomkit.geometry.distances import rsa
from geomkit.geometry.gap import (
    modality_gap,
    modality_gap_null,
    modality_gap_unbiased,
    relative_modality_gap,
)
from geomkit.geometry.hubs import Hubness, hubness
from geomkit.geometry.isotropy import (
    CHANCE_MEAN_COSINE,
    cross_mean_cosine,
    iso_score,
    mean_cosine,
    mean_norm_share,
)
from geomkit.geometry.neighbours import chance_mutual_knn, mutual_knn
from geomkit.geometry.ranking import Retrieval, retrieval
from geomkit.geometry.rotation import procrustes
from geomkit.geometry.similarity import NullMoments, linear_cka, linear_cka_null
from geomkit.geometry.spectrum import (
    effective_rank,
    effective_rank_ceiling,
    participation_ratio,
    rank_me,
    stable_rank,
)
from geomkit.geometry.sphere import (
    alignment,
    alignment_chance,
    uniformity,
    uniformity_floor,
)
from geomkit.geometry.subspaces import cca, chance_cca, principal_angles

__all__ = [
    "CHANCE_MEAN_COSINE",
    "Hubness",
    "NullMoments",
    "Retrieval",
    "alignment",
    "alignment_chance",
    "cca",
    "chance_cca",
    "chance_mutual_knn",
    "cknna",
    "cross_mean_cosine",
    "effective_rank",
    "effective_rank_ceiling",
    "hubness",
    "iso_score",
    "linear_cka",
    "linear_cka_null",
    "mean_cosine",
    "mean_norm_share",
    "modality_gap",
    "modality_gap_null",
    "modality_gap_unbiased",
    "mutual_knn",
    "participation_ratio",
    "principal_angles",
    "procrustes",
    "rank_me",
    "relative_modality_gap",
    "retrieval",
    "rsa",
    "stable_rank",
    "uniformity",
    "uniformity_floor",
]
