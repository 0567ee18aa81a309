"""The door: the one place where the bytes of a run's file are first believed.

    open (regular, no link) -> size and sha256 -> a child parses what is not ours -> parse here

In that order: damaged bytes can make the HDF5 library loop, and never get that far. Bytes that are
as their receipt says, and that this process did not write, a child process parses first.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

from geomkit.errors import StoreError
from geomkit.store import files, quarantine
from geomkit.store.quarantine import Identity
from geomkit.store.seal import check_seal

MAX_FILE_BYTES = 8 << 30  # of a shard or its tokens, which are made in memory
_ANY = 1 << 62
T = TypeVar("T")
Parse = Callable[[BinaryIO, int, str], T]


def open_file(path: Path, limit: int = _ANY) -> io.BufferedReader:
    """An open file of a run. Raises StoreError like `files.open_regular`."""
    return files.open_regular(path, limit)


def identity(path: Path) -> Identity:
    """Which file is at `path` and when it last changed: equal for as long as nobody touched it."""
    with open_file(path) as stream:
        return quarantine.identity(os.fstat(stream.fileno()))


def first_read(path: Path, size: int, sha256: str, parse: Parse[T]) -> T:
    """What `parse` makes of the file at `path`, once it has the stated size and sha256.

    Raises:
        StoreError: it has not, or its content is not as the format says.
    """
    with open_file(path, MAX_FILE_BYTES) as stream:
        status = os.fstat(stream.fileno())
        found = hashlib.file_digest(stream, "sha256").hexdigest()
        if (status.st_size, found) != (size, sha256):
            raise StoreError(
                f"{path} is not what its receipt says: expected {size} bytes with sha256 "
                f"{sha256[:12]}, got {status.st_size} with {found[:12]}; capture again to redo it"
            )
        quarantine.admit(path, found, status)
        return parse(stream, status.st_size, str(path))


def sealed_read(path: Path, parse: Parse[T]) -> T:
    """`first_read` of a packed run, whose size and sha256 its own seal states."""
    with open_file(path) as stream:
        status = os.fstat(stream.fileno())
        quarantine.admit(path, check_seal(stream, str(path)), status)
        return parse(stream, status.st_size, str(path))
