"""Where a sample's encoded media lie: in a regular file, or in `Stored` bytes."""

from __future__ import annotations

import errno
import hashlib
import io
import stat
from pathlib import Path
from typing import BinaryIO

from geomkit.types import Stored


def regular(path: Path) -> Path:
    """`path` itself, when it is a regular file: reading a pipe or a device may never end.

    Raises:
        OSError: it is missing or something else; also for a name that no file can have.
    """
    try:
        mode = path.stat().st_mode
    except ValueError as cause:  # a NUL in the name
        raise OSError(errno.ENOENT, "no such file") from cause
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "no regular file")
    return path


def readable(source: Path | Stored) -> Path | BinaryIO:
    """What a decoder takes: the path of a regular file, or the stored bytes in memory.

    Raises:
        OSError: there are no such bytes.
        SampleError: they cannot be fetched.
    """
    return io.BytesIO(source.read()) if isinstance(source, Stored) else regular(source)


def encoded_sha(source: Path | Stored) -> str:
    """sha256 of the encoded bytes.

    Raises:
        OSError: there are no such bytes.
        SampleError: they cannot be fetched.
    """
    if isinstance(source, Stored):
        return hashlib.sha256(source.read()).hexdigest()
    with regular(source).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
