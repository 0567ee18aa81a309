"""Large products and spectra, by the faster of the two libraries that are here.

torch brings another BLAS than NumPy and takes NumPy's arrays without a copy. On one core of a
server processor its products are faster, in float32 above all, and so are its spectra. Small ones
stay with NumPy, so that torch is imported only where its time counts.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from geomkit.geometry.rows import Array

Numbers = NDArray[Any]  # float32 or float64
Rows = NDArray[np.float64]

LARGE = 2**26
"""Multiplications from which a product of NumPy arrays is torch's."""
WIDE = 256
"""Columns from which a spectrum is torch's; of a symmetric product as many are made at a time."""


def product(a: Array, b: Array) -> Array:
    """`a @ b` of two matrices of one library, in the precision that they have."""
    if not isinstance(a, np.ndarray) or a.shape[0] * a.shape[1] * b.shape[1] < LARGE:
        return a @ b
    return (_tensor(a) @ _tensor(b)).numpy()


def eigenvalues(symmetric: Array) -> Array:
    """Ascending; only what is on and above the diagonal is read."""
    if not isinstance(symmetric, np.ndarray):
        return array_namespace(symmetric).linalg.eigvalsh(symmetric.T)
    if len(symmetric) < WIDE:
        return np.linalg.eigvalsh(symmetric, "U")
    import torch

    return torch.linalg.eigvalsh(_tensor(symmetric), UPLO="U").numpy()


def singular_values(matrix: Array) -> Array:
    """Descending."""
    if not isinstance(matrix, np.ndarray) or min(matrix.shape) < WIDE:
        return array_namespace(matrix).linalg.svdvals(matrix)
    import torch

    return torch.linalg.svdvals(_tensor(matrix)).numpy()


def exponential(values: Numbers, *, less_one: bool = False) -> None:
    """Of every entry, in place; or the same less 1, precise where that is nearly nothing."""
    if values.size < LARGE // WIDE**2:
        (np.expm1 if less_one else np.exp)(values, out=values)
    elif less_one:
        _tensor(values).expm1_()
    else:
        _tensor(values).exp_()


class Scatter:
    """`a^T b` of matched rows, some at a time: products as precise as the rows, sums in float64.

    Of a set with itself, `columns` left out, only what is on and above the diagonal is made, and
    below it what is within a block of `WIDE` on it.
    """

    def __init__(self, rows: int, columns: int | None = None) -> None:
        self.own = columns is None
        self.sums = np.zeros((rows, columns or rows))

    def add(self, a: Numbers, b: Numbers | None = None) -> None:
        """Adds the products of some rows."""
        if b is not None:
            self.sums += product(a.T, b)
            return
        for start in range(0, a.shape[1], WIDE):
            strip = slice(start, start + WIDE)
            self.sums[strip, start:] += product(a[:, strip].T, a[:, start:])

    def energy(self) -> float:
        """The sum of squares of all entries."""
        if not self.own:
            return float(np.vdot(self.sums, self.sums))
        parts = []
        for start in range(0, len(self.sums), WIDE):
            strip = self.sums[start : start + WIDE, start:]
            diagonal, beyond = (np.einsum("ij,ij->", s, s) for s in np.hsplit(strip, [WIDE]))
            parts.append(float(diagonal + 2 * beyond))
        return math.fsum(parts)


def _tensor(a: Numbers) -> Any:
    """The same memory as a tensor; torch takes none that is read-only or runs backwards."""
    import torch

    fit = a.flags.writeable and min(a.strides, default=0) >= 0
    return torch.from_numpy(a if fit else a.copy())
