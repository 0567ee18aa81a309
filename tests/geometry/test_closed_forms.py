"""One table: rows whose every metric is known from a formula, and the formula.

CROSS      both ends of each of six axes: mean zero, all directions alike
TOP        the cross lifted off its plane by an angle; BOTTOM the same, sunk
LINE       three places on a line
WAVES      columns that are orthogonal to each other and to the ones
"""

from __future__ import annotations

import inspect
import math
from math import cosh, exp, log, pi, sin

import numpy as np
import pytest
from scipy.linalg import hadamard

from geomkit import geometry
from geomkit.geometry import gathered, moments_of, paired_moments
from tests.geometry.metrics import COUNTS, numbers

AXES, ENDS = 6, 12
CROSS = np.concatenate([np.eye(AXES), -np.eye(AXES)])
LIFT = 0.7
TOP = np.column_stack([CROSS * math.cos(LIFT), np.full(ENDS, sin(LIFT))])
BOTTOM = TOP * ([1] * AXES + [-1])
LINE = np.array([[0.0], [1.0], [3.0]])
WAVES = hadamard(16)[:, 1:].astype(float)
X, Y = WAVES[:, :4], WAVES[:, 4:8]
LENGTHS = np.array([0.5, 1, 1.5])
ARMS = np.concatenate([np.diag(LENGTHS), -np.diag(LENGTHS)])
RING = np.stack([np.cos(np.arange(12) * pi / 6), np.sin(np.arange(12) * pi / 6)], axis=1)
STEEP = np.column_stack([X[:, 0], X[:, 1] * 2])  # eigenvalues as 4 to 1
SPREAD = 1 - sin(LIFT) ** 2 + math.cos(LIFT) ** 2 / (ENDS - 1)  # one minus the mean cosine of TOP
OWN = ENDS + ENDS**2 / ((ENDS - 1) * (ENDS - 2)) - 2 * ENDS / (ENDS - 2)  # Song's, of the cross
EXPECTED = ENDS + ENDS * (ENDS - 1) / AXES
EQUAL = np.eye(4) * 3
VIEWS = np.concatenate([np.eye(3, 5), -np.eye(3, 5)])[:, None] + 0.1 * np.concatenate(
    [np.eye(5), -np.eye(5)]
)
TURN = np.array([[math.cos(0.3), sin(0.3)], [-sin(0.3), math.cos(0.3)]])

TABLE = {
    "mean_cosine": (lambda: geometry.mean_cosine(CROSS), -1 / (ENDS - 1)),
    "mean_cosine of a cone": (lambda: geometry.mean_cosine(TOP), 1 - SPREAD),
    "cross_mean_cosine": (lambda: geometry.cross_mean_cosine(TOP, BOTTOM), -(sin(LIFT) ** 2)),
    "cross_mean_cosine of partners": (
        lambda: geometry.cross_mean_cosine(CROSS, CROSS, paired=True),
        -1 / (ENDS - 1),
    ),
    "cosine_contribution": (
        lambda: geometry.cosine_contribution(CROSS).parts,
        [-2 / (ENDS * (ENDS - 1))] * AXES,
    ),
    "outlier_dimensions": (
        lambda: geometry.outlier_dimensions(CROSS + 8 * np.eye(AXES)[4], 1),
        [4],
    ),
    "outlier_dimensions by variance": (
        lambda: geometry.outlier_dimensions(ARMS, 2, by="variance"),
        [2, 1],
    ),
    "outlier_ablated": (lambda: geometry.outlier_ablated(TOP, 1), CROSS * math.cos(LIFT)),
    "mean_norm_share": (lambda: geometry.mean_norm_share(CROSS + 2 * np.eye(AXES)[0]), 4 / 5),
    "iso_score": (lambda: geometry.iso_score(CROSS, debiased=False), 1),
    "iso_score of some axes": (
        lambda: geometry.iso_score(WAVES[:, :3] @ np.eye(3, 7), debiased=False),
        2 / 6,
    ),
    "participation_ratio": (
        lambda: geometry.participation_ratio(CROSS),
        (ENDS / (ENDS - 1)) ** 2 * ENDS * (ENDS - 3) / OWN,
    ),
    "participation_ratio plug-in": (
        lambda: geometry.participation_ratio(STEEP, debiased=False),
        5**2 / (4**2 + 1),
    ),
    "effective_rank": (
        lambda: geometry.effective_rank(STEEP),
        exp(-0.8 * log(0.8) - 0.2 * log(0.2)),
    ),
    "rank_me": (lambda: geometry.rank_me(STEEP), exp(log(3) - 2 / 3 * log(2))),
    "stable_rank": (lambda: geometry.stable_rank(STEEP), 5 / 4),
    "spectral_decay": (lambda: geometry.spectral_decay(STEEP), 2),
    "vendi_score": (lambda: geometry.vendi_score(CROSS), AXES),
    "self_cluster": (
        lambda: geometry.self_cluster(CROSS),
        (ENDS**2 / AXES - EXPECTED) / (ENDS**2 - EXPECTED),
    ),
    "partition_isotropy": (
        lambda: geometry.partition_isotropy(ARMS),
        (cosh(0.5) + 2) / (cosh(1.5) + 2),
    ),
    "lidar": (lambda: geometry.lidar(VIEWS.reshape(-1, 5), np.repeat(np.arange(6), 10)), 3),
    "two_nn": (
        lambda: geometry.two_nn(LINE),
        [(log(1.5) ** 2 + log(2) * log(3)) / (log(1.5) ** 2 + log(2) ** 2), 2 / log(9), 3, 0],
    ),
    "gride": (lambda: geometry.gride(LINE, furthest=2)[0].dimension, 2 / log(9)),
    "curvature": (lambda: geometry.curvature(np.array([[0, 0], [1, 0], [1, 1], [0, 1.0]])), pi / 2),
    "logit_lens": (
        lambda: geometry.logit_lens(np.eye(2), np.eye(2), np.eye(2) * log(3), normed=True).entropy,
        [log(4) - 0.75 * log(3)] * 2,
    ),
    "logit_lens divergence": (
        lambda: (
            geometry.logit_lens(
                np.zeros((1, 2)), np.eye(2)[:1], np.eye(2) * log(3), normed=True
            ).divergence
        ),
        log(2) - (log(4) - 0.75 * log(3)),
    ),
    "rms_norm": (lambda: geometry.rms_norm(EQUAL, np.ones(4), eps=0.0), EQUAL * 2 / 3),
    "uniformity": (
        lambda: geometry.uniformity(CROSS),
        log((exp(-8) + (ENDS - 2) * exp(-4)) / (ENDS - 1)),
    ),
    "alignment": (lambda: geometry.alignment(TOP, BOTTOM), 4 * sin(LIFT) ** 2),
    "alignment_chance": (lambda: geometry.alignment_chance(CROSS, CROSS), 2 + 2 / (ENDS - 1)),
    "modality_gap": (lambda: geometry.modality_gap(TOP, BOTTOM), 2 * sin(LIFT)),
    "modality_gap_unbiased": (
        lambda: geometry.modality_gap_unbiased(TOP, BOTTOM),
        4 * sin(LIFT) ** 2,
    ),
    "modality_gap_null": (
        lambda: geometry.modality_gap_null(TOP, BOTTOM),
        2 * sin(LIFT) / math.sqrt(ENDS),
    ),
    "relative_modality_gap": (
        lambda: geometry.relative_modality_gap(TOP, BOTTOM),
        2 * sin(LIFT) ** 2 / (2 * sin(LIFT) ** 2 + SPREAD),
    ),
    "mutual_knn": (lambda: geometry.mutual_knn(X, X @ TURN_4, k=3), 1),
    "mutual_knn of strangers": (lambda: geometry.mutual_knn(RING, RING[ACROSS], k=2), 0),
    "mutual_knn_null": (lambda: geometry.mutual_knn_null(RING, RING, k=2).mean, 2 / 11),
    "cknna": (lambda: geometry.cknna(RING, RING @ TURN * 5, k=2), 1),
    "hubness": (lambda: geometry.hubness(RING, k=2).occurrences, [2] * 12),
    "hubness across": (
        lambda: geometry.hubness(np.abs(RING[1:3]), np.eye(2), k=1).occurrences,
        [1, 1],
    ),
    "linear_cka": (lambda: geometry.linear_cka(X, 3 * X @ TURN_4 + 7), 1),
    "linear_cka plug-in": (
        lambda: geometry.linear_cka(X, WAVES[:, 2:6], debiased=False),
        2 / 4,
    ),
    "linear_cka_null": (
        lambda: geometry.linear_cka_null(X, Y, debiased=False).mean,
        4 / 15,
    ),
    "linear_cka_null debiased": (
        lambda: geometry.linear_cka_null(X, Y).variance,
        2 / (16 * 13),
    ),
    "procrustes": (lambda: geometry.procrustes(X, WAVES[:, 2:6]), 2 / 4),
    "cca": (lambda: geometry.cca(X * [1, 2, 3, 4], WAVES[:, 3:6]), 1 / 3),
    "principal_angles": (
        lambda: geometry.principal_angles(X, WAVES[:, 2:6], 4),
        [0, 0, pi / 2, pi / 2],
    ),
    "rsa": (lambda: geometry.rsa(LINE, np.array([[0.0], [3.0], [1.0]])), -1),
    "rsa whitened": (
        lambda: geometry.rsa(X, WAVES[:, 2:6], comparison="whitened"),
        2 / 4,
    ),
    "retrieval": (lambda: geometry.retrieval(np.eye(3), np.eye(3)[[0, 2, 1]]).ranks, [1, 3, 3]),
    "moments_of": (lambda: moments_of(CROSS + 1).rows.squares, [2] * AXES),
    "gathered": (
        lambda: gathered([moments_of(CROSS[:5]), moments_of(CROSS[5:])]).rows.own().scatter,
        2 * np.eye(AXES),
    ),
    "paired_moments": (lambda: paired_moments(X, Y).products.scatter, np.zeros((4, 4))),
}
TURN_4 = np.kron(np.eye(2), TURN)
ACROSS = (5 * np.arange(12)) % 12
"""Each step along the ring is five steps here, so no one keeps a neighbour."""


def test_every_metric_is_in_the_table():
    listed = {name.split()[0] for name in TABLE}
    functions = {name for name in geometry.__all__ if inspect.isfunction(getattr(geometry, name))}
    skew = {"linear_cka_skew"}  # over all orders of small sets, in a file of its own
    assert functions - COUNTS - skew == listed


@pytest.mark.parametrize("name", TABLE)
def test_closed_form(name):
    found, formula = TABLE[name]
    want = numbers(formula)
    assert want.size
    assert numbers(found()) == pytest.approx(want, rel=1e-9, abs=1e-7)
