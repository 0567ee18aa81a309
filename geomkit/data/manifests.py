"""Tables on disk to rows: JSONL, CSV and Parquet, read whole, with the place of each row."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from geomkit.data.entries import SPLIT_COLUMNS, Rows
from geomkit.data.sources import regular
from geomkit.errors import MissingExtra, SampleError


def table(path: Path) -> Rows:
    """The rows of a table, each with its place; the suffix says which reader takes it.

    Raises:
        SampleError: it is missing, no regular file, or not what its suffix says.
    """
    try:
        regular(path)
    except OSError as cause:
        raise SampleError(
            f"Expected a manifest at {path}, found none: {cause.strerror}; check the path."
        ) from cause
    return READERS[path.suffix.lower()](path)


def document(path: Path) -> Any:
    """A whole JSON file.

    Raises:
        SampleError: it is missing, or not JSON.
    """
    try:
        return _parsed(_read(path))
    except (ValueError, RecursionError) as cause:
        raise SampleError(f"Expected a JSON document in {path}: {cause}.") from cause


def _jsonl(path: Path) -> Rows:
    for number, line in enumerate(_read(path).split("\n"), 1):  # splitlines cuts inside strings
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = _parsed(line)
        except (ValueError, RecursionError) as cause:
            raise SampleError(
                f"Expected one JSON object a line in {where}: {_why(cause)}."
            ) from cause
        if not isinstance(row, dict):
            raise SampleError(f"Expected a JSON object in {where}, got {type(row).__name__}.")
        yield where, row


def _parsed(text: str) -> Any:
    """JSON as the standard has it, which Python's reader alone is laxer than."""
    return json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=each_key_once)


def _why(cause: Exception) -> str:
    """What is wrong with JSON that stands on one line, whose number its place already says."""
    if isinstance(cause, json.JSONDecodeError):
        return f"{cause.msg} at column {cause.pos + 1}"
    return str(cause)


def _refuse_constant(name: str) -> Any:
    """JSON has no NaN; Python's reader takes it, and a label would become the class "nan"."""
    raise ValueError(f"{name} is no JSON value, leave the field out")


def each_key_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Of a key that is there twice, Python's reader would silently take the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(n for n in names if names.count(n) > 1)!r} is there twice")
    return found


def _csv(path: Path) -> Rows:
    try:
        reader = csv.DictReader(io.StringIO(_read(path), newline=""), strict=True)
        names = reader.fieldnames or ()
        _refuse_separators(names, path)
        rows = list(reader)
    except csv.Error as cause:
        raise SampleError(f"Expected a CSV table in {path}: {cause}.") from cause
    if len(set(names)) < len(names):
        raise SampleError(f"Expected each column once in {path}, got {', '.join(names)}.")
    for number, row in enumerate(rows, 2):
        where = f"{path}, row {number}"
        if None in row or None in row.values():
            raise SampleError(f"Expected as many cells as columns in {where}.")
        # An empty cell is a missing one; the column stays, so that it can be named.
        yield where, {n: _cell(n, cell, where) if cell else None for n, cell in row.items()}


def _refuse_separators(names: Sequence[str], path: Path) -> None:
    """A header that is one column is one of another separator; spreadsheets write semicolons."""
    for character, separator in ((";", "semicolons"), ("\t", "tabs")):
        if len(names) == 1 and character in names[0]:
            raise SampleError(
                f"Expected columns separated by commas in {path}, got the one column"
                f" {names[0]!r}: it is separated by {separator}, save it with commas."
            )


def _cell(name: str, cell: str, where: str) -> Any:
    if name not in SPLIT_COLUMNS.values():
        return cell
    try:
        return _parsed(cell)
    except (ValueError, RecursionError) as cause:
        raise SampleError(
            f"Expected a JSON object in column '{name}' of {where}: {_why(cause)}."
        ) from cause


def _parquet(path: Path) -> Rows:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as cause:
        raise MissingExtra(
            "A Parquet manifest needs pyarrow: pip install 'geomkit[parquet]', or use JSONL."
        ) from cause
    try:
        rows = parquet.read_table(path).to_pylist()
    except (pa.ArrowException, OSError) as cause:
        raise SampleError(f"Expected a Parquet table in {path}: {cause}.") from cause
    for number, row in enumerate(rows, 1):
        yield f"{path}, row {number}", row


READERS: Mapping[str, Callable[[Path], Rows]] = {
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".parquet": _parquet,
}


def _read(path: Path) -> str:
    try:
        return regular(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        line = cause.object.count(b"\n", 0, cause.start) + 1
        byte = cause.object[cause.start]
        raise SampleError(
            f"Expected UTF-8 text in {path}, line {line}, got the byte 0x{byte:02x}: save it as"
            " UTF-8."
        ) from cause
    except OSError as cause:
        raise SampleError(f"Expected a readable file at {path}: {cause.strerror}.") from cause
