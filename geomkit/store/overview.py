"""A run at a glance: what is in it, how far it is, what went wrong. Records, for people to read."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from geomkit.errors import StoreError
from geomkit.store.packed import PackedRun
from geomkit.store.reading import Part
from geomkit.store.run import Run
from geomkit.types import MODALITIES, CheckpointRecord


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one modality in one checkpoint."""

    ok: int
    not_ok: int
    missing: int  # planned and not captured yet
    damaged: int = 0  # captured, in files that are not what they should be


@dataclass(frozen=True, slots=True)
class CheckpointOverview:
    """One checkpoint: where it is from, how far its capture is, and what happened in it."""

    record: CheckpointRecord
    shards_done: int
    shards: int
    rows: Mapping[str, Rows]  # modality -> counts, in canonical order
    reasons: Mapping[str, int]  # why rows are not ok, the commonest first
    remarks: Mapping[str, int]  # what a reader must know of rows that are: what was cut
    events: tuple[str, ...]
    tokens: bool  # every token's state is there too
    problems: tuple[str, ...]  # what is damaged, a sentence a file


@dataclass(frozen=True, slots=True)
class Overview:
    """A run and its checkpoints, in capture order."""

    path: str
    form: str  # folder or packed
    bytes: int
    plan_hash: str
    dataset: str
    prompts: Mapping[str, str]
    rows: Mapping[str, int]  # modality -> planned rows
    batches: int
    poolings: tuple[str, ...]
    store_dtype: str
    analyzed: bool
    checkpoints: tuple[CheckpointOverview, ...]


def overview(run: Run) -> Overview:
    """Look at a run; the files whose rows are counted are hashed, states are not read."""
    planned: Counter[str] = Counter(row.modality for row in run.plan.rows)
    return Overview(
        path=str(run.path),
        form="packed" if isinstance(run, PackedRun) else "folder",
        bytes=run.bytes_on_disk(),
        plan_hash=run.plan_hash,
        dataset=run.plan.dataset,
        prompts=dict(run.plan.prompts),
        rows={m: planned[m] for m in MODALITIES if planned[m]},
        batches=len(run.plan.batches),
        poolings=run.plan.poolings,
        store_dtype=run.plan.store_dtype,
        analyzed=run.has_analysis(),
        checkpoints=tuple(_checkpoint(run, record, planned) for record in run.checkpoints()),
    )


def _checkpoint(run: Run, record: CheckpointRecord, planned: Counter[str]) -> CheckpointOverview:
    good: Counter[str] = Counter()
    bad: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    remarks: Counter[str] = Counter()
    events: tuple[str, ...] = ()
    kept: list[bool] = []
    problems: list[str] = []
    absent: Counter[str] = Counter(
        run.plan.rows[index].modality
        for number in run.missing(record.name)
        for index in run.shard_rows(number)
    )
    with contextlib.suppress(StoreError):  # a damaged receipt is named with its shard, below
        kept = [receipt.tokens is not None for receipt in run.receipts(record.name)]
        events = run.events(record.name)
    try:
        for part in run.parts_there(record.name):
            if isinstance(part, StoreError):
                problems.append(str(part))
                continue
            _count(part, good, bad)
            for ok, note in zip(part.table.ok, part.table.notes, strict=True):
                (remarks if ok else reasons).update([note] * bool(note))
    except StoreError as error:
        problems.append(str(error))
    return CheckpointOverview(
        record=record,
        shards_done=run.shard_count() - len(run.missing(record.name)),
        shards=run.shard_count(),
        rows={
            m: Rows(good[m], bad[m], absent[m], planned[m] - good[m] - bad[m] - absent[m])
            for m in MODALITIES
            if planned[m]
        },
        reasons=_commonest(reasons),
        remarks=_commonest(remarks),
        events=events,
        tokens=bool(kept) and all(kept),
        problems=tuple(problems),
    )


def _count(part: Part, good: Counter[str], bad: Counter[str]) -> None:
    for modality, ok in zip(part.table.modality, part.table.ok, strict=True):
        (good if ok else bad)[modality] += 1


def _commonest(notes: Counter[str]) -> dict[str, int]:
    return dict(sorted(notes.items(), key=lambda item: (-item[1], item[0])))
