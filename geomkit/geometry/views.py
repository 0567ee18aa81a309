"""How many directions tell samples apart, beyond what their own views differ by?"""

from __future__ import annotations

import math

import numpy as np
from array_api_compat import array_namespace, device

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry.isotropy import own_sums
from geomkit.geometry.rows import Array, Groups, codes, deviations, on_device
from geomkit.geometry.spectrum import exp_entropy, spectrum


def lidar(x: Array, samples: Groups, *, ridge: float = 1e-4) -> float:
    """Eigenvalues of between over within covariance, centred: exp of their entropy.

    Rows of equal label in `samples` are views of one sample (two prompts, two renderings). With
    `Sb` the covariance of sample means and `Sw` the mean covariance about them, the spectrum is
    that of `Sw^-1/2 Sb Sw^-1/2`; in [1, min(samples - 1, dim)], higher is wider. `Sw` gets `ridge`
    times its mean variance on the diagonal, so that no scale moves the value; the published form
    adds 1e-4 as it is.

    Raises:
        DegenerateInput: constant rows, fewer than two samples, or none with views that differ.
        UsageError: the labels do not fit the rows, or the ridge is not positive.

    Reference:
        Thilak et al. 2024, arXiv:2312.04000.
    """
    if not ridge > 0:
        raise UsageError(f"Expected a ridge above 0, got {ridge}.")
    c = deviations(x)
    first = np.unique(codes(c.shape[0], samples), return_index=True)[1]
    sums, size = own_sums(c, samples)
    means, xp = sums / size[:, None], array_namespace(c)
    spread = (c - means) / xp.sqrt(size * len(first))[:, None]  # every sample weighs the same
    means = xp.take(means, on_device(first, c), axis=0)
    between = (means - xp.mean(means, axis=0)) / math.sqrt(len(first))
    _require(len(first), float(xp.sum(spread**2)), float(xp.sum(between**2)))
    within = spread.T @ spread
    floor = ridge * xp.sum(spread**2) / c.shape[1]
    root = xp.linalg.cholesky(within + floor * xp.eye(c.shape[1], device=device(c)))
    return exp_entropy(spectrum(xp.linalg.solve(root, between.T).T))


def _require(samples: int, within: float, between: float) -> None:
    rounding = 1e-24 * (within + between)
    if samples < 2 or within <= rounding or between <= rounding:
        raise DegenerateInput(
            f"Expected at least two samples that differ, with views that differ, got {samples} "
            f"samples with variance {between:.2g} between and {within:.2g} within them; "
            "give several views of several samples."
        )
