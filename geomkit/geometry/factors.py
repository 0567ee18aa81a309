"""Rows as factors of very many products, coarse and with a bound on the error of every product.

    Floats   float32: half the time of float64
    Fixed    15 bits in two whole numbers of 8, whose products are exact sums; where a processor
             has matrix instructions for these it takes less than half of the time again

They only propose (see `candidates`); what is proposed is measured in float64.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geomkit.geometry.products import product
from geomkit.geometry.rows import few_at_a_time

Rows = NDArray[np.float64]
Half = NDArray[np.float32]

STEP = 2.0**-24
"""Relative error of one rounding in float32."""
MANY = 2**32
"""Multiplications from which it pays to make whole numbers of rows."""
WIDEST = 2**15
"""Columns up to which sums of such products have room in 32 bits."""
FIRST, SECOND = 127, 254
"""The largest whole number, and what one step of the first of the two is worth in the second."""


@dataclass(frozen=True, slots=True, eq=False)
class Floats:
    """Rows in float32, and how long they are."""

    rows: Half
    lengths: Rows

    def times(self, rows: slice, other: Floats, items: slice) -> Half:
        """The products of some rows with some of another set."""
        return np.asarray(product(self.rows[rows], other.rows[items].T))

    def error(self, other: Floats) -> Rows:
        """What a product of each row can be off by: sums in any order, and every cast."""
        steps = (self.rows.shape[1] + 12) * STEP
        return np.asarray(steps * self.lengths * other.lengths.max())


@dataclass(frozen=True, slots=True, eq=False)
class Fixed:
    """Rows `scale * (a + b / SECOND)` and a little more, with whole `a` and `b`.

    `digits` are `a` and `b`. Lengths of each row: of what `b` adds (`fine`), of the little more
    (`off`), of the row itself.
    """

    digits: Any  # int8 tensor, (rows, 2 columns)
    scale: Any  # float32 tensor, (rows, 1)
    fine: Rows
    off: Rows
    lengths: Rows

    def times(self, rows: slice, other: Fixed, items: slice) -> Half:
        """The products of some rows with some of another set, but for those of `b` with `b`."""
        import torch

        columns = self.digits.shape[1] // 2
        left, right = self.digits[rows], other.digits[items].T
        multiply = torch._int_mm  # noqa: SLF001 - no public name has whole numbers on a processor
        found = multiply(left.roll(columns, 1), right).float()  # b with a, and a with b
        found *= 1 / SECOND
        found += multiply(left[:, :columns], right[:columns])
        found *= self.scale[rows]
        found *= other.scale[items].T
        return np.asarray(found.numpy())

    def error(self, other: Fixed) -> Rows:
        """What a product of each row can be off by: `b` with `b`, what is `off`, and roundings."""
        steps = 16 * STEP * self.lengths * other.lengths.max()
        coarse = self.off * other.lengths.max() + (self.lengths + self.off) * other.off.max()
        return np.asarray(self.fine * other.fine.max() + coarse + steps)


Factor = Floats | Fixed


def factor(x: Rows, mean: Rows, others: int) -> Factor:
    """Rows less a mean, to be multiplied with so many others."""
    parts = (x[some] - mean for some in few_at_a_time(x))
    many = len(x) * others * x.shape[1] >= MANY and x.shape[1] <= WIDEST
    return (fixed if many and has_matrix_integers() else floats)(parts, x.shape)


def floats(parts: Iterable[Rows], shape: tuple[int, ...]) -> Floats:
    """Rows that come a few at a time."""
    half, lengths, done = np.empty(shape, np.float32), np.empty(shape[0]), 0
    for c in parts:
        some = slice(done, done + len(c))
        half[some], lengths[some] = c, np.sqrt(np.vecdot(c, c))
        done = some.stop
    return Floats(half, lengths)


def fixed(parts: Iterable[Rows], shape: tuple[int, ...]) -> Fixed:
    """Rows that come a few at a time, each as fine as its largest entry lets it be."""
    import torch

    digits = np.empty((shape[0], 2, shape[1]), np.int8)
    scale, sizes, done = np.empty((shape[0], 1), np.float32), np.empty((3, shape[0])), 0
    for c in parts:
        some = slice(done, done + len(c))
        peak = np.max(np.abs(c), axis=1, keepdims=True)
        scale[some] = np.where(peak > 0, peak / FIRST, 1.0)
        unit = scale[some].astype(np.float64)
        left = c / unit
        first = np.rint(left)
        left -= first
        left *= SECOND
        second = np.rint(left)
        left -= second
        digits[some, 0], digits[some, 1] = first, second
        for size, one in zip(sizes, (c, second, left), strict=True):
            size[some] = np.sqrt(np.vecdot(one, one))
        sizes[1:, some] *= unit[:, 0] / SECOND
        done = some.stop
    return Fixed(
        torch.from_numpy(digits.reshape(shape[0], -1)), torch.from_numpy(scale),
        sizes[1], sizes[2], sizes[0],
    )  # fmt: skip


@cache
def has_matrix_integers() -> bool:
    """Does this processor multiply matrices of whole numbers, and has torch a way to it?"""
    import torch

    told = getattr(torch.cpu, "get_capabilities", None)  # newer than the oldest torch allowed
    return told is not None and hasattr(torch, "_int_mm") and bool(told().get("amx_int8"))
