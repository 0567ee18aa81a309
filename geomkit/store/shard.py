"""One shard: rows to HDF5 bytes, and back through an allow-list. The format: `geomkit.store`."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from geomkit.errors import StoreError
from geomkit.store.allowlist import read_strings, read_tree, signature_at_start
from geomkit.types import MODALITIES

FORMAT = "geomkit-shard"
VERSION = 1
MAX_ID_BYTES = 256
MAX_NOTE_BYTES = 512
_SHA = re.compile(r"[0-9a-f]{64}|")
_BOUND = ("v114", "v114")  # checksummed metadata; "latest" would change bytes with the library


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


def to_bytes(rows: ShardRows, sites: Sequence[str], plan_hash: str, checkpoint_hash: str) -> bytes:
    """The shard as the bytes of an HDF5 file, built in memory and read back before it is returned.

    In memory, because HDF5 crashes the process when a disk runs full under it.

    Raises:
        StoreError: the rows do not fit together, or a good row is not finite.
    """
    _check_rows(rows, sites)
    states = {pooling: _blanked(array, rows.ok) for pooling, array in rows.states.items()}
    image = io.BytesIO()
    with h5py.File(image, "w", libver=_BOUND) as file:
        file.attrs["format"] = np.bytes_(FORMAT)
        file.attrs["version"] = np.int64(VERSION)
        file.attrs["plan_hash"] = np.bytes_(plan_hash)
        file.attrs["checkpoint_hash"] = np.bytes_(checkpoint_hash)
        for name, values in _columns(rows, sites).items():
            _put(file, name, values, (len(values),))
        for pooling in sorted(states):
            count, _, dim = states[pooling].shape
            _put(file, f"states/{pooling}", states[pooling], (min(64, count), 1, dim))
    data = image.getvalue()
    _check_image(data, states)
    return data


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


def _columns(rows: ShardRows, sites: Sequence[str]) -> dict[str, NDArray[Any]]:
    return {
        "sites": _fixed(sites),
        "samples/index": np.asarray(rows.index, "<i8"),
        "samples/id": _fixed(rows.ids),
        "samples/modality": _fixed(rows.modality),
        "samples/ok": np.asarray(rows.ok, "u1"),
        "samples/n_tokens": np.asarray(rows.n_tokens, "<i4"),
        "samples/token_sha": _fixed(rows.token_sha),
        "samples/note": _fixed(
            [_note(n) if not ok else "" for n, ok in zip(rows.notes, rows.ok, strict=True)]
        ),
    }


def _note(text: str) -> str:
    """One printable line of at most 512 bytes, cut between characters."""
    line = "".join(c if c.isprintable() else " " for c in text)
    return line.encode()[:MAX_NOTE_BYTES].decode(errors="ignore")


def _fixed(values: Sequence[str]) -> NDArray[Any]:
    """Fixed-size UTF-8: variable-length strings cannot carry a checksum."""
    encoded = [value.encode() for value in values]
    width = max(1, *(len(value) for value in encoded))
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", width))


def _put(file: Any, name: str, values: NDArray[Any], chunks: tuple[int, ...]) -> None:
    file.create_dataset(name, data=values, chunks=chunks, fletcher32=True, track_times=False)


def _check_image(data: bytes, states: Mapping[str, NDArray[np.float32]]) -> None:
    read_table(io.BytesIO(data), len(data), "the shard in memory")
    with h5py.File(io.BytesIO(data), "r") as file:
        for pooling, array in states.items():
            if file["states"][pooling][()].tobytes() != array.tobytes():
                raise StoreError(f"{pooling} states changed on the way to HDF5; do not trust this")


def read_table(stream: BinaryIO, size: int, name: str) -> ShardTable:
    """The checked table of a shard of `size` bytes; structure first, then what is in it.

    Raises:
        StoreError: anything in the file is not as the format says; `name` is the file's name.
    """
    try:
        signature_at_start(stream)
        with h5py.File(stream, "r") as file:
            return _table(file, size)
    except StoreError as error:
        raise StoreError(f"{name}: {error}") from error
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as error:
        raise StoreError(f"{name} cannot be read as HDF5: {error}") from error


def read_site(stream: BinaryIO, pooling: str, number: int) -> NDArray[np.float32]:
    """States `(rows, dim)` of one site of a stream that `read_table` has accepted."""
    try:
        with h5py.File(stream, "r") as file:
            states: NDArray[np.float32] = file["states"][pooling][:, number, :]
            return states
    except (OSError, RuntimeError) as error:
        raise StoreError(f"the {pooling} states cannot be read: {error}") from error


def _table(file: Any, size: int) -> ShardTable:
    tree = read_tree(file, size, FORMAT, VERSION)
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
        index=samples["index"][()],
        ids=ids,
        modality=modality,
        ok=ok.astype(bool),
        n_tokens=samples["n_tokens"][()],
        token_sha=token_sha,
        notes=read_strings(samples["note"]),
    )
