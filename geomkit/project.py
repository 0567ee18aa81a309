"""The project's geomkit.toml: where it is, and what it holds as seen from the working folder."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from geomkit.errors import UsageError
from geomkit.places import expanded

FILE = "geomkit.toml"
ROOTS = (".git", "pyproject.toml")  # what the root of a project has
LARGEST = 1 << 20  # bytes of a file that people write by hand
FOLDERS = ("media_root", "url_cache")  # options of capture that are always paths
LISTED = 6  # names in a sentence


def find(start: Path) -> Path | None:
    """The nearest geomkit.toml from `start` up to the project's root, or None.

    Outside a project only `start` itself is looked at: a file that lies in a folder above, which
    anyone may have written, says nothing about this work.
    """
    here = start.resolve()
    above = [here, *here.parents]
    root = next((i for i, f in enumerate(above) if any(_there(f / n) for n in ROOTS)), 0)
    found = next((f / FILE for f in above[: root + 1] if _there(f / FILE)), None)
    return None if found is None else Path(os.path.relpath(found))


def read(path: Path, sections: Collection[str]) -> dict[str, Any]:
    """What a file says, its relative paths leading there from the working folder.

    Raises:
        UsageError: the file is missing, is no TOML or has a section that is not in `sections`.
    """
    if not _there(path) or not path.is_file():  # a pipe or a device may never end
        raise UsageError(f"Expected a TOML file at {path}, found none: check --config.")
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"more than {LARGEST >> 20} MiB, the most that is read")
        written = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as cause:
        raise UsageError(f"Expected TOML in {path}: {cause}.") from cause
    if unknown := [section for section in written if section not in sections]:
        raise UsageError(
            f"Expected sections {listed(sections)} in {path}, got"
            f" '{unknown[0]}'{near(unknown[0], sections)}."
        )
    return _from_here(written, path.parent)


def _from_here(written: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The same with paths that are relative to `folder` made so that they lead there from here."""
    moved = dict(written)
    for section in ("checkpoints", "data"):
        if isinstance(written.get(section), dict):
            moved[section] = {k: _moved(v, folder) for k, v in written[section].items()}
    if isinstance(written.get("capture"), dict):
        given = written["capture"]
        paths = {k: given[k] for k in FOLDERS if isinstance(given.get(k), str) and given[k]}
        moved["capture"] = given | {k: _moved(_as_path(v), folder) for k, v in paths.items()}
    return moved


def _as_path(value: str) -> str:
    """A path that `_moved` knows for one."""
    return value if expanded(value).is_absolute() else f"./{value}"


def _moved(value: Any, folder: Path) -> Any:
    if isinstance(value, dict) and "source" in value:
        return value | {"source": _moved(value["source"], folder)}
    if not isinstance(value, str) or not value or "\0" in value:
        return value
    path = expanded(value)
    if path.is_absolute():
        return str(path)
    if value.startswith(("./", "../")) or _there(folder / path):
        there = os.path.relpath(folder / path)
        return there if there.startswith("..") else f"./{there}"
    kind, colon, rest = value.partition(":")  # `kind:path`, as data of a known form is named
    return f"{kind}:{_moved(rest, folder)}" if colon and _there(folder / rest) else value


def _there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # too long a name, or not ours to look at
        return False


def listed(names: Iterable[str]) -> str:
    """The first names, for a sentence."""
    shown = list(names)
    return ", ".join(shown[:LISTED]) + (", ..." if len(shown) > LISTED else "")


def near(name: str, known: Iterable[str]) -> str:
    """The end of a sentence: names that may have been meant, if any."""
    found = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"; near names: {', '.join(found)}" if found else ""
