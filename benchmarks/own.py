"""geomkit's side of every contest, on NumPy arrays as a run gives them."""

from __future__ import annotations

from geomkit import geometry
from geomkit.geometry.rows import Array


def mean_cosine(x: Array) -> float:
    return geometry.mean_cosine(x)


def iso_score(x: Array) -> float:
    return geometry.iso_score(x, debiased=False)  # the peers' form, for the same value


def uniformity(x: Array) -> float:
    return geometry.uniformity(x)


def linear_cka(x: Array, y: Array) -> float:
    return geometry.linear_cka(x, y)


def mutual_knn(x: Array, y: Array) -> float:
    return geometry.mutual_knn(x, y)


def rank_me(x: Array) -> float:
    return geometry.rank_me(x)


def two_nn(x: Array) -> float:
    return geometry.two_nn(x).linear


def hubness(x: Array) -> float:
    return geometry.hubness(x).skewness


def procrustes(x: Array, y: Array) -> float:
    return geometry.procrustes(x, y)
