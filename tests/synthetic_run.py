"""Runs with a known geometry, written through the store: no model, no media, a second to make.

Scenes are images or sounds, each with a caption. A state is

    cone * common direction + gap * modality direction + signal of the attributes + noise

so "before" is a narrow cone, and "after" is the same without the cone: every difference is known.
Captions carry the spoken attribute; only media carry the unspoken one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geomkit.store import Run, ShardRows, create_run
from geomkit.types import CheckpointRecord, Modality, Plan, Row

SITES = ("embed", "block_00", "block_01", "final_norm")
SPOKEN: Mapping[Modality, tuple[str, tuple[str, ...]]] = {
    "image": ("colour", ("red", "green", "blue", "grey")),
    "audio": ("pitch", ("low", "high", "rising")),
}
UNSPOKEN: Mapping[Modality, tuple[str, tuple[str, ...]]] = {
    "image": ("background", ("plain", "dotted")),
    "audio": ("voice", ("near", "far")),
}


@dataclass(frozen=True, slots=True)
class Geometry:
    """How the states of one checkpoint lie."""

    cone: float = 0.0  # length of what all states share
    gap: float = 0.0  # length of what the states of a modality share
    signal: float = 3.0  # of the spoken attribute, in every modality
    secret: float = 0.0  # of the unspoken attribute, in media only
    scene: float = 1.0  # of the scene itself, equal in its modalities: what retrieval can find
    noise: float = 0.5  # own to each row
    turn: bool = False  # rotate the media out of the text's frame


NARROW = Geometry(cone=12.0, gap=1.0)
WIDE = Geometry(cone=0.0, gap=1.0)
COLLAPSED = Geometry(cone=60.0, gap=1.0)


def synthetic_plan(scenes: int = 120, copies: int = 1, seed: int = 0) -> Plan:
    """`scenes` scenes of each medium, each with a caption; `copies` samples of every scene."""
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for medium in SPOKEN:
        for scene in range(scenes):
            labels = {SPOKEN[medium][0]: str(rng.choice(SPOKEN[medium][1]))}
            controls = {UNSPOKEN[medium][0]: str(rng.choice(UNSPOKEN[medium][1]))}
            for copy in range(copies):
                for modality in ("text", medium):
                    name = f"{medium}-{scene:03d}-{copy}"
                    sha = hashlib.sha256(f"{name} {modality}".encode()).hexdigest()
                    rows.append(
                        Row(
                            index=len(rows),
                            id=name,
                            modality=modality,  # type: ignore[arg-type]  # text or the medium
                            content_sha=sha,
                            group=f"{medium}-{scene:03d}",
                            text=f"a {labels[SPOKEN[medium][0]]} thing",
                            labels=labels,
                            controls=controls,
                        )
                    )
    order: Mapping[str, list[int]] = {
        m: [r.index for r in rows if r.modality == m] for m in ("text", "image", "audio")
    }
    batches = tuple(tuple(o[i : i + 32]) for o in order.values() for i in range(0, len(o), 32))
    return Plan(
        schema="geomkit-plan/1",
        dataset="synthetic",
        rows=tuple(rows),
        prompts={m: f"Summarize the {m}:" for m in order},
        poolings=("last",),
        sites=(),
        batches=batches,
        shard_batches=4,
    )


def synthetic_states(
    plan: Plan, geometry: Geometry, dim: int = 32, seed: int = 1
) -> NDArray[np.float32]:
    """One state a row, `(rows, dim)`. Equal plan and seed give equal signal and noise."""
    rng = np.random.default_rng(seed)
    axes: dict[str, NDArray[np.float64]] = {}

    def axis(name: str) -> NDArray[np.float64]:
        """A unit direction of its own for every name."""
        if name not in axes:
            key = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
            vector = np.random.default_rng([seed, key]).standard_normal(dim)
            axes[name] = vector / np.linalg.norm(vector)
        return axes[name]

    turn = np.linalg.qr(np.random.default_rng([seed, 1]).standard_normal((dim, dim)))[0]
    states = np.empty((len(plan.rows), dim))
    for row in plan.rows:
        content = geometry.scene * np.sqrt(dim) * axis(row.group)
        for name, value in row.labels.items():
            content = content + geometry.signal * np.sqrt(dim) / 2 * axis(f"{name}={value}")
        if row.modality != "text":
            for name, value in row.controls.items():
                content = content + geometry.secret * np.sqrt(dim) / 2 * axis(f"{name}={value}")
            content = content @ turn if geometry.turn else content
        shared = geometry.cone * axis("cone") + geometry.gap * axis(row.modality)
        states[row.index] = shared + content + geometry.noise * rng.standard_normal(dim)
    return states.astype(np.float32)


def synthetic_record(name: str, dim: int, training: Mapping[str, Any]) -> CheckpointRecord:
    """A checkpoint record without a checkpoint."""
    return CheckpointRecord(
        name=name,
        source=f"synthetic/{name}",
        revision="",
        architecture="Synthetic",
        weights_sha=hashlib.sha256(name.encode()).hexdigest(),
        decoder_sha="",
        towers_sha="",
        adapter_sha="",
        merged=False,
        template_sha="",
        dtype="float32",
        attention="eager",
        sites=SITES,
        dim=dim,
        versions={"geomkit": "0"},
        gate={},
        training=training,
    )


def write_states(
    run: Run, name: str, states: Mapping[str, NDArray[np.float32]], bad: Sequence[int] = ()
) -> None:
    """All shards of one checkpoint from `(rows, dim)` states by site; `bad` rows are not ok."""
    plan, size = run.plan, run.plan.shard_batches
    for number in range(run.shard_count()):
        batches = plan.batches[number * size : (number + 1) * size]
        index = np.array([i for batch in batches for i in batch], dtype=np.int64)
        rows = [plan.rows[i] for i in index]
        ok = np.array([i not in bad for i in index])
        stacked = np.stack([states[site][index] for site in SITES], axis=1)
        stacked[~ok] = np.nan
        run.write_shard(
            name,
            number,
            ShardRows(
                states={"last": stacked},
                index=index,
                ids=[row.id for row in rows],
                modality=[row.modality for row in rows],
                ok=ok,
                n_tokens=np.full(len(rows), 7, dtype=np.int32),
                token_sha=[row.content_sha for row in rows],
                notes=["" if good else "unreadable" for good in ok],
            ),
            SITES,
        )


def write_run(
    path: Path,
    geometries: Mapping[str, Geometry],
    *,
    scenes: int = 120,
    copies: int = 1,
    dim: int = 32,
    training: Mapping[str, Any] | None = None,
    bad: Sequence[int] = (),
) -> Run:
    """A complete run: one checkpoint a geometry, the first is "before".

    At `embed` all states are equal, as under a fixed prompt; `block_00` is the first geometry in
    every checkpoint; `block_01` and `final_norm` are the checkpoint's own.
    """
    plan = synthetic_plan(scenes, copies)
    run = create_run(path, plan)
    first = synthetic_states(plan, next(iter(geometries.values()), WIDE), dim)
    for position, (name, geometry) in enumerate(geometries.items()):
        own = synthetic_states(plan, geometry, dim)
        states = {
            "embed": np.full_like(own, 0.25),
            "block_00": first,
            "block_01": own,
            "final_norm": own,
        }
        last = position == len(geometries) - 1 and position > 0
        run.write_checkpoint(synthetic_record(name, dim, (training or {}) if last else {}))
        write_states(run, name, states, bad)
    return run
