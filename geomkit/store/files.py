"""Files that are either whole or absent, and never followed anywhere else."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import filelock

from geomkit.errors import StoreError

LOCK_SECONDS = 120.0
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)  # absent on Windows, where links need privileges
CREATE = os.O_RDWR | os.O_CREAT | os.O_TRUNC | _NOFOLLOW
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)  # opening a FIFO would wait for a writer for ever


def open_regular(path: Path, limit: int) -> io.BufferedReader:
    """An open binary file that is regular, no link, and at most `limit` bytes.

    Raises:
        StoreError: it is missing, unreadable, something other than a file, or larger.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | _NOFOLLOW | _NONBLOCK)
    except FileNotFoundError:
        raise StoreError(f"{path} does not exist; capture it first") from None
    except OSError as error:
        raise StoreError(f"{path}: expected a regular file, got: {error.strerror}") from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise StoreError(f"{path}: expected a regular file, got a {_kind(status.st_mode)}")
    if status.st_size > limit:
        os.close(descriptor)
        raise StoreError(f"{path}: expected at most {limit} bytes, got {status.st_size}")
    return os.fdopen(descriptor, "rb")


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "folder", stat.S_IFIFO: "FIFO", stat.S_IFCHR: "character device"}
    return kinds.get(stat.S_IFMT(mode), "special file")


def exists(path: Path) -> bool:
    """True when anything is at `path`, a link to nowhere included.

    Raises:
        StoreError: the system refuses to say: no permission, or no name that it takes.
    """
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read: {error}; permit it or name another") from error
    return True


def entries(folder: Path) -> list[Path]:
    """What is in a folder, by name. Raises StoreError where it cannot be listed."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise StoreError(f"{folder} cannot be listed: {error.strerror}; permit reading") from error


def read_regular(path: Path, limit: int) -> bytes:
    """All bytes of a regular file of at most `limit` bytes. Raises like `open_regular`."""
    with open_regular(path, limit) as stream:
        return stream.read()


def write_atomic(path: Path, data: bytes) -> None:
    """Put `data` at `path`: written beside it, synced, renamed, the folder synced.

    A crash at any instant leaves the old file or the new one. The caller holds the run's lock: the
    temporary name is fixed, so what a killed writer left is overwritten instead of piling up.

    Raises:
        StoreError: the disk is full, the folder is read-only, or any other failure of the system.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        _write_synced(temporary, data)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise StoreError(
            f"{path} could not be written: {error.strerror or error}; "
            "make room or permit writing, then run the same command again"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _write_synced(path: Path, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _NOFOLLOW
    descriptor = os.open(path, flags, 0o644)
    try:
        rest = memoryview(data)
        while rest:  # a write may take less than it was given
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable."""
    if os.name == "nt":  # folders cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # without it a power cut can undo the rename
    finally:
        os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, durably. Raises StoreError where that is not possible."""
    try:
        missing = [f for f in (folder, *folder.parents) if not f.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for made in reversed(missing):
            sync_folder(made.parent)  # a power cut can undo the making, with all that is inside
    except OSError as error:
        raise StoreError(f"{folder} could not be created: {error.strerror}") from error


@contextlib.contextmanager
def write_lock(folder: Path) -> Iterator[None]:
    """Hold the run's lock while writing; readers need none, because writes are atomic.

    Raises:
        StoreError: another process held it for longer than two minutes.
    """
    try:
        lock = filelock.FileLock(folder / ".lock", timeout=LOCK_SECONDS)
        lock.acquire()
    except filelock.Timeout:
        raise StoreError(
            f"another process has been writing to {folder} for {LOCK_SECONDS:.0f} s; "
            "wait for it, or end it, and run again"
        ) from None
    except OSError as error:
        raise StoreError(f"{folder} cannot be locked for writing: {error.strerror}") from error
    try:
        yield
    finally:
        lock.release()


def sweep(folder: Path) -> None:
    """Remove what killed writers left in `folder` and its folders; the caller holds the lock."""
    for leftover in (*folder.glob(".*.tmp"), *folder.glob("*/.*.tmp")):
        with contextlib.suppress(OSError):
            leftover.unlink()
