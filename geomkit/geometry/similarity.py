"""Do two spaces arrange the same samples in the same way, whatever their axes?"""

from __future__ import annotations

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from geomkit.geometry.chunks import are_many
from geomkit.geometry.energies import energies_of
from geomkit.geometry.hsic import LEAST, cross_energy, hsic, hsic_without, require_signal, unbiased
from geomkit.geometry.moments import PairedMoments, pair_moments
from geomkit.geometry.nulls import NullMoments
from geomkit.geometry.rows import Array, deviations, matched
from geomkit.geometry.sums import total

Rows = NDArray[np.float64]


def linear_cka(x: Array | PairedMoments, y: Array | None = None, *, debiased: bool = True) -> float:
    """Linear CKA of matched rows; 1 is equal up to rotation, shift and scale; higher is closer.

    Debiased it is 0 on average for independent sets and may fall below 0; the plug-in form lies in
    [0, 1] and is about `dim/(dim + N)` for independent Gaussian sets. No epsilon is added, so the
    value does not move with scale. A massive dimension shared by both sides brings it to 1.

    Raises:
        UsageError: the rows do not match one to one.
        DegenerateInput: constant rows, or too few to remove the bias.

    Reference:
        Kornblith et al. 2019, arXiv:1905.00414; Song et al. 2012 for the U-statistic.
    """
    own_a, own_b, shared = _energies(x, y, debiased)
    require_signal(own_a, own_b)
    return float(shared / (own_a * own_b) ** 0.5)


def _energies(
    x: Array | PairedMoments, y: Array | None, debiased: bool
) -> tuple[float, float, float]:
    """Of each set with itself, and of the two."""
    least = LEAST if debiased else 2
    pair = pair_moments(x, y)
    if pair is not None:
        return _energies_of(pair, least, debiased)
    if are_many(x, y):
        many = energies_of(x, y, least=least)
        of = many.debiased if debiased else many.plug_in
        return of(0, 0), of(1, 1), of(0, 1)
    a, b = deviations(x, least), deviations(y, least)
    matched(a, b)
    product = hsic if debiased else cross_energy
    return product(a, a), product(b, b), product(a, b)


def _energies_of(pair: PairedMoments, least: int, debiased: bool) -> tuple[float, float, float]:
    a, b = pair.left.rows.require(least), pair.right.rows.require(least)
    terms = (a.own(), a, a), (b.own(), b, b), (pair.products, a, b)
    energies = []
    for products, one, other in terms:
        energy, traces = total(products.scatter * products.scatter), one.energy * other.energy
        energies.append(unbiased(a.n, energy, products.fourth, traces) if debiased else energy)
    return energies[0], energies[1], energies[2]


def linear_cka_null(x: Array, y: Array, *, debiased: bool = True) -> NullMoments:
    """Exact mean and variance of `linear_cka` over all N! pairings of the rows: no permuting.

    Debiased they are 0 and `2 / (N (N-3))` whatever the data, since both sides' matrices have rows
    that sum to zero and an empty diagonal. Of the plug-in form the mean is
    `sqrt(PR_x PR_y) / (N-1)` with the plug-in participation ratios. The distribution is skewed to
    the right where few directions carry the variance: a p value needs more than two moments.

    Raises:
        UsageError: the rows do not match one to one.
        DegenerateInput: constant rows, or fewer than 4.

    Reference:
        Kazi-Aoual et al. 1995, Computational Statistics and Data Analysis 20; Song et al. 2012.
    """
    a, b = deviations(x, LEAST), deviations(y, LEAST)
    matched(a, b)
    n = int(a.shape[0])
    if debiased:
        require_signal(hsic(a, a), hsic(b, b))
        return NullMoments(0.0, 2 / (n * (n - 3)))
    (t1, a1, s1), (t2, a2, s2) = _gram_sums(a), _gram_sums(b)
    spread = 2 * ((n - 1) * a1 - t1**2) * ((n - 1) * a2 - t2**2)
    spread /= (n - 1) ** 2 * (n + 1) * (n - 2)
    own = n * (n + 1) * s1 - (n - 1) * (t1**2 + 2 * a1)
    own *= n * (n + 1) * s2 - (n - 1) * (t2**2 + 2 * a2)
    spread += own / ((n + 1) * n * (n - 1) * (n - 2) * (n - 3))
    return NullMoments(t1 * t2 / ((n - 1) * (a1 * a2) ** 0.5), spread / (a1 * a2))


def _gram_sums(c: Array) -> tuple[float, float, float]:
    """Of the Gram matrix of centred rows: trace, sum of squares, sum of squares on the diagonal."""
    xp = array_namespace(c)
    norms = xp.sum(c * c, axis=1)
    return float(xp.sum(norms)), cross_energy(c, c), float(xp.sum(norms * norms))


def linear_cka_without(
    sides: tuple[Rows, Rows],
    folds: NDArray[np.int64],
    products: tuple[Rows | None, Rows | None] = (None, None),
) -> Rows:
    """The debiased `linear_cka` of centred rows, whole and then without each fold.

    `(1 + folds,)`; `products` are each side times itself where the caller has them.
    """
    matched(*sides)
    h = hsic_without(sides, folds, products)
    require_signal(*h[0, 0], *h[1, 1])
    return np.asarray(h[0, 1] / np.sqrt(h[0, 0] * h[1, 1]))
