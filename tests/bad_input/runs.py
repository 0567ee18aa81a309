"""What the corpus of hostile runs is made with: a small run, and a receipt for whatever is in it.

A hostile file comes with a receipt that matches it, so the reader's own checks are what refuses it.
A damaged file keeps the receipt of the good one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from geomkit.errors import StoreError
from geomkit.store import Run, open_run, verify_run
from geomkit.store.receipts import Receipt
from geomkit.store.records import from_json, to_json
from geomkit.store.shard import content_sha

Change = Callable[[Any, Path], None]  # of an open HDF5 file, and the folder beside the run
SECRET = b"a secret of the host" * 100
BOUND = ("v114", "v114")


def shard_path(run: Run) -> Path:
    return run.path / "base" / "shard-00000.h5"


def sign(run: Run) -> None:
    """Give the file that is there now a receipt that matches it."""
    path = shard_path(run)
    old = from_json(Receipt, path.with_suffix(".json"))
    data = path.read_bytes()
    receipt = dataclasses.replace(old, bytes=len(data), sha256=content_sha(data))
    path.with_suffix(".json").write_bytes(to_json(receipt))


def put(run: Run, data: bytes) -> None:
    """Put signed bytes in the place of the first shard."""
    shard_path(run).write_bytes(data)
    sign(run)


def spoil(run: Run, change: Change) -> None:
    """Change the first shard through HDF5, and sign it."""
    with h5py.File(shard_path(run), "r+", libver=BOUND) as file:
        change(file, run.path.parent)
    sign(run)


def refused(run: Run, message: str) -> None:
    """The first shard is refused with this message, and counts as absent everywhere."""
    again = open_run(run.path)
    with pytest.raises(StoreError, match=message):
        again.states("base", "embed")
    assert not again.has_shard("base", 0)
    assert not again.complete("base")
    assert len(verify_run(run.path)) == 1


def replace(name: str, data: Any = None, **options: Any) -> Change:
    """Put another dataset in the place of `name`."""

    def change(file: Any, _: Path) -> None:
        old = file[name][()]
        del file[name]
        given = old if data is None else data(old)
        settings = {"chunks": given.shape, "fletcher32": True, **options}
        file.create_dataset(name, data=given, **settings)

    return change


def first(value: bytes) -> Callable[[Any], Any]:
    """A change of a column of strings: another first one."""

    def change(old: Any) -> Any:
        width = max(len(value), old.dtype.itemsize)
        return np.array([value, *old[1:]], dtype=h5py.string_dtype("utf-8", width))

    return change


def attribute(name: str, value: Any) -> Change:
    """Another attribute at the root."""

    def change(file: Any, _: Path) -> None:
        file.attrs[name] = value

    return change
