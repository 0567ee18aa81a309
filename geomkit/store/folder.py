"""Making, opening and finding run folders."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from geomkit.errors import StoreError
from geomkit.store import files, records
from geomkit.store.names import check_plan
from geomkit.store.packed import PackedRun, begins_packed, content_remembered, is_packed
from geomkit.store.run import Run
from geomkit.store.unlike import unlike
from geomkit.types import Plan


def create_run(path: Path, plan: Plan, *, force: bool = False) -> Run:
    """The run of `plan` at `path`: new, or the one that is there when its plan is the same.

    With `force` a run of another plan is replaced, and without it when it holds no shard yet: there
    is nothing to lose. A folder that is no run is never touched.

    Raises:
        StoreError: another plan is there, the folder holds something else, or cannot be written.
    """
    path = Path(path)
    check_plan(plan)
    check_place(path)
    files.make_folder(path)
    with files.write_lock(path):
        files.sweep(path)
        if files.exists(path / "plan.json"):
            held = open_run(path)
            if held.plan_hash == plan.hash:
                return held
            if not force and any(path.glob("*/shard-*.json")):
                raise StoreError(
                    f"{path} holds a run of plan {held.plan_hash[:12]}, and this is plan "
                    f"{plan.hash[:12]}: {unlike(held.plan, plan)}; choose another folder (--out), "
                    "or replace the run (--force)"
                )
            try:
                _clear(path)
            except OSError as error:
                raise StoreError(f"{path} could not be replaced: {error}") from error
        elif any(not entry.name.startswith(".") for entry in files.entries(path)):
            raise StoreError(
                f"{path} is not empty and no run (no plan.json); choose another folder"
            )
        files.write_atomic(path / "plan.json", plan.to_json().encode())
    return Run(path, plan, plan.hash)  # not read again: a plan of many rows is held once


def check_place(path: Path) -> None:
    """Raise StoreError where a file stands in the way of a run folder; nothing is made."""
    for place in (path, *path.parents):
        if place.exists():
            break
    if not place.is_dir():
        raise StoreError(f"{place} is a file, and a run is a folder; choose another folder (--out)")


def check_run(path: Path) -> None:
    """Raise StoreError where nothing of a run is, not even of a damaged one."""
    if not files.exists(path):  # in words also for a name that no file can have
        raise StoreError(none_at(path))
    folder = ("plan.json", "*/checkpoint.json", "*/shard-*.json")
    if any(next(path.glob(name), None) for name in folder):
        return
    if not (path.is_file() and (is_packed(path) or begins_packed(path))):
        raise StoreError(none_at(path))


def none_at(path: Path) -> str:
    """That there is no run, in a sentence."""
    return (
        f"{path} is no run: no folder with a plan.json, and no packed run; make one with "
        "`geomkit capture`"
    )


def _clear(path: Path) -> None:
    """Remove what a run's writers wrote, and nothing else."""
    own = ("shard-*.json", "shard-*.h5", "tokens-*.h5", "checkpoint.json")
    made = ("media/*.webp", "media/*.wav", "analysis.*", "umap-*.json")
    for pattern in (*(f"*/{name}" for name in own), *made):
        for file in path.glob(pattern):
            if not file.parent.is_symlink():
                file.unlink()
    shutil.rmtree(path / ".estimates", ignore_errors=True)  # of a link it removes nothing
    for folder in path.iterdir():
        with contextlib.suppress(OSError):  # not empty: something of the user's is in it
            if folder.is_dir() and not folder.is_symlink():
                folder.rmdir()


def open_run(path: Path) -> Run:
    """The run at `path`, a folder or a packed file; states are checked when they are read.

    Raises:
        StoreError: there is no run, or its plan is damaged.
    """
    path = Path(path)
    if is_packed(path):
        content = content_remembered(path)
        return PackedRun(path, content.plan, content.plan_hash)
    if not files.exists(path / "plan.json"):
        raise StoreError(none_at(path))
    plan = records.from_json(Plan, path / "plan.json")
    check_plan(plan)
    return Run(path, plan, plan.hash)


def latest_run(folder: Path) -> Path:
    """The newest run at `folder` or up to two levels below it, by when its plan was written.

    A packed run is found by its own name only.

    Raises:
        StoreError: there is none.
    """
    folder = Path(folder)
    if is_packed(folder):
        return folder
    below = (*sorted(folder.glob("*/plan.json")), *sorted(folder.glob("*/*/plan.json")))
    plans = [p for p in (folder / "plan.json", *below) if p.is_file()]
    if not plans:
        raise StoreError(
            f"no run at {folder} or two levels below it; make one with `geomkit capture`"
        )
    return max(plans, key=lambda plan: (plan.stat().st_mtime_ns, plan)).parent
