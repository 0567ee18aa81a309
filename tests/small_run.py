"""A small run with made-up states, for tests of everything that reads one."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from geomkit.store import Run, ShardRows, TokenRows, create_run
from geomkit.types import CheckpointRecord, Modality, Plan, Row

SITES = ("embed", "block_00", "final_norm")
DIM = 8


def plan(samples: int = 6, shard_batches: int = 1, store_dtype: str = "float32") -> Plan:
    """Each sample as text and as image; batches of three rows of one modality."""
    modalities: tuple[Modality, ...] = ("text", "image")
    rows = tuple(
        Row(2 * i + j, f"sample {i}", modality, "c" * 64, f"g{i}")
        for i in range(samples)
        for j, modality in enumerate(modalities)
    )
    batches = tuple(
        tuple(r.index for r in rows if r.modality == modality)[first : first + 3]
        for modality in modalities
        for first in range(0, samples, 3)
    )
    return Plan(
        "geomkit-plan/1", "toy", rows, {"text": "t", "image": "i"}, ("last", "mean"), (),
        batches, shard_batches, store_dtype,
    )  # fmt: skip


def record(name: str = "base", **changes: object) -> CheckpointRecord:
    fields: dict[str, object] = {
        "name": name, "source": "toy", "revision": "r0", "architecture": "Toy",
        "weights_sha": f"w-{name}", "decoder_sha": "d", "towers_sha": "t", "adapter_sha": "",
        "merged": False, "template_sha": "m", "dtype": "float32", "attention": "sdpa",
        "sites": SITES, "dim": DIM, "versions": {"torch": "2.13.0"},
        "gate": {"finite": {"passed": True, "value": 1.0, "tolerance": None}},
    }  # fmt: skip
    return CheckpointRecord(**{**fields, **changes})  # type: ignore[arg-type] # names are the fields


def shard_rows(run: Run, number: int, seed: int = 0, bad: tuple[int, ...] = ()) -> ShardRows:
    """The plan's slice with normal states that depend on seed and shard only."""
    planned = [run.plan.rows[i] for i in run.shard_rows(number)]
    count = len(planned)
    rng = np.random.default_rng([seed, number])
    ok = np.array([row.index not in bad for row in planned])
    return ShardRows(
        states={
            pooling: rng.standard_normal((count, len(SITES), DIM)).astype(np.float32)
            for pooling in run.plan.poolings
        },
        index=np.array([row.index for row in planned], np.int64),
        ids=[row.id for row in planned],
        modality=[row.modality for row in planned],
        ok=ok,
        n_tokens=np.full(count, 5, np.int32),
        token_sha=[
            f"{row.index:064x}" if good else "" for row, good in zip(planned, ok, strict=True)
        ],
        notes=["" if good else "image is truncated" for good in ok],
    )


def token_rows(rows: ShardRows) -> TokenRows:
    """Token states for these rows: each as long as its n_tokens, none where it is not ok."""
    lengths = np.where(rows.ok, rows.n_tokens, 0)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    rng = np.random.default_rng(int(rows.index[0]))
    states = rng.standard_normal((int(offsets[-1]), len(SITES), DIM)).astype(np.float32)
    return TokenRows(states, offsets)


def fill(run: Run, name: str = "base", seed: int = 0, bad: tuple[int, ...] = ()) -> Run:
    run.write_checkpoint(record(name))
    for number in range(run.shard_count()):
        run.write_shard(name, number, shard_rows(run, number, seed, bad), SITES)
    return run


def two_checkpoints(folder: Path) -> Run:
    run = create_run(folder, plan())
    fill(run, "base", seed=0)
    return fill(run, "lco", seed=1)
