"""A run folder as one file: streamed site by site, sealed, and put in place in one step.

HDF5 crashes a process whose disk runs full under it. So it writes to a file object that remembers
the refusal and lets HDF5 believe that all is well until it is closed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from geomkit.errors import StoreError
from geomkit.store import files, quarantine, records, shard, tokens
from geomkit.store.datasets import BOUND, fixed_strings, new_states, put, put_blob, write_part
from geomkit.store.packed import FORMAT, VERSION, PackedRun, Receipts, is_packed, read_content
from geomkit.store.reading import Entry
from geomkit.store.run import Run, preview_name
from geomkit.store.seal import seal
from geomkit.store.shard import ShardRows


class Sink(io.FileIO):
    """A file that takes every write; the first one that the system refused is in `error`."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of `data`, or remember why not."""
        rest = memoryview(data).cast("B")
        whole = len(rest)
        try:
            while rest and self.error is None:  # a write may take less than it was given
                rest = rest[os.write(self.fileno(), rest) :]
        except OSError as error:
            self.error = error
        return whole

    def truncate(self, size: int | None = None) -> int:
        """Set the file's size, or remember why not."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0

    def check(self) -> None:
        """Raise the OSError of the first write that was refused."""
        if self.error is not None:
            raise self.error


def pack_run(run: Run, path: Path, *, force: bool = False) -> Path:
    """Write a complete run into the one file `path`; equal runs give equal bytes.

    Memory is that of one site of one checkpoint. An older packed run at `path` is replaced with
    `force` only; anything else there is never touched.

    Raises:
        StoreError: a checkpoint is incomplete or damaged, `path` is taken, or the disk refuses.
    """
    path = Path(path)
    _check_complete(run)
    _check_free(path, force=force)
    files.make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.tmp")
    with files.write_lock(path.parent):
        try:
            _write(run, temporary)
            temporary.replace(path)
            files.sync_folder(path.parent)
        except OSError as error:
            raise StoreError(
                f"{path} could not be written: {error.strerror or error}; make room or permit "
                "writing, then pack again"
            ) from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    return path


def _check_complete(run: Run) -> None:
    if isinstance(run, PackedRun):
        raise StoreError(f"{run.path} is packed already; copy the file")
    if not run.checkpoints():
        raise StoreError(f"{run.path} holds no checkpoint yet; capture one first")
    for record in run.checkpoints():
        for _ in run.parts(record.name):  # raises at the first shard that is not there or damaged
            pass


def _check_free(path: Path, *, force: bool) -> None:
    if not files.exists(path):
        return
    if not is_packed(path):
        raise StoreError(f"{path} is there and no packed run; choose another name")
    if not force:
        raise StoreError(f"{path} is there already; choose another name, or replace it (--force)")


def _write(run: Run, temporary: Path) -> None:
    with Sink(os.open(temporary, files.CREATE, 0o644), "w+b") as sink:
        try:
            with h5py.File(sink, "w", libver=BOUND) as file:
                for _ in _fill(file, run):
                    sink.check()
        except (OSError, RuntimeError):
            sink.check()  # what HDF5 says of it hides the cause
            raise
        sink.check()
        sink.seek(0)
        sha = hashlib.file_digest(sink, "sha256").hexdigest()
        sink.seek(0, os.SEEK_END)
        sink.write(seal(sha))
        os.fsync(sink.fileno())
        sink.check()
    quarantine.trust(sha)
    with temporary.open("rb") as stream:
        read_content(stream, temporary.stat().st_size, str(temporary))


def _fill(file: Any, run: Run) -> Iterator[None]:
    """Write everything, and stop for a look at the disk after each large piece."""
    file.attrs["format"] = np.bytes_(FORMAT)
    file.attrs["version"] = np.int64(VERSION)
    file.attrs["plan_hash"] = np.bytes_(run.plan_hash)
    put_blob(file, "plan", run.plan.to_json().encode())
    checkpoints = file.create_group("checkpoints")
    for entry in run.entries():
        yield from _checkpoint(checkpoints.create_group(entry.record.name), run, entry)
    yield from _media(file, run)
    if run.has_analysis():
        run.read_analysis()  # one that is of another plan is refused here
        put_blob(file, "analysis", run.analysis_bytes()[1])


def _checkpoint(group: Any, run: Run, entry: Entry) -> Iterator[None]:
    record = entry.record
    table = _table(run, record.name)
    shard.put_attributes(
        group, shard.FORMAT, shard.VERSION, run.plan_hash, records.checkpoint_hash(record)
    )
    put_blob(group, "record", records.to_json(entry))
    put_blob(group, "receipts", records.to_json(Receipts(run.receipts(record.name))))
    for name, values in shard.columns(table, record.sites).items():
        put(group, name, values, (len(values),))
    shape = (len(run.plan.rows), len(record.sites), record.dim)
    for pooling in sorted(run.plan.poolings):
        dataset = new_states(group, f"states/{pooling}", shape, shard.DEPTH, run.plan.store_dtype)
        for number, site in enumerate(record.sites):
            states, _ = run.states(record.name, site, pooling)
            write_part(dataset, (0, number, 0), states[:, None, :])
            yield
    kept = [receipt.tokens is not None for receipt in run.receipts(record.name)]
    if all(kept):
        yield from _tokens(group.create_group("tokens"), run, entry, table)
    elif any(kept):
        raise StoreError(
            f"{record.name}: shard {kept.index(False)} has no token states and others have; run "
            "the capture again with --tokens"
        )


def _table(run: Run, checkpoint: str) -> ShardRows:
    """The samples of all shards in plan order."""
    count = len(run.plan.rows)
    ok, n_tokens = np.zeros(count, bool), np.zeros(count, np.int32)
    shas, notes = [""] * count, [""] * count
    for part in run.parts(checkpoint):
        index = part.table.index
        ok[index], n_tokens[index] = part.table.ok, part.table.n_tokens
        for position, row in enumerate(index.tolist()):
            shas[row], notes[row] = part.table.token_sha[position], part.table.notes[position]
    rows = run.plan.rows
    return ShardRows(
        states={}, index=np.arange(count), ids=[row.id for row in rows],
        modality=[row.modality for row in rows], ok=ok, n_tokens=n_tokens, token_sha=shas,
        notes=notes,
    )  # fmt: skip


def _tokens(group: Any, run: Run, entry: Entry, table: ShardRows) -> Iterator[None]:
    record, count = entry.record, len(run.plan.rows)
    parts = [
        run.token_part(record.name, run.shard_rows(number)[0])
        for number in range(run.shard_count())
    ]
    lengths = np.zeros(count, np.int64)
    for part in parts:
        lengths[part.table.index] = np.diff(part.table.offsets)
    offsets: NDArray[np.int64] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    shard.put_attributes(
        group, tokens.FORMAT, tokens.VERSION, run.plan_hash, records.checkpoint_hash(record)
    )
    tokens.put_ragged(group, table.index, offsets, record.sites)
    shape = (int(offsets[-1]), len(record.sites), record.dim)
    dataset = new_states(group, "states", shape, tokens.DEPTH, run.plan.store_dtype)
    for part in parts:
        for number in range(len(record.sites)):
            for position, row in enumerate(part.table.index.tolist()):
                if lengths[row]:
                    states = part.states(position, number)
                    write_part(dataset, (int(offsets[row]), number, 0), states[:, None, :])
            yield


def _media(file: Any, run: Run) -> Iterator[None]:
    """The previews one after the other, each under the name of its file."""
    held = [
        (preview_name(row.id, row.modality), data)
        for row in run.plan.rows
        if (data := run.preview(row.id, row.modality))
    ]
    if not held:
        return
    group = file.create_group("media")
    offsets = np.cumsum([0, *(len(data) for _, data in held)])
    put(group, "name", fixed_strings([name for name, _ in held]), (len(held),))
    put(group, "offset", offsets.astype("<i8"), (len(offsets),))
    put_blob(group, "data", b"".join(data for _, data in held))
    yield
