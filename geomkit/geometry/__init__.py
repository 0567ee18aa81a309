"""Geometry of representations: pure functions of `(samples, dim)` arrays, one question a file.

    isotropy     do the rows point everywhere, or into one cone?
    spectrum     how many directions carry the variance?
    sphere       are directions spread over the sphere, do matched ones lie close?
    gap          how far apart do two modalities lie as clouds?
    neighbours   do samples keep the same neighbours in two spaces?
    similarity   do two spaces arrange the same samples in the same way?
    ranking      does a query find its answer in the other modality?

NumPy arrays and torch tensors give the same numbers; all sums are in float64. Rows without geometry
(constant, zero, too few, not finite) raise `DegenerateInput`. `groups` names, row by row, samples
that are the same thing: no pair is ever made inside a group.
"""

from __future__ import annotations

from geomkit.geometry.gap import modality_gap, modality_gap_null, modality_gap_unbiased
from geomkit.geometry.isotropy import (
    CHANCE_MEAN_COSINE,
    cross_mean_cosine,
    iso_score,
    mean_cosine,
    mean_norm_share,
)
from geomkit.geometry.neighbours import chance_mutual_knn, mutual_knn
from geomkit.geometry.ranking import Retrieval, retrieval
from geomkit.geometry.similarity import linear_cka
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

__all__ = [
    "CHANCE_MEAN_COSINE",
    "Retrieval",
    "alignment",
    "alignment_chance",
    "chance_mutual_knn",
    "cross_mean_cosine",
    "effective_rank",
    "effective_rank_ceiling",
    "iso_score",
    "linear_cka",
    "mean_cosine",
    "mean_norm_share",
    "modality_gap",
    "modality_gap_null",
    "modality_gap_unbiased",
    "mutual_knn",
    "participation_ratio",
    "rank_me",
    "retrieval",
    "stable_rank",
    "uniformity",
    "uniformity_floor",
]
