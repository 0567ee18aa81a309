"""A folder of media to rows: one row a file name, images, sounds and videos of equal name together.

    birds/robin.jpg, birds/robin.wav   ->   id "birds/robin", image, audio, label folder = birds

The text of a row is in `robin.txt`, if there is one. Hidden files are left out, links to folders
are not followed, and the order is that of the ids: the same on every system.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from geomkit.data.entries import Rows
from geomkit.data.sources import regular
from geomkit.errors import SampleError

SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "image": (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jp2"),
    "audio": (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au"),
    "video": (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg"),
    "text": (".txt",),
}
_KINDS = {suffix: kind for kind, suffixes in SUFFIXES.items() for suffix in suffixes}


def rows(folder: Path) -> Rows:
    """The rows of all media under `folder`, by id.

    Raises:
        SampleError: there are none, or two files of one kind have one name.
    """
    found: dict[str, dict[str, str]] = {}
    for path in sorted(_files(folder), key=lambda path: path.as_posix()):
        kind = _KINDS.get(path.suffix.lower())
        if kind is None:
            continue
        row = found.setdefault(path.with_suffix("").as_posix(), {})
        if kind in row:
            raise SampleError(
                f"Expected one {kind} of each name in {folder}, got {row[kind]} and {path}: rename"
                " one, or write a manifest."
            )
        row[kind] = path.as_posix()
    media = {id_: row for id_, row in found.items() if row.keys() - {"text"}}
    if not media:
        raise SampleError(
            f"Expected images, sounds or videos in {folder}, found none:"
            f" {', '.join(s for kind in ('image', 'audio', 'video') for s in SUFFIXES[kind])}."
        )
    return (_row(folder, id_, media[id_]) for id_ in sorted(media))


def _files(folder: Path) -> Iterator[Path]:
    """Visible files, relative to `folder`."""
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (
            Path(place, name).relative_to(folder) for name in files if not name.startswith(".")
        )


def _row(folder: Path, id_: str, row: Mapping[str, str]) -> tuple[str, dict[str, object]]:
    cells: dict[str, object] = {"id": id_, **row}
    if "text" in row:
        cells["text"] = _caption(folder / row["text"])
    parent = Path(id_).parent.name
    where = f"{folder}/{id_}".encode(errors="backslashreplace").decode()  # names can be any bytes
    return where, {**cells, "labels": {"folder": parent}} if parent else cells


def _caption(path: Path) -> str | None:
    try:
        return regular(path).read_text(encoding="utf-8-sig").strip() or None
    except (OSError, UnicodeDecodeError) as cause:
        raise SampleError(f"Expected UTF-8 text in {path}: {cause}.") from cause
