"""One scale for two modalities, learned from training rows only.

A linear probe trained on text sees image states through text's scale: each modality loses its own
training mean, and both are divided by the spread of the modality the probe was trained on. So a
constant shift between modalities (the modality gap) costs nothing, while a rotation still does.

Means come from training groups only. Centring on all rows leaks: a balanced modality probe then
scores below chance on the rows that were held out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geomkit.errors import DegenerateInput

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
