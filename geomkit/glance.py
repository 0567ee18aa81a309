"""A run at a glance, as lines for a terminal and as one document for machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from geomkit.sites import described
from geomkit.summary import size
from geomkit.types import CheckpointRecord
from geomkit.words import counted

if TYPE_CHECKING:
    from geomkit.store import CheckpointOverview, Overview

FEW = 8  # reasons and events that are listed


def run_lines(run: Overview) -> Iterator[str]:
    """A run at a glance: what was shown, to whom, what failed, how far it is, and its size."""
    rows = ", ".join(f"{n} {modality}" for modality, n in run.rows.items())
    yield f"plan {run.plan_hash[:12]}  data {run.dataset}  rows {rows}"
    yield (
        f"{counted(run.batches, 'batch', 'batches')}  "
        f"poolings {', '.join(run.poolings)} as {run.store_dtype}  "
        f"{size(run.bytes)} in a {'packed file' if run.form == 'packed' else 'folder'}"
    )
    for checkpoint in run.checkpoints:
        yield ""
        yield from _checkpoint_lines(checkpoint)
    yield ""
    if not run.checkpoints:
        yield "no checkpoint yet: run the capture again"
    yield "analyzed: yes" if run.analyzed else "analyzed: not yet, run `geomkit analyze`"


def _checkpoint_lines(held: CheckpointOverview) -> Iterator[str]:
    r = held.record
    yield f"{r.name}: {r.source}{f'@{r.revision[:12]}' if r.revision else ''}  {r.architecture}"
    adapter = f"  adapter {r.adapter_sha[:12]}" if r.adapter_sha else ""
    merged = "  merged" if r.merged else ""
    yield (
        f"  weights {r.weights_sha[:12]}  decoder {r.decoder_sha[:12]}  towers "
        f"{r.towers_sha[:12]}{adapter}{merged}"
    )
    tokens = "  every token kept" if held.tokens else ""
    sites = f"{counted(len(r.sites), 'site')} ({described(r.sites)})"
    yield f"  {r.dtype}, {r.attention}  {sites} x {r.dim}{tokens}"
    yield f"  gate: {gate_words(r)}"
    yield from _damage(held.problems)
    for modality, rows in held.rows.items():
        absent = f", {rows.missing} not captured yet" if rows.missing else ""
        failed = f", {rows.not_ok} not ok" if rows.not_ok else ""
        lost = f", {rows.damaged} in damaged files" if rows.damaged else ""
        yield f"  {modality}: {rows.ok} ok{failed}{lost}{absent}"
    yield from _counted(held.reasons, "reasons")
    if held.remarks:
        yield "  of the rows that are ok:"
        yield from _counted(held.remarks, "remarks")
    for event, count in tuple(Counter(held.events).items())[:FEW]:
        yield f"  event: {event}" + (f" ({count} times)" if count > 1 else "")
    if held.shards_done < held.shards:
        yield (
            f"  incomplete: {held.shards_done} of {counted(held.shards, 'shard')}; run the same "
            "`geomkit capture` again, it continues where it stopped"
        )


def _damage(problems: Sequence[str]) -> Iterator[str]:
    for problem in problems[:FEW]:
        yield f"  damaged: {problem}"
    if len(problems) > FEW:
        yield f"  damaged: {len(problems) - FEW} more, see `geomkit verify`"


def _counted(notes: Mapping[str, int], what: str) -> Iterator[str]:
    for note, count in tuple(notes.items())[:FEW]:
        yield f"    {count} x {note}"
    if len(notes) > FEW:
        yield f"    and {len(notes) - FEW} other {what}"


def gate_words(record: CheckpointRecord) -> str:
    """`9 of 9 checks passed`, with the names of those that did not."""
    checks = {k: c for k, c in record.gate.items() if isinstance(c, Mapping) and "passed" in c}
    enforced = bool(checks.pop("enforced", {"value": 1.0})["value"])
    if not checks:
        return "not run"
    failed = [name for name, check in checks.items() if not check["passed"]]
    words = f"{len(checks) - len(failed)} of {len(checks)} checks passed"
    if failed:
        words += f"; failed: {', '.join(failed)}"
    return words if enforced else f"{words}; not enforced (--no-gate)"


def run_facts(run: Overview) -> dict[str, Any]:
    """What `run_lines` says, for machines."""
    held = [{**asdict(c.record), **asdict(c)} for c in run.checkpoints]
    for checkpoint in held:
        del checkpoint["record"]
    return {**asdict(run), "checkpoints": held}
