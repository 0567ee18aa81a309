"""The formulas as papers print them and as scripts have them: whole matrices, float32, torch.

Written here from the formulas. They stand in for packages that cannot be imported, and for
repositories that are no packages.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

Rows = np.ndarray[Any, np.dtype[np.float32]]


def mean_cosine(x: Rows) -> float:
    cosine = _cosines(x).fill_diagonal_(0)
    n = len(x)
    return float(cosine.sum()) / (n * (n - 1))


def iso_score(x: Rows) -> float:
    """As the paper has it: principal axes, variances along them, their distance from equal ones."""
    from sklearn.decomposition import PCA

    dim = x.shape[1]
    along = PCA(n_components=min(x.shape)).fit_transform(x)
    variances = np.zeros(dim)
    variances[: along.shape[1]] = np.cov(along.T).diagonal()
    normed = dim**0.5 * variances / np.linalg.norm(variances)
    defect = np.linalg.norm(normed - 1) / (2 * (dim - dim**0.5)) ** 0.5
    share = (dim - defect**2 * (dim - dim**0.5)) ** 2 / dim**2
    return float((dim * share - 1) / (dim - 1))


def uniformity(x: Rows) -> float:
    units = torch.nn.functional.normalize(torch.from_numpy(x))
    return float(torch.pdist(units).pow(2).mul(-2).exp().mean().log())


def linear_cka(x: Rows, y: Rows) -> float:
    """Song's equation 5 as it is printed: a product of two N x N matrices in every term."""
    k, m = _kernels(x, y)
    return _hsic(k, m) / math.sqrt(_hsic(k, k) * _hsic(m, m))


def _hsic(k: Tensor, m: Tensor) -> float:
    n = len(k)
    product = k @ m
    sums = float(k.sum()) * float(m.sum()) / ((n - 1) * (n - 2))
    return float(product.trace()) + sums - 2 / (n - 2) * float(product.sum())


def linear_cka_entrywise(x: Rows, y: Rows) -> float:
    """The same from N x N matrices, their product spared: entry by entry, and by vectors."""
    k, m = _kernels(x, y)
    return _entrywise(k, m) / math.sqrt(_entrywise(k, k) * _entrywise(m, m))


def _entrywise(k: Tensor, m: Tensor) -> float:
    n = len(k)
    along, across = k.sum(dim=1).double(), m.sum(dim=1).double()
    sums = float(along.sum() * across.sum()) / ((n - 1) * (n - 2))
    return float((k * m).sum()) + sums - 2 / (n - 2) * float(along @ across)


def _kernels(x: Rows, y: Rows) -> list[Tensor]:
    sides = (torch.from_numpy(s) for s in (x, y))
    return [(s @ s.T).fill_diagonal_(0) for s in sides]


def mutual_knn_sorted(x: Rows, y: Rows) -> float:
    """Every row of similarities sorted whole, lists as N x N masks."""
    return _overlap(*(_cosines(s).fill_diagonal_(-2).argsort(1, True)[:, :10] for s in (x, y)))


def mutual_knn(x: Rows, y: Rows) -> float:
    """The same with `topk` for the sort."""
    return _overlap(*(_cosines(s).fill_diagonal_(-2).topk(10, dim=1).indices for s in (x, y)))


def _overlap(near_x: Tensor, near_y: Tensor) -> float:
    n, k = near_x.shape
    in_x, in_y = (torch.zeros(n, n).scatter_(1, near, 1.0) for near in (near_x, near_y))
    return float((in_x * in_y).sum(dim=1).mean()) / k


def rank_me(x: Rows) -> float:
    values = torch.linalg.svdvals(torch.from_numpy(x))
    p = values / values.sum()
    p = p[p > 0]
    return float(torch.exp(-(p * p.log()).sum()))


def two_nn(x: Rows) -> float:
    """All distances, sorted; a line through the origin on the lowest nine tenths."""
    near = torch.cdist(torch.from_numpy(x), torch.from_numpy(x)).sort(dim=1).values[:, 1:3]
    ratios = (near[:, 1] / near[:, 0]).log().double().sort().values
    kept = int(len(x) * 0.9)
    ratios = ratios[:kept]
    tail = -torch.log1p(-torch.arange(1, kept + 1, dtype=torch.float64) / len(x))
    return float(ratios @ tail / (ratios @ ratios))


def hubness(x: Rows) -> float:
    near = _cosines(x).fill_diagonal_(-2).topk(10, dim=1).indices
    off = torch.bincount(near.flatten(), minlength=len(x)).double() - 10
    return float((off**3).mean() / (off**2).mean() ** 1.5)


def procrustes(x: Rows, y: Rows) -> float:
    """Norms in float64: torch's own in float32 are 0.15 % low for 20 million entries."""
    a, b = (torch.from_numpy(s - s.mean(axis=0)) for s in (x, y))
    norms = [torch.linalg.vector_norm(side, dtype=torch.float64) for side in (a, b)]
    return float(torch.linalg.svdvals(a.T @ b).sum() / (norms[0] * norms[1]))


def _cosines(x: Rows) -> Tensor:
    units = torch.nn.functional.normalize(torch.from_numpy(x))
    return units @ units.T
