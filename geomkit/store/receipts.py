"""Receipts: whether the file at a shard's name is the shard the plan asked for."""

from __future__ import annotations

import functools
import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geomkit.errors import StoreError
from geomkit.store import files, quarantine, shard
from geomkit.store.quarantine import Identity, identity
from geomkit.store.shard import ShardTable

MAX_SHARD_BYTES = 8 << 30

Claims = tuple[tuple[tuple[int, str, str], ...], tuple[str, ...], tuple[str, ...], int]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a shard's file must be for the shard to count."""

    schema: str
    file: str
    bytes: int
    sha256: str
    rows: int
    plan_hash: str
    checkpoint_hash: str


def open_shard(path: Path) -> io.BufferedReader:
    """The open file of a shard. Raises StoreError like `files.open_regular`."""
    return files.open_regular(path, MAX_SHARD_BYTES)


def table_remembered(path: Path, receipt: Receipt, claims: Claims) -> ShardTable:
    """`table_now`, done once for as long as the file's identity, size and times stay."""
    with open_shard(path) as stream:
        key = identity(os.fstat(stream.fileno()))
    return _table_cached(path, receipt, claims, key)


@functools.lru_cache(maxsize=1 << 16)
def _table_cached(path: Path, receipt: Receipt, claims: Claims, _key: Identity) -> ShardTable:
    return table_now(path, receipt, claims)


def table_now(path: Path, receipt: Receipt, claims: Claims) -> ShardTable:
    """Hash the file, compare with the receipt, then the structure, then the rows with the plan.

    In that order: damaged bytes can make the HDF5 library loop, and never get that far. Bytes that
    are as their receipt says, and that this process did not write, a child process parses first.
    """
    with open_shard(path) as stream:
        status = os.fstat(stream.fileno())
        size = status.st_size
        found = hashlib.file_digest(stream, "sha256").hexdigest()
        if (size, found) != (receipt.bytes, receipt.sha256):
            raise StoreError(
                f"{path} is not what its receipt says: expected {receipt.bytes} bytes with sha256 "
                f"{receipt.sha256[:12]}, got {size} with {found[:12]}; capture again to redo it"
            )
        quarantine.admit(path, found, status)
        table = shard.read_table(stream, size, str(path))
    held = (
        tuple(zip(table.index.tolist(), table.ids, table.modality, strict=True)),
        table.sites,
        table.poolings,
        table.dim,
    )
    hashes = (table.plan_hash, table.checkpoint_hash)
    if held != claims or hashes != (receipt.plan_hash, receipt.checkpoint_hash):
        raise StoreError(f"{path} holds other rows, sites or hashes than the plan; capture again")
    return table


def check_finite(states: NDArray[np.float32], ok: NDArray[np.bool_], path: Path) -> None:
    """Raise StoreError unless exactly the rows that are ok are finite."""
    bad = np.flatnonzero(ok != np.isfinite(states).all(axis=1))
    if len(bad):
        raise StoreError(
            f"{path}: row {bad[0]} is flagged {'ok' if ok[bad[0]] else 'not ok'} but its state is "
            "the contrary; do not trust this file, capture again"
        )
