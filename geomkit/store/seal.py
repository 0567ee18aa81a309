"""The seal of a packed run: the sha256 of everything before it, in the file's last line.

HDF5 reads what its own header says and never looks behind it, so a packed run carries its hash with
it, and any change, by HDF5 itself too, breaks it.
"""

from __future__ import annotations

import hashlib
import os
from typing import BinaryIO

from geomkit.errors import StoreError

MAGIC = b"\ngeomkit-seal/1 "
SIZE = len(MAGIC) + 64 + 1


def seal(sha256: str) -> bytes:
    """The line that ends a file whose bytes so far have this sha256."""
    return MAGIC + sha256.encode("ascii") + b"\n"


def has_seal(stream: BinaryIO) -> bool:
    """True when the stream ends like a packed run; whether the seal holds is another question."""
    end = stream.seek(0, os.SEEK_END)
    stream.seek(max(0, end - SIZE))
    last = stream.read(SIZE)
    stream.seek(0)
    return len(last) == SIZE and last.startswith(MAGIC) and last.endswith(b"\n")


def check_seal(stream: BinaryIO, name: str) -> str:
    """The sha256 of the sealed bytes of a stream, once they are hashed and have it.

    Raises:
        StoreError: there is no seal, or the bytes before it are others.
    """
    if not has_seal(stream):
        raise StoreError(
            f"{name} is no packed run: it does not end with a seal; make one with `geomkit pack`"
        )
    left = stream.seek(0, os.SEEK_END) - SIZE
    stream.seek(0)
    digest = hashlib.sha256()
    while left and (block := stream.read(min(left, 1 << 20))):
        digest.update(block)
        left -= len(block)
    stated = stream.read(SIZE)
    stream.seek(0)
    if stated != seal(digest.hexdigest()):
        raise StoreError(
            f"{name} is not what its seal says: its bytes have sha256 {digest.hexdigest()[:12]}; "
            "it was changed or damaged, pack the run again"
        )
    return digest.hexdigest()
