"""Arrays -> one compressed text, and where in it each array is: what the map is drawn from.

Numbers of two bytes are split into a plane of low and a plane of high bytes, which compresses
better. A coordinate has 10 bits: as many places as a panel has pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from reports import payload

COORDINATE_LEVELS = 1023
COSINE_LEVELS = 254
"""Steps of a cosine between the lowest and the highest of its site; 0 stands for none."""
NOWHERE = 0xFFFF
"""Stands for a place that is not there."""


def packed_arrays(arrays: Mapping[str, NDArray[Any]]) -> tuple[dict[str, Any], str]:
    """Arrays of uint8 or uint16 as text; with the offset, width and shape of each."""
    index: dict[str, Any] = {}
    content = b""
    for name, array in arrays.items():
        index[name] = {"at": len(content), "bytes": array.itemsize, "shape": list(array.shape)}
        flat = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"))).view(np.uint8)
        content += flat.reshape(-1, array.itemsize).T.tobytes() if array.size else b""
    return index, payload.packed(content)


def coordinates(shares: NDArray[np.float64]) -> NDArray[np.uint16]:
    """`(checkpoints, rows, 2)` in [-1, 1] as `(checkpoints, 2, rows)` steps."""
    steps = np.rint((np.clip(shares, -1, 1) * 0.5 + 0.5) * COORDINATE_LEVELS)
    return steps.astype(np.uint16).transpose(0, 2, 1)


def cosine_steps(values: NDArray[np.float32]) -> tuple[float, float, NDArray[np.uint8]]:
    """The lowest and the highest cosine, and each as a step between them from 1; NaN as 0."""
    known = values[np.isfinite(values)]
    if not known.size:
        return 0.0, 0.0, np.zeros(values.shape, np.uint8)
    low, high = float(known.min()), float(known.max())
    share = (np.nan_to_num(values, nan=low).astype(np.float64) - low) / ((high - low) or 1.0)
    steps = (np.rint(share * COSINE_LEVELS) + 1).astype(np.uint8)
    return low, high, np.where(np.isfinite(values), steps, 0).astype(np.uint8)


def firsts(partner: NDArray[np.int32]) -> NDArray[np.int64]:
    """Rows whose cosine to their partner is told: of two that are each other's, the first."""
    at = np.arange(len(partner))
    mutual = (partner >= 0) & (partner[np.maximum(partner, 0)] == at)
    return np.flatnonzero(~(mutual & (partner < at)))


def within(places: NDArray[np.int32], kinds: NDArray[np.int64]) -> NDArray[np.int32]:
    """Places among all rows as places among the rows of their own kind."""
    among = np.zeros(len(kinds), np.int32)
    for kind in np.unique(kinds):
        among[kinds == kind] = np.arange(np.count_nonzero(kinds == kind))
    return np.where(places < 0, places, among[np.maximum(places, 0)])


def places(values: NDArray[np.int32]) -> NDArray[np.uint16]:
    """Places or ranks; those that are not there, or too far away to count, as `NOWHERE`."""
    return np.where((values < 0) | (values > NOWHERE), NOWHERE, values).astype(np.uint16)
