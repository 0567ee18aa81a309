"""What every metric asks of its rows before it counts: shape, finiteness, spread, directions.

A set of rows is `(samples, dim)`, a NumPy array or a torch tensor, and is read in float64. Rows
that do not differ have no geometry: at the embedding site under a fixed prompt the last token is
the same for every sample, and there a mean cosine of 1 or a neighbour overlap of 1 would be an
artefact, not a finding. So near-constant rows are refused, by a rule that no scaling can move:
their energy about the mean is below `RESOLUTION` of their total energy, which is to say that they
stray from their mean by less than 16 float32 rounding steps of their length.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_array_api_obj, is_torch_array
from numpy.typing import NDArray

from geomkit.errors import DegenerateInput, UsageError

Array = Any  # a NumPy array or a torch tensor; the array API standard has no static type yet
Groups = Sequence[Any] | Any  # one label a row; rows of equal label are the same thing

RESOLUTION = (16 * 2.0**-23) ** 2
TIE = 1e-12
"""Cosines closer than this are equal: float64 rounding, far below any float32 difference."""

BLOCK_ENTRIES = 2**22  # entries of the largest similarity block: 32 MiB in float64
"""A block is whole (N x N) up to N = 2048 and gets narrower from there."""
SMALLEST_SQUARE = 1e-200
"""Squared lengths above it are exact: no square of an entry that counts has vanished."""
CACHE_ENTRIES = 2**17
"""Entries that a processor's cache holds: 1 MiB in float64."""


def as_rows(x: Array, least: int = 2) -> Array:
    """The rows in float64, refused unless two-dimensional, finite and at least `least`.

    Raises:
        UsageError: `x` is not a two-dimensional array.
        DegenerateInput: too few rows, no columns, or a value that is not finite.
    """
    require_matrix(x, least)
    x = _movable(x)
    xp = array_namespace(x)
    x = xp.astype(x, xp.float64)
    if math.isfinite(float(xp.sum(x))):  # one pass; where it is not, the sum alone may be too large
        return x
    bad = int(xp.sum(xp.astype(~xp.all(xp.isfinite(x), axis=1), xp.int64)))
    if bad:
        raise DegenerateInput(
            f"Expected finite rows, got {bad} of {x.shape[0]} with NaN or infinity; "
            "drop these samples or capture in float32."
        )
    return x


def require_matrix(x: Array, least: int) -> None:
    """Refuses what is not a set of at least `least` rows."""
    if not is_array_api_obj(x) or x.ndim != 2:
        got = f"{x.ndim} dimensions" if is_array_api_obj(x) else type(x).__name__
        raise UsageError(
            f"Expected a NumPy array or torch tensor (samples, dim), got {got}; "
            "stack one row per sample."
        )
    if x.shape[0] < least or x.shape[1] < 1:
        raise DegenerateInput(
            f"Expected at least {least} rows of at least 1 column, got {tuple(x.shape)}; "
            "give more samples."
        )


def directions(x: Array, least: int = 2) -> Array:
    """Rows at unit length in float64, whatever their lengths were.

    Raises:
        DegenerateInput: a row is zero, or all rows point the same way.
    """
    units, zero = all_unit_rows(x, least)
    n = int(units.shape[0])
    require_directions(zero, n)
    mean = array_namespace(units).mean(units, axis=0)
    require_spread(n, n - n * _energy(mean), float(n))
    return units


def all_unit_rows(x: Array, least: int = 2) -> tuple[Array, int]:
    """`unit_rows` of all rows, a block at a time."""
    require_matrix(x, least)
    zeros = []

    def units() -> Iterator[Array]:
        for rows in row_blocks(x, least):
            block, zero = unit_rows(rows)
            zeros.append(zero)
            yield block

    return _joined(units(), x.shape), sum(zeros)


def row_blocks(x: Array, least: int = 2) -> Iterator[Array]:
    """`as_rows` a few rows at a time: small enough for a processor's cache, several times faster.

    Each block lies where the one before it was, and may be overwritten.

    Raises:
        UsageError: `x` is not a two-dimensional array.
        DegenerateInput: as `as_rows` of all rows.
    """
    require_matrix(x, least)
    x, room = _movable(x), None
    xp = array_namespace(x)
    for some in few_at_a_time(x):
        if room is None:
            room = xp.empty(x[some, :].shape, dtype=xp.float64, device=device(x))
        block = room[: some.stop - some.start, :]
        block[:, :] = x[some, :]
        if not math.isfinite(float(xp.sum(block))):
            as_rows(x, least)  # says of how many rows in all, unless the sum alone was too large
        yield block


def few_at_a_time(x: Array) -> Iterator[slice]:
    """All rows of a matrix, as many at a time as are best worked on."""
    entries = CACHE_ENTRIES if str(device(x)) == "cpu" else BLOCK_ENTRIES
    step = max(1, entries // x.shape[1])
    for start in range(0, x.shape[0], step):
        yield slice(start, min(start + step, x.shape[0]))


def _joined(parts: Iterator[Array], shape: tuple[int, ...]) -> Array:
    """Blocks of rows as they come, in one array."""
    whole, done = None, 0
    for block in parts:
        if whole is None:
            xp = array_namespace(block)
            whole = xp.empty(shape, dtype=xp.float64, device=device(block))
        whole[done : done + block.shape[0], :] = block
        done += block.shape[0]
    return whole


def unit_rows(x: Array) -> tuple[Array, int]:
    """Rows of `row_blocks`, overwritten, at unit length, and how many are zero; those stay zero."""
    xp, lengths = array_namespace(x), _lengths(x)
    if lengths is not None:
        x /= lengths[:, None]
        return x, 0
    peak = xp.max(xp.abs(x), axis=1, keepdims=True)
    zero = peak == 0
    x = x / xp.where(zero, xp.ones_like(peak), peak)  # so that no square overflows
    length = xp.sqrt(xp.sum(x * x, axis=1, keepdims=True))
    units = x / xp.where(zero, xp.ones_like(length), length)
    return units, int(xp.sum(xp.astype(zero, xp.int64)))


def direction_sum(x: Array) -> tuple[Array, int]:
    """The sum of `unit_rows`, and how many are zero."""
    lengths = _lengths(x)
    if lengths is not None:
        return (1 / lengths) @ x, 0
    units, zero = unit_rows(x)
    return array_namespace(x).sum(units, axis=0), zero


def _lengths(x: Array) -> Array | None:
    """The lengths of rows; None where a square would overflow or vanish."""
    xp = array_namespace(x)
    with np.errstate(over="ignore", under="ignore"):
        squares = xp.linalg.vecdot(x, x)
    exact = float(xp.min(squares)) > SMALLEST_SQUARE and math.isfinite(float(xp.max(squares)))
    return xp.sqrt(squares) if exact else None


def deviations(x: Array, least: int = 2) -> Array:
    """Rows minus their mean in float64, up to one positive scale for the whole set.

    Raises:
        DegenerateInput: the rows are constant to float32 resolution.
    """
    require_matrix(x, least)
    peak = peak_of(x)  # so that no square overflows or vanishes
    c = _joined((_over(rows, peak) for rows in row_blocks(x, least)), x.shape)
    xp, n, within = array_namespace(c), int(x.shape[0]), 0.0
    mean = xp.mean(c, axis=0)
    for some in few_at_a_time(c):
        c[some, :] -= mean
        within += _energy(c[some, :])
    require_spread(n, within, within + n * _energy(mean))
    return c


def scaled(x: Array, least: int = 2) -> Array:
    """Rows in float64, not centred, up to one positive scale; constant rows are refused too."""
    x = as_rows(x, least)
    x = _over(x, peak_of(x))
    energy, n = _energy(x), int(x.shape[0])
    require_spread(n, energy - n * _energy(array_namespace(x).mean(x, axis=0)), energy)
    return x


def matched(x: Array, y: Array) -> None:
    """Refuses two sets that cannot be paired row by row."""
    if is_torch_array(x) != is_torch_array(y):
        raise UsageError(
            "Expected two NumPy arrays or two torch tensors, got one of each; convert one side."
        )
    if x.shape[0] != y.shape[0]:
        raise UsageError(
            f"Expected paired rows, got {x.shape[0]} and {y.shape[0]}; "
            "keep the samples that both sides have, in one order."
        )


def same_columns(x: Array, y: Array) -> None:
    """Refuses two sets of rows that do not lie in one space."""
    if x.shape[1] != y.shape[1]:
        raise UsageError(
            f"Expected rows of one space, got {x.shape[1]} and {y.shape[1]} columns; "
            "read both sides at sites of equal width."
        )


def codes(n: int, groups: Groups | None) -> NDArray[np.int64]:
    """One integer a row; equal integers, same thing. Without groups every row is its own.

    An empty label means "no group", so such rows stay apart from each other.
    """
    if groups is None:
        return np.arange(n, dtype=np.int64)
    if len(groups) != n:
        raise UsageError(f"Expected one group a row, got {len(groups)} groups for {n} rows.")
    if isinstance(groups, np.ndarray) and groups.dtype.kind in "iu":
        return np.unique(groups, return_inverse=True)[1].astype(np.int64)
    keys = [str(g) or f"\0{i}" for i, g in enumerate(groups)]
    return np.unique(np.asarray(keys, dtype=object), return_inverse=True)[1].astype(np.int64)


def on_device(values: NDArray[Any], like: Array) -> Array:
    """`values` as an array of the library and the device of `like`."""
    return array_namespace(like).asarray(values, device=device(like))


def on_host(x: Array) -> NDArray[Any]:
    """`x` as a NumPy array."""
    return np.asarray(x.cpu() if is_torch_array(x) else x)


def similarity_blocks(
    u: Array, v: Array, whole: Array | None = None
) -> Iterator[tuple[slice, Array]]:
    """`u @ v.T` a block of rows at a time, so that memory grows with N and not with N squared.

    `whole` is that product where the caller has it already; nothing is multiplied then.
    """
    step = max(1, BLOCK_ENTRIES // v.shape[0])
    for start in range(0, u.shape[0], step):
        rows = slice(start, min(start + step, u.shape[0]))
        yield rows, u[rows, :] @ v.T if whole is None else whole[rows, :]


def _movable(x: Array) -> Array:
    """Torch only: out of the autograd graph, and off a device that has no float64."""
    if not is_torch_array(x):
        return x
    x = x.detach()
    return x.cpu() if x.device.type == "mps" else x


def require_directions(zero: int, n: int) -> None:
    """Refuses rows of which some are zero."""
    if zero:
        raise DegenerateInput(
            f"Expected rows with a direction, got {zero} of {n} equal to zero; drop these samples."
        )


def require_spread(n: int, within: float, energy: float) -> None:
    """Refuses rows whose energy about their mean is rounding beside their whole energy."""
    if within <= RESOLUTION * energy:
        raise DegenerateInput(
            f"Expected rows that differ, got {n} rows that are equal to float32 "
            "resolution; read another site or pooling (at the embedding site under a fixed "
            "prompt every last token is the same)."
        )


def _over(x: Array, peak: float) -> Array:
    """Rows of our own, overwritten, so that no square overflows or vanishes."""
    x /= peak
    return x


def peak_of(x: Array) -> float:
    """The largest absolute value, or 1 where all are 0."""
    x = _movable(x)
    xp = array_namespace(x)
    return max(float(xp.max(x)), -float(xp.min(x))) or 1.0


def _energy(x: Array) -> float:
    flat = array_namespace(x).reshape(x, (-1,))
    return float(flat @ flat)
