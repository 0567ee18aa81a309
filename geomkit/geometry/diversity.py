"""How many different rows are there, and do they clump? By cosine, all pairs at once.

Sums over all pairs of squared cosines are the energy of the dim x dim matrix `U^T U` of unit rows,
so nothing here is N x N.
"""

from __future__ import annotations

from array_api_compat import array_namespace

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry.hsic import cross_energy
from geomkit.geometry.moments import Moments, unit_sums
from geomkit.geometry.rows import Array, directions
from geomkit.geometry.spectrum import exp_entropy, scatter_spectrum, spectrum


def vendi_score(x: Array | Moments, order: float = 1.0) -> float:
    """Eigenvalues of the unit rows, not centred: how many unlike rows these are worth.

    exp of the Renyi entropy of `order` (1 is Shannon's) of the eigenvalues of `U^T U / N`, in [1,
    min(N, dim)]; higher is more diverse. Its logarithm is the matrix-based entropy.

    Raises:
        DegenerateInput: all rows point the same way, or a row is zero.
        UsageError: the order is not positive.

    Reference:
        Friedman and Dieng 2023, arXiv:2210.02410; orders: Pasarkar and Dieng 2024.
    """
    if not order > 0:
        raise UsageError(f"Expected an order above 0, got {order}.")
    if isinstance(x, Moments):
        return exp_entropy(scatter_spectrum(unit_sums(x), centred=False), order)
    return exp_entropy(spectrum(directions(x)), order)


def self_cluster(x: Array | Moments) -> float:
    """Squared singular values of the unit rows, not centred: do rows clump? Lower is more spread.

    `(||U U^T||_F^2 - e) / (N^2 - e)` with `e = N + N (N-1) / dim`, which is the mean squared cosine
    of distinct rows carried to 0 for directions drawn uniformly and 1 for equal ones. Down to
    `-1/(N-1)` or `-1/(dim-1)`, whichever is nearer to 0.

    Raises:
        DegenerateInput: all rows point the same way, a row is zero, or there is one column.

    Reference:
        Tsitsulin et al. 2023, arXiv:2305.16562.
    """
    energy, (n, dim) = _unit_energy(x), x.shape
    if dim < 2:
        raise DegenerateInput("Expected at least 2 columns, got 1; on one axis all rows clump.")
    expected = n + n * (n - 1) / dim
    return (energy - expected) / (n * n - expected)


def _unit_energy(x: Array | Moments) -> float:
    """`||U U^T||_F^2`."""
    if not isinstance(x, Moments):
        u = directions(x)
        return cross_energy(u, u)
    second = unit_sums(x).second(centred=False)
    return float(array_namespace(second).sum(second * second))
