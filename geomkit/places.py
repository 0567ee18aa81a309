"""NAME[=SOURCE] to the place where a checkpoint's files are; nothing is loaded.

SOURCE is a folder with a model, a folder with a PEFT adapter, a hub id (`org/name[@revision]`) or
a built-in name. A folder `./NAME` wins over the built-in of that name; what was used is recorded.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from geomkit import fingerprints
from geomkit.errors import CheckpointError, UsageError

BUILT_IN = ("base", "lco")
ADAPTER_CONFIG = "adapter_config.json"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?")


@dataclass(frozen=True, slots=True)
class CheckpointSpec:
    """A checkpoint as the user names it."""

    name: str
    source: str

    @classmethod
    def parse(cls, text: str) -> CheckpointSpec:
        """NAME=SOURCE, or a source alone, whose last part is then the name.

        Raises:
            UsageError: the name cannot be a folder's name.
        """
        name, equals, source = text.partition("=")
        source = source if equals else text
        bare = source.rstrip("/").rpartition("/")[2].partition("@")[0].rpartition(":")[2]
        name = name if equals else bare
        if not NAME.fullmatch(name) or name == "media" or not source:
            raise UsageError(
                f"Expected NAME=SOURCE with a NAME of letters, digits, '.', '_', '-', got '{text}'."
            )
        return cls(name, source)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a checkpoint's files are. `base` is set for an adapter."""

    where: str  # a folder, or a hub id
    described: str
    revision: str | None = None
    base: Place | None = None

    @property
    def local(self) -> bool:
        """True for a folder."""
        return Path(self.where).is_dir()

    @property
    def model(self) -> Place:
        """The place of the full model: this one, or the adapter's base."""
        return self.base or self


def locate(source: str) -> Place:
    """Find a source: built-in, folder (which wins over a built-in name) or hub id.

    Raises:
        CheckpointError: nothing is there; near names are listed.
    """
    folder = Path(source).expanduser()
    if _is_checkpoint(folder):
        shown = source if "/" in source else f"./{source}"
        return _folder(folder, f"{shown} (folder)")
    built_in = source.removeprefix("sandbox:")
    if built_in in BUILT_IN:
        from geomkit import sandbox  # only a built-in needs it

        return _folder(sandbox.checkpoint_path(built_in), f"sandbox:{built_in} (built in)")
    if folder.is_dir():
        raise CheckpointError(
            f"Expected config.json or {ADAPTER_CONFIG} in {source}, found neither: this folder is"
            " no checkpoint."
        )
    if HUB_ID.fullmatch(source):
        where, _, revision = source.partition("@")
        return Place(where, f"{source} (hub)", revision or None)
    near = difflib.get_close_matches(source, _known(), n=3, cutoff=0.3) or list(BUILT_IN)
    raise CheckpointError(
        f"Expected a folder, a hub id (org/name) or a built-in checkpoint, got '{source}';"
        f" near names: {', '.join(near)}."
    )


def _is_checkpoint(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("config.json", ADAPTER_CONFIG))


def _known() -> list[str]:
    return [*BUILT_IN, *(p.name for p in sorted(Path().iterdir()) if _is_checkpoint(p))]


def _folder(folder: Path, described: str) -> Place:
    place = Place(str(folder), described)
    if not (folder / ADAPTER_CONFIG).is_file():
        return place
    base = json_beside(place, ADAPTER_CONFIG).get("base_model_name_or_path")
    if not base:
        raise CheckpointError(f"Expected base_model_name_or_path in {folder / ADAPTER_CONFIG}.")
    # A relative base beside the adapter is taken before one in the working directory.
    beside = folder / str(base)
    found = locate(str(beside) if _is_checkpoint(beside) else str(base))
    if found.base is not None:
        raise CheckpointError(f"Expected a full model as the base of {folder}, got an adapter.")
    return replace(place, base=found)


def json_beside(place: Place, name: str) -> dict[str, Any]:
    """A JSON object beside the weights, or {} when there is none."""
    path = Path(place.where) / name
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as cause:
        raise CheckpointError(f"Expected JSON in {path}: {cause}.") from cause
    if not isinstance(found, dict):
        raise CheckpointError(f"Expected a JSON object in {path}, got {type(found).__name__}.")
    return found


def same_weights(a: Place, b: Place) -> bool:
    """True when two places hold the same model: one folder or hub id, or byte-equal files."""
    if not (a.local and b.local):
        return (a.where, a.revision) == (b.where, b.revision)
    first, second = Path(a.where), Path(b.where)
    if first.resolve() == second.resolve():
        return True
    files = [
        {p.name: p.stat().st_size for p in sorted([*f.glob("*.safetensors"), f / "config.json"])}
        for f in (first, second)
    ]
    return files[0] == files[1] and all(
        fingerprints.file_sha(first / name) == fingerprints.file_sha(second / name)
        for name in files[0]
    )
