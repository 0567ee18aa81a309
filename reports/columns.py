"""Records as columns: a name once instead of once a record, words once, equal runs as one.

    {"count": n, "columns": {name: column}}

    {"is": value}                                               all are alike
    {"words": [...], "runs": [word, count, ...]}                few values
    {"middle": name, "low": name, "steps": "=+-x.", "rest": [...]}   upper ends of intervals
    [...]                                                       any other

Most intervals lie evenly about their value: the upper end is the lower one mirrored, up to a step
of the last digit. "steps" tells which; "x" takes a number from "rest", "." is none. A record inside
a record becomes columns "outer.inner", and "outer" says where there is one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from itertools import groupby
from typing import Any

from reports.payload import DIGITS

Record = Mapping[str, Any]
INSIDE = "."
LOW, HIGH = ".low", ".high"
MIDDLES = ("value", "accuracy", "selectivity", "ratio", "closed_ratio")
STEPS = {"=": 0, "+": 1, "-": -1}
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
    values = {name: [record.get(name) for record in flat] for name in names}
    return {
        "count": len(flat),
        "columns": {name: mirrored(name, values) or column(values[name]) for name in names},
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


def mirrored(name: str, columns: Mapping[str, Sequence[Any]]) -> dict[str, Any] | None:
    """An upper end as the lower one mirrored; None where that is not so for most records."""
    low = f"{name.removesuffix(HIGH)}{LOW}"
    if not name.endswith(HIGH) or low not in columns:
        return None
    found = []
    for middle in (m for m in MIDDLES if m in columns):
        rest: list[float] = []
        steps = ""
        for ends in zip(columns[middle], columns[low], columns[name], strict=True):
            steps += step(*ends)
            rest += [ends[-1]] if steps[-1] == "x" else []
        found.append({"middle": middle, "low": low, "steps": steps, "rest": rest})
    best = min(found, key=lambda one: len(one["rest"]), default=None)
    return best if best and 2 * len(best["rest"]) < len(columns[name]) else None


def step(middle: float | None, low: float | None, high: float | None) -> str:
    """How far an upper end is from its mirror: none, a step of the last digit, or x."""
    if high is None:
        return "."
    if middle is None or low is None:
        return "x"
    near = 2 * middle - low
    told = mirror(middle, low)
    unit = Decimal(10) ** (int(f"{near:.{DIGITS - 1}e}".partition("e")[2]) - DIGITS + 1)
    if abs(Decimal(near) - Decimal(repr(told))) * 2 == unit:
        return "x"  # a tie, which not every language rounds alike
    return next((sign for sign, by in STEPS.items() if mirror(middle, low, by) == high), "x")


def mirror(middle: float, low: float, by: int = 0) -> float:
    """The lower end on the other side of the middle, `by` steps of its last digit further."""
    near = f"{2 * middle - low:.{DIGITS - 1}e}"
    digits, _, power = near.partition("e")
    whole = int(digits.replace(".", "")) + by
    return float(f"{whole}e{int(power) - DIGITS + 1}")


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
    told = table["columns"]
    columns = {name: values_of(own, count) for name, own in told.items() if "steps" not in own}
    for name, own in told.items():
        if "steps" in own:
            rest = iter(own["rest"])
            ends = zip(own["steps"], columns[own["middle"]], columns[own["low"]], strict=True)
            columns[name] = [unstepped(*one, rest) for one in ends]
    outer = {name.partition(INSIDE)[0] for name in columns if INSIDE in name}
    return [
        {
            name: inside(columns, name, at) if name in outer else values[at]
            for name, values in columns.items()
            if INSIDE not in name
        }
        for at in range(count)
    ]


def unstepped(sign: str, middle: Any, low: Any, rest: Iterator[float]) -> float | None:
    """An upper end from its step."""
    if sign in STEPS:
        return mirror(middle, low, STEPS[sign])
    return next(rest) if sign == "x" else None


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
