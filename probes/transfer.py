"""One scale for two modalities, learned from training rows only.

A linear probe trained on text sees image states through text's scale: each modality loses its own
training mean, and both are divided by the spread of the modality the probe was trained on. So a
constant shift between modalities (the modality gap) costs nothing, while a rotation still does.

Means come from training groups only. Centring on all rows leaks: a balanced modality probe then
scores below chance on the rows that were held out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomkit.errors import DegenerateInput
from geomkit.types import Modality
from probes.readouts import span_of
from probes.tasks import Task

Array = NDArray[np.float64]


def mean_of(train: NDArray[np.floating]) -> Array:
    """Column means of the training rows, `(dim,)`, in float64."""
    return np.asarray(train.mean(axis=0, dtype=np.float64))


def spread_of(train: NDArray[np.floating]) -> Array:
    """Column standard deviations of the training rows, `(dim,)`; constant columns get 1.

    Raises:
        DegenerateInput: when every column is constant, as at the embedding site under one prompt.
    """
    constant = np.ptp(train, axis=0) == 0
    if constant.all():
        raise DegenerateInput("all training states are equal, so there is nothing to probe")
    spread = train.std(axis=0, dtype=np.float64)
    return np.where(constant, 1.0, spread)


def rescale(states: NDArray[np.floating], mean: Array, spread: Array) -> Array:
    """`(states - mean) / spread`, `(rows, dim)`."""
    return np.asarray((states.astype(np.float64) - mean) / spread)


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """From states to the inputs of a read-out: centred, in units of spread, on principal axes."""

    mean: Array  # (dim,) of the training rows
    spread: Array  # (dim,)
    axes: Array  # (dim, r)

    @classmethod
    def of(cls, train: NDArray[np.floating]) -> Scale:
        """As the training rows have it.

        Raises:
            DegenerateInput: when they are all equal.
        """
        mean, spread = mean_of(train), spread_of(train)
        return cls(mean, spread, span_of(rescale(train, mean, spread)))

    def inputs(self, states: NDArray[np.floating], mean: Array | None = None) -> Array:
        """`(rows, r)`, about the training rows' mean or about `mean`."""
        centre = self.mean if mean is None else mean
        return np.asarray(rescale(states, centre, self.spread) @ self.axes)


@dataclass(frozen=True, slots=True, eq=False)
class Lens:
    """Rows as a probe of one modality sees them; the same for every attribute they carry."""

    train: Array  # (training rows, r)
    asked: Mapping[Modality, Array]  # held-out rows by modality, each about its own training mean
    apart: Mapping[Modality, Array]  # (r,) what is added to them when they keep their own mean


def lens(train: Task, tests: Mapping[Modality, Task]) -> Lens:
    """The training rows of one modality, and the held-out rows of each.

    Raises:
        DegenerateInput: when the training states are all equal.
    """
    seen = train.states[~train.held_out]
    scale = Scale.of(seen)
    means = {m: mean_of(test.states[~test.held_out]) for m, test in tests.items()}
    return Lens(
        scale.inputs(seen),
        {m: scale.inputs(test.states[test.held_out], means[m]) for m, test in tests.items()},
        {m: scale.inputs(mean[None])[0] for m, mean in means.items()},
    )
