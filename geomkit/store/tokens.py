"""Full token states of one shard, every row as long as it is: rows to HDF5 bytes, and back.

The format: `geomkit.store`. Rows lie one after the other; `offsets` says where each begins.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from geomkit.errors import StoreError
from geomkit.store.allowlist import read_strings, read_tokens_tree, signature_at_start
from geomkit.store.datasets import BOUND, fixed_strings, put, put_states, read_part, read_site
from geomkit.store.shard import ShardRows, parsing, put_attributes, same_states

FORMAT = "geomkit-tokens"
VERSION = 1
DEPTH = 256  # tokens in a chunk


@dataclass(frozen=True, slots=True, eq=False)
class TokenRows:
    """States of every token of a slice of the plan.

    `states` is float32 `(all tokens, sites, dim)`; row i has the tokens `offsets[i]` up to
    `offsets[i + 1]`, as many as its `n_tokens`. What a row that is not ok has becomes NaN.
    """

    states: NDArray[np.float32]
    offsets: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class TokenTable:
    """Everything in a checked file of token states but the states."""

    plan_hash: str
    checkpoint_hash: str
    sites: tuple[str, ...]
    dim: int
    dtype: str
    index: NDArray[np.int64]
    offsets: NDArray[np.int64]


def to_bytes(
    tokens: TokenRows,
    rows: ShardRows,
    sites: Sequence[str],
    plan_hash: str,
    checkpoint_hash: str,
    dtype: str = "float32",
) -> bytes:
    """The tokens of a shard as an HDF5 file, built in memory and read back like the shard.

    Raises:
        StoreError: offsets and rows disagree, or a good row is not finite or too large for `dtype`.
    """
    _check(tokens, rows, sites)
    states = _blanked(tokens, rows.ok)
    image = io.BytesIO()
    with h5py.File(image, "w", libver=BOUND) as file:
        put_attributes(file, FORMAT, VERSION, plan_hash, checkpoint_hash)
        put_ragged(file, rows.index, tokens.offsets, sites)
        put_states(file, "states", states, DEPTH, dtype)
    data = image.getvalue()
    read_table(io.BytesIO(data), len(data), "the tokens in memory")
    with h5py.File(io.BytesIO(data), "r") as file:
        for number in range(len(sites)):
            if not same_states(read_site(file["states"], number), states[:, number], dtype):
                raise StoreError("token states changed on the way to HDF5; do not trust this")
    return data


def put_ragged(
    group: Any, index: NDArray[np.int64], offsets: NDArray[np.int64], sites: Sequence[str]
) -> None:
    """The datasets beside the states."""
    put(group, "sites", fixed_strings(sites), (len(sites),))
    put(group, "index", np.asarray(index, "<i8"), (len(index),))
    put(group, "offsets", np.asarray(offsets, "<i8"), (len(offsets),))


def _check(tokens: TokenRows, rows: ShardRows, sites: Sequence[str]) -> None:
    shape, count = tokens.states.shape, len(rows.index)
    if len(shape) != 3 or shape[1] != len(sites):
        raise StoreError(f"expected tokens of shape (tokens, {len(sites)}, dim), got {shape}")
    if len(tokens.offsets) != count + 1:
        raise StoreError(f"expected {count + 1} offsets of tokens, got {len(tokens.offsets)}")
    _check_offsets(tokens.offsets, shape[0])
    lengths = np.diff(tokens.offsets)
    odd = np.flatnonzero(rows.ok & (lengths != rows.n_tokens))
    if len(odd):
        raise StoreError(
            f"row {rows.ids[odd[0]]!r} has {rows.n_tokens[odd[0]]} tokens that are not padding, "
            f"and states of {lengths[odd[0]]}; store the states of exactly those"
        )
    finite = np.isfinite(tokens.states).all(axis=(1, 2)) | ~np.repeat(rows.ok, lengths)
    if not finite.all():
        row = np.searchsorted(tokens.offsets, np.flatnonzero(~finite)[0], side="right") - 1
        raise StoreError(
            f"a token state of {rows.ids[row]!r} is not finite; record the row as not ok"
        )


def _check_offsets(offsets: NDArray[np.int64], total: int) -> None:
    if offsets[0] != 0 or offsets[-1] != total or np.any(np.diff(offsets) < 0):
        raise StoreError(f"expected offsets of tokens that rise from 0 to {total}")


def _blanked(tokens: TokenRows, ok: NDArray[np.bool_]) -> NDArray[np.float32]:
    if ok.all():
        return np.ascontiguousarray(tokens.states, "<f4")
    states = np.array(tokens.states, dtype="<f4", order="C")
    states[~np.repeat(ok, np.diff(tokens.offsets))] = np.nan
    return states


def read_table(stream: BinaryIO, size: int, name: str) -> TokenTable:
    """The checked table of a file of token states; as `shard.read_table`.

    Raises:
        StoreError: anything in the file is not as the format says; `name` is the file's name.
    """
    with parsing(name):
        signature_at_start(stream)
        with h5py.File(stream, "r") as file:
            return table_of(file, size)


def table_of(file: Any, size: int) -> TokenTable:
    """The checked table of an open file of token states, or of a group that is one."""
    tree = read_tokens_tree(file, size, FORMAT, VERSION)
    offsets = file["offsets"][()]
    _check_offsets(offsets, file["states"].shape[0])
    return TokenTable(
        plan_hash=tree.plan_hash,
        checkpoint_hash=tree.checkpoint_hash,
        sites=read_strings(file["sites"]),
        dim=tree.dim,
        dtype=tree.dtype,
        index=file["index"][()],
        offsets=offsets,
    )


def read_row(
    stream: BinaryIO, table: TokenTable, position: int, number: int, group: str = "/"
) -> NDArray[np.float32]:
    """States `(tokens, dim)` of one row and site of a stream that `read_table` has accepted."""
    first, last = (int(end) for end in table.offsets[position : position + 2])
    return read_span(stream, table, (first, last), number, group)


def read_span(
    stream: BinaryIO, table: TokenTable, span: tuple[int, int], number: int, group: str = "/"
) -> NDArray[np.float32]:
    """States `(tokens, dim)` of the tokens from the first up to the last of `span`, at one site."""
    first, last = span
    try:
        with h5py.File(stream, "r") as file:
            states = file[group]["states"]
            return read_part(states, (first, number, 0), (last - first, 1, table.dim))[:, 0, :]
    except (OSError, RuntimeError) as error:
        raise StoreError(f"token states cannot be read: {error}") from error
