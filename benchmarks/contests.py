"""Who is measured against whom, what is asked of the ratio, and what no way can undercut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Count = Callable[[int, int], float]  # rows, columns -> operations


@dataclass(frozen=True, slots=True)
class Rival:
    """Another way to the same value; times are CPU seconds.

    `instead` is the way taken where its package cannot be imported. `power` is how its time grows
    with the rows, for a way that cannot be run on many; None where that is no single power.
    """

    name: str
    way: str
    power: int | None = None
    target: float | None = None  # how many times as long it is to take
    instead: str = ""
    lean: float | None = None  # our memory is to be at most this share of its memory
    other: str = ""  # why its value is another quantity


@dataclass(frozen=True, slots=True)
class Contest:
    """One metric. `flops` are those of matrix products and factorisations at least needed: of a
    product of a matrix with itself, one half. The least traffic is one reading of the sets."""

    metric: str
    rivals: tuple[Rival, ...]
    flops: Count
    needs: str  # the same in words
    sets: int = 1


def _mean_cosine(n: int, d: int) -> float:
    return 4.0 * n * d


def _covariance(n: int, d: int) -> float:
    return 1.0 * n * d**2


def _spectrum(n: int, d: int) -> float:
    return n * d**2 + 4 / 3 * d**3


def _pairs(n: int, d: int) -> float:
    return 1.0 * n**2 * d


CONTESTS = (
    Contest("mean_cosine", (
        Rival("torchmetrics", "packaged.torchmetrics", 2, 15, "plain.mean_cosine"),
    ), _mean_cosine, "4 N D"),
    Contest("iso_score", (
        Rival("IsoScore", "packaged.isoscore", None, 30, "plain.iso_score"),
        Rival("the steps of IsoScore 1.0", "plain.iso_score"),
    ), _covariance, "N D^2: one covariance"),
    Contest("uniformity", (
        Rival("torch.pdist", "plain.uniformity", 2, 30),
    ), _pairs, "N^2 D: each cosine once; exp not counted"),
    Contest("linear_cka", (
        Rival("torch-cka", "packaged.torch_cka", 3, 40, "plain.linear_cka"),
        Rival("N x N, as printed", "plain.linear_cka", 3, 40),
        Rival("N x N, entry by entry", "plain.linear_cka_entrywise", 2),
    ), lambda n, d: 4.0 * n * d**2, "4 N D^2: two covariances, one cross product", sets=2),
    Contest("mutual_knn", (
        Rival("N x N, sorted", "plain.mutual_knn_sorted", 2, 2, lean=0.25),
        Rival("N x N, topk", "plain.mutual_knn", 2, 2, lean=0.25),
    ), lambda n, d: 2 * _pairs(n, d), "2 N^2 D: each cosine once, two sides", sets=2),
    Contest("rank_me", (
        Rival("torch svdvals", "plain.rank_me", None, 6),
        Rival("reptrix", "packaged.reptrix",
              other="exp entropy of eigenvalues, centred, where RankMe takes singular values"),
    ), _spectrum, "N D^2 + 4/3 D^3: second moments, tridiagonal form"),
    Contest("two_nn", (
        Rival("scikit-dimension", "packaged.skdim", 2, 2, "plain.two_nn"),
    ), _pairs, "N^2 D: each distance once"),
    Contest("hubness", (
        Rival("N x N, topk", "plain.hubness", 2),
    ), _pairs, "N^2 D: each cosine once"),
    Contest("procrustes", (
        Rival("torch svdvals", "plain.procrustes"),
    ), lambda n, d: 2.0 * n * d**2 + 8 / 3 * d**3,
        "2 N D^2 + 8/3 D^3: cross product, bidiagonal form", sets=2),
)  # fmt: skip
