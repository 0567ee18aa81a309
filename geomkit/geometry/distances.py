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

Rows = NDArray[np.float64]
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


def rsa_influence(
    x: Array,
    y: Array,
    *,
    dissimilarity: Dissimilarity = "euclidean",
    groups: Groups | None = None,
) -> tuple[float, Rows]:
    """The rank correlation of `rsa`, and each row's influence on it, `(samples,)`.

    A correlation of ranks is a U-statistic over pairs of pairs: a pair moves it by its own product
    and by the ranks that it gives to all others, which two sorted sums tell. A row moves it by its
    pairs, each pair having two rows. `statistics.from_rows` makes the interval.

    Raises:
        UsageError, DegenerateInput: as `rsa`.
    """
    a, b = _prepared(x, dissimilarity), _prepared(y, dissimilarity)
    matched(a, b)
    n = int(a.shape[0])
    pairs = _pairs(n, groups)
    value, of_pair = _spearman_influence(_distances(a, pairs), _distances(b, pairs))
    of_row = sum(np.bincount(side, of_pair, n) for side in pairs)
    return value, np.asarray(n * of_row / len(of_pair))


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


def _distances(a: Array, pairs: tuple[NDArray[np.int64], NDArray[np.int64]]) -> Rows:
    """Squared distances of the pairs, as a share of the largest squared length."""
    a = a - array_namespace(a).mean(a, axis=0)
    gram = on_host(a @ a.T)
    norms = gram.diagonal()
    return np.asarray((norms[pairs[0]] + norms[pairs[1]] - 2 * gram[pairs]) / norms.max())


def _spearman(a: Rows, b: Rows) -> float:
    ranks = [_ranks(values) for values in (a, b)]
    return _correlation(*ranks)


def _spearman_influence(a: Rows, b: Rows) -> tuple[float, Rows]:
    """The rank correlation, and the influence of each pair on it."""
    p, q = _ranks(a), _ranks(b)
    value, count = _correlation(p, q), len(p)
    moved = [
        p * q + _given(a, q) + _given(b, p),
        p * p + 2 * _given(a, p),
        q * q + 2 * _given(b, q),
    ]
    both, own_a, own_b = (m - m.mean() for m in moved)
    spread_a, spread_b = float(p @ p) / count, float(q @ q) / count
    slope = both / np.sqrt(spread_a * spread_b)
    return value, slope - value / 2 * (own_a / spread_a + own_b / spread_b)


def _given(values: Rows, weights: Rows) -> Rows:
    """What each value adds to the ranks of others, times their weights: those above, half the ties.

    The weights sum to zero.
    """
    order, ends = _tied(values)
    starts, sums = ends[:-1], np.append(0.0, np.cumsum(weights[order]))
    above = -(sums[starts] + sums[ends[1:]]) / 2
    given = np.empty(len(values))
    given[order] = np.repeat(above, np.diff(ends))
    return given


def _correlation(p: Rows, q: Rows) -> float:
    spread = [float(np.dot(r, r)) for r in (p, q)]
    if min(spread) <= 0:
        raise DegenerateInput(
            "Expected pairs that lie at different distances, got one distance for all; "
            "there is no order to compare."
        )
    return float(np.dot(p, q) / np.sqrt(spread[0] * spread[1]))


def _ranks(values: Rows) -> Rows:
    """Ranks about their mean; values that differ by rounding only share the middle rank."""
    order, ends = _tied(values)
    ranks = np.empty(len(values))
    ranks[order] = np.repeat((ends[:-1] + ends[1:] - 1) / 2, np.diff(ends))
    return ranks - (len(values) - 1) / 2


def _tied(values: Rows) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The ascending order, and where in it each run of ties begins, with the end."""
    order = np.argsort(values, kind="stable")
    new = np.diff(values[order], prepend=-np.inf) > TIE
    return order, np.append(np.flatnonzero(new), len(values))
