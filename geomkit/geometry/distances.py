"""Do two spaces put the same distances between the same samples?

Representational similarity analysis: a matrix of dissimilarities for each side (which), and a
comparison of the two (how). All three dissimilarities are squared distances of rows that were
prepared first, so one formula serves them:

    euclidean      ||x_i - x_j||^2
    cosine         1 - cosine            rows at unit length
    correlation    1 - Pearson           rows centred over their columns, at unit length
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry.rows import (
    RESOLUTION,
    TIE,
    Array,
    Groups,
    as_rows,
    codes,
    deviations,
    directions,
    matched,
    on_host,
)
from geomkit.geometry.similarity import linear_cka

Dissimilarity = Literal["euclidean", "cosine", "correlation"]
Comparison = Literal["spearman", "whitened"]

MOST = 4096
"""Rows that the rank correlation takes: it sorts all pairs, so its memory grows with N squared."""


def rsa(
    x: Array,
    y: Array,
    *,
    dissimilarity: Dissimilarity = "euclidean",
    comparison: Comparison = "spearman",
    groups: Groups | None = None,
) -> float:
    """Agreement of two dissimilarity matrices of matched rows; higher is closer, 1 is equal.

    `spearman`, in [-1, 1]: rank correlation over all pairs of rows of different groups; ties share
    their rank. `whitened`, in [0, 1]: the cosine of the matrices after whitening what their entries
    share by having a row in common. Of squared distances that is the plug-in `linear_cka` of the
    prepared rows, exactly, and is computed as such for any N.

    Raises:
        UsageError: rows that do not match, an unknown name, more than 4096 rows to rank, or groups
            beside the whitened form.
        DegenerateInput: constant rows, fewer than 3, or pairs that all lie equally far apart.

    Reference:
        Kriegeskorte et al. 2008, Frontiers in Systems Neuroscience 2; Diedrichsen et al. 2020,
        arXiv:2007.02789, for the whitened form.
    """
    a, b = _prepared(x, dissimilarity), _prepared(y, dissimilarity)
    matched(a, b)
    if comparison == "whitened":
        if groups is not None:
            raise UsageError(
                "Expected no groups with comparison='whitened', which takes all pairs."
            )
        return linear_cka(a, b, debiased=False)
    if comparison != "spearman":
        raise UsageError(f"Expected comparison spearman or whitened, got {comparison!r}.")
    pairs = _pairs(int(a.shape[0]), groups)
    return _spearman(_distances(a, pairs), _distances(b, pairs))


def _prepared(x: Array, dissimilarity: Dissimilarity) -> Array:
    if dissimilarity == "euclidean":
        return deviations(x, least=3)
    if dissimilarity == "cosine":
        return directions(x, least=3)
    if dissimilarity == "correlation":
        return directions(_centred_rows(as_rows(x, least=3)), least=3)
    raise UsageError(
        f"Expected dissimilarity euclidean, cosine or correlation, got {dissimilarity!r}."
    )


def _centred_rows(x: Array) -> Array:
    xp = array_namespace(x)
    peak = xp.max(xp.abs(x), axis=1, keepdims=True)
    x = x / xp.where(peak > 0, peak, xp.ones_like(peak))  # so that no square overflows
    centred = x - xp.mean(x, axis=1, keepdims=True)
    flat = xp.sum(centred * centred, axis=1) <= RESOLUTION * xp.sum(x * x, axis=1)
    bad = int(xp.sum(xp.astype(flat, xp.int64)))
    if bad:
        raise DegenerateInput(
            f"Expected rows whose columns differ, got {bad} of {x.shape[0]} with one value in all "
            "columns; drop these samples or take another dissimilarity."
        )
    return centred


def _pairs(n: int, groups: Groups | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first and the second row of every pair of different groups."""
    if n > MOST:
        raise UsageError(
            f"Expected at most {MOST} rows for the rank correlation of all pairs, got {n}; "
            'pass a sample of the rows or take comparison="whitened".'
        )
    code = codes(n, groups)
    first, second = np.triu_indices(n, k=1)
    apart = code[first] != code[second]
    return first[apart], second[apart]


def _distances(a: Array, pairs: tuple[NDArray[np.int64], NDArray[np.int64]]) -> NDArray[np.float64]:
    """Squared distances of the pairs, as a share of the largest squared length."""
    a = a - array_namespace(a).mean(a, axis=0)
    gram = on_host(a @ a.T)
    norms = gram.diagonal()
    return np.asarray((norms[pairs[0]] + norms[pairs[1]] - 2 * gram[pairs]) / norms.max())


def _spearman(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    ranks = [_ranks(values) for values in (a, b)]
    spread = [float(np.dot(r, r)) for r in ranks]
    if min(spread) <= 0:
        raise DegenerateInput(
            "Expected pairs that lie at different distances, got one distance for all; "
            "there is no order to compare."
        )
    return float(np.dot(*ranks) / np.sqrt(spread[0] * spread[1]))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks about their mean; values that differ by rounding only share the middle rank."""
    order = np.argsort(values, kind="stable")
    new = np.diff(values[order], prepend=-np.inf) > TIE
    tied = np.cumsum(new) - 1
    ends = np.append(np.flatnonzero(new), len(values))
    ranks = np.empty(len(values))
    ranks[order] = ((ends[:-1] + ends[1:] - 1) / 2)[tied]
    return ranks - (len(values) - 1) / 2
