"""Where a sample's encoded media lie: in a regular file, or in `Stored` bytes."""

from __future__ import annotations

import errno
import hashlib
import io
import stat
from pathlib import Path
from typing import BinaryIO

from geomkit.errors import SampleError
from geomkit.types import Stored

AT_ONCE = 2**28
"""Bytes of the largest file that is read whole, 256 MiB: a longer video is streamed."""


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


def unchanged(source: Path | Stored, sha: str) -> Path | Stored:
    """The same content, once its bytes have this sha256; those that were hashed are handed on.

    Raises:
        OSError: there are no such bytes.
        SampleError: they are others, or cannot be fetched.
    """
    if isinstance(source, Path) and regular(source).stat().st_size > AT_ONCE:
        found: Path | Stored = source
        ours = encoded_sha(source)
    else:
        data = source.read() if isinstance(source, Stored) else regular(source).read_bytes()
        found, ours = Stored(source.name, lambda: data), hashlib.sha256(data).hexdigest()
    if ours != sha:
        raise SampleError("changed since the plan was made")
    return found


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
