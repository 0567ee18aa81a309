"""One modality at one site of one checkpoint, and every product that its metrics share.

    states -> unit rows  -> cosines  -> axes, neighbours
           -> deviations -> products -> axes

Each is made once, when the first metric asks for it. Rows are NumPy in float64; the products and
decompositions can be made on another device (`Device`), and come back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from geomkit import statistics
from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry import isotropy
from geomkit.geometry.apart import near_apart
from geomkit.geometry.influence import Axes, axes_of
from geomkit.geometry.rows import codes, deviations, directions, similarity_blocks
from geomkit.geometry.struck import Near, near

Rows = NDArray[np.float64]
Codes = NDArray[np.int64]

NEIGHBOURS = 10
WHOLE = 4096
"""Rows up to which an N x N product is kept: 128 MiB in float64. Above, it is made in blocks."""


@dataclass(frozen=True, slots=True)
class Device:
    """Where the large products and decompositions are made: "cpu" is NumPy, else a torch device."""

    name: str = "cpu"

    def require(self) -> None:
        """Refuse a device that is not here.

        Raises:
            UsageError: torch has no such device.
        """
        if self.name == "cpu":
            return
        import torch

        try:
            torch.zeros(1, dtype=torch.float64, device=self.name).cpu()
        except (RuntimeError, AssertionError, TypeError) as cause:
            reason = str(cause).partition("\n")[0]
            raise UsageError(
                f"Expected a device that torch has in float64, got {self.name!r} ({reason}); "
                "use --device cpu."
            ) from cause

    def gram(self, a: Rows, b: Rows) -> Rows:
        """`a @ b.T`."""
        if self.name == "cpu":
            return np.asarray(a @ b.T)
        return self._there(lambda x, y: x @ y.T, a, b)[0]

    def eigh(self, a: Rows) -> tuple[Rows, Rows]:
        """Ascending eigenvalues and eigenvectors of a symmetric matrix."""
        if self.name == "cpu":
            values, vectors = np.linalg.eigh(a)
            return values, vectors
        import torch

        values, vectors = self._there(torch.linalg.eigh, a)
        return values, vectors

    def _there(self, formula: Callable[..., object], *arrays: Rows) -> list[Rows]:
        import torch

        found = formula(*(torch.from_numpy(np.ascontiguousarray(a)).to(self.name) for a in arrays))
        parts = (found,) if isinstance(found, torch.Tensor) else tuple(found)  # type: ignore[arg-type]  # eigh's pair
        return [part.cpu().numpy() for part in parts]


CPU = Device()


@dataclass(frozen=True, slots=True)
class Outliers:
    """Dimensions that the ablated metrics leave out: those of the reference checkpoint."""

    cosine: tuple[int, ...] = ()  # they carry most of its mean cosine
    variance: tuple[int, ...] = ()  # they carry most of its variance


NONE = Outliers()


@dataclass(frozen=True, eq=False)
class Space:
    """Rows of one modality `(samples, dim)`; no slots, because what is shared is cached.

    `groups` names the group behind each code, sorted; `flaw` says why the rows have no geometry,
    and every metric of the space then returns it.
    """

    states: NDArray[np.floating]
    clusters: Codes
    groups: tuple[str, ...]
    device: Device = CPU
    outliers: Outliers = NONE

    @property
    def n(self) -> int:
        """Rows of the space."""
        return len(self.clusters)

    @property
    def dim(self) -> int:
        """Columns of the space."""
        return int(self.states.shape[1])

    @cached_property
    def inside(self) -> tuple[float, Rows]:
        """Mean cosine of rows of different groups, and each row's influence on it."""
        return over_pairs(*isotropy.cosine_sums(self.unit, self.clusters))

    @cached_property
    def folds(self) -> Codes:
        """A fold for each row, whole groups, for what can only be measured again without some."""
        return statistics.folds_of(self.clusters)

    @cached_property
    def flaw(self) -> DegenerateInput | None:
        """Why the rows have no geometry, or None."""
        try:
            _ = self.unit, self.centred
        except DegenerateInput as flaw:
            return flaw.kept()
        return None

    @cached_property
    def unit(self) -> Rows:
        """Rows at unit length."""
        return np.asarray(directions(self.states))

    @cached_property
    def centred(self) -> Rows:
        """Rows minus their mean, up to one positive scale."""
        return np.asarray(deviations(self.states))

    @cached_property
    def mean(self) -> Rows:
        """The mean that `centred` lost, at the same scale, `(dim,)`."""
        peak = max(float(self.states.max()), -float(self.states.min()))
        return np.asarray(self.states.mean(axis=0, dtype=np.float64) / peak)

    @cached_property
    def cosines(self) -> Rows | None:
        """Unit rows times themselves; None above `WHOLE` rows."""
        return None if self.n > WHOLE else self.device.gram(self.unit, self.unit)

    @cached_property
    def products(self) -> Rows | None:
        """Deviations times themselves; None above `WHOLE` rows."""
        return None if self.n > WHOLE else self.device.gram(self.centred, self.centred)

    @cached_property
    def squares(self) -> Rows:
        """For each row the sum of its squared products with all rows, `(rows,)`."""
        blocks = similarity_blocks(self.centred, self.centred, self.products)
        return np.concatenate([np.einsum("ij,ij->i", block, block) for _, block in blocks])

    @cached_property
    def axes(self) -> Axes:
        """The spectrum of the deviations."""
        return axes_of(self.centred, self._small(self.products), self.device.eigh)

    @cached_property
    def raw_axes(self) -> Axes:
        """The spectrum of the rows as they are, not centred."""
        rows = self.centred + self.mean
        product = self._small(self.products)
        if product is not None:
            along = self.centred @ self.mean
            product = product + along[:, None] + along + float(self.mean @ self.mean)
        return axes_of(rows, product, self.device.eigh)

    @cached_property
    def unit_axes(self) -> Axes:
        """The spectrum of the unit rows, not centred."""
        return axes_of(self.unit, self._small(self.cosines), self.device.eigh)

    @cached_property
    def near(self) -> Near:
        """The nearest of each row by cosine, whole and for every fold left out."""
        return near(self.unit, self.folds, NEIGHBOURS, code=self.clusters, cosines=self.cosines)

    @cached_property
    def apart(self) -> Near:
        """The two nearest of each row by distance."""
        return near_apart(self.states, self.folds, 2, products=self.products)

    def without(self, dimensions: Sequence[int]) -> Codes:
        """All dimensions but these.

        Raises:
            DegenerateInput: none were found to leave out, or none would be left.
        """
        kept = np.setdiff1d(np.arange(self.dim), dimensions)
        if not dimensions or not len(kept):
            raise DegenerateInput(
                f"Expected outlier dimensions to leave out and others to keep, got "
                f"{len(dimensions)} of {self.dim}; the first checkpoint has none here."
            )
        return kept

    def _small(self, product: Rows | None) -> Rows | None:
        """The N x N product where that is the smaller side."""
        return product if self.n <= self.dim else None


def space(
    states: NDArray[np.floating],
    groups: Sequence[str] | None = None,
    *,
    device: Device = CPU,
    outliers: Outliers = NONE,
) -> Space:
    """The space of one modality's states `(samples, dim)`.

    `groups` names rows that are the same thing, as in `Sample.group`; an empty name is no group.
    """
    names = [str(i) for i in range(len(states))] if groups is None else list(groups)
    code = codes(len(states), groups)
    of = np.empty(int(code.max(initial=-1)) + 1, dtype=object)
    of[code] = names
    return Space(states, code, tuple(of.tolist()), device, outliers)


def take(x: Space, rows: NDArray[np.int64]) -> Space:
    """The space of some of its rows, as `space` would make it, from the products there are."""
    if np.array_equal(rows, np.arange(x.n)):
        return x
    part = space(
        x.states[rows],
        [x.groups[code] for code in x.clusters[rows]],
        device=x.device,
        outliers=x.outliers,
    )
    # Always, and not only where they are made already: a product of a part has other last digits.
    if x.flaw is None and x.cosines is not None:
        part.__dict__["cosines"] = x.cosines[np.ix_(rows, rows)]
    return part


def require_same_samples(x: Space, y: Space) -> None:
    """Refuses two spaces whose rows are not the same samples in the same order."""
    alike = x.groups == y.groups and np.array_equal(x.clusters, y.clusters)
    if not alike:
        raise UsageError(
            f"Expected the same samples in the same order, got {x.n} and {y.n} rows of different "
            "groups; keep the samples that both modalities have."
        )


def over_pairs(sums: Rows, counts: Rows) -> tuple[float, Rows]:
    """Mean over pairs, and each row's influence on it: twice its row mean minus the mean."""
    value = isotropy.ratio(sums, counts)
    return value, 2 * len(sums) * (sums - value * counts) / counts.sum()
