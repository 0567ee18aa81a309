"""What was shown and pooled, batch by batch, as the rows of a shard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomkit.batches import Batch
from geomkit.checkpoints import Checkpoint
from geomkit.forward import Pooled
from geomkit.store import ShardRows, TokenRows


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What is kept of a batch once it was shown."""

    batch: Batch  # without its tensors
    pooled: Mapping[str, Sequence[Pooled]]  # checkpoint -> states, piece by piece, of rows shown


def shard_rows(
    checkpoint: Checkpoint, parts: Sequence[Part], sites: Sequence[str], poolings: Sequence[str]
) -> ShardRows:
    """States of all rows in place; NaN, not ok and a reason where a row could not be shown."""
    rows = [row for part in parts for row in part.batch.rows]
    shas = {i: sha for part in parts for i, sha in part.batch.token_shas.items()}
    counts = {i: n for part in parts for i, n in part.batch.n_tokens.items()}
    notes = {i: note for part in parts for i, note in part.batch.notes.items()}
    shape = (len(rows), len(sites), checkpoint.dim)
    place = {row.index: at for at, row in enumerate(rows)}
    whole = {name: np.full(shape, np.nan, np.float32) for name in poolings}
    for part in parts:
        at = [place[index] for index in part.batch.shown]
        for name, table in _joined(part.pooled[checkpoint.name]).items():
            whole[name][at] = table
    finite = np.all([np.isfinite(t).all(axis=(1, 2)) for t in whole.values()], axis=0)
    for row, good in zip(rows, finite, strict=True):
        if not good and row.index in shas:  # it was shown, and the model gave NaN or infinity
            notes[row.index] = "states are not finite"
    for table in whole.values():
        table[~finite] = np.nan
    return ShardRows(
        states=whole,
        index=np.array([row.index for row in rows], dtype=np.int64),
        ids=[row.id for row in rows],
        modality=[row.modality for row in rows],
        ok=finite,
        n_tokens=np.array([counts.get(row.index, 0) for row in rows], dtype=np.int32),
        token_sha=[shas.get(row.index, "") for row in rows],
        notes=[notes.get(row.index, "") for row in rows],
    )


def _joined(pieces: Sequence[Pooled]) -> dict[str, NDArray[np.float32]]:
    arrays = [piece.arrays() for piece in pieces]
    return {name: np.concatenate([a[name] for a in arrays]) for name in (arrays or [{}])[0]}


def token_rows(
    checkpoint: Checkpoint, parts: Sequence[Part], sites: int, index: NDArray[np.int64]
) -> TokenRows:
    """States of every token, row after row; a row that was not shown has none."""
    found: dict[int, NDArray[np.float32]] = {}
    for part in parts:
        shown = list(part.batch.shown)
        whole = [piece.token_states() for piece in part.pooled[checkpoint.name]]
        if whole:
            ends = np.cumsum([part.batch.n_tokens[row] for row in shown])[:-1]
            found |= dict(zip(shown, np.split(np.concatenate(whole), ends), strict=True))
    none = np.empty((0, sites, checkpoint.dim), np.float32)
    ordered = [found.get(row, none) for row in index.tolist()]
    offsets = np.concatenate([[0], np.cumsum([len(one) for one in ordered])]).astype(np.int64)
    return TokenRows(np.concatenate(ordered), offsets)
