"""Datasets of the Hugging Face library, of the hub or on disk, to rows whose media stay encoded.

Media columns are read with `decode=False`: the bytes of a cell are fetched from the memory-mapped
table when a sample is looked at, and decoded by `geomkit.data.media`, so that ten thousand embedded
images cost no memory and one broken image is one recorded row. No code of a dataset is run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
from huggingface_hub.errors import HFValidationError

from geomkit.data.captions import Item, caption_rows
from geomkit.data.entries import COLUMNS, MEDIA, SPLIT_COLUMNS, DataConfig, Row, Rows, unmapped
from geomkit.data.sources import regular
from geomkit.errors import SampleError, UsageError
from geomkit.types import Sample, Stored

Samples = Callable[[str, Rows, Path, DataConfig], tuple[Sample, ...]]
FEATURES = {"image": datasets.Image, "audio": datasets.Audio, "video": datasets.Video}
SAVED = ("dataset_info.json", "dataset_dict.json")  # what save_to_disk leaves behind


def load(
    spec: str,
    data: DataConfig,
    samples: Samples,
    columns: Mapping[str, Sequence[str]] | None = None,
) -> tuple[str, tuple[Sample, ...]]:
    """Dataset name, its revision included, and the samples of `org/name[@revision]` or a folder.

    `columns` are the names that a suite is known to use; those of `data` come first.

    Raises:
        SampleError: it cannot be found or read, or has none of the columns.
        UsageError: it has several splits or configurations and none was named.
    """
    name, dataset = opened(spec, data)
    folder = _folder(spec)
    split = f":{dataset.split}" if dataset.split else ""
    rows = _rows(name, dataset, folder, data, columns or {})
    return f"hf:{name}{split}", samples(f"hf:{spec}", rows, folder or Path(), data)


def opened(spec: str, data: DataConfig) -> tuple[str, Any]:
    """The name, its revision included, and the table of `org/name[@revision]` or a folder.

    Raises:
        SampleError: it cannot be found or read.
        UsageError: it has several splits or configurations and none was named.
    """
    if not spec:
        raise UsageError("Expected hf:org/name or hf:./folder, got 'hf:' alone.")
    folder = _folder(spec)
    return _from_disk(folder, data) if folder else _from_hub(spec, data)


def _folder(spec: str) -> Path | None:
    """The folder that `spec` is, or None for a name on the hub."""
    path = Path(spec).expanduser()
    if path.is_dir():
        return path
    if spec.startswith((".", "/", "~")):
        raise SampleError(f"Expected a dataset folder at {path}, found none: check the path.")
    return None


def _from_disk(folder: Path, data: DataConfig) -> tuple[str, Any]:
    if any((folder / name).is_file() for name in SAVED):
        found = _reading(str(folder), lambda: datasets.load_from_disk(str(folder)))
    else:
        found = _reading(
            str(folder), lambda: datasets.load_dataset(str(folder), data.subset or None)
        )
    return folder.resolve().name, _split(found, str(folder), data)


def _from_hub(spec: str, data: DataConfig) -> tuple[str, Any]:
    """A dataset at one commit: the branch or tag is resolved first, and the commit is the name."""
    name, _, revision = spec.partition("@")
    commit = _commit(name, revision)
    wanted = {"revision": commit} if commit else {}
    found = _reading(spec, lambda: datasets.load_dataset(name, data.subset or None, **wanted))
    return f"{name}@{commit or 'unknown'}", _split(found, spec, data)


def _commit(name: str, revision: str) -> str:
    """The commit that a revision is now; offline it is what was said, for the cache to find."""
    if huggingface_hub.constants.HF_HUB_OFFLINE or re.fullmatch("[0-9a-f]{40}", revision):
        return revision
    try:
        return str(huggingface_hub.HfApi().dataset_info(name, revision=revision or None).sha)
    except (OSError, HFValidationError) as cause:  # HfHubHTTPError is an OSError
        raise SampleError(
            f"Expected a dataset '{name}'{revision and ' at ' + revision} on the Hugging Face hub:"
            f" {_first_line(cause)}. Check the name, and log in if it is gated."
        ) from cause


def _reading(spec: str, read: Callable[[], Any]) -> Any:
    """What `read` gives; the library's errors are many, and all mean that there is no dataset."""
    try:
        return read()
    except _LIBRARY as cause:
        reason = _first_line(cause)
        if "torchcodec" in reason:  # it builds, but never needs, encoded sounds with that
            reason += ": a folder of sounds is read as --data FOLDER, without hf:"
        raise SampleError(f"Expected a dataset at {spec}: {reason}.") from cause


_LIBRARY = (
    OSError, ValueError, TypeError, LookupError, RuntimeError, ImportError,
    datasets.exceptions.DatasetsError,
)  # fmt: skip


def _first_line(cause: BaseException) -> str:
    """What went wrong at the bottom: the library wraps it in sentences that say little."""
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = str(cause).strip().splitlines()
    return (lines[0] if lines else type(cause).__name__)[:300].rstrip(".")


def _split(found: Any, spec: str, data: DataConfig) -> Any:
    if not isinstance(found, Mapping):
        if data.split and data.split != str(found.split):
            raise UsageError(f"Expected split '{data.split}' of {spec}, it has {found.split} only.")
        return found
    names = list(found)
    if data.split in names or len(names) == 1:
        return found[data.split or names[0]]
    got = f"got '{data.split}'" if data.split else "got none"
    raise UsageError(f"Expected --split, one of {', '.join(names)}, for {spec}; {got}.")


def _rows(
    name: str, table: Any, folder: Path | None, data: DataConfig, usual: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, Row]]:
    names = _names(table, data, usual, name)
    stored = {o: t for o, t in names.items() if o in MEDIA and not _is_text(table.features[t])}
    cells = {ours: _encoded(table, theirs, ours) for ours, theirs in stored.items()}
    absent = {ours: _nulls(cells[ours], theirs) for ours, theirs in stored.items()}
    plain = table.select_columns(sorted({t for o, t in names.items() if o not in stored}))
    classes = {column: f for column, f in plain.features.items() if hasattr(f, "int2str")}

    def media(number: int) -> dict[str, Any]:
        return {
            ours: Stored(f"row {number}", partial(_cell, cells[ours], number, theirs, folder))
            for ours, theirs in stored.items()
            if not absent[ours][number]
        }

    items = (
        _item(number, names, _spelt(row, classes), name, media(number))
        for number, row in enumerate(_plain_rows(plain, len(table)))
    )
    yield from caption_rows(items, data.captions)


def _is_text(feature: Any) -> bool:
    """True for a column of paths or URLs."""
    return getattr(feature, "dtype", "") in {"string", "large_string"}


def _plain_rows(plain: Any, count: int) -> Iterator[Row]:
    """Rows without media; a table without such columns has rows all the same."""
    return iter(plain) if plain.column_names else ({} for _ in range(count))


def _names(
    table: Any, data: DataConfig, usual: Mapping[str, Sequence[str]], name: str
) -> dict[str, str]:
    """Our column -> theirs: as asked, as the suite has it, of our name, or a class as a label."""
    theirs = table.column_names
    asked = data.renamed
    for column in asked.values():
        if column not in theirs:
            raise SampleError(f"Expected column '{column}' in {name}, got {', '.join(theirs)}.")
    found = {column: column for column in COLUMNS if column in theirs}
    known = {ours: [c for c in candidates if c in theirs] for ours, candidates in usual.items()}
    found |= {ours: columns[0] for ours, columns in known.items() if columns}
    taken = {*found.values(), *asked.values()}
    labels = {
        f"label.{column}": column
        for column, feature in table.features.items()
        if hasattr(feature, "int2str") and column not in taken
    }
    split = {c: c for c in theirs if c.startswith(tuple(SPLIT_COLUMNS))}
    found = labels | split | found | asked
    if not {"text", *MEDIA} & found.keys():
        raise unmapped(name, theirs)
    return found


def _encoded(table: Any, column: str, kind: str) -> Any:
    """One media column alone, undecoded."""
    alone = table.select_columns([column])
    feature = alone.features[column]
    wanted = FEATURES[kind]
    return alone.cast_column(column, wanted(decode=False)) if isinstance(feature, wanted) else alone


def _nulls(alone: Any, column: str) -> list[bool]:
    """Which rows have no such medium; the bytes of those that have are not touched."""
    batches = alone.with_format("arrow").iter(batch_size=1000)
    return [gone for batch in batches for gone in batch[column].is_null().to_pylist()]


def _spelt(row: Row, classes: Mapping[str, Any]) -> Row:
    """Classes by their names; the hub marks what has none by -1."""
    return {
        column: classes[column].int2str(cell) if _is_class(cell) else None
        for column, cell in row.items()
        if column in classes
    } | {column: cell for column, cell in row.items() if column not in classes}


def _is_class(cell: Any) -> bool:
    return isinstance(cell, int) and cell >= 0


def _item(number: int, names: Mapping[str, str], row: Row, name: str, stored: Row) -> Item:
    found = {ours: row[theirs] for ours, theirs in names.items() if theirs in row}
    text = found.pop("text", None)
    id_ = found.pop("id", None)
    named = {kind: path for kind in MEDIA if (path := found.pop(kind, None)) is not None}
    return Item(
        id=str(number) if id_ is None else str(id_),
        where=f"{name}, row {number}",
        captions=_captions(text),
        media={**stored, **named},
        rest=found,
    )


def _captions(cell: Any) -> list[str]:
    """One caption, a list of them, or the Karpathy form of a list: `{"raw": ...}`."""
    cells = cell if isinstance(cell, list) else [cell]
    texts = (c.get("raw") if isinstance(c, Mapping) else c for c in cells)
    return [str(text) for text in texts if text is not None]


def _cell(table: Any, number: int, column: str, folder: Path | None) -> bytes:
    """The encoded bytes of one cell.

    Raises:
        SampleError: the cell is empty, or names a file outside the dataset.
    """
    cell = table[number][column]
    if isinstance(cell, bytes):
        return cell
    if not isinstance(cell, Mapping):
        kind = type(cell).__name__
        raise SampleError(f"column {column} of row {number} holds a {kind}, not one medium")
    if not (cell.get("bytes") or cell.get("path")):
        raise SampleError(f"column {column} of row {number} is empty")
    if cell.get("bytes"):
        return bytes(cell["bytes"])
    path = Path(str(cell["path"]))
    homes = (folder, Path(datasets.config.HF_CACHE_HOME), Path(datasets.config.HF_DATASETS_CACHE))
    if not any(path.absolute().is_relative_to(home.absolute()) for home in homes if home):
        raise SampleError(f"column {column} of row {number} names a file outside the dataset")
    return regular(path).read_bytes()
