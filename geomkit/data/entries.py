"""One row of a table to one sample: which columns there are, what may be in them, what is refused.

    id, text, image, audio, video, labels, controls, group

Media are paths inside one folder (the manifest's own, or `media_root`), or http(s) URLs where these
are allowed. Nothing is opened here: a file that cannot be decoded is a recorded row at capture.
"""

from __future__ import annotations

import difflib
import os
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from geomkit.errors import SampleError, UsageError
from geomkit.types import Sample, Stored

MEDIA = ("image", "audio", "video")
COLUMNS = ("id", "text", *MEDIA, "labels", "controls", "group")
SPLIT_COLUMNS = {"label.": "labels", "control.": "controls"}
URL_SCHEMES = ("http:", "https:", "ftp:", "s3:", "gs:", "hf:", "file:", "data:")

Row = Mapping[str, Any]
Rows = Iterable[tuple[str, Row]]
"""Where a row stands, for messages, and its cells."""


def _doc(default: Any, text: str) -> Any:
    """A field whose one line of help travels with it."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, slots=True)
class DataConfig:
    """How `--data` is read: what a dataset's own columns are called, and what may be fetched."""

    split: str = _doc("", "Split of a dataset or suite; its only or its usual one if none.")
    subset: str = _doc("", "Configuration of a Hugging Face dataset that has several.")
    columns: tuple[str, ...] = _doc((), "Columns of other names: image=img,text=caption.")
    captions: int = _doc(1, "Captions of an item that has several; each after the first is text.")
    media_root: str = _doc("", "Folder that media paths start from and may not leave.")
    allow_url: bool = _doc(False, "Fetch media that are http(s) URLs; private addresses never.")
    url_cache: str = _doc("", "Folder that keeps what was fetched; the user's cache if none.")

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if self.captions < 1:
            raise UsageError(f"Expected captions of at least 1, got {self.captions}.")
        _ = self.renamed

    @property
    def renamed(self) -> dict[str, str]:
        """Our column -> theirs.

        Raises:
            UsageError: a pair is no pair, or names a column that samples do not have.
        """
        found: dict[str, str] = {}
        for pair in (p.strip() for entry in self.columns for p in entry.split(",") if p.strip()):
            ours, equals, theirs = (part.strip() for part in pair.partition("="))
            if not (equals and theirs):
                raise UsageError(f"Expected columns as OURS=THEIRS, got '{pair}': image=img.")
            if ours not in COLUMNS and not ours.startswith(tuple(SPLIT_COLUMNS)):
                known = ", ".join((*COLUMNS, "label.NAME", "control.NAME"))
                raise UsageError(f"Expected a column ({known}), got '{ours}' in '{pair}'.")
            found[ours] = theirs
        return found

    @property
    def cache(self) -> Path:
        """The folder of what was fetched."""
        home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        return Path(self.url_cache or Path(home) / "geomkit" / "media").expanduser()


def renamed(rows: Rows, data: DataConfig) -> Rows:
    """The same rows, with the columns that `data` names under our names.

    Raises:
        SampleError: a row lacks such a column.
    """
    names = data.renamed
    for where, row in rows:
        for theirs in names.values():
            if theirs not in row:
                raise SampleError(
                    f"Expected column '{theirs}' in {where}, got {', '.join(map(str, row))}."
                )
        rest = {name: cell for name, cell in row.items() if name not in names.values()}
        yield where, rest | {ours: row[theirs] for ours, theirs in names.items()}


def sample_of(where: str, row: Row, folder: Path, data: DataConfig) -> Sample:
    """The sample of one row; `folder` is where its paths start.

    Raises:
        SampleError: a cell is not what its column holds, or there is nothing to show.
    """
    found = {name: value for name, value in row.items() if value is not None}
    _refuse_typos(found, where)
    _refuse_unnamed(row, where)
    media = {kind: _media(found.get(kind), kind, where, folder, data) for kind in MEDIA}
    sample = Sample(
        id=_string(found.get("id"), "id", where),
        text=_text(row, where),
        **media,
        labels=_names(found, "label.", where),
        controls=_names(found, "control.", where),
        group=_writable(str(found.get("group", "")), "group", where),
    )
    if not sample.modalities():
        raise SampleError(f"Expected text, image, audio or video in {where}, got none of them.")
    return sample


def _refuse_unnamed(row: Row, where: str) -> None:
    """Stop at a row whose columns are called otherwise: which it has, and how to map them."""
    if "id" not in row:
        raise SampleError(
            f"Expected a column 'id' in {where}, got {_listed(row)}: add one, or say which it is,"
            " --columns id=NAME."
        )
    if not {"text", *MEDIA} & row.keys():
        raise unmapped(where, row)


def unmapped(where: str, columns: Iterable[str]) -> SampleError:
    """The error for a table of which no column is known to hold anything to show."""
    return SampleError(
        f"Expected a column text, image, audio or video in {where}, got {_listed(columns)}: say"
        " which is which, --columns image=img,text=caption."
    )


def _listed(columns: Iterable[str]) -> str:
    return ", ".join(map(str, columns)) or "no column"


def _text(row: Row, where: str) -> str | None:
    """The caption. An empty one is kept, for capture to record; so is none, without media."""
    text = row.get("text")
    if text is None and "text" in row and all(row.get(kind) is None for kind in MEDIA):
        return ""
    return text if text is None or text == "" else _string(text, "text", where)


def _refuse_typos(row: Row, where: str) -> None:
    """Other columns are welcome, but one that is nearly ours is a typing error."""
    for name in row:
        near = difflib.get_close_matches(name.lower(), COLUMNS, n=1, cutoff=0.8)
        if near and name not in COLUMNS:
            raise SampleError(
                f"Expected column '{near[0]}' in {where}, got '{name}': rename it, or say"
                f" --columns {near[0]}={name}."
            )


def _string(value: Any, column: str, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise SampleError(
            f"Expected a non-empty string in '{column}' of {where}, got {_short(value)}."
        )
    return _writable(str(value), column, where)


def _short(value: Any) -> str:
    """A value as a message shows it: a cell may hold megabytes."""
    if isinstance(value, bytes | bytearray | list | dict) and len(value) > 8:
        return f"{type(value).__name__} of {len(value)}"
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "..."


def _writable(text: str, column: str, where: str) -> str:
    r"""`text`, when it can be written down again: JSON's `\ud800` alone is half a character."""
    try:
        text.encode()
    except UnicodeEncodeError as cause:
        raise SampleError(
            f"Expected whole characters in '{column}' of {where}: {_short(cause.reason)} at"
            f" character {cause.start}."
        ) from cause
    return text


def _printable(text: str, column: str, where: str) -> str:
    """`text`, when a terminal prints it as it is: a control character would be obeyed there."""
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise SampleError(
            f"Expected no control characters in '{column}' of {where}, got {_short(text)}: remove"
            " them."
        )
    return _writable(text, column, where)


def _media(
    value: Any, column: str, where: str, folder: Path, data: DataConfig
) -> Path | Stored | None:
    if value is None or isinstance(value, Stored):
        return value
    text = _string(value, column, where)
    if not text.lower().startswith(URL_SCHEMES):
        return _inside(text, column, where, folder)
    if not text.lower().startswith(("http:", "https:")):
        raise SampleError(
            f"Expected a file path or an http(s) URL in '{column}' of {where}, got the URL"
            f" {_short(text)}: put the file beside the manifest."
        )
    if not data.allow_url:
        raise SampleError(
            f"Expected a file path in '{column}' of {where}, got the URL {_short(text)}: geomkit"
            " downloads nothing unless you say --allow-url."
        )
    from geomkit.data import downloads  # it brings the HTTP library

    downloads.check(text, f"'{column}' of {where}")
    return Stored(text, partial(downloads.fetch, text, data.cache))


def _inside(text: str, column: str, where: str, folder: Path) -> Path:
    """The path, when it stays in `folder`; a manifest from elsewhere names no other files.

    It is judged by its letters: links that lie inside the folder may point anywhere.
    """
    path = Path(text)
    if path.is_absolute():
        roots = (folder.absolute(), folder.resolve())
        path = next((path.relative_to(r) for r in roots if path.is_relative_to(r)), Path(".."))
    depth = 0
    for part in path.parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            raise SampleError(
                f"Expected a path inside {folder} in '{column}' of {where}, got {_short(text)}:"
                " name the folder that holds all media with --media-root."
            )
    return folder / path


def _names(row: Row, prefix: str, where: str) -> dict[str, str]:
    column = SPLIT_COLUMNS[prefix]
    given = row.get(column, {})
    if not isinstance(given, Mapping):
        raise SampleError(f"Expected an object in '{column}' of {where}, got {_short(given)}.")
    split = {k.removeprefix(prefix): v for k, v in row.items() if k.startswith(prefix)}
    return {
        _printable(str(k), column, where): _printable(str(v), column, where)
        for k, v in {**given, **split}.items()
        if v is not None
    }
