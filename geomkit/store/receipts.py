"""Receipts: whether the file at a shard's name is the shard the plan asked for."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geomkit.errors import StoreError
from geomkit.store import door, shard, tokens
from geomkit.store.quarantine import Identity
from geomkit.store.shard import ShardTable
from geomkit.store.tokens import TokenTable

SCHEMA = "geomkit-receipt/1"


@dataclass(frozen=True, slots=True)
class Claims:
    """What the plan and the checkpoint say that a shard holds."""

    rows: tuple[tuple[int, str, str], ...]  # index, id, modality
    sites: tuple[str, ...]
    poolings: tuple[str, ...]
    dim: int
    dtype: str
    plan_hash: str
    checkpoint_hash: str


@dataclass(frozen=True, slots=True)
class Attached:
    """A file that belongs to a shard: its token states."""

    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a shard's file must be for the shard to count, and what happened while it was made."""

    schema: str
    file: str
    bytes: int
    sha256: str
    rows: int
    plan_hash: str
    checkpoint_hash: str
    events: tuple[str, ...] = ()
    tokens: Attached | None = None


def check_receipt(receipt: Receipt, path: Path, rows: int, hashes: tuple[str, str]) -> None:
    """Raise StoreError unless a receipt is for the shard at `path`, of this plan and checkpoint."""
    if receipt.schema != SCHEMA:
        raise StoreError(
            f"{path}: expected a receipt by {SCHEMA!r}, got {receipt.schema[:40]!r}; read it with "
            "the geomkit that wrote it, or capture again"
        )
    stated = (receipt.file, receipt.rows, receipt.plan_hash, receipt.checkpoint_hash)
    if stated != (path.name, rows, *hashes):
        raise StoreError(
            f"{path}: its receipt is for another file, plan or checkpoint; capture again"
        )


def table_remembered(path: Path, receipt: Receipt, claims: Claims) -> ShardTable:
    """`table_now`, done once for as long as the file's identity, size and times stay."""
    return _table_cached(path, receipt, claims, door.identity(path))


@functools.lru_cache(maxsize=1 << 16)
def _table_cached(path: Path, receipt: Receipt, claims: Claims, _key: Identity) -> ShardTable:
    return table_now(path, receipt, claims)


def table_now(path: Path, receipt: Receipt, claims: Claims) -> ShardTable:
    """The table of the shard at `path`: what its receipt says, and the rows of the plan."""
    table = door.first_read(path, receipt.bytes, receipt.sha256, shard.read_table)
    check_claims(table, claims, path)
    return table


def check_claims(table: ShardTable, claims: Claims, path: Path) -> None:
    """Raise StoreError unless a table holds what the plan and the checkpoint say."""
    held = Claims(
        rows=tuple(zip(table.index.tolist(), table.ids, table.modality, strict=True)),
        sites=table.sites,
        poolings=table.poolings,
        dim=table.dim,
        dtype=table.dtype,
        plan_hash=table.plan_hash,
        checkpoint_hash=table.checkpoint_hash,
    )
    if held != claims:
        raise StoreError(f"{path} holds other rows, sites or hashes than the plan; capture again")


def tokens_remembered(path: Path, stated: Attached, shard_table: ShardTable) -> TokenTable:
    """`tokens_now`, done once for as long as the file's identity, size and times stay."""
    return _tokens_cached(path, stated, shard_table, door.identity(path))


@functools.lru_cache(maxsize=1 << 10)
def _tokens_cached(
    path: Path, stated: Attached, shard_table: ShardTable, _key: Identity
) -> TokenTable:
    return tokens_now(path, stated, shard_table)


def tokens_now(path: Path, stated: Attached, shard_table: ShardTable) -> TokenTable:
    """The table of the tokens at `path`: what the receipt says, and the rows of their shard."""
    table = door.first_read(path, stated.bytes, stated.sha256, tokens.read_table)
    check_tokens(table, shard_table, path)
    return table


def check_tokens(table: TokenTable, beside: ShardTable, path: Path) -> None:
    """Raise StoreError unless tokens are of the rows, sites and hashes of the shard beside them."""
    own = (table.plan_hash, table.checkpoint_hash, table.sites, table.dim, table.dtype)
    its = (beside.plan_hash, beside.checkpoint_hash, beside.sites, beside.dim, beside.dtype)
    lengths = np.diff(table.offsets)
    same = own == its and np.array_equal(table.index, beside.index)
    if not same or np.any(beside.ok & (lengths != beside.n_tokens)):
        raise StoreError(f"{path} holds tokens of other rows than its shard; capture again")


def check_finite(states: NDArray[np.float32], ok: NDArray[np.bool_], path: Path) -> None:
    """Raise StoreError unless exactly the rows that are ok are finite."""
    bad = np.flatnonzero(ok != np.isfinite(states).all(axis=1))
    if len(bad):
        raise StoreError(
            f"{path}: row {bad[0]} is flagged {'ok' if ok[bad[0]] else 'not ok'} but its state is "
            "the contrary; do not trust this file, capture again"
        )
