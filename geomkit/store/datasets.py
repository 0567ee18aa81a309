"""HDF5 datasets as the formats have them: chunked, checksummed, without times; float32 or bfloat16.

Everything here writes the same bytes for the same values, and reads states as float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from geomkit.errors import StoreError
from geomkit.store import bfloat16

BOUND = ("v114", "v114")  # checksummed metadata; "latest" would change bytes with the library
TYPES = {"float32": h5py.h5t.IEEE_F32LE, "bfloat16": bfloat16.TYPE}
"""What states may be stored as."""


def check_store_dtype(name: str) -> None:
    """Raise StoreError unless states can be stored as `name`."""
    if name not in TYPES:
        raise StoreError(f"expected states stored as {' or '.join(TYPES)}, got {name!r}")


def put(group: Any, name: str, values: NDArray[Any], chunks: tuple[int, ...]) -> None:
    """A dataset of `values`."""
    group.create_dataset(name, data=values, chunks=chunks, fletcher32=True, track_times=False)


def put_blob(group: Any, name: str, data: bytes) -> None:
    """Bytes of another format, in chunks of at most a mebibyte."""
    put(group, name, np.frombuffer(data, np.uint8), (min(len(data), 1 << 20),))


def fixed_strings(values: Sequence[str]) -> NDArray[Any]:
    """Fixed-size UTF-8: variable-length strings cannot carry a checksum."""
    encoded = [value.encode() for value in values]
    width = max(1, *(len(value) for value in encoded))
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", width))


def new_states(group: Any, name: str, shape: tuple[int, int, int], depth: int, dtype: str) -> Any:
    """An unwritten dataset `(rows, sites, dim)` in chunks of `depth` rows of one site."""
    count, _, dim = shape
    return group.create_dataset(
        name,
        shape,
        dtype=h5py.Datatype(TYPES[dtype]),
        maxshape=shape if count else (None, *shape[1:]),  # what has no rows has no chunk that fits
        chunks=(min(depth, max(count, 1)), 1, dim),
        fletcher32=True,
        track_times=False,
    )


def put_states(group: Any, name: str, values: NDArray[np.float32], depth: int, dtype: str) -> None:
    """States `(rows, sites, dim)`, rounded to the stored type. Raises StoreError on overflow."""
    shape = (values.shape[0], values.shape[1], values.shape[2])
    dataset = new_states(group, name, shape, depth, dtype)
    if shape[0]:
        write_part(dataset, (0, 0, 0), values)


def write_part(dataset: Any, start: tuple[int, int, int], values: NDArray[np.float32]) -> None:
    """Write a block of states `(rows, sites, dim)` at `start`; rounded where the type asks."""
    kind = dataset.id.get_type()
    raw = np.ascontiguousarray(values, "<f4")
    memory, place = _block(dataset, start, values.shape)
    if kind.equal(bfloat16.TYPE):
        dataset.id.write(memory, place, bfloat16.encode(raw), bfloat16.TYPE)
    else:
        dataset.id.write(memory, place, raw, h5py.h5t.IEEE_F32LE)


def read_part(
    dataset: Any, start: tuple[int, int, int], shape: tuple[int, int, int]
) -> NDArray[np.float32]:
    """A block of states as float32, whatever they are stored as."""
    memory, place = _block(dataset, start, shape)
    if dataset.id.get_type().equal(bfloat16.TYPE):
        words = np.empty(shape, bfloat16.WORDS)
        if words.size:
            dataset.id.read(memory, place, words, bfloat16.TYPE)
        return bfloat16.decode(words)
    values = np.empty(shape, np.float32)
    if values.size:
        dataset.id.read(memory, place, values, h5py.h5t.IEEE_F32LE)
    return values


def read_site(dataset: Any, number: int) -> NDArray[np.float32]:
    """States `(rows, dim)` of one site."""
    rows, _, dim = dataset.shape
    return read_part(dataset, (0, number, 0), (rows, 1, dim))[:, 0, :]


def _block(dataset: Any, start: Sequence[int], shape: Sequence[int]) -> tuple[Any, Any]:
    """The spaces of a block: in memory, and in the dataset."""
    place = dataset.id.get_space()
    place.select_hyperslab(tuple(start), tuple(shape))
    return h5py.h5s.create_simple(tuple(shape)), place
