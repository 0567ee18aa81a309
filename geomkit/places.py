"""NAME[=SOURCE] to the place where a checkpoint's files are; nothing is loaded.

SOURCE is a folder with a model, a PEFT adapter or a sentence-transformers model, a hub id
(`org/name[@revision]`) or a built-in name. A folder `./NAME` wins over the built-in of that name;
what was used is recorded. A hub id becomes a folder too: its files at one commit, in the cache.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from geomkit import hub, vetting
from geomkit.errors import CheckpointError, UsageError

BUILT_IN = ("base", "lco")
SANDBOX = "sandbox:"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
TAKEN = re.compile(r"media|.*\.(json|csv|html|h5|tmp|lock)", re.IGNORECASE)  # files of a run
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?", re.ASCII)
TRAINING, RESUME = "training.json", "resume.json"
OF_EVERY_STEP = ("base", "source", "pairs", "pairs_sha", "instruction", "trained", "media")
SHORT = 12  # characters of a commit that people read


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
        if not source:
            raise UsageError(f"Expected NAME=SOURCE, got no source in '{text}'.")
        check_name(name)
        return cls(name, source)


def check_name(name: str) -> None:
    """Raise UsageError unless a name can be a folder of a run, on any file system."""
    if not NAME.fullmatch(name):
        raise UsageError(
            "Expected NAME=SOURCE with a NAME of letters, digits, '.', '_', '-', at most 64, got"
            f" the name '{name}'."
        )
    if TAKEN.fullmatch(name) or DEVICES.fullmatch(name) or name.endswith("."):
        raise UsageError(
            f"Expected NAME=SOURCE with a NAME that can be a folder of the run, got '{name}',"
            " which a run or a file system keeps for itself: choose another."
        )


def check_distinct(specs: Sequence[CheckpointSpec]) -> None:
    """Raise UsageError when two checkpoints would share a folder, on any file system."""
    seen: dict[str, CheckpointSpec] = {}
    for spec in specs:
        other = seen.setdefault(spec.name.casefold(), spec)
        if other is not spec:
            raise UsageError(
                f"Expected one checkpoint a name, got '{other.name}' and '{spec.name}': write"
                f" NAME=SOURCE, as in --ckpt {other.name}={other.source}"
                f" --ckpt {other.name}2={spec.source}."
            )


@dataclass(frozen=True, slots=True)
class Place:
    """Where a checkpoint's files are. `base` is set for an adapter."""

    where: str  # a folder; for a hub id, its files in the cache at one commit
    described: str  # the source as it was named, then in parentheses what it turned out to be
    revision: str | None = None  # the commit, for a hub id
    base: Place | None = None
    repo: str = ""  # the hub repository, "" for a folder

    @property
    def model(self) -> Place:
        """The place of the full model: this one, or the adapter's base."""
        return self.base or self


def locate(source: str, *, weights: bool = True) -> Place:
    """Find a source: built-in, folder (which wins over a built-in name) or hub id.

    With `weights=False` no weights are fetched from the hub, nor missed.

    Raises:
        CheckpointError: nothing is there, near names are listed; or it is none that can be read.
    """
    place = _find(source)
    if weights:
        for one in (place, place.base):
            if one is not None:
                _complete(one)
    return place


def _find(source: str, *, adapters: bool = True) -> Place:
    folder = expanded(source)
    if _holds_checkpoint(folder):
        return _read(folder, source if "/" in source else f"./{source}", "folder", adapters)
    check_source(source)
    name = source.removeprefix(SANDBOX)
    if name in BUILT_IN:
        from geomkit import sandbox  # only a built-in needs it

        return _read(sandbox.checkpoint_path(name), f"{SANDBOX}{name}", "built in", adapters)
    return _from_hub(source, adapters)


def check_source(source: str, names: Iterable[str] = ()) -> None:
    """Raise CheckpointError unless a source may be a checkpoint; the hub is not asked.

    `names` are more names that can be meant; near ones are listed.
    """
    folder = expanded(source)
    if _holds_checkpoint(folder) or source.removeprefix(SANDBOX) in BUILT_IN:
        return
    if source and _is_folder(folder):
        raise CheckpointError(
            f"Expected {vetting.CONFIG} or {vetting.ADAPTER_CONFIG} in {source}, found neither:"
            " this folder is no checkpoint."
        )
    if HUB_ID.fullmatch(source) and ".." not in source:
        return
    known = list(dict.fromkeys([*names, *BUILT_IN, *_folders_here()]))
    near = difflib.get_close_matches(source, known, n=3, cutoff=0.3) or known[:6]
    raise CheckpointError(
        f"Expected a folder, a hub id (org/name[@revision]) or a built-in checkpoint, got"
        f" '{source}'; near names: {', '.join(near)}."
    )


def expanded(text: str) -> Path:
    """The path that a text is, `~` read as the home folder where there is one."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # `~name` of nobody here
        return Path(text)


def _is_folder(path: Path) -> bool:
    """True for a folder; one that may not be looked at, or that no file can be called, is none."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def _holds_checkpoint(folder: Path) -> bool:
    return _is_folder(folder) and vetting.is_checkpoint(folder)


def _folders_here() -> list[str]:
    try:
        return [p.name for p in sorted(Path().iterdir()) if vetting.is_checkpoint(p)]
    except OSError:  # a working folder that may not be listed, or is gone
        return []


def _from_hub(source: str, adapters: bool) -> Place:
    repo, _, revision = source.partition("@")
    folder = hub.description(repo, revision or None)
    if not vetting.is_checkpoint(folder):
        raise CheckpointError(
            f"Expected {vetting.CONFIG} or {vetting.ADAPTER_CONFIG} in the repository {source},"
            " found neither: it holds no checkpoint that transformers or PEFT reads."
        )
    return replace(_read(folder, source, "hub", adapters), repo=repo, revision=folder.name)


def _read(folder: Path, source: str, kind: str, adapters: bool) -> Place:
    """The place of a folder, after a look at what it says of itself."""
    where, after = vetting.transformer(folder)
    if after:
        kind += f"; a sentence-transformers model, whose {' and '.join(after)} are not applied"
    if not (where / vetting.ADAPTER_CONFIG).is_file():
        vetting.check_model(where)
        return Place(str(where), f"{source} ({kind})")
    if not adapters:
        raise CheckpointError(f"Expected a full model, got the adapter {source}.")
    named, base = _base_of(where)
    if kind != "built in":
        at = f" at {base.revision[:SHORT]}" if base.revision else ""
        shown = Path(named).name if Path(named).is_absolute() else named
        kind += f"; an adapter on {shown}{at}"
    return Place(str(where), f"{source} ({kind})", base=base)


def _base_of(adapter: Path) -> tuple[str, Place]:
    """The full model that an adapter names, as it names it, and where that is."""
    config = vetting.check_adapter(adapter)
    named, revision = config["base_model_name_or_path"], config.get("revision")
    # PEFT writes the path as it was where training ran: so a relative one is looked for in the
    # adapter's folder, beside it, and only then here, where another model may have that name.
    near = [adapter / named, adapter.resolve().parent / named]
    beside = next((str(folder) for folder in near if _holds_checkpoint(folder)), None)
    if revision and HUB_ID.fullmatch(named) and not _is_folder(Path(named)):
        named = f"{named.partition('@')[0]}@{revision}"
    try:
        found = _find(beside or named, adapters=False)
    except CheckpointError as cause:
        raise CheckpointError(
            f"Expected a full model as the base of {adapter}, which its {vetting.ADAPTER_CONFIG}"
            f" names: {cause} It was looked for in the adapter's folder, beside it and here: write"
            " base_model_name_or_path as a path from the adapter's folder."
        ) from cause
    return named, found


def _complete(place: Place) -> None:
    """Fetch the weights of a place where the hub has them, or miss them."""
    folder = Path(place.where)
    if place.repo:
        inside = "" if folder.name == place.revision else f"{folder.name}/"
        files = tuple(f"{inside}{name}" for name in vetting.weight_files(folder))
        hub.weights(place.repo, str(place.revision), files)
    vetting.check_weights(folder)


def json_beside(place: Place, name: str) -> dict[str, Any]:
    """A JSON object beside the weights, or {} when there is none."""
    return vetting.read_object(Path(place.where) / name)


def training_of(folder: Path) -> dict[str, Any]:
    """What is on paper of the training of an adapter or checkpoint; {} when nothing is.

    A step that a training kept has its settings and its base beside all steps, and what training
    saw where it ended.
    """
    found = vetting.read_object(folder / TRAINING)
    steps = folder.resolve().parent
    if found or not (kept := vetting.read_object(steps / RESUME)):
        return found
    end = vetting.read_object(steps.parent / TRAINING)
    return {
        "trained": [],  # until it has ended, nothing says what it saw
        **{name: end[name] for name in OF_EVERY_STEP if name in end},
        "config": kept.get("config"),
        "base_regions": kept.get("base"),
    }


def same_weights(a: Place, b: Place) -> bool:
    """True when two places hold the same model: one folder, or byte-equal files."""
    from geomkit import fingerprints  # it brings torch, which naming a checkpoint does not need

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
