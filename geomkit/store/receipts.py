"""Receipts: whether the file at a shard's name is the shard the plan asked for."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geomkit.errors import StoreError
from geomkit.store import door, shard
from geomkit.store.quarantine import Identity
from geomkit.store.shard import ShardTable

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


def table_remembered(path: Path, receipt: Receipt, claims: Claims) -> ShardTable:
    """`table_now`, done once for as long as the file's identity, size and times stay."""
    return _table_cached(path, receipt, claims, door.identity(path))


@functools.lru_cache(maxsize=1 << 16)
def _table_cached(path: Path, receipt: Receipt, claims: Claims, _key: Identity) -> ShardTable:
    return table_now(path, receipt, claims)


def table_now(path: Path, receipt: Receipt, claims: Claims) -> ShardTable:
    """The table of the shard at `path`: what its receipt says, and the rows of the plan."""
    table = door.first_read(path, receipt.bytes, receipt.sha256, shard.read_table)
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
