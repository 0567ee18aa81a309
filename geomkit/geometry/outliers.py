"""Which few dimensions make the number? Rogue dimensions, and rows without them.

Hidden states of language models have one or two massive dimensions, which can carry nearly all of a
mean cosine or of a CKA. `outlier_ablated` returns rows, so that any metric can be read again
without them: `mean_cosine(outlier_ablated(x))`. What is compared must lose the same dimensions:
choose them once, `outlier_dimensions(before)`, and take them from every side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry.isotropy import column_cosines
from geomkit.geometry.moments import Moments, row_sums, unit_sums
from geomkit.geometry.rows import Array, as_rows, on_device, on_host

By = Literal["cosine", "variance"]


@dataclass(frozen=True, slots=True, eq=False)
class CosineContribution:
    """Each dimension's part of the mean cosine, `(dim,)`; the parts add up to it."""

    parts: NDArray[np.float64]

    @property
    def mean_cosine(self) -> float:
        """The sum of the parts."""
        return float(self.parts.sum())

    def top(self, k: int = 3) -> NDArray[np.int64]:
        """The `k` dimensions of the largest parts, largest first."""
        return np.argsort(-self.parts, kind="stable")[:k]

    def share(self, k: int = 1) -> float:
        """The part of the top `k` dimensions over the mean cosine; 1 when they make all of it.

        Above 1 when the others pull the mean cosine down.

        Raises:
            DegenerateInput: the mean cosine is not positive, so that there is nothing to share.
        """
        if self.mean_cosine <= 0:
            raise DegenerateInput(
                f"Expected a positive mean cosine to share out, got {self.mean_cosine:.2g}; "
                "read the parts themselves."
            )
        return float(self.parts[self.top(k)].sum() / self.mean_cosine)


def cosine_contribution(x: Array | Moments) -> CosineContribution:
    """What each dimension adds to the mean cosine of distinct samples; even is more isotropic.

    `((sum u_d)^2 - sum u_d^2) / (N (N-1))` for unit rows `u`: exact over all pairs, O(N dim).

    Raises:
        DegenerateInput: all rows point the same way.

    Reference:
        Timkey and van Schijndel 2021, arXiv:2109.04404, equation 3.
    """
    return CosineContribution(on_host(column_cosines(unit_sums(x))))


def outlier_dimensions(x: Array | Moments, k: int = 3, *, by: By = "cosine") -> NDArray[np.int64]:
    """The `k` dimensions that carry most of the mean cosine, or of the variance, largest first.

    The mean cosine sees dimensions with a massive mean; one that swings about 0 has no part in it,
    but dominates CKA and spectra: `by="variance"` finds that.

    Raises:
        DegenerateInput: all rows point the same way.
        UsageError: no dimension would be left.
    """
    parts = column_cosines(unit_sums(x)) if by == "cosine" else row_sums(x).squares
    if not 0 < k < x.shape[1]:
        raise UsageError(f"Expected k from 1 to {x.shape[1] - 1} of {x.shape[1]} columns, got {k}.")
    return np.argsort(-on_host(parts), kind="stable")[:k]


def outlier_ablated(
    x: Array, k: int = 3, *, by: By = "cosine", dimensions: Sequence[int] | None = None
) -> Array:
    """The rows without their `k` outlier dimensions, or without the `dimensions` given.

    Raises:
        DegenerateInput: all rows point the same way.
        UsageError: no dimension would be left, or one is named that does not exist.
    """
    out = outlier_dimensions(x, k, by=by) if dimensions is None else np.asarray(dimensions, int)
    x, width = as_rows(x, 1), int(x.shape[1])
    if np.any((out < 0) | (out >= width)) or len(np.unique(out)) >= width:
        raise UsageError(
            f"Expected dimensions from 0 to {width - 1}, not all of them, got {out.tolist()}."
        )
    kept = np.setdiff1d(np.arange(width), out)
    return array_namespace(x).take(x, on_device(kept, x), axis=1)
