"""Geometry of representations: pure functions of `(samples, dim)` arrays, one question a file.

    isotropy     do the rows point everywhere, or into one cone?
    outliers     which few dimensions make the number?
    spectrum     how many directions carry the variance?
    diversity    how many different rows are there, and do they clump?
    views        how many directions tell samples apart, beyond what their own views differ by?
    dimension    on how many dimensions do the rows lie, near each of them?
    layers       what happens to a state on its way?
    moments      everything that spectra and mean cosines need, in one pass, chunk by chunk
    sphere       are directions spread over the sphere, do matched ones lie close?
    gap          how far apart do two modalities lie as clouds?
    neighbours   do samples keep the same neighbours in two spaces?
    closeness    do samples keep the same neighbours, and lie as close to them, in two spaces?
    hubs         do a few items crowd the neighbour lists of all others?
    similarity   do two spaces arrange the same samples in the same way?
    nulls        what would a metric be if rows of one side were paired with the others by lot?
    skew         how lopsided is CKA over all of those?
    rotation     can one space be laid onto the other by a rotation?
    subspaces    which directions do two spaces have in common, as far as linear maps can tell?
    distances    do two spaces put the same distances between the same samples?
    ranking      does a query find its answer in the other modality?

For intervals a metric has its influence of each row (`..._influence`) or its values without each
fold (`..._without`); neighbours are found once for all of these, by `struck.near` and
`apart.near_apart`.

NumPy arrays and torch tensors give the same numbers. Sums are in float64; the products of very many
rows are in float32 where that is right to 1e-6 (see `energies`), and coarse where they only propose
what is then measured (see `candidates`, `factors`). Rows without geometry (constant, zero, too few,
not finite) raise `DegenerateInput`. `groups` names, row by row, samples that are the same thing: no
pair is ever made inside a group.
"""

from __future__ import annotations

from geomkit.geometry.closeness import (
    cknna,
)
from geomkit.geometry.dimension import (
    Scale,
    TwoNN,
    gride,
    two_nn,
)
from geomkit.geometry.distances import (
    rsa,
)
from geomkit.geometry.diversity import (
    self_cluster,
    vendi_score,
)
from geomkit.geometry.gap import (
    modality_gap,
    modality_gap_null,
    modality_gap_unbiased,
    relative_modality_gap,
)
from geomkit.geometry.hubs import (
    Hubness,
    hubness,
)
from geomkit.geometry.isotropy import (
    CHANCE_MEAN_COSINE,
    cross_mean_cosine,
    iso_score,
    mean_cosine,
    mean_norm_share,
    partition_isotropy,
)
from geomkit.geometry.layers import (
    LogitLens,
    curvature,
    logit_lens,
    rms_norm,
)
from geomkit.geometry.moments import (
    Moments,
    PairedMoments,
    gathered,
    moments_of,
    paired_moments,
)
from geomkit.geometry.neighbours import (
    chance_mutual_knn,
    mutual_knn,
    mutual_knn_null,
)
from geomkit.geometry.nulls import NullMoments
from geomkit.geometry.outliers import (
    CosineContribution,
    cosine_contribution,
    outlier_ablated,
    outlier_dimensions,
)
from geomkit.geometry.ranking import (
    Retrieval,
    retrieval,
)
from geomkit.geometry.rotation import (
    procrustes,
)
from geomkit.geometry.similarity import (
    linear_cka,
    linear_cka_null,
)
from geomkit.geometry.skew import linear_cka_skew
from geomkit.geometry.spectrum import (
    effective_rank,
    effective_rank_ceiling,
    participation_ratio,
    rank_me,
    spectral_decay,
    stable_rank,
)
from geomkit.geometry.sphere import (
    alignment,
    alignment_chance,
    uniformity,
    uniformity_floor,
)
from geomkit.geometry.subspaces import (
    cca,
    chance_cca,
    principal_angles,
)
from geomkit.geometry.views import lidar

__all__ = [
    "CHANCE_MEAN_COSINE",
    "CosineContribution",
    "Hubness",
    "LogitLens",
    "Moments",
    "NullMoments",
    "PairedMoments",
    "Retrieval",
    "Scale",
    "TwoNN",
    "alignment",
    "alignment_chance",
    "cca",
    "chance_cca",
    "chance_mutual_knn",
    "cknna",
    "cosine_contribution",
    "cross_mean_cosine",
    "curvature",
    "effective_rank",
    "effective_rank_ceiling",
    "gathered",
    "gride",
    "hubness",
    "iso_score",
    "lidar",
    "linear_cka",
    "linear_cka_null",
    "linear_cka_skew",
    "logit_lens",
    "mean_cosine",
    "mean_norm_share",
    "modality_gap",
    "modality_gap_null",
    "modality_gap_unbiased",
    "moments_of",
    "mutual_knn",
    "mutual_knn_null",
    "outlier_ablated",
    "outlier_dimensions",
    "paired_moments",
    "participation_ratio",
    "partition_isotropy",
    "principal_angles",
    "procrustes",
    "rank_me",
    "relative_modality_gap",
    "retrieval",
    "rms_norm",
    "rsa",
    "self_cluster",
    "spectral_decay",
    "stable_rank",
    "two_nn",
    "uniformity",
    "uniformity_floor",
    "vendi_score",
]
