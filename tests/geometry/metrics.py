"""Every public name of geomkit.geometry in one table, as tests call it."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch

from geomkit import geometry
from geomkit.geometry.rows import as_rows

ONE = {
    "mean_cosine": geometry.mean_cosine,
    "mean_norm_share": geometry.mean_norm_share,
    "iso_score": geometry.iso_score,
    "participation_ratio": geometry.participation_ratio,
    "effective_rank": geometry.effective_rank,
    "rank_me": geometry.rank_me,
    "stable_rank": geometry.stable_rank,
    "uniformity": geometry.uniformity,
    "hubness": lambda x: geometry.hubness(x).gini,
    "cosine_contribution": lambda x: geometry.cosine_contribution(x).parts[3],
    "outlier_ablated": lambda x: geometry.outlier_ablated(x, 2).sum(),
    "outlier_dimensions": lambda x: geometry.outlier_dimensions(x, 2, by="variance")[0],
    "partition_isotropy": geometry.partition_isotropy,
    "plug-in iso_score": lambda x: geometry.iso_score(x, debiased=False),
    "spectral_decay": geometry.spectral_decay,
    "vendi_score": geometry.vendi_score,
    "self_cluster": geometry.self_cluster,
    "lidar": lambda x: geometry.lidar(x, np.arange(len(x)) // 4),
    "two_nn": lambda x: geometry.two_nn(x).linear,
    "gride": lambda x: geometry.gride(x, furthest=8)[1].dimension,
    "curvature": geometry.curvature,
}
TWO = {
    "cross_mean_cosine": geometry.cross_mean_cosine,
    "alignment": geometry.alignment,
    "alignment_chance": geometry.alignment_chance,
    "modality_gap": geometry.modality_gap,
    "modality_gap_unbiased": geometry.modality_gap_unbiased,
    "modality_gap_null": geometry.modality_gap_null,
    "mutual_knn": geometry.mutual_knn,
    "relative_modality_gap": geometry.relative_modality_gap,
    "cknna": geometry.cknna,
    "hubness across": lambda x, y: geometry.hubness(x, y).gini,
    "linear_cka": geometry.linear_cka,
    "plug-in linear_cka": lambda x, y: geometry.linear_cka(x, y, debiased=False),
    "linear_cka_null": lambda x, y: geometry.linear_cka_null(x, y, debiased=False).sd,
    "mutual_knn_null": lambda x, y: geometry.mutual_knn_null(x, y).sd,
    "procrustes": geometry.procrustes,
    "cca": geometry.cca,
    "svcca": lambda x, y: geometry.cca(x, y, variance=0.9),
    "principal_angles": geometry.principal_angles,
    "principal_angles of features": lambda x, y: geometry.principal_angles(x, y, of="features"),
    "rsa": geometry.rsa,
    "linear_cka_skew": geometry.linear_cka_skew,
    "rsa of cosines": lambda x, y: geometry.rsa(x, y, dissimilarity="cosine"),
    "whitened rsa": lambda x, y: geometry.rsa(x, y, comparison="whitened"),
    "retrieval": geometry.retrieval,
}
HEAD = np.random.default_rng(3).standard_normal((30, 12)).astype(np.float32)


def like(values: np.ndarray, x: Any) -> Any:
    """Fixed values as an array of the library and the device of the rows."""
    return values if isinstance(x, np.ndarray) else torch.tensor(values, device=x.device)


# What is defined of constant rows too.
PLAIN = {
    "moments_of": geometry.moments_of,
    "gathered": lambda x: geometry.gathered(map(geometry.moments_of, (x[:7], x[7:]))),
    "paired_moments": lambda x: geometry.paired_moments(x, x[:, :9]),
    "logit_lens": lambda x: geometry.logit_lens(x, 2 * x, like(HEAD, x), normed=True),
    "rms_norm": lambda x: geometry.rms_norm(as_rows(x), like(HEAD[0], x)),
}
# Of counts alone: no rows, no library.
COUNTS = {
    "chance_cca",
    "chance_mutual_knn",
    "effective_rank_ceiling",
    "uniformity_floor",
    "CHANCE_MEAN_COSINE",
}


def numbers(value: Any) -> np.ndarray:
    """All numbers of a result, one after the other."""
    if value is None:
        return np.empty(0)
    if is_dataclass(value):
        return numbers([getattr(value, field.name) for field in fields(value)])
    if isinstance(value, (tuple, list)):
        return np.concatenate([np.empty(0), *map(numbers, value)])
    if isinstance(value, torch.Tensor):
        value = value.detach().double().cpu().numpy()
    return np.asarray(value, np.float64).ravel()
