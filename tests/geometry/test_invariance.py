"""One table: what each metric must not see, and what it must."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import numpy as np
import pytest

from geomkit import geometry
from tests.geometry.metrics import COUNTS

RNG = np.random.default_rng(11)
N, DIM = 80, 12
SHARED = RNG.standard_normal((N, DIM)) * np.linspace(2, 0.3, DIM)
X = SHARED + 0.7 * RNG.standard_normal((N, DIM)) + 0.4
Y = SHARED + 0.7 * RNG.standard_normal((N, DIM)) - 0.2
TURN = np.linalg.qr(RNG.standard_normal((DIM, DIM)))[0]
ORDER, FEATURES = RNG.permutation(N), RNG.permutation(DIM)
LENGTH = RNG.lognormal(0, 0.8, (N, 1))
STRETCH = np.linspace(0.2, 3, DIM)
MAP = RNG.standard_normal((DIM, DIM)) + 2 * np.eye(DIM)

Both = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
TRANSFORMATIONS: dict[str, Both] = {
    "rotation of both": lambda x, y: (x @ TURN, y @ TURN),
    "rotation of one": lambda x, y: (x @ TURN, y),
    "scale": lambda x, y: (x * 7.5, y * 0.01),
    "row lengths": lambda x, y: (x * LENGTH, y * LENGTH[::-1]),
    "shift": lambda x, y: (x + 2.0, y - 1.5),
    "sample order of both": lambda x, y: (x[ORDER], y[ORDER]),
    "sample order of one": lambda x, y: (x[ORDER], y),
    "feature order of both": lambda x, y: (x[:, FEATURES], y[:, FEATURES]),
    "stretched axes": lambda x, y: (x * STRETCH, y),
    "invertible maps": lambda x, y: (x @ MAP, y @ MAP.T),
}
METRICS = {
    "mean_cosine": lambda x, _: geometry.mean_cosine(x),
    "uniformity": lambda x, _: geometry.uniformity(x),
    "mean_norm_share": lambda x, _: geometry.mean_norm_share(x),
    "iso_score": lambda x, _: geometry.iso_score(x),
    "participation_ratio": lambda x, _: geometry.participation_ratio(x),
    "effective_rank": lambda x, _: geometry.effective_rank(x),
    "rank_me": lambda x, _: geometry.rank_me(x),
    "stable_rank": lambda x, _: geometry.stable_rank(x),
    "cross_mean_cosine": geometry.cross_mean_cosine,
    "alignment": geometry.alignment,
    "modality_gap": geometry.modality_gap,
    "modality_gap_unbiased": geometry.modality_gap_unbiased,
    "mutual_knn": geometry.mutual_knn,
    "linear_cka": geometry.linear_cka,
    "mrr": lambda x, y: geometry.retrieval(x, y).mrr(),
}
# Must it stay? One letter a metric: s stays, m moves. Columns are the metrics above, in order.
TABLE = {
    #                         cos uni mns iso pr  er  rme sr  xc  ali gap gpu knn cka mrr
    "rotation of both":      "s   s   s   s   s   s   s   s   s   s   s   s   s   s   s",
    "rotation of one":       "s   s   s   s   s   s   s   s   m   m   m   m   s   s   m",
    "scale":                 "s   s   s   s   s   s   s   s   s   s   s   s   s   s   s",
    "row lengths":           "s   s   m   m   m   m   m   m   s   s   s   s   s   m   s",
    "shift":                 "m   m   m   s   s   s   m   m   m   m   m   m   m   s   m",
    "sample order of both":  "s   s   s   s   s   s   s   s   s   s   s   s   s   s   s",
    "sample order of one":   "s   s   s   s   s   s   s   s   s   m   s   m   m   m   m",
    "feature order of both": "s   s   s   s   s   s   s   s   s   s   s   s   s   s   s",
    "stretched axes":        "m   m   m   m   m   m   m   m   m   m   m   m   m   m   m",
}  # fmt: skip
ACROSS = {
    "relative_modality_gap": geometry.relative_modality_gap,
    "cknna": geometry.cknna,
    "hubness": lambda x, _: geometry.hubness(x, k=5).skewness,
    "hubness across": lambda x, y: geometry.hubness(x, y, k=5).skewness,
    "plug-in linear_cka": lambda x, y: geometry.linear_cka(x, y, debiased=False),
    "linear_cka_null": lambda x, y: geometry.linear_cka_null(x, y, debiased=False).sd,
    "procrustes": geometry.procrustes,
    "cca": geometry.cca,
    "svcca": lambda x, y: geometry.cca(x, y, variance=0.9),
    "rsa": geometry.rsa,
    "rsa of cosines": lambda x, y: geometry.rsa(x, y, dissimilarity="cosine"),
    "rsa of correlations": lambda x, y: geometry.rsa(x, y, dissimilarity="correlation"),
    "whitened rsa": lambda x, y: geometry.rsa(x, y, comparison="whitened"),
    "angles of samples": lambda x, y: geometry.principal_angles(x, y, 3)[1],
    "angles of features": lambda x, y: geometry.principal_angles(x, y, 3, of="features")[1],
}
TABLE_ACROSS = {
    #                         rmg nna hub hx  cka nul pro cca svc rsa rsc rsr rsw ang anf
    "rotation of both":      "s   s   s   s   s   s   s   s   s   s   s   m   s   s   s",
    "rotation of one":       "m   s   s   m   s   s   s   s   s   s   s   m   s   s   m",
    "scale":                 "s   s   s   s   s   s   s   s   s   s   s   s   s   s   s",
    "row lengths":           "s   s   s   s   m   m   m   m   m   m   s   s   m   m   m",
    "shift":                 "m   m   m   m   s   s   s   s   s   s   m   s   s   s   s",
    "sample order of both":  "s   s   s   s   s   s   s   s   s   s   s   s   s   s   s",
    "sample order of one":   "m   m   s   s   m   s   m   m   m   m   m   m   m   m   s",
    "feature order of both": "s   s   s   s   s   s   s   s   s   s   s   s   s   s   s",
    "stretched axes":        "m   m   m   m   m   m   m   s   m   m   m   m   m   m   m",
    "invertible maps":       "m   m   m   m   m   m   m   s   m   m   m   m   m   m   m",
}  # fmt: skip
HEAD = RNG.standard_normal((30, DIM))
VIEWS = np.arange(N) // 4
WITHIN = {
    "plug-in iso_score": lambda x, _: geometry.iso_score(x, debiased=False),
    "largest contribution": lambda x, _: geometry.cosine_contribution(x).parts.max(),
    "without outliers": lambda x, _: geometry.mean_cosine(geometry.outlier_ablated(x, 2)),
    "partition_isotropy": lambda x, _: geometry.partition_isotropy(x),
    "spectral_decay": lambda x, _: geometry.spectral_decay(x, 2, 9),
    "vendi_score": lambda x, _: geometry.vendi_score(x),
    "self_cluster": lambda x, _: geometry.self_cluster(x),
    "lidar": lambda x, _: geometry.lidar(x, VIEWS, ridge=0.01),
    "two_nn": lambda x, _: geometry.two_nn(x).linear,
    "two_nn likelihood": lambda x, _: geometry.two_nn(x).likelihood,
    "gride": lambda x, _: geometry.gride(x, furthest=8)[2].dimension,
    "curvature": lambda x, _: geometry.curvature(x),
    "logit_lens": lambda x, y: geometry.logit_lens(x, y, HEAD, normed=True).mean_divergence(),
}
TABLE_WITHIN = {
    #                         iso con out par dec ven clu lid two lik gri cur len
    "rotation of both":      "s   m   m   s   s   s   s   s   s   s   s   s   m",
    "rotation of one":       "s   m   m   s   s   s   s   s   s   s   s   s   m",
    "scale":                 "s   s   s   m   s   s   s   s   s   s   s   s   m",
    "row lengths":           "m   s   s   m   m   s   s   m   m   m   m   m   m",
    "shift":                 "s   m   m   m   s   m   m   s   s   s   s   s   m",
    "sample order of both":  "s   s   s   s   s   s   s   m   s   s   s   m   s",
    "sample order of one":   "s   s   s   s   s   s   s   m   s   s   s   m   m",
    "feature order of both": "s   s   s   s   s   s   s   s   s   s   s   s   m",
    "stretched axes":        "m   m   m   m   m   m   m   m   m   m   m   m   m",
    "invertible maps":       "m   m   m   m   m   m   m   m   m   m   m   m   m",
}  # fmt: skip
NULLS = {
    "alignment_chance": geometry.alignment_chance,
    "modality_gap_null": geometry.modality_gap_null,
    "mutual_knn_null": lambda x, y: geometry.mutual_knn_null(x, y).sd,
    "linear_cka_skew": geometry.linear_cka_skew,
}
TABLE_NULLS = {
    #                         ali gap knn skw
    "rotation of both":      "s   s   s   s",
    "rotation of one":       "m   m   s   s",
    "scale":                 "s   s   s   s",
    "row lengths":           "s   s   s   m",
    "shift":                 "m   m   m   s",
    "sample order of both":  "s   s   s   s",
    "sample order of one":   "m   m   s   s",
    "feature order of both": "s   s   s   s",
    "stretched axes":        "m   m   m   m",
    "invertible maps":       "m   m   m   m",
}  # fmt: skip
CASES = [
    (transformation, metric, stays == "s")
    for transformation, row in TABLE.items()
    for metric, stays in zip(METRICS, row.split(), strict=True)
]
CASES += [
    (transformation, metric, stays == "s")
    for transformation, row in TABLE_ACROSS.items()
    for metric, stays in zip(ACROSS, row.split(), strict=True)
]
CASES += [
    (transformation, metric, stays == "s")
    for transformation, row in TABLE_WITHIN.items()
    for metric, stays in zip(WITHIN, row.split(), strict=True)
]
CASES += [
    (transformation, metric, stays == "s")
    for transformation, row in TABLE_NULLS.items()
    for metric, stays in zip(NULLS, row.split(), strict=True)
]
EVERY = METRICS | ACROSS | WITHIN | NULLS


@pytest.mark.parametrize(("transformation", "metric", "stays"), CASES)
def test_must_it_stay(transformation, metric, stays):
    measure, moved = EVERY[metric], TRANSFORMATIONS[transformation](X, Y)
    before, after = measure(X, Y), measure(*moved)
    if stays:
        assert after == pytest.approx(before, rel=1e-9, abs=1e-12)
    else:
        assert abs(after - before) > 1e-4 * abs(before)


def test_every_metric_must_stay_somewhere_and_move_elsewhere():
    functions = {name for name in geometry.__all__ if inspect.isfunction(getattr(geometry, name))}
    written_so = {
        "retrieval": "mrr",
        "cosine_contribution": "largest contribution",
        "outlier_ablated": "without outliers",
        "outlier_dimensions": "without outliers",
        "principal_angles": "angles of samples",
    }
    no_metric = {"gathered", "moments_of", "paired_moments", "rms_norm"}  # they are given rows back
    words = {word for name in EVERY for word in (name, *name.split())}
    missing = {f for f in functions - COUNTS - no_metric if written_so.get(f, f) not in words}
    assert not missing
    for metric in EVERY:
        assert {stays for _, name, stays in CASES if name == metric} == {True, False}
