"""Rows of the tables that pairs come in: JSONL, CSV, TSV and Parquet, one at a time.

A file that is not what its extension says is refused with the line: a comma that is not quoted, for
one, would leave a piece of a text to be trained on.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from geomkit.data.manifests import each_key_once
from geomkit.errors import MissingExtra, TrainingError

Row = Mapping[str, Any]


def read_rows(path: Path) -> Iterator[Row]:
    """Rows of a JSONL, CSV, TSV or Parquet file.

    Raises:
        TrainingError: another extension, or a file that is not what its extension says.
    """
    if path.suffix.lower() not in READERS:
        raise TrainingError(
            f"Expected {', '.join(READERS)}, got {path.name}: convert the pairs to one of these."
        )
    return READERS[path.suffix.lower()](path)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines of UTF-8 text, without the mark that some editors begin it with."""
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as cause:
        byte = cause.object[cause.start]
        raise TrainingError(
            f"Expected UTF-8 text, {path.name} line {number} has the byte 0x{byte:02x}: save it as "
            "UTF-8."
        ) from cause
    except OSError as cause:
        raise TrainingError(f"Expected a readable file, got {path}: {cause.strerror}.") from cause


def _jsonl(path: Path) -> Iterator[Row]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=each_key_once)
        except (ValueError, RecursionError) as cause:
            raise TrainingError(
                f"Expected one JSON object a line, {path.name} line {number} is not JSON: {cause}."
            ) from cause
        if not isinstance(row, dict):
            raise TrainingError(
                f"Expected one JSON object a line, {path.name} line {number} is a "
                f"{type(row).__name__}: write {{'anchor': ..., 'positive': ...}}."
            )
        yield row


def _csv(path: Path, separator: str = ",") -> Iterator[Row]:
    at = 0

    def lines() -> Iterator[str]:
        nonlocal at  # the reader's own count leaves out the line that it stumbles over
        for number, line in _lines(path):
            at = number
            yield line

    reader = csv.DictReader(lines(), delimiter=separator, strict=True)
    try:
        names = reader.fieldnames or ()
        _check_header(names, path, separator)
        for row in reader:
            if None in row or None in row.values():
                cells = sum(cell is not None for name, cell in row.items() if name is not None)
                raise TrainingError(
                    f"Expected {len(names)} cells a row, as in the header, {path.name} line "
                    f"{at} has {cells + len(row.get(None, ()))}: put a text that "
                    "holds a separator in double quotes."
                )
            yield row
    except csv.Error as cause:
        raise TrainingError(
            f"Expected a table of quoted or plain cells, {path.name} line {at} is none: {cause}."
        ) from cause


def _check_header(names: Sequence[str], path: Path, separator: str) -> None:
    """Each column once, and a header of one column is one of another separator."""
    once(names, path)
    for other, word in (("\t", "tabs"), (";", "semicolons"), (",", "commas")):
        if len(names) == 1 and other in names[0] and other != separator:
            raise TrainingError(
                f"Expected columns in {path.name}, got the one column {names[0]!r}: it is "
                f"separated by {word}, save it with commas, or with tabs as .tsv."
            )


def once(names: Sequence[str], path: Path) -> None:
    """Raise where a column is there twice: only one of them would be read.

    Raises:
        TrainingError: naming it.
    """
    if twice := sorted({name for name in names if list(names).count(name) > 1}):
        raise TrainingError(
            f"Expected each column once, {path.name} has {twice[0]!r} more than once: rename one."
        )


def _tsv(path: Path) -> Iterator[Row]:
    return _csv(path, "\t")


def _parquet(path: Path) -> Iterator[Row]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as cause:
        raise MissingExtra(
            "Pairs in Parquet need pyarrow: pip install 'geomkit[parquet]', or use JSONL."
        ) from cause
    try:
        with parquet.ParquetFile(path) as table:
            once(table.schema_arrow.names, path)
            for batch in table.iter_batches():
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as cause:
        raise TrainingError(
            f"Expected a Parquet file of text, {path.name} cannot be read as one: {cause}."
        ) from cause


READERS: Mapping[str, Callable[[Path], Iterator[Row]]] = {
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
}
