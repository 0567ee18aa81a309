"""A walk through a whole file of a run, whichever of the three forms it has: shard, tokens, packed.

This is what the child process does. A seal at the end makes a packed run; else the name tells.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from geomkit.errors import StoreError
from geomkit.store import packed, shard, tokens
from geomkit.store.seal import has_seal


def walk(stream: BinaryIO, size: int, name: str) -> None:
    """Parse a file: structure, tables, the index of every chunk, one site's states.

    Raises:
        StoreError: anything in the file is not as its format says; `name` is the file's name.
    """
    if has_seal(stream):
        _packed(stream, size, name)
    elif Path(name).name.startswith("tokens-"):
        _tokens(stream, size, name)
    else:
        _shard(stream, size, name)


def _shard(stream: BinaryIO, size: int, name: str) -> None:
    found = shard.read_table(stream, size, name)
    for pooling in found.poolings:
        try:
            shard.read_site(stream, pooling, 0)
        except StoreError as error:
            raise StoreError(f"{name}: {error}; capture again to redo it") from error


def _tokens(stream: BinaryIO, size: int, name: str) -> None:
    table = tokens.read_table(stream, size, name)
    try:
        tokens.read_row(stream, table, 0, 0)
    except StoreError as error:
        raise StoreError(f"{name}: {error}; capture again to redo it") from error


def _packed(stream: BinaryIO, size: int, name: str) -> None:
    content = packed.read_content(stream, size, name)
    try:
        for held in content.checkpoints:
            for pooling in held.table.poolings:
                shard.read_site(stream, pooling, 0, held.group)
            if held.tokens is not None:
                tokens.read_row(stream, held.tokens, 0, 0, held.tokens_group)
    except StoreError as error:
        raise StoreError(f"{name}: {error}; pack the run again") from error
