"""Rows about their mean, some at a time: no copy of all of them is made.

Two passes: where the rows lie (their mean and their largest value), then the rows as seen from
there. Both take few enough rows at a time for a processor's cache, whatever is done with them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import device, is_array_api_obj
from numpy.typing import NDArray

from geomkit.geometry.rows import (
    Array,
    few_at_a_time,
    on_host,
    peak_of,
    require_matrix,
    row_blocks,
)

Rows = NDArray[np.float64]

CHUNK = 2**14
"""Bytes of a column that are multiplied at a time: 4096 rows in float32."""
MANY = 2**21
"""Entries from which a set is gone through in chunks; below, a copy costs nothing to speak of."""
DEEPEST = 1000
"""Exponent beyond which 2 to it is no number any more, or nearly so."""


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where rows lie: their mean, once they are times `scale`.

    That is a power of 2, so that nothing is rounded, which lets no square overflow or vanish.
    """

    mean: Rows
    scale: float


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Some rows less the mean of all; their squared lengths, and their squares column by column."""

    rows: NDArray[Any]
    lengths: Rows
    squares: Rows


def are_many(*sets: Array) -> bool:
    """Are there so many rows, on the CPU, that chunks of them pay? On the feature side only."""
    return all(
        is_array_api_obj(x)
        and x.ndim == 2
        and str(device(x)) == "cpu"
        and x.shape[0] >= x.shape[1] >= MANY / x.shape[0]
        for x in sets
    )


def place_of(x: Array, least: int = 2) -> Place:
    """The mean of rows, and a scale for them.

    Raises:
        UsageError: `x` is not a two-dimensional array.
        DegenerateInput: too few rows, or values that are not finite.
    """
    require_matrix(x, least)
    scale = 2.0 ** -max(math.frexp(peak_of(x))[1], -DEEPEST)
    return Place(sum(_scaled(rows, scale).sum(axis=0) for rows in row_blocks(x)) / len(x), scale)


def chunks(x: Array, place: Place, dtype: type[np.floating[Any]]) -> Iterator[Chunk]:
    """The rows from their place, centred in float64 and handed over in `dtype`.

    Each chunk takes the place of the one before it.
    """
    step = CHUNK // np.dtype(dtype).itemsize
    room = np.empty((min(step, x.shape[0]), x.shape[1]), dtype)
    for start in range(0, x.shape[0], step):
        some = x[start : start + step, :]
        chunk = Chunk(room[: len(some)], np.empty(len(some)), np.zeros(x.shape[1]))
        for part, block in zip(few_at_a_time(some), row_blocks(some, 1), strict=True):
            c = _scaled(block, place.scale)
            c -= place.mean
            chunk.rows[part], chunk.lengths[part] = c, np.vecdot(c, c)
            chunk.squares[:] += np.einsum("ij,ij->j", c, c)
        yield chunk


def _scaled(block: Array, scale: float) -> Rows:
    """A block of `row_blocks`, overwritten."""
    block *= scale
    return on_host(block)
