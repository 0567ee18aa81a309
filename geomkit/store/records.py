"""Records as strict JSON and as a tidy table."""

from __future__ import annotations

import csv
import functools
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import TypeAdapter, ValidationError

from geomkit.errors import StoreError
from geomkit.store.files import read_regular
from geomkit.types import Analysis, CheckpointRecord, Interval

T = TypeVar("T")
MAX_JSON_BYTES = 1 << 28  # parsed, it takes some twenty times as much memory
COLUMNS = (
    "kind", "metric", "checkpoint", "before", "after", "site", "modality", "value", "low", "high",
    "level", "method", "chance", "better", "n", "reference", "note", "predictor", "chance_sd",
    "band_low", "band_high", "against", "p",
)  # fmt: skip
IDENTITY = (
    "weights_sha", "decoder_sha", "towers_sha", "adapter_sha", "template_sha", "dtype",
    "attention", "sites", "dim", "versions", "config_sha", "processor_sha", "rendered",
)  # fmt: skip
SHOWN_THROUGH = ("processor_sha", "template_sha", "rendered")  # equal in all checkpoints of a run


@functools.cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def to_json(record: Any, *, sparse: bool = False) -> bytes:
    """A record as UTF-8 JSON with sorted keys: equal records give equal bytes.

    `sparse` leaves out fields at their default: a record from before the field keeps its bytes.

    Raises:
        StoreError: it holds NaN, an infinity or something JSON has no word for.
    """
    given = asdict(record)
    if sparse:
        given = {
            f.name: given[f.name] for f in fields(record) if getattr(record, f.name) != f.default
        }
    try:
        text = json.dumps(
            given, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=1,
            default=_plain,
        )  # fmt: skip
        return text.encode() + b"\n"
    except (TypeError, ValueError) as error:  # ValueError also covers lone surrogates
        name = type(record).__name__
        raise StoreError(
            f"{name} cannot be written as JSON: {error}; a missing number is None with a note"
        ) from error


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"expected numbers, text, lists and mappings, got {type(value).__name__}")


def from_json(kind: type[T], path: Path, limit: int = MAX_JSON_BYTES) -> T:
    """The record of type `kind` in the file at `path`, checked field by field.

    Raises:
        StoreError: no regular file, no JSON, repeated keys, NaN, or fields that do not fit.
    """
    return parse_json(kind, read_regular(path, limit), str(path))


def parse_json(kind: type[T], data: bytes, name: str) -> T:
    """The record of type `kind` in `data`, which comes from `name`; raises like `from_json`."""
    try:
        json.loads(data, parse_constant=_refuse_constant, object_pairs_hook=_refuse_repeats)
        adapter = _adapter(kind)  # type: ignore[arg-type] # a class is hashable, mypy doubts it
        record: T = adapter.validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the top"
        raise StoreError(
            f"{name} is no {kind.__name__}: at {where}: {first['msg']}; capture or analyze again"
        ) from error
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{name} is not the JSON it should be: {error}") from error
    return record


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not a number JSON knows")


def _refuse_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key occurs twice")
    return fields


def checkpoint_hash(record: CheckpointRecord) -> str:
    """sha256 of what decides a checkpoint's numbers; name, source and gate do not."""
    identity = {name: getattr(record, name) for name in IDENTITY}
    identity |= {name: dict(identity[name]) for name in ("versions", "rendered")}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def unlike(old: CheckpointRecord, new: CheckpointRecord) -> str:
    """The fields of the identity in which two records differ; of versions, which."""
    fields = [f for f in IDENTITY if getattr(old, f) != getattr(new, f)]
    moved = sorted(
        f"{name} {old.versions.get(name, 'none')} and {new.versions.get(name, 'none')}"
        for name in {*old.versions, *new.versions}
        if old.versions.get(name) != new.versions.get(name)
    )
    return ", ".join(f"versions ({', '.join(moved)})" if f == "versions" else f for f in fields)


def record_sha(record: CheckpointRecord) -> str:
    """sha256 of a record without what is at its default: a later field changes no old one."""
    return hashlib.sha256(to_json(record, sparse=True)).hexdigest()


def to_csv(analysis: Analysis) -> bytes:
    """All numbers of an analysis, one a line, in the columns `COLUMNS`."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, restval="")  # RFC 4180: lines end in CRLF
    table.writeheader()
    for line in lines(analysis):
        table.writerow({name: _cell(value) for name, value in line.items()})
    return text.getvalue().encode()


def lines(analysis: Analysis) -> Iterator[dict[str, Any]]:
    """All numbers of an analysis, one a line, by column; what a line does not have is left out."""
    for m in analysis.measurements:
        yield {
            "kind": "measurement", "metric": m.metric, "checkpoint": m.checkpoint, "site": m.site,
            "modality": m.modality, "value": m.value, "chance": m.chance, "better": m.better,
            "n": m.n, "reference": m.reference, "note": m.note, "chance_sd": m.chance_sd,
            **_bounds(m.interval),
        }  # fmt: skip
    for d in (*analysis.differences, *analysis.probe_differences):
        yield {
            "kind": "difference", "metric": d.metric, "before": d.before, "after": d.after,
            "site": d.site, "modality": d.modality, "value": d.value, "better": d.better,
            "n": d.n, "note": d.note, **_bounds(d.interval),
            "band_low": d.band.low if d.band else None,
            "band_high": d.band.high if d.band else None,
        }  # fmt: skip
    for p in analysis.probes:
        probe = {
            "kind": "probe", "checkpoint": p.checkpoint, "site": p.site,
            "modality": f"{p.train_on}->{p.test_on}", "better": "higher", "n": p.n_test,
        }  # fmt: skip
        yield probe | {
            "metric": f"probe:{p.attribute}", "value": p.accuracy, "chance": p.guess,
            "note": p.note, **_bounds(p.interval),
        }  # fmt: skip
        beside = {
            "control": p.control, "ceiling": p.ceiling, "uncentred": p.uncentred,
            "selectivity": p.selectivity,
        }  # fmt: skip
        for name, value in beside.items():
            if value is not None:
                span = p.selectivity_interval if name == "selectivity" else None
                yield probe | {"metric": f"{name}:{p.attribute}", "value": value, **_bounds(span)}
    for t in analysis.transfers:
        transfer = {
            "kind": "transfer", "before": t.before, "after": t.after, "site": t.site,
            "modality": t.untrained, "against": t.trained, "better": "higher", "p": t.p,
            "note": "; ".join(part for part in (t.verdict, t.note) if part),
        }  # fmt: skip
        ratios = {"ratio": (t.ratio, t.interval), "way": (t.closed_ratio, t.closed_interval)}
        for name, (value, span) in ratios.items():
            yield transfer | {"metric": f"{name}:{t.metric}", "value": value, **_bounds(span)}
    for b in analysis.bindings:
        yield {
            "kind": "binding", "metric": f"binding:{b.quantity}", "predictor": b.predictor,
            "before": b.before, "after": b.after, "site": b.site, "modality": b.modality,
            "value": b.value, "better": "neither", "n": b.n, "note": b.note, **_bounds(b.interval),
        }  # fmt: skip
    for w in analysis.drifts:
        yield {
            "kind": "drift", "metric": w.metric, "before": w.before, "after": w.after,
            "site": w.site, "modality": w.modality, "value": w.value, "chance": w.chance,
            "better": "neither", "n": w.n, "note": w.note, **_bounds(w.interval),
        }  # fmt: skip


def _bounds(interval: Interval | None) -> dict[str, Any]:
    if interval is None:
        return {}
    return {
        "low": interval.low, "high": interval.high, "level": interval.level,
        "method": interval.method,
    }  # fmt: skip


def _cell(value: Any) -> Any:
    """Text that a spreadsheet would run as a formula gets a quote in front; numbers stay."""
    if isinstance(value, str) and value.lstrip().startswith(("=", "+", "-", "@")):
        return f"'{value}"
    if isinstance(value, str) and value.startswith(("\t", "\r", "\n")):
        return f"'{value}"
    return "" if value is None else value
