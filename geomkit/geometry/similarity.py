"""Do two spaces arrange the same samples in the same way, whatever their axes?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geomkit.geometry.hsic import LEAST, cross_energy, hsic, hsic_without, require_signal
from geomkit.geometry.rows import Array, deviations, matched

Rows = NDArray[np.float64]


def linear_cka(x: Array, y: Array, *, debiased: bool = True) -> float:
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
    least = LEAST if debiased else 2
    a, b = deviations(x, least), deviations(y, least)
    matched(a, b)
    product = hsic if debiased else cross_energy
    own_a, own_b = product(a, a), product(b, b)
    require_signal(own_a, own_b)
    return float(product(a, b) / (own_a * own_b) ** 0.5)


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
