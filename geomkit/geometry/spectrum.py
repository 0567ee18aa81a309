"""How many directions carry the variance?

Four answers that are often confused, so each name fixes its spectrum. With `s` the singular values
of the rows as they are and `lam` the eigenvalues of the centred covariance:

    participation_ratio   (sum lam)^2 / sum lam^2
    effective_rank        exp(entropy of lam / sum lam)       natural log, no epsilon
    rank_me               exp(entropy of s / sum s)           natural log, no epsilon
    stable_rank           sum s^2 / max s^2

The non-zero spectrum is the same on the sample side (N x N) and the feature side (dim x dim); the
smaller one is used, in float64.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from geomkit.geometry.hsic import LEAST, cross_energy, hsic, hsic_without, require_signal
from geomkit.geometry.rows import Array, deviations, scaled

Rows = NDArray[np.float64]


def participation_ratio(x: Array, *, debiased: bool = True) -> float:
    """The number of equal axes that would spread the variance as much; higher is more isotropic.

    `tr(C)^2 / tr(C^2)`, without an eigendecomposition. The plug-in form lies in [1, min(N-1, dim)]
    and is about `1/(1/dim + 1/N)` for isotropic rows; debiased, `tr(C^2)` is a U-statistic and the
    value may pass `dim` a little.

    Raises:
        DegenerateInput: constant rows, or too few to remove the bias.

    Reference:
        Gao et al. 2017, bioRxiv 214262; Song et al. 2012 for the U-statistic.
    """
    c = deviations(x, LEAST if debiased else 2)
    n = c.shape[0]
    trace = float(array_namespace(c).sum(c * c))
    if not debiased:
        return trace**2 / cross_energy(c, c)
    energy = hsic(c, c)
    require_signal(energy)
    return float((trace / (n - 1)) ** 2 * n * (n - 3) / energy)


def effective_rank(x: Array) -> float:
    """exp(entropy) of the centred covariance's eigenvalues, in [1, min(N-1, dim)]; higher is wider.

    Depends on N: compare it only between sets of equal size.

    Raises:
        DegenerateInput: constant rows.

    Reference:
        Roy and Vetterli 2007, EUSIPCO, on the covariance.
    """
    return _exp_entropy(spectrum(deviations(x)))


def effective_rank_ceiling(n: int, dim: int) -> int:
    """The largest effective rank that `n` rows of `dim` columns can have."""
    return min(n - 1, dim)


def rank_me(x: Array) -> float:
    """RankMe: exp(entropy) of the uncentred singular values, in [1, min(N, dim)]; higher is wider.

    Raises:
        DegenerateInput: constant rows.

    Reference:
        Garrido et al. 2023, arXiv:2210.02885, without its epsilon of 1e-7.
    """
    return _exp_entropy(spectrum(scaled(x)) ** 0.5)


def stable_rank(x: Array) -> float:
    """Energy over the energy of the top direction, uncentred, in [1, min(N, dim)].

    One massive dimension, or a common mean, brings it to 1.

    Reference:
        Rudelson and Vershynin 2007, J. ACM 54.
    """
    squares = spectrum(scaled(x))
    xp = array_namespace(squares)
    return float(xp.sum(squares) / xp.max(squares))


def spectrum(c: Array) -> Array:
    """Squared singular values of `c`, ascending; what rounding alone can make is set to zero."""
    xp = array_namespace(c)
    return _above_rounding(xp.linalg.eigvalsh(c.T @ c if c.shape[1] <= c.shape[0] else c @ c.T))


def effective_rank_without(c: Rows, folds: NDArray[np.int64], product: Rows | None = None) -> Rows:
    """`effective_rank` of centred rows, whole and then without each fold, `(1 + folds,)`.

    `product` is `c @ c.T` where the caller has it.
    """
    keeps = _keeps(folds)
    if c.shape[1] <= c.shape[0]:
        spectra = (np.linalg.eigvalsh(s) for s in _scatters(c, keeps))
    else:
        gram = c @ c.T if product is None else product
        spectra = (np.linalg.eigvalsh(_centre(gram[np.ix_(k, k)])) for k in keeps)
    return np.array([_exp_entropy(_above_rounding(s)) for s in spectra])


def participation_ratio_without(
    c: Rows, folds: NDArray[np.int64], product: Rows | None = None
) -> Rows:
    """The debiased `participation_ratio` of centred rows, whole and then without each fold."""
    keeps = _keeps(folds)
    n = np.array([keep.sum() for keep in keeps])
    traces = np.array([((c[keep] - c[keep].mean(axis=0)) ** 2).sum() for keep in keeps])
    energy = hsic_without([c], folds, [product])[0, 0]
    require_signal(*energy)
    return np.asarray((traces / (n - 1)) ** 2 * n * (n - 3) / energy)


def _keeps(folds: NDArray[np.int64]) -> list[NDArray[np.bool_]]:
    """All rows, then all but each fold."""
    return [folds != fold for fold in range(-1, int(folds.max()) + 1)]


def _scatters(c: Rows, keeps: list[NDArray[np.bool_]]) -> Iterator[Rows]:
    """Centred scatter matrices of subsets, each by taking the left-out rows from the whole."""
    whole = c.T @ c
    for keep in keeps:
        out = c[~keep]
        mean = out.sum(axis=0)  # the rows sum to zero, so what is kept sums to minus this
        yield whole - out.T @ out - np.outer(mean, mean) / keep.sum()


def _centre(gram: Rows) -> Rows:
    return np.asarray(gram - gram.mean(axis=0) - gram.mean(axis=1)[:, None] + gram.mean())


def _above_rounding(values: Array) -> Array:
    xp = array_namespace(values)
    noise = values.shape[0] * xp.finfo(xp.float64).eps * xp.max(values)
    return xp.where(values > noise, values, xp.zeros_like(values))


def _exp_entropy(weights: Array) -> float:
    xp = array_namespace(weights)
    p = weights[weights > 0]
    p = p / xp.sum(p)
    return float(xp.exp(-xp.sum(p * xp.log(p))))
