"""One process at work: checkpoints in memory, checked, showing batches to them shard by shard.

    read ahead -> every checkpoint that lacks the shard -> write behind

A batch is read, decoded and tokenised once for all checkpoints, so they see the same tensors. When
one of them runs out of memory the batch is shown in halves to all of them, which is recorded: how
a batch is padded moves states by rounding.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import Any

import torch

from geomkit import gate, hooks
from geomkit.batches import Batch, Reader
from geomkit.checkpoints import Checkpoint, CheckpointSpec, load_checkpoints
from geomkit.errors import CaptureError, MemoryFull, SampleError
from geomkit.forward import Pooled, Towers, run
from geomkit.lanes import Writer, ahead, writing
from geomkit.parts import Part, shard_rows, token_rows
from geomkit.plans import CaptureConfig, shard_batches
from geomkit.previews import preview
from geomkit.progress import Progress
from geomkit.prompts import render
from geomkit.store import Run
from geomkit.types import CheckpointRecord

Step = tuple[int, tuple[int, ...]]
"""Shard number, plan rows of one of its batches."""


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """What every worker of a process shares."""

    run: Run
    reader: Reader
    config: CaptureConfig
    own_templates: Mapping[str, str]  # checkpoint -> sha of the template it came with
    progress: Progress

    def read(self, step: Step) -> Batch:
        """One batch; its previews are kept on the way."""
        batch = self.reader.read(step[1])
        if self.config.strict:
            _refuse_skipped(batch)
        if self.config.previews:
            self._keep_previews(batch)
        return batch

    def _keep_previews(self, batch: Batch) -> None:
        for row in batch.rows:
            if row.index not in batch.shown or self.run.media(row.id, row.modality) is not None:
                continue
            media = batch.shown[row.index].media
            small = preview(row.modality, media, self.reader.processor.rate)
            if small is not None:
                self.run.save_media(row.id, row.modality, small)


def _refuse_skipped(batch: Batch) -> None:
    for row in batch.rows:
        if row.index not in batch.shown:
            raise SampleError(
                f"Expected every sample to be shown (--strict), but the {row.modality} of"
                f" '{row.id}' cannot be: {batch.notes[row.index]}. Mend it, or leave --strict out"
                " to record it and go on."
            )


@dataclass(frozen=True, slots=True, eq=False)
class Worker:
    """Checkpoints in memory, ready for any shard."""

    session: Session
    checkpoints: tuple[Checkpoint, ...]
    sites: Mapping[str, tuple[str, ...]]
    events: list[str] = field(default_factory=list)
    records: dict[str, CheckpointRecord] = field(default_factory=dict)

    @classmethod
    def ready(cls, session: Session, specs: Sequence[CheckpointSpec]) -> Worker:
        """Load the checkpoints, check the capture on them, and write their records.

        Raises:
            MemoryFull: they do not fit into memory together.
            CaptureError: a check failed and the gate is on.
        """
        config, progress = session.config, session.progress
        progress("load checkpoints", 0, len(specs))
        loaded = load_checkpoints(
            specs,
            dtype=config.dtype,
            attn=config.attention,
            device=config.device,
            device_map=config.device_map,
        )
        progress("load checkpoints", len(specs), len(specs))
        sites = {c.name: hooks.resolve(c.decoder, config.sites) for c in loaded}
        worker = cls(session, loaded, sites)
        worker._write_records()
        return worker

    # ------------------------------------------------------------------------------- records

    def _write_records(self) -> None:
        """Gate every checkpoint, then write its record, before the first shard."""
        session, config = self.session, self.session.config
        processor, prompts = session.reader.processor, session.reader.plan.prompts
        rendered: dict[str, str] = {
            m: render(processor, m, "{text}" if m == "text" else "", prompts[m])
            for m in processor.modalities
            if m in prompts
        }
        results = self._checks()
        for checkpoint in self.checkpoints:
            found = results[checkpoint.name]
            if config.gate:
                gate.require(checkpoint.name, found)
            shown = session.reader.processor.template_sha
            found["own_template"] = {
                # The first checkpoint's template is shown to all; this one came with its own.
                "passed": True,
                "value": float(session.own_templates[checkpoint.name] == shown),
                "tolerance": None,
            }
            found["enforced"] = {"passed": True, "value": float(config.gate), "tolerance": None}
            self.records[checkpoint.name] = replace(
                checkpoint.record(shown, found, self.sites[checkpoint.name]),
                processor_sha=processor.sha,
                rendered=rendered,
            )
            session.run.write_checkpoint(self.records[checkpoint.name])

    def _checks(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Checkpoint -> check -> result, on the first batch of each modality."""
        results: dict[str, dict[str, dict[str, Any]]] = {c.name: {} for c in self.checkpoints}
        self.session.progress("check the capture", 0, 1)
        for batch in self._first_batches():
            for name, found in self._checked(batch).items():
                results[name] |= found
        self.session.progress("check the capture", 1, 1)
        return results

    def _checked(self, batch: Batch) -> dict[str, dict[str, dict[str, Any]]]:
        """The checks on one batch, or on half of it where memory is too small."""
        processor, poolings = self.session.reader.processor, self.session.config.poolings
        try:
            results = {
                c.name: gate.check(c, processor, batch, self.sites[c.name], poolings)
                for c in self.checkpoints
            }
            for merged, adapter in gate.merged_pairs(self.checkpoints):
                results[merged.name] |= gate.check_merged(merged, adapter, batch)
            return results
        except MemoryFull:
            if len(batch.shown) == 1:
                raise
        free()
        return self._checked(self.session.reader.halves(batch)[0])

    def _first_batches(self) -> Iterable[Batch]:
        """The first batch of each modality in which any row can be shown."""
        reader = self.session.reader
        found: set[str] = set()
        for indexes in reader.plan.batches:
            modality = reader.plan.rows[indexes[0]].modality
            if modality in found or modality not in reader.processor.modalities:
                continue
            batch = reader.read(indexes[: gate.ROWS])
            if batch.shown:
                found.add(modality)
                yield batch
        if not found:
            raise CaptureError(
                "Expected at least one row that can be shown, got none: see that the media exist"
                f" and that the checkpoint reads them (it reads"
                f" {', '.join(reader.processor.modalities)})."
            )

    # -------------------------------------------------------------------------------- shards

    def capture(self, numbers: Sequence[int]) -> None:
        """Capture these shards for the checkpoints that lack them; each is whole or absent.

        Raises:
            CaptureError: states did not appear.
            SampleError: a sample cannot be shown, and that is an error here (`strict`).
            StoreError: a shard cannot be written.
        """
        plan = self.session.reader.plan
        lacking = {n: self._lacking(n) for n in numbers}
        steps = [(n, rows) for n in numbers if lacking[n] for rows in shard_batches(plan, n)]
        counter = _Counter(self.session.progress, plan, lacking)
        with writing() as writer, closing(ahead(self.session.read, steps)) as batches:
            shown = zip(steps, batches, strict=True)
            for number, group in groupby(shown, key=lambda one: one[0][0]):
                parts = []
                for _, batch in group:
                    parts.append(self._show(batch, lacking[number]))
                    counter.add(lacking[number], len(batch.rows))
                    writer.check()
                self._write(writer, number, lacking[number], parts)

    def _lacking(self, number: int) -> tuple[Checkpoint, ...]:
        run, tokens = self.session.run, self.session.config.tokens
        return tuple(
            c for c in self.checkpoints if not run.has_shard(c.name, number, tokens=tokens)
        )

    def _show(self, batch: Batch, checkpoints: Sequence[Checkpoint]) -> Part:
        pieces = self._pieces(batch, checkpoints) if batch.shown else []
        pooled = {c.name: [piece[c.name] for piece in pieces] for c in checkpoints}
        return Part(batch.light(), pooled)

    def _pieces(self, batch: Batch, checkpoints: Sequence[Checkpoint]) -> list[dict[str, Pooled]]:
        """States of the rows shown, in one piece, or in halves where memory is too small."""
        try:
            return [self._together(batch, checkpoints)]
        except MemoryFull:
            if len(batch.shown) == 1:
                raise
        # Here, not in the handler: the error's frames would still hold the batch.
        free()
        halves = self.session.reader.halves(batch)
        sizes = " + ".join(str(len(half.shown)) for half in halves)
        self.events.append(
            f"out of memory: the batch from row {batch.rows[0].index} on was shown as {sizes} rows"
        )
        return [piece for half in halves for piece in self._pieces(half, checkpoints)]

    def _together(self, batch: Batch, checkpoints: Sequence[Checkpoint]) -> dict[str, Pooled]:
        session, towers, found = self.session, Towers(), {}
        media = session.reader.processor.media_tokens.get(batch.rows[0].modality, ())
        for checkpoint in checkpoints:
            with towers.shared(checkpoint):
                found[checkpoint.name] = run(
                    checkpoint,
                    batch.inputs,
                    self.sites[checkpoint.name],
                    session.config.poolings,
                    media=media,
                    tokens=session.config.tokens,
                )
        return found

    def _write(
        self,
        writer: Writer,
        number: int,
        checkpoints: Sequence[Checkpoint],
        parts: Sequence[Part],
    ) -> None:
        events = tuple(self.events)
        self.events.clear()
        for one in checkpoints:
            writer.put(partial(self._write_shard, one, number, parts, events))

    def _write_shard(
        self, checkpoint: Checkpoint, number: int, parts: Sequence[Part], events: Sequence[str]
    ) -> None:
        """In the writer's thread: waits for the states, makes the shard, puts it on the disk."""
        sites = self.sites[checkpoint.name]
        rows = shard_rows(checkpoint, parts, sites, self.session.config.poolings)
        tokens = None
        if self.session.config.tokens:
            tokens = token_rows(checkpoint, parts, len(sites), rows.index)
        self.session.run.write_shard(
            checkpoint.name,
            number,
            rows,
            sites,
            events=events,
            tokens=tokens,
            made_by=self.records.get(checkpoint.name),
        )


class _Counter:
    """Rows done, checkpoint by checkpoint, for the progress."""

    def __init__(
        self, progress: Progress, plan: Any, lacking: Mapping[int, Sequence[Checkpoint]]
    ) -> None:
        self.progress = progress
        self.total: dict[str, int] = {}
        for number, checkpoints in lacking.items():
            rows = sum(map(len, shard_batches(plan, number)))
            for one in checkpoints:
                self.total[one.name] = self.total.get(one.name, 0) + rows
        self.done = dict.fromkeys(self.total, 0)
        for name, total in self.total.items():
            progress(f"capture {name}", 0, total)

    def add(self, checkpoints: Sequence[Checkpoint], rows: int) -> None:
        for one in checkpoints:
            self.done[one.name] += rows
            self.progress(f"capture {one.name}", self.done[one.name], self.total[one.name])


def free() -> None:
    """Give memory that nobody holds back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
