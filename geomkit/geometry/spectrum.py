"""How many directions carry the variance?

Answers that are often confused, so each name fixes its spectrum. With `s` the singular values
of the rows as they are and `lam` the eigenvalues of the centred covariance:

    participation_ratio   (sum lam)^2 / sum lam^2
    effective_rank        exp(entropy of lam / sum lam)       natural log, no epsilon
    rank_me               exp(entropy of s / sum s)           natural log, no epsilon
    stable_rank           sum s^2 / max s^2
    spectral_decay        alpha of lam_i = c i^-alpha over a stated range of i

The non-zero spectrum is the same on the sample side (N x N) and the feature side (dim x dim); the
smaller one is used, in float64.
"""

from __future__ import annotations

import math

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry import products
from geomkit.geometry.chunks import are_many
from geomkit.geometry.energies import energies_of, second_moments
from geomkit.geometry.hsic import LEAST, cross_energy, require_signal, unbiased
from geomkit.geometry.moments import Moments
from geomkit.geometry.rows import Array, deviations, on_host, scaled
from geomkit.geometry.sums import Sums

Rows = NDArray[np.float64]


def participation_ratio(x: Array | Moments, *, debiased: bool = True) -> float:
    """Eigenvalues, centred: how many equal axes would spread the variance as much; higher is wider.

    `tr(C)^2 / tr(C^2)`, without an eigendecomposition. The plug-in form lies in [1, min(N-1, dim)]
    and is about `1/(1/dim + 1/N)` for isotropic rows; debiased, `tr(C^2)` is a U-statistic and the
    value may pass `dim` a little.

    Raises:
        DegenerateInput: constant rows, or too few to remove the bias.

    Reference:
        Gao et al. 2017, bioRxiv 214262; Song et al. 2012 for the U-statistic.
    """
    n, trace, plug_in, energy = _trace_and_energy(x, LEAST if debiased else 2)
    if not debiased:
        return trace**2 / plug_in
    require_signal(energy)
    return float((trace / (n - 1)) ** 2 * n * (n - 3) / energy)


def effective_rank(x: Array | Moments) -> float:
    """Eigenvalues, centred: exp of their entropy, in [1, min(N-1, dim)]; higher is wider.

    Depends on N: compare it only between sets of equal size.

    Raises:
        DegenerateInput: constant rows.

    Reference:
        Roy and Vetterli 2007, EUSIPCO, on the covariance.
    """
    return exp_entropy(eigenvalues(x))


def effective_rank_ceiling(n: int, dim: int) -> int:
    """The largest effective rank that `n` rows of `dim` columns can have."""
    return min(n - 1, dim)


def rank_me(x: Array | Moments) -> float:
    """Singular values, not centred: exp of their entropy, in [1, min(N, dim)]; higher is wider.

    Raises:
        DegenerateInput: constant rows.

    Reference:
        Garrido et al. 2023, arXiv:2210.02885, without its epsilon of 1e-7.
    """
    return exp_entropy(eigenvalues(x, centred=False) ** 0.5)


def stable_rank(x: Array | Moments) -> float:
    """Squared singular values, not centred: their sum over the largest, in [1, min(N, dim)].

    Higher is wider. One massive dimension, or a common mean, brings it to 1.

    Reference:
        Rudelson and Vershynin 2007, J. ACM 54.
    """
    squares = eigenvalues(x, centred=False)
    xp = array_namespace(squares)
    return float(xp.sum(squares) / xp.max(squares))


def spectral_decay(x: Array | Moments, first: int = 1, last: int | None = None) -> float:
    """Eigenvalues, centred: alpha of `lam_i = c i^-alpha`, fitted from rank `first` to `last`.

    Minus the slope of least squares of `log lam_i` on `log i`, all ranks alike, `i` from 1. `last`
    is by default the last rank the rows can have, `min(N-1, dim)`; the tail bends down when N is
    not far above `last`, so name the range that you compare (Stringer et al. take 11 to 500).
    Higher is steeper; 0 is isotropic, and near 1 is called balanced.

    Raises:
        DegenerateInput: constant rows, or no variance at a rank of the range.
        UsageError: the range is not one.

    Reference:
        Agrawal et al. 2022 (alpha-ReQ); Stringer et al. 2019, Nature 571.
    """
    lam = on_host(eigenvalues(x))[::-1]
    reach = effective_rank_ceiling(*x.shape)
    last = reach if last is None else last
    if not 1 <= first < last <= reach:
        raise UsageError(
            f"Expected ranks first < last from 1 to min(N-1, dim) = {reach}, got {first} to {last}."
        )
    if not lam[last - 1] > 0:
        raise DegenerateInput(
            f"Expected variance up to rank {last}, got rank {int((lam > 0).sum())}; "
            "choose a smaller `last`."
        )
    ranks = np.log(np.arange(first, last + 1))
    return float(-np.polyfit(ranks, np.log(lam[first - 1 : last]), 1)[0])


def eigenvalues(x: Array | Moments, *, centred: bool = True) -> Array:
    """Squared singular values of the rows, ascending; all that are not zero are among them."""
    if isinstance(x, Moments):
        return scatter_spectrum(x.rows.require(), centred=centred)
    if are_many(x):
        return _above_rounding(products.eigenvalues(second_moments(x, centred=centred)))
    return spectrum(deviations(x) if centred else scaled(x))


def scatter_spectrum(sums: Sums, *, centred: bool) -> Array:
    """The same from sums, one a column; those beyond the rank of N rows are zero."""
    second = sums.second(centred=centred)
    return _above_rounding(products.eigenvalues(second))


def spectrum(c: Array) -> Array:
    """Squared singular values of `c`, ascending; what rounding alone can make is set to zero."""
    sides = (c.T, c) if c.shape[1] <= c.shape[0] else (c, c.T)
    return _above_rounding(products.eigenvalues(products.product(*sides)))


def exp_entropy(weights: Array, order: float = 1.0) -> float:
    """Exp of the Renyi entropy of weights over their sum: how many equal ones they are worth."""
    xp = array_namespace(weights)
    p = weights[weights > 0]
    p = p / xp.sum(p)
    if order == 1:
        return float(xp.exp(-xp.sum(p * xp.log(p))))
    if math.isinf(order):
        return float(1 / xp.max(p))
    return float(xp.sum(p**order) ** (1 / (1 - order)))


def _trace_and_energy(x: Array | Moments, least: int) -> tuple[int, float, float, float]:
    """N, `tr K`, `||K||_F^2` and, from `LEAST` rows on, its unbiased form, of centred rows."""
    if not isinstance(x, Moments) and are_many(x):
        many = energies_of(x, least=least)
        n, trace = many.n, float(many.lengths[0].sum())
        energy, own = many.plug_in(0, 0), float(many.lengths[0] @ many.lengths[0])
    elif not isinstance(x, Moments):
        c = deviations(x, least)
        n, squares = int(c.shape[0]), array_namespace(c).sum(c * c, axis=1)
        energy, own = cross_energy(c, c), float(squares @ squares)
        trace = float(array_namespace(c).sum(squares))
    else:
        sums = x.rows.require(least)
        scatter, n, trace = sums.second(centred=True), sums.n, sums.energy
        energy, own = float(array_namespace(scatter).sum(scatter**2)), sums.own().fourth
    return n, trace, energy, unbiased(n, energy, own, trace**2) if n >= LEAST else math.nan


def _above_rounding(values: Array) -> Array:
    xp = array_namespace(values)
    noise = values.shape[0] * xp.finfo(xp.float64).eps * xp.max(values)
    return xp.where(values > noise, values, xp.zeros_like(values))
