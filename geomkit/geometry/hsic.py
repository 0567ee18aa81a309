"""Second moments across two sets of rows, without their bias: the ground of CKA and of PR.

For centred rows `a`, `b` the plug-in `||a^T b||_F^2` grows with the number of columns even when
the sets are independent. Song's U-statistic takes that away and is shift invariant.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from geomkit.errors import DegenerateInput
from geomkit.geometry.rows import Array, similarity_blocks

Rows = NDArray[np.float64]

LEAST = 4
"""Rows that the U-statistic needs: it averages over four distinct ones."""


def cross_energy(a: Array, b: Array) -> float:
    """`||a^T b||_F^2`, on the smaller of the feature side and the sample side."""
    if a.shape[1] * b.shape[1] <= a.shape[0] ** 2:
        cross = a.T @ b
        return _dot(cross, cross)
    blocks = zip(similarity_blocks(a, a), similarity_blocks(b, b), strict=True)
    return math.fsum(_dot(k, m) for (_, k), (_, m) in blocks)


def hsic(a: Array, b: Array) -> float:
    """Song's unbiased HSIC of centred rows under linear kernels, without its factor 1/(n(n-3)).

    `||a^T b||^2 - n/(n-2) sum k l + tr K tr L / ((n-1)(n-2))`, with `k` and `l` the squared norms
    of the centred rows: no N x N matrix.

    Reference:
        Song et al. 2012, JMLR 13, equation 5.
    """
    n, xp = int(a.shape[0]), array_namespace(a)
    k, m = xp.sum(a * a, axis=1), xp.sum(b * b, axis=1)
    traces = float(xp.sum(k)) * float(xp.sum(m))
    return unbiased(n, cross_energy(a, b), _dot(k, m), traces)


def unbiased(n: int, energy: float, own: float, traces: float) -> float:
    """`hsic` from its sums: `||a^T b||^2`, `sum k l` and `tr K tr L`."""
    return energy - n / (n - 2) * own + traces / ((n - 1) * (n - 2))


def hsic_without(
    sets: Sequence[Rows], folds: NDArray[np.int64], products: Sequence[Rows | None] | None = None
) -> Rows:
    """`hsic` of every two of `sets`, with nothing left out and then without each fold.

    Exact, from one pass over the sample-side products: to leave rows out of a U-statistic is to
    leave terms out of its sums. `(sets, sets, 1 + folds)`. `products` holds `a @ a.T` of each set
    where the caller has it.
    """
    kept = np.column_stack([np.ones(len(folds)), folds[:, None] != np.arange(folds.max() + 1)])
    n = kept.sum(axis=0)
    if n.min() < LEAST:
        raise DegenerateInput(
            f"Expected at least {LEAST} rows without any fold, got {int(n.min())}; "
            "give more samples."
        )
    inner = np.zeros((len(sets), len(sets), kept.shape[1]))
    through, total = np.zeros_like(inner), np.zeros((len(sets), kept.shape[1]))
    pairs = list(itertools.combinations_with_replacement(range(len(sets)), 2))
    whole = products or [None] * len(sets)
    streams = (similarity_blocks(a, a, p) for a, p in zip(sets, whole, strict=True))
    for blocks in zip(*streams, strict=True):
        part = kept[blocks[0][0]]
        grams = [_off_diagonal(*block) for block in blocks]
        sums = [gram @ kept for gram in grams]
        total += np.stack([(part * s).sum(axis=0) for s in sums])
        for i, j in pairs:
            inner[i, j] += (part * ((grams[i] * grams[j]) @ kept)).sum(axis=0)
            through[i, j] += (part * sums[i] * sums[j]).sum(axis=0)
    value = np.zeros_like(inner)
    for i, j in pairs:
        value[i, j] = inner[i, j] - 2 / (n - 2) * through[i, j]
        value[i, j] += total[i] * total[j] / ((n - 1) * (n - 2))
        value[j, i] = value[i, j]
    return value


def require_signal(*energies: float) -> None:
    """Refuses when the debiased energy of a set is not positive: too few rows to remove bias."""
    if min(energies) <= 0:
        raise DegenerateInput(
            "Expected rows with covariance above their sampling noise, got none; "
            "give more samples or take the plug-in form (debiased=False)."
        )


def _off_diagonal(rows: slice, gram: Rows) -> Rows:
    """A copy in which a row does not meet itself."""
    gram = gram.copy()
    gram[np.arange(gram.shape[0]), np.arange(rows.start, rows.stop)] = 0.0
    return gram


def _dot(a: Array, b: Array) -> float:
    return float(array_namespace(a).sum(a * b))
