"""The allow-list: what an HDF5 file may contain before any of it is believed.

A foreign HDF5 file can name other files of the host as its data, declare sizes that exhaust memory,
or ask for a filter that loads a library. So the structure is compared with the one structure the
format has, link by link and dataset by dataset, and nothing is read before it passed.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any, BinaryIO

import h5py

from geomkit.errors import StoreError
from geomkit.store.datasets import TYPES

SIGNATURE = b"\x89HDF\r\n\x1a\n"
MAX_POOLINGS = 16
MAX_STRING = 4096
HASHES = ("plan_hash", "checkpoint_hash")
_SAMPLES = {
    "index": h5py.h5t.STD_I64LE,
    "id": None,  # a fixed-size string
    "modality": None,
    "ok": h5py.h5t.STD_U8LE,
    "n_tokens": h5py.h5t.STD_I32LE,
    "token_sha": None,
    "note": None,
}


@dataclass(frozen=True, slots=True)
class Tree:
    """What the structure of an accepted file says."""

    plan_hash: str
    checkpoint_hash: str
    poolings: tuple[str, ...]
    dim: int
    dtype: str  # what the states are stored as


def signature_at_start(stream: BinaryIO, trailer: int = 0) -> None:
    """Raise StoreError unless the file is HDF5 from its first byte to its last: no polyglot.

    Formats before superblock 3 are refused too: their metadata has no checksums. `trailer` bytes at
    the end belong to a format around it.
    """
    size = stream.seek(0, os.SEEK_END) - trailer
    stream.seek(0)
    head = stream.read(48)
    stream.seek(0)
    found, version, end = head[:8], head[8:9], int.from_bytes(head[28:36], "little")
    if found != SIGNATURE:
        raise StoreError(f"expected the HDF5 signature at byte 0, got {found!r}")
    if version < b"\x03":
        raise StoreError(f"expected superblock 3 or newer, got {version!r}; capture it again")
    if end != size:
        raise StoreError(f"expected a file of {end} bytes, as it says itself, got {size}")


def read_tree(
    file: Any, size: int, format_name: str, version: int, beside: frozenset[str] = frozenset()
) -> Tree:
    """Compare an open shard, or a group of one, in a file of `size` bytes with the format.

    `beside` are members that are there too and are checked elsewhere.

    Raises:
        StoreError: there is more, less or other in it than the format has.
    """
    plan_hash, checkpoint_hash = read_attributes(file, format_name, version, HASHES)
    members(file, {"samples", "sites", "states"} | beside)
    samples, states = group_in(file, "samples"), group_in(file, "states")
    members(samples, set(_SAMPLES))
    if not 0 < len(states) <= MAX_POOLINGS:
        raise StoreError(f"/states: expected 1 to {MAX_POOLINGS} poolings, got {len(states)}")
    sites = dataset_in(file, "sites", 1, None, size)
    rows = {dataset_in(samples, name, 1, kind, size)[0] for name, kind in _SAMPLES.items()}
    found = {_states(states, name, size) for name in members(states, None)}
    shapes = {shape for shape, _ in found}
    if len(rows) != 1 or len(shapes) != 1 or next(iter(shapes))[:2] != (*rows, *sites):
        raise StoreError(
            f"sizes disagree: samples {sorted(rows)}, sites {sites}, states {sorted(shapes)}"
        )
    if len(found) != 1:
        raise StoreError("expected one type of states in all poolings, got float32 and bfloat16")
    shape, dtype = next(iter(found))
    return Tree(plan_hash, checkpoint_hash, tuple(sorted(states)), shape[2], dtype)


def read_tokens_tree(file: Any, size: int, format_name: str, version: int) -> Tree:
    """Compare an open file of token states, or a group of one, with the format; as `read_tree`."""
    plan_hash, checkpoint_hash = read_attributes(file, format_name, version, HASHES)
    members(file, {"index", "offsets", "sites", "states"})
    (sites,) = dataset_in(file, "sites", 1, None, size)
    (rows,) = dataset_in(file, "index", 1, h5py.h5t.STD_I64LE, size)
    (ends,) = dataset_in(file, "offsets", 1, h5py.h5t.STD_I64LE, size)
    shape, dtype = _states(file, "states", size, empty=True)
    if ends != rows + 1 or shape[1] != sites:
        raise StoreError(f"sizes disagree: {rows} rows, {ends} offsets, {sites} sites, {shape}")
    return Tree(plan_hash, checkpoint_hash, (), shape[2], dtype)


def _states(
    group: Any, name: str, size: int, *, empty: bool = False
) -> tuple[tuple[int, ...], str]:
    """Shape and stored type of a dataset of states."""
    shape = dataset_in(group, name, 3, tuple(TYPES.values()), size, empty=empty)
    kind = group[name].id.get_type()
    return shape, next(dtype for dtype, known in TYPES.items() if kind.equal(known))


def read_strings(dataset: Any) -> tuple[str, ...]:
    """Fixed-size strings as text. Raises StoreError where the bytes are not UTF-8."""
    try:
        return tuple(value.decode() for value in dataset[()].tolist())
    except UnicodeDecodeError as error:
        raise StoreError(f"{dataset.name}: expected UTF-8: {error}") from error


def read_attributes(
    file: Any, format_name: str, version: int, texts: tuple[str, ...]
) -> tuple[str, ...]:
    """The attributes `texts`, beside which there are a format and a version, and no others."""
    names = {"format", "version", *texts}
    if h5py.h5a.get_num_attrs(file.id) != len(names) or set(file.attrs) != names:
        raise StoreError(f"expected the attributes {sorted(names)} and no others")
    found = _text_attribute(file, "format")
    if found != format_name:
        raise StoreError(f"expected the format {format_name!r}, got {found!r}")
    number = h5py.h5a.open(file.id, b"version")
    if number.shape != () or not number.get_type().equal(h5py.h5t.STD_I64LE):
        raise StoreError("attribute version: expected one int64")
    if file.attrs["version"] != version:
        raise StoreError(
            f"expected version {version} of the format, got {file.attrs['version']}; "
            "read it with the geomkit that wrote it, or capture again"
        )
    return tuple(_text_attribute(file, name) for name in texts)


def _text_attribute(file: Any, name: str) -> str:
    attribute = h5py.h5a.open(file.id, name.encode())
    if attribute.shape != () or not _is_fixed_string(attribute.get_type(), 64):
        raise StoreError(f"attribute {name}: expected one fixed string of at most 64 bytes")
    try:
        return bytes(file.attrs[name]).decode("ascii")
    except UnicodeDecodeError as error:
        raise StoreError(f"attribute {name}: expected ASCII: {error}") from error


def members(group: Any, expected: set[str] | None) -> tuple[str, ...]:
    """The group's names, all hard links; counted first, so a million links are never listed."""
    if expected is not None and (len(group) != len(expected) or set(group) != expected):
        raise StoreError(f"{group.name}: expected exactly {sorted(expected)} in it")
    names = tuple(group)
    for name in names:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise StoreError(f"{group.name}: {name!r} is a link to elsewhere; only data is read")
    return names


def group_in(parent: Any, name: str) -> Any:
    """The group of that name, which is there and no dataset."""
    if parent.get(name, getclass=True) is not h5py.Group:
        raise StoreError(f"/{name}: expected a group")
    return parent[name]


def dataset_in(
    group: Any, name: str, rank: int, kind: Any, size: int, *, empty: bool = False
) -> tuple[int, ...]:
    """The shape of a dataset whose storage is as the format says.

    `kind` is its type, several that it may have, or None for fixed-size strings. The first axis may
    be `empty` where the format knows no rows.
    """
    if group.get(name, getclass=True) is not h5py.Dataset:
        raise StoreError(f"{group.name}: {name!r} is no dataset")
    identifier = group[name].id
    place = f"{group.name.rstrip('/')}/{name}"
    _check_type(identifier.get_type(), kind, place)
    shape: tuple[int, ...] = identifier.shape
    if len(shape) != rank or 0 in (shape[1:] if empty else shape):
        raise StoreError(f"{place}: expected rank {rank} without empty axes, got shape {shape}")
    creation = identifier.get_create_plist()
    if creation.get_layout() != h5py.h5d.CHUNKED:  # rules out external and virtual storage too
        raise StoreError(f"{place}: expected chunked storage inside the file")
    filters = [creation.get_filter(i)[0] for i in range(creation.get_nfilters())]
    if filters != [h5py.h5z.FILTER_FLETCHER32]:
        raise StoreError(f"{place}: expected the one filter fletcher32, got filters {filters}")
    item, chunk = identifier.get_type().get_size(), creation.get_chunk()
    if any(part > max(whole, 1) for part, whole in zip(chunk, shape, strict=True)):
        raise StoreError(f"{place}: chunk {chunk} is larger than the shape {shape}")
    declared, stored = item * math.prod(shape), identifier.get_storage_size()
    if declared > size or stored != _stored(shape, chunk, item):
        raise StoreError(
            f"{place}: declares {declared} bytes in chunks {chunk}, which a file of {size} that "
            f"stores {stored} of them does not hold"
        )
    return shape


def _stored(shape: tuple[int, ...], chunk: tuple[int, ...], item: int) -> int:
    """Bytes that a full dataset takes: whole chunks, each with the 4 bytes of its checksum."""
    count = math.prod(-(-whole // part) for whole, part in zip(shape, chunk, strict=True))
    return count * (math.prod(chunk) * item + 4)


def _check_type(found: Any, expected: Any, place: str) -> None:
    if expected is None:
        if not _is_fixed_string(found, MAX_STRING):
            raise StoreError(f"{place}: expected fixed-size strings of at most {MAX_STRING} bytes")
        return
    known = expected if isinstance(expected, tuple) else (expected,)
    if not any(found.equal(kind) for kind in known):
        raise StoreError(f"{place}: expected {known[0].dtype}, got {_dtype_name(found)}")


def _dtype_name(found: Any) -> str:
    try:
        return f"{found.dtype} stored in {found.get_size()} bytes"
    except (TypeError, ValueError, NotImplementedError):
        return "a type without a NumPy equivalent"


def _is_fixed_string(found: Any, limit: int) -> bool:
    return (
        isinstance(found, h5py.h5t.TypeStringID)
        and not found.is_variable_str()
        and found.get_size() <= limit
    )
