"""Several runs of one plan -> one analysis, so that their checkpoints stand side by side.

Only runs whose plans have the same hash were shown the same samples in the same way; others are
refused. Checkpoints are named RUN/NAME. Where a later run's reference is the same weights as the
first one's, it is one checkpoint, and all changes are from it; else every run keeps its own.
Nothing is measured anew: a change between checkpoints of different runs is told only through the
reference they share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from geomkit.compare import verdicts
from geomkit.errors import UsageError
from geomkit.headline import headline
from geomkit.types import Analysis

T = TypeVar("T")


def merged(analyses: Mapping[str, Analysis]) -> Analysis:
    """The analyses of several runs, by the name of their run, as one; verdicts are the last run's.

    Raises:
        UsageError: their plans differ, so their samples or prompts do.
    """
    (first_name, first), *others = analyses.items()
    for name, other in others:
        if other.plan_hash != first.plan_hash:
            raise UsageError(
                f"Expected runs of one plan, got {first_name} ({first.plan_hash[:8]}) and {name} "
                f"({other.plan_hash[:8]}): capture the same data with the same options to compare."
            )
    shared = _weights(first).get(first.checkpoints[0]) if first.checkpoints else None
    reference = f"{first_name}/{first.checkpoints[0]}" if first.checkpoints else ""
    parts = [_renamed(name, a, shared, reference) for name, a in analyses.items()]
    return _joined(parts)


def _weights(analysis: Analysis) -> dict[str, str]:
    """The hash of the weights of every checkpoint."""
    records = analysis.provenance.get("checkpoints", ())
    return {str(r["name"]): str(r.get("weights_sha", "")) for r in records}


def _renamed(run: str, analysis: Analysis, shared: str | None, reference: str) -> Analysis:
    """The analysis with its checkpoints as RUN/NAME, and a shared reference as the first run's."""
    own = _weights(analysis)
    names = {name: f"{run}/{name}" for name in analysis.checkpoints}
    if analysis.checkpoints and shared and own.get(analysis.checkpoints[0]) == shared:
        names[analysis.checkpoints[0]] = reference
    records = analysis.provenance.get("checkpoints", ())
    found: dict[str, Any] = {
        field: tuple(_with_names(r, names) for r in getattr(analysis, field)) for field in RECORDS
    }
    named = [{**r, "name": names.get(str(r["name"]), str(r["name"]))} for r in records]
    return replace(
        analysis,
        checkpoints=tuple(names.values()),
        provenance={**analysis.provenance, "checkpoints": named},
        **found,
    )


RECORDS = (
    *("measurements", "differences", "probes", "probe_differences"),
    *("transfers", "bindings", "drifts"),
)
"""Fields of an analysis whose records name checkpoints."""


def _with_names(record: T, names: Mapping[str, str]) -> T:
    """A record with its checkpoints renamed."""
    if not is_dataclass(record) or isinstance(record, type):
        raise TypeError(f"expected a record, got {record!r}")
    kept = {f.name for f in fields(record)} & {"checkpoint", "before", "after"}
    changes: dict[str, Any] = {k: names.get(getattr(record, k), getattr(record, k)) for k in kept}
    return replace(record, **changes)


def _joined(parts: Sequence[Analysis]) -> Analysis:
    """The renamed analyses one after another, what they share only once."""
    first, last = parts[0], parts[-1]
    found: dict[str, Any] = {
        name: tuple(dict.fromkeys(r for part in parts for r in getattr(part, name)))
        for name in RECORDS
    }
    found["measurements"] = _once(found["measurements"])
    found["probes"] = _once(found["probes"])
    judged = verdicts(
        last.measurements, (*last.differences, *last.probe_differences), last.probes, last.trained
    )
    records: dict[str, Any] = {}
    for part in parts:
        for record in part.provenance.get("checkpoints", ()):
            records.setdefault(str(record["name"]), record)
    commands = [c for part in parts for c in part.provenance.get("commands", ())]
    return replace(
        last,
        checkpoints=tuple(dict.fromkeys(name for part in parts for name in part.checkpoints)),
        sites=tuple(s for s in first.sites if all(s in part.sites for part in parts)),
        verdicts=judged,
        headline=headline(judged, last.measurements),
        skipped=tuple({(s["id"], s["modality"]): s for p in parts for s in p.skipped}.values()),
        provenance={
            **last.provenance,
            "checkpoints": list(records.values()),
            "commands": list(dict.fromkeys(commands)),
        },
        **found,
    )


def _once(records: Sequence[T]) -> tuple[T, ...]:
    """One record of each name: the shared reference was measured in every run, alike."""
    told = ("metric", "attribute", "train_on", "test_on", "checkpoint", "site", "modality")
    found: dict[tuple[Any, ...], T] = {}
    for record in records:
        found.setdefault(tuple(getattr(record, name, "") for name in told), record)
    return tuple(found.values())
