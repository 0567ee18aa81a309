"""Plan x checkpoints -> shards.

    samples -> plan (written, hashed) -> per shard: read a batch once -> every checkpoint -> shard

A batch is read, decoded and tokenised once and shown to every checkpoint, so two checkpoints see
the same tensors. All of them see the first one's processor and chat template: only weights differ.
A shard with a receipt is done; any other is captured again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geomkit import gate, hooks
from geomkit.batches import Batch, Reader
from geomkit.checkpoints import Checkpoint, CheckpointSpec, load_checkpoints, locate
from geomkit.engines import Engine, inline
from geomkit.errors import CaptureError, ProvenanceMismatch
from geomkit.forward import Towers, states
from geomkit.plans import CaptureConfig, build_plan, by_id, shard_batches
from geomkit.previews import preview
from geomkit.processing import Processor, load_processor
from geomkit.progress import Progress, silent
from geomkit.store import Run, ShardRows, create_run
from geomkit.types import Plan, Sample

__all__ = ["CaptureConfig", "Progress", "capture_run"]


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """What every shard of a capture needs."""

    run: Run
    reader: Reader
    checkpoints: tuple[Checkpoint, ...]
    sites: Mapping[str, tuple[str, ...]]  # checkpoint -> its sites
    config: CaptureConfig
    progress: Progress
    done: list[int] = field(default_factory=lambda: [0])  # rows so far, for the progress only


def capture_run(
    checkpoints: Sequence[CheckpointSpec],
    samples: Sequence[Sample],
    out: Path,
    config: CaptureConfig,
    *,
    dataset: str = "samples",
    progress: Progress = silent,
    engine: Engine = inline,
) -> Run:
    """Capture every checkpoint over the samples into the run folder `out`; resumes what is there.

    Raises:
        CaptureError: a gate check failed, or states did not appear.
        CheckpointError: a checkpoint cannot be found or loaded.
        ProvenanceMismatch: checkpoints cannot be shown the same tokens.
        StoreError: `out` holds another plan, or other weights under one of the names.
    """
    if not checkpoints:
        raise CaptureError("Expected at least one checkpoint to capture, got none.")
    plan = build_plan(dataset, samples, config)
    progress("load checkpoints", 0, len(checkpoints))
    loaded = load_checkpoints(
        checkpoints, dtype=config.dtype, attn=config.attention, device=config.device
    )
    sites = {c.name: hooks.resolve(c.decoder, config.sites) for c in loaded}
    processor, own_templates = _shared_processor(checkpoints)
    progress("load checkpoints", len(checkpoints), len(checkpoints))
    run = create_run(out, plan, force=config.force)
    reader = Reader(plan, by_id(samples), processor, config.text_tokens)
    session = Session(run, reader, loaded, sites, config, progress)
    _write_records(session, own_templates)
    missing = [n for n in range(run.shard_count()) if _wanting(session, n)]
    total = sum(len(batch) for n in missing for batch in shard_batches(plan, n))
    progress("capture", 0, total)
    engine(missing, lambda number: _capture_shard(session, number, total))
    return run


def _shared_processor(specs: Sequence[CheckpointSpec]) -> tuple[Processor, dict[str, str]]:
    """The first checkpoint's processor, and every checkpoint's own template sha.

    Raises:
        ProvenanceMismatch: a checkpoint's vocabulary differs, so the same ids mean other words.
    """
    places = [locate(spec.source).model for spec in specs]
    first = load_processor(places[0].where, revision=places[0].revision)
    templates = {}
    for spec, place in zip(specs, places, strict=True):
        own = first
        if (place.where, place.revision) != (places[0].where, places[0].revision):
            own = load_processor(place.where, revision=place.revision)
        if own.vocabulary_sha != first.vocabulary_sha:
            raise ProvenanceMismatch(
                f"Expected '{spec.name}' to have the tokenizer of '{specs[0].name}', got another"
                " vocabulary: capture models of different families into different runs."
            )
        templates[spec.name] = own.template_sha
    return first, templates


def _write_records(session: Session, own_templates: Mapping[str, str]) -> None:
    """Gate every checkpoint, then write its record, before the first shard."""
    batches = list(_first_batches(session))
    shown = session.reader.processor.template_sha
    for number, checkpoint in enumerate(session.checkpoints):
        session.progress("check the capture", number, len(session.checkpoints))
        results: dict[str, dict[str, Any]] = {}
        for batch in batches:
            results |= gate.check(
                checkpoint,
                session.reader.processor,
                batch,
                session.sites[checkpoint.name],
                session.config.poolings,
            )
        if session.config.gate:
            gate.require(checkpoint.name, results)
        results["own_template"] = {
            # The first checkpoint's template is shown to all; this one came with its own.
            "passed": True,
            "value": float(own_templates[checkpoint.name] == shown),
            "tolerance": None,
        }
        sites = session.sites[checkpoint.name]
        session.run.write_checkpoint(checkpoint.record(shown, results, sites))
    session.progress("check the capture", len(session.checkpoints), len(session.checkpoints))


def _first_batches(session: Session) -> Iterable[Batch]:
    """The first batch of each modality in which any row can be shown."""
    rows = session.reader.plan.rows
    found: set[str] = set()
    for indexes in session.reader.plan.batches:
        modality = rows[indexes[0]].modality
        if modality in found or modality not in session.reader.processor.modalities:
            continue
        batch = session.reader.read(indexes)
        if batch.shown:
            found.add(modality)
            yield batch
    if not found:
        raise CaptureError(
            "Expected at least one row that can be shown, got none: see that the media exist and"
            f" that the checkpoint reads them (it reads"
            f" {', '.join(session.reader.processor.modalities)})."
        )


def _wanting(session: Session, number: int) -> tuple[Checkpoint, ...]:
    """The checkpoints that do not have this shard yet."""
    return tuple(c for c in session.checkpoints if not session.run.has_shard(c.name, number))


def _capture_shard(session: Session, number: int, total: int) -> None:
    plan, poolings = session.reader.plan, session.config.poolings
    checkpoints = _wanting(session, number)
    batches: list[Batch] = []
    tables: dict[str, list[dict[str, NDArray[np.float32]]]] = {c.name: [] for c in checkpoints}
    for indexes in shard_batches(plan, number):
        batch = session.reader.read(indexes)
        _save_previews(session, batch)
        towers = Towers()
        for checkpoint in checkpoints:
            with towers.shared(checkpoint):
                table = _placed(checkpoint, batch, session.sites[checkpoint.name], poolings)
            tables[checkpoint.name].append(table)
        batches.append(batch)
        session.done[0] += len(indexes)
        session.progress("capture", session.done[0], total)
    for checkpoint in checkpoints:
        rows = _shard_rows(plan, batches, tables[checkpoint.name])
        session.run.write_shard(checkpoint.name, number, rows, session.sites[checkpoint.name])


def _placed(
    checkpoint: Checkpoint, batch: Batch, sites: Sequence[str], poolings: Sequence[str]
) -> dict[str, NDArray[np.float32]]:
    """States of all rows of the batch in place; NaN where a row could not be shown."""
    shape = (len(batch.rows), len(sites), checkpoint.dim)
    table = {name: np.full(shape, np.nan, dtype=np.float32) for name in poolings}
    if batch.shown:
        where = [i for i, row in enumerate(batch.rows) if row.index in batch.shown]
        for name, found in states(checkpoint, batch.inputs, sites, poolings).items():
            table[name][where] = found
    return table


def _shard_rows(
    plan: Plan, batches: Sequence[Batch], tables: Sequence[Mapping[str, NDArray[np.float32]]]
) -> ShardRows:
    rows = [row for batch in batches for row in batch.rows]
    shas = {i: sha for batch in batches for i, sha in batch.token_shas.items()}
    counts = {i: n for batch in batches for i, n in batch.n_tokens.items()}
    notes = {i: note for batch in batches for i, note in batch.notes.items()}
    whole = {name: np.concatenate([t[name] for t in tables]) for name in plan.poolings}
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


def _save_previews(session: Session, batch: Batch) -> None:
    if not session.config.previews:
        return
    for row in batch.rows:
        if row.index not in batch.shown or session.run.media(row.id, row.modality) is not None:
            continue
        media = batch.shown[row.index].media
        small = preview(row.modality, media, session.reader.processor.rate)
        if small is not None:
            session.run.save_media(row.id, row.modality, small)
