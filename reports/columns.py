"""Records as columns: a name once instead of once a record, words once, equal runs as one.

    {"count": n, "columns": {name: column}}     column: {"is": value}                all alike
                                                        {"words": [...], "runs": [...]}  few values
                                                        [...]                        any other

A record inside a record becomes columns "outer.inner", and "outer" says where there is one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

Record = Mapping[str, Any]
INSIDE = "."
TABLES = (
    *("measurements", "differences", "probes", "probe_differences"),
    *("transfers", "bindings", "drifts", "verdicts"),
)
"""Of an analysis: records of one kind each."""
FEW = 3
"""A column is told in words when it has at most one word for so many records."""


def packed_columns(records: Sequence[Record]) -> dict[str, Any]:
    """The records of one kind as columns."""
    flat = [dict(flattened(record)) for record in records]
    names = dict.fromkeys(name for record in flat for name in record)
    return {
        "count": len(flat),
        "columns": {name: column([record.get(name) for record in flat]) for name in names},
    }


def packed_report(numbers: Mapping[str, Any]) -> dict[str, Any]:
    """Every number of a report with its long tables as columns, and the ways to those tables."""
    report = {**numbers, "analysis": dict(numbers["analysis"])}
    if report.get("pairs"):
        report["pairs"] = dict(report["pairs"])
    ways = [("analysis", name) for name in TABLES]
    ways += [("pairs", name) for name in ("pairs", "spectra") if report.get("pairs")]
    for outer, name in ways:
        report[outer][name] = packed_columns(report[outer][name])
    return {"report": report, "packed": ways}


def flattened(record: Record) -> list[tuple[str, Any]]:
    """Names and values; those of a record inside come after a mark that it is there."""
    found: list[tuple[str, Any]] = []
    for name, value in record.items():
        if isinstance(value, Mapping):
            found.append((name, True))
            found += [(f"{name}{INSIDE}{inner}", own) for inner, own in value.items()]
        else:
            found.append((name, value))
    return found


def column(values: Sequence[Any]) -> Any:
    """One column, told in the shortest of the three ways."""
    codes = {json.dumps(value): value for value in values}
    if len(codes) == 1:
        return {"is": values[0]}
    if FEW * len(codes) > len(values):
        return list(values)
    places = {code: at for at, code in enumerate(codes)}
    runs = [
        count
        for at, own in groupby(places[json.dumps(value)] for value in values)
        for count in (at, sum(1 for _ in own))
    ]
    return {"words": list(codes.values()), "runs": runs}


def unpacked_columns(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The records again, as the page's script makes them."""
    count = table["count"]
    columns = {name: values_of(own, count) for name, own in table["columns"].items()}
    outer = {name.partition(INSIDE)[0] for name in columns if INSIDE in name}
    return [
        {
            name: inside(columns, name, at) if name in outer else values[at]
            for name, values in columns.items()
            if INSIDE not in name
        }
        for at in range(count)
    ]


def inside(columns: Mapping[str, Sequence[Any]], outer: str, at: int) -> dict[str, Any] | None:
    """The record inside a record, or None where there is none."""
    if columns[outer][at] is None:
        return None
    start = f"{outer}{INSIDE}"
    return {n.removeprefix(start): v[at] for n, v in columns.items() if n.startswith(start)}


def values_of(column: Any, count: int) -> list[Any]:
    """A column's values, one a record."""
    if isinstance(column, list):
        return column
    if "is" in column:
        return [column["is"]] * count
    words, runs = column["words"], column["runs"]
    return [words[at] for at, n in zip(runs[::2], runs[1::2], strict=True) for _ in range(n)]
