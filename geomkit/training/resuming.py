"""What an interrupted training goes on from: its kept steps, and how it knows that it is the same.

    NAME/training.json                 written last: what stands beside it is whole and proven
    NAME/checkpoints/resume.json       what was asked for: config, pairs, probe set and base
    NAME/checkpoints/checkpoint-100/   what trains; until the end the optimiser's state beside it

All of it is in a hidden folder until then, with what was asked for beside it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geomkit.errors import TrainingError
from geomkit.store.files import write_atomic
from geomkit.training.record import RECORD
from geomkit.vetting import read_object

ASKED = "asked.json"  # beside the result, until it is done
KEPT, RESUME, LOGS = "checkpoints", "resume.json", "logs"
STEP = "checkpoint-"
TRAINABLE = "trainable.safetensors"
WHOLE = "whole"  # written last into a kept step
RESUMING = ("optimizer.pt", "scheduler.pt", "rng_state*.pth", "trainer_state.json", WHOLE)


def worth_keeping(result: Path) -> bool:
    """True where there is a step to go on from, or nothing to do but to rename."""
    asked = (result.parent / ASKED).is_file()
    steps = (result / KEPT).glob(f"{STEP}*/{WHOLE}")
    return asked and ((result / RECORD).is_file() or any(steps))


def check_same(result: Path, asked: Mapping[str, Any], *, keeps: bool) -> Path | None:
    """The folder of kept steps, which this very training has made or makes now; None without any.

    Raises:
        TrainingError: another one made it; naming what differs.
    """
    stamp = result.parent / ASKED
    now = json.loads(json.dumps(asked))  # tuples are lists there
    if worth_keeping(result) and (other := _other(read_object(stamp), now)):
        raise TrainingError(
            f"Expected this training in {result}, interrupted, but its {', '.join(other)} differ: "
            "give the command of then to go on with it, choose another folder, or remove that one "
            "to begin anew."
        )
    written = json.dumps(now, sort_keys=True).encode()
    write_atomic(stamp, written)
    if not keeps:
        return None
    (result / KEPT).mkdir(exist_ok=True)
    write_atomic(result / KEPT / RESUME, written)  # a kept step says of what training it is
    return result / KEPT


def _other(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The parts that differ; of the config, which fields and how."""
    parts = [part for part in now if part != "config" and then.get(part) != now[part]]
    before = then.get("config") or {}
    fields = [
        f"{name} ({before.get(name)}, now {value})"
        for name, value in now["config"].items()
        if before.get(name) != value
    ]
    return [*fields, *parts]


def last_step(kept: Path | None) -> Path | None:
    """The last whole kept step; those that were cut short are removed."""
    found = sorted(kept.glob(f"{STEP}*"), key=number) if kept is not None else []
    whole = [folder for folder in found if _is_whole(folder)]
    for folder in found:
        if folder not in whole:
            shutil.rmtree(folder)
    return whole[-1] if whole else None


def seal(folder: Path) -> None:
    """Say that a kept step is whole, and how large its files are."""
    sizes = {p.name: p.stat().st_size for p in folder.iterdir() if p.is_file()}
    (folder / WHOLE).write_text(json.dumps(sizes, sort_keys=True), encoding="utf-8")


def _is_whole(folder: Path) -> bool:
    try:
        sizes = json.loads((folder / WHOLE).read_text(encoding="utf-8"))
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def number(folder: Path) -> int:
    """The step that was kept in a folder."""
    return int(folder.name.rpartition("-")[2])


def begin_again(result: Path) -> None:
    """Take away what a killed process had written of the result; kept steps and logs stay."""
    for path in result.iterdir():
        if path.name not in (KEPT, LOGS):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def finish(result: Path, *, adapters: bool) -> None:
    """Take away what only resuming needs; with `adapters` a kept step is then an adapter."""
    for folder in (result / KEPT).glob(f"{STEP}*"):
        for name in (*RESUMING, *((TRAINABLE,) if adapters else ())):
            for path in folder.glob(name):
                path.unlink()
