"""A folder that is there whole or not at all: built hidden beside its place, renamed at the end.

    .NAME.training/    beside NAME: a rename is atomic within one file system only
        README.txt     whose it is; removed last
        lock           held by the process that builds; the system frees it when that one ends
        result/        what becomes NAME
        ...            what the next process must know to go on

A process that is killed leaves this behind. The next one that builds the same goes on from it where
there is something to go on from, and else begins anew. A folder of that name that is not ours is
left alone.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import filelock

from geomkit.errors import TrainingError
from geomkit.store.files import sync_folder

PURPOSE = "training"
README, LOCK, RESULT = "README.txt", "lock", "result"
OURS = "Left by a geomkit that was interrupted. The same command goes on from it.\n"


def _nothing(_result: Path) -> bool:
    return False


@contextmanager
def scaffold(
    out: Path, keeps: Callable[[Path], bool] = _nothing, purpose: str = PURPOSE
) -> Iterator[Path]:
    """Yield the folder to build in; it becomes `out` when the block ends without an error.

    When it does not, or when the process is killed, what there is stays for the next one if `keeps`
    says so of that folder, and is else removed, at the latest by the next one.

    Raises:
        TrainingError: `out` is in use or can never be renamed to, another process builds it, or
            the system refuses.
    """
    with _refusals(out):
        place = out.resolve()
        hidden = place.parent / f".{place.name}.{purpose}"
        lock = _locked(hidden, out)
    result = hidden / RESULT
    try:
        with _refusals(out):
            _check_free(out, place)
            if not keeps(result):
                _clear(hidden)
            result.mkdir(exist_ok=True)
        yield result
        _move(result, place)
    finally:
        with suppress(OSError):  # what cannot be removed now is removed by the next one
            if not keeps(result):
                _clear(hidden)
                for name in (README, LOCK):  # in this order, or what is left is not ours
                    (hidden / name).unlink(missing_ok=True)
                hidden.rmdir()
        lock.release()


@contextmanager
def _refusals(out: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as cause:  # a ring of links is a RuntimeError
        raise TrainingError(
            f"Expected a folder {out} that can be written, but {cause}: permit it, or choose "
            "another folder."
        ) from cause


def _check_free(out: Path, place: Path) -> None:
    if place.is_mount() or place == Path.cwd():
        raise TrainingError(
            f"Expected a folder that can be made anew, {out} is a disk or where you are: choose a "
            "folder in it."
        )
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise TrainingError(f"Expected {out} to be new or empty: choose another folder.")


def _locked(hidden: Path, out: Path) -> filelock.BaseFileLock:
    hidden.parent.mkdir(parents=True, exist_ok=True)
    if hidden.is_symlink() or (hidden.exists() and not _is_ours(hidden)):
        raise TrainingError(
            f"Expected {hidden} to be missing or what an interrupted geomkit left, it is neither: "
            "choose another folder, or move that one away."
        )
    hidden.mkdir(exist_ok=True)
    lock = filelock.FileLock(hidden / LOCK, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise TrainingError(
            f"Expected one process to write {out}, another one is at it: wait for it, or choose "
            "another folder."
        ) from None
    (hidden / README).write_text(OURS, encoding="utf-8")
    return lock


def _is_ours(hidden: Path) -> bool:
    """Whether a killed process of ours can have left this."""
    readme = hidden / README
    if readme.is_file():  # its writing may have been cut short
        return OURS.startswith(readme.read_text(encoding="utf-8", errors="replace"))
    return {p.name for p in hidden.iterdir()} <= {LOCK}


def _clear(hidden: Path) -> None:
    for path in hidden.iterdir():
        if path.name not in (README, LOCK):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _move(result: Path, out: Path) -> None:
    try:
        for path in (p for p in result.rglob("*") if p.is_file()):
            with path.open("rb") as file:
                os.fsync(file.fileno())  # or a power cut leaves the name without the bytes
        if out.exists():
            out.rmdir()
        result.rename(out)
        sync_folder(out.parent)
    except OSError as cause:
        raise TrainingError(
            f"Expected to rename {result}, which is whole, to {out}, but {cause}: take away what is"
            " in the way and give the same command again."
        ) from cause
