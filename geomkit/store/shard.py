"""One shard: rows to HDF5 bytes, and back through an allow-list. The format: `geomkit.store`."""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from geomkit.errors import StoreError
from geomkit.store import bfloat16
from geomkit.store.allowlist import read_strings, read_tree, signature_at_start
from geomkit.store.datasets import (
    BOUND,
    check_store_dtype,
    fixed_strings,
    put,
    put_states,
)
from geomkit.store.datasets import read_site as site_of
from geomkit.types import MODALITIES

FORMAT = "geomkit-shard"
VERSION = 1
MAX_ID_BYTES = 256
MAX_NOTE_BYTES = 512
_SHA = re.compile(r"[0-9a-f]{64}|")
DEPTH = 64  # rows in a chunk of states


@dataclass(frozen=True, slots=True, eq=False)
class ShardRows:
    """What one slice of the plan gave; `states` maps pooling to float32 `(rows, sites, dim)`.

    A row that could not be read stays: `ok` False, a reason in `notes`, and its state becomes NaN.
    """

    states: Mapping[str, NDArray[np.float32]]
    index: NDArray[np.int64]
    ids: Sequence[str]
    modality: Sequence[str]
    ok: NDArray[np.bool_]
    n_tokens: NDArray[np.int32]
    token_sha: Sequence[str]
    notes: Sequence[str]


@dataclass(frozen=True, slots=True, eq=False)
class ShardTable:
    """Everything in a checked shard but the states."""

    plan_hash: str
    checkpoint_hash: str
    sites: tuple[str, ...]
    poolings: tuple[str, ...]
    dim: int
    dtype: str  # what the states are stored as; they are read as float32
    index: NDArray[np.int64]
    ids: tuple[str, ...]
    modality: tuple[str, ...]
    ok: NDArray[np.bool_]
    n_tokens: NDArray[np.int32]
    token_sha: tuple[str, ...]
    notes: tuple[str, ...]


def check_id(name: str) -> None:
    """Raise StoreError unless `name` is 1 to 256 printable bytes: it goes to files and pages."""
    if not (name.isprintable() and 0 < len(name.encode(errors="replace")) <= MAX_ID_BYTES):
        raise StoreError(
            f"sample id {name[:80]!r}: expected 1 to {MAX_ID_BYTES} printable bytes; rename it"
        )


def content_sha(data: bytes) -> str:
    """sha256 of bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def to_bytes(
    rows: ShardRows,
    sites: Sequence[str],
    plan_hash: str,
    checkpoint_hash: str,
    dtype: str = "float32",
) -> bytes:
    """The shard as the bytes of an HDF5 file, built in memory and read back before it is returned.

    In memory, because HDF5 crashes the process when a disk runs full under it.

    Raises:
        StoreError: the rows do not fit together, a good row is not finite or too large for `dtype`.
    """
    check_store_dtype(dtype)
    _check_rows(rows, sites)
    image = io.BytesIO()
    with h5py.File(image, "w", libver=BOUND) as file:
        put_attributes(file, FORMAT, VERSION, plan_hash, checkpoint_hash)
        for name, values in columns(rows, sites).items():
            put(file, name, values, (len(values),))
        for pooling in sorted(rows.states):
            blanked = _blanked(rows.states[pooling], rows.ok)
            put_states(file, f"states/{pooling}", blanked, DEPTH, dtype)
    data = image.getvalue()
    _check_image(data, rows, dtype)
    return data


def put_attributes(
    file: Any, format_name: str, version: int, plan_hash: str, checkpoint_hash: str
) -> None:
    """What a shard, or a group like one, says about itself."""
    file.attrs["format"] = np.bytes_(format_name)
    file.attrs["version"] = np.int64(version)
    file.attrs["plan_hash"] = np.bytes_(plan_hash)
    file.attrs["checkpoint_hash"] = np.bytes_(checkpoint_hash)


def _check_rows(rows: ShardRows, sites: Sequence[str]) -> None:
    count = len(rows.index)
    columns = (rows.ids, rows.modality, rows.ok, rows.n_tokens, rows.token_sha, rows.notes)
    if count == 0 or any(len(column) != count for column in columns):
        lengths = [count, *(len(column) for column in columns)]
        raise StoreError(f"a shard needs columns of one length above zero, got lengths {lengths}")
    shapes = {array.shape for array in rows.states.values()}
    if len(shapes) != 1 or next(iter(shapes))[:-1] != (count, len(sites)):
        raise StoreError(
            f"expected states of shape ({count}, {len(sites)}, dim) in every pooling, got {shapes}"
        )
    for pooling, array in rows.states.items():
        bad = np.flatnonzero(rows.ok & ~np.isfinite(array).all(axis=(1, 2)))
        if len(bad):
            raise StoreError(
                f"the {pooling} state of {rows.ids[bad[0]]!r} is not finite; "
                "record the row as not ok, with the reason"
            )
    for name, good, note in zip(rows.ids, rows.ok, rows.notes, strict=True):
        check_id(name)
        if not good and not note:
            raise StoreError(f"row {name!r} is not ok and gives no reason; write one in its note")


def _blanked(array: NDArray[np.float32], ok: NDArray[np.bool_]) -> NDArray[np.float32]:
    blanked = np.array(array, dtype="<f4", order="C")
    blanked[~ok] = np.nan
    return blanked


def columns(rows: ShardRows | ShardTable, sites: Sequence[str]) -> dict[str, NDArray[Any]]:
    """The datasets of a shard beside the states, by path."""
    return {
        "sites": fixed_strings(sites),
        "samples/index": np.asarray(rows.index, "<i8"),
        "samples/id": fixed_strings(rows.ids),
        "samples/modality": fixed_strings(rows.modality),
        "samples/ok": np.asarray(rows.ok, "u1"),
        "samples/n_tokens": np.asarray(rows.n_tokens, "<i4"),
        "samples/token_sha": fixed_strings(rows.token_sha),
        "samples/note": fixed_strings([_note(note) for note in rows.notes]),
    }


def _note(text: str) -> str:
    """One printable line of at most 512 bytes, cut between characters."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return line.encode()[:MAX_NOTE_BYTES].decode(errors="ignore")


def _check_image(data: bytes, rows: ShardRows, dtype: str) -> None:
    """Read everything back; each site is the given one, to the precision of the stored type."""
    read_table(io.BytesIO(data), len(data), "the shard in memory")
    with h5py.File(io.BytesIO(data), "r") as file:
        for pooling, array in rows.states.items():
            for number in range(array.shape[1]):
                given = _blanked(array[:, number], rows.ok)
                if not same_states(site_of(file["states"][pooling], number), given, dtype):
                    raise StoreError(f"{pooling} states changed on the way to HDF5; do not trust")


def same_states(found: NDArray[np.float32], given: NDArray[np.float32], dtype: str) -> bool:
    """True when what was read is what was given, bit by bit, once rounded to the stored type."""
    if dtype == "bfloat16":
        given = bfloat16.decode(bfloat16.encode(given))
    return found.tobytes() == given.tobytes()


def read_table(stream: BinaryIO, size: int, name: str) -> ShardTable:
    """The checked table of a shard of `size` bytes; structure first, then what is in it.

    Raises:
        StoreError: anything in the file is not as the format says; `name` is the file's name.
    """
    with parsing(name):
        signature_at_start(stream)
        with h5py.File(stream, "r") as file:
            return table_of(file, size)


@contextlib.contextmanager
def parsing(name: str) -> Iterator[None]:
    """Make one kind of error, which says `name`, of everything that can go wrong with HDF5."""
    try:
        yield
    except StoreError as error:
        raise StoreError(f"{name}: {error}") from error
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
        raise StoreError(f"{name} cannot be read as HDF5: {error}") from error


def read_site(stream: BinaryIO, pooling: str, number: int, group: str = "/") -> NDArray[np.float32]:
    """States `(rows, dim)` of one site of a stream that `read_table` has accepted.

    `group` is where in the file the shard is, when it is not the whole file.
    """
    try:
        with h5py.File(stream, "r") as file:
            return site_of(file[group]["states"][pooling], number)
    except (OSError, RuntimeError) as error:
        raise StoreError(f"the {pooling} states cannot be read: {error}") from error


def table_of(file: Any, size: int, beside: frozenset[str] = frozenset()) -> ShardTable:
    """The checked table of an open shard, or of a group that is one; as `allowlist.read_tree`."""
    tree = read_tree(file, size, FORMAT, VERSION, beside)
    samples = file["samples"]
    modality = read_strings(samples["modality"])
    token_sha = read_strings(samples["token_sha"])
    ids = read_strings(samples["id"])
    for name in ids:
        check_id(name)
    if not set(modality) <= set(MODALITIES):
        raise StoreError(f"unknown modality among {sorted(set(modality))[:5]}")
    if not all(_SHA.fullmatch(sha) for sha in token_sha):
        raise StoreError("token_sha: expected 64 hex digits or nothing")
    ok = samples["ok"][()]
    if ok.max(initial=0) > 1:
        raise StoreError("ok: expected 0 or 1")
    return ShardTable(
        plan_hash=tree.plan_hash,
        checkpoint_hash=tree.checkpoint_hash,
        sites=read_strings(file["sites"]),
        poolings=tree.poolings,
        dim=tree.dim,
        dtype=tree.dtype,
        index=samples["index"][()],
        ids=ids,
        modality=modality,
        ok=ok.astype(bool),
        n_tokens=samples["n_tokens"][()],
        token_sha=token_sha,
        notes=read_strings(samples["note"]),
    )
