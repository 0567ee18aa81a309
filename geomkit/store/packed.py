"""A packed run: one HDF5 file with everything in plan order, read with the suspicion of a folder.

The format: `geomkit.store`. `geomkit.store.pack` writes it; nothing changes it afterwards.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import h5py
import numpy as np

from geomkit.errors import StoreError
from geomkit.store import door, files, records, shard, tokens
from geomkit.store.allowlist import (
    dataset_in,
    group_in,
    members,
    read_attributes,
    read_strings,
    signature_at_start,
)
from geomkit.store.names import check_checkpoint_name, check_plan
from geomkit.store.quarantine import Identity
from geomkit.store.reading import Entry, Part, TokenPart, check_entry
from geomkit.store.receipts import Receipt, check_claims, check_tokens
from geomkit.store.run import Run, preview_name
from geomkit.store.seal import SIZE, has_seal
from geomkit.store.shard import ShardRows, ShardTable
from geomkit.store.tokens import TokenRows, TokenTable
from geomkit.types import CheckpointRecord, Plan

FORMAT = "geomkit-run"
VERSION = 1
MAX_CHECKPOINTS = 1000
BEGINNING = 4096  # bytes that the attributes of a packed run are in
_BLOBS = frozenset({"record", "receipts"})


@dataclass(frozen=True, slots=True)
class Receipts:
    """What the receipts of a checkpoint's shards said when it was packed."""

    receipts: tuple[Receipt, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """One checkpoint of a packed run."""

    entry: Entry
    receipts: tuple[Receipt, ...]
    table: ShardTable
    tokens: TokenTable | None

    @property
    def group(self) -> str:
        """Where its states are in the file."""
        return f"checkpoints/{self.entry.record.name}"

    @property
    def tokens_group(self) -> str:
        """Where its token states are in the file."""
        return f"{self.group}/tokens"


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """Everything in a checked packed run but states and media."""

    plan: Plan
    plan_hash: str
    checkpoints: tuple[Held, ...]  # in capture order
    previews: Mapping[str, tuple[int, int]]  # name -> first and last byte
    analysis: bytes


def is_packed(path: Path) -> bool:
    """True when a regular file at `path` ends like a packed run."""
    try:
        with door.open_file(path) as stream:
            return has_seal(stream)
    except StoreError:
        return False


def begins_packed(path: Path) -> bool:
    """True when a regular file at `path` begins like a packed run, whatever became of its end."""
    try:
        with door.open_file(path) as stream:
            return FORMAT.encode() in stream.read(BEGINNING)
    except StoreError:
        return False


def content_now(path: Path) -> Content:
    """The content of the packed run at `path`, every byte hashed again. Raises StoreError."""
    return door.sealed_read(path, read_content)


def content_remembered(path: Path) -> Content:
    """`content_now`, done once for as long as the file's identity, size and times stay."""
    return _content_cached(path, door.identity(path))


@functools.lru_cache(maxsize=4)
def _content_cached(path: Path, _key: Identity) -> Content:
    return content_now(path)


def read_content(stream: BinaryIO, size: int, name: str) -> Content:
    """The checked content of a packed run; as `shard.read_table`.

    Raises:
        StoreError: anything in the file is not as the format says; `name` is the file's name.
    """
    with shard.parsing(name):
        signature_at_start(stream, trailer=SIZE)
        with h5py.File(stream, "r") as file:
            return _content(file, size, Path(name))


def _content(file: Any, size: int, path: Path) -> Content:
    (stated,) = read_attributes(file, FORMAT, VERSION, ("plan_hash",))
    extra = {name for name in ("media", "analysis") if name in file}
    members(file, {"plan", "checkpoints"} | extra)
    plan = records.parse_json(Plan, _blob(file, "plan", size), f"{path}/plan")
    check_plan(plan)
    if plan.hash != stated:
        raise StoreError(f"expected the plan with hash {stated[:12]}, got {plan.hash[:12]}")
    checkpoints = group_in(file, "checkpoints")
    if not 0 < len(checkpoints) <= MAX_CHECKPOINTS:
        raise StoreError(f"expected 1 to {MAX_CHECKPOINTS} checkpoints, got {len(checkpoints)}")
    run = PackedRun(path, plan, stated)
    held = [_held(run, checkpoints, name, size) for name in members(checkpoints, None)]
    return Content(
        plan=plan,
        plan_hash=stated,
        checkpoints=tuple(sorted(held, key=lambda h: (h.entry.order, h.entry.record.name))),
        previews=_previews(file, size) if "media" in extra else {},
        analysis=_blob(file, "analysis", size) if "analysis" in extra else b"",
    )


def _blob(group: Any, name: str, size: int) -> bytes:
    """Bytes of another format. Raises StoreError when they are too many to parse."""
    (length,) = dataset_in(group, name, 1, h5py.h5t.STD_U8LE, size)
    if length > records.MAX_JSON_BYTES:
        raise StoreError(f"{name}: expected at most {records.MAX_JSON_BYTES} bytes, got {length}")
    return bytes(group[name][()].tobytes())


def _held(run: PackedRun, checkpoints: Any, name: str, size: int) -> Held:
    """One checkpoint, whose table must be that of a shard which holds the whole plan."""
    check_checkpoint_name(name)
    group = group_in(checkpoints, name)
    extra = {"tokens"} if "tokens" in group else set()
    table = shard.table_of(group, size, _BLOBS | extra)
    entry = records.parse_json(Entry, _blob(group, "record", size), f"{name}/record")
    if entry.record.name != name or entry.plan_hash != run.plan_hash:
        raise StoreError(f"{name}: its record is of another name or plan; pack the run again")
    check_entry(entry, Path(name) / "record")
    check_claims(table, run.claims(entry.record, tuple(range(len(run.plan.rows)))), Path(name))
    ragged = None
    if extra:
        ragged = tokens.table_of(group_in(group, "tokens"), size)
        check_tokens(ragged, table, Path(name) / "tokens")
    given = records.parse_json(Receipts, _blob(group, "receipts", size), f"{name}/receipts")
    return Held(entry, given.receipts, table, ragged)


def _previews(file: Any, size: int) -> dict[str, tuple[int, int]]:
    group = group_in(file, "media")
    members(group, {"name", "offset", "data"})
    (count,) = dataset_in(group, "name", 1, None, size)
    (ends,) = dataset_in(group, "offset", 1, h5py.h5t.STD_I64LE, size)
    (length,) = dataset_in(group, "data", 1, h5py.h5t.STD_U8LE, size)
    offsets = group["offset"][()]
    if ends != count + 1:
        raise StoreError(f"media: expected {count + 1} offsets, got {ends}")
    if offsets[0] != 0 or offsets[-1] != length or np.any(np.diff(offsets) < 0):
        raise StoreError(f"media: expected offsets that rise from 0 to {length}")
    spans = zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)
    return dict(zip(read_strings(group["name"]), spans, strict=True))


@dataclass(frozen=True, slots=True)
class PackedRun(Run):
    """A run in one file: everything that reads a `Run` reads it; nothing can be added to it."""

    def _content(self) -> Content:
        content = content_remembered(self.path)
        if content.plan_hash != self.plan_hash:
            raise StoreError(f"{self.path} has become another run; open it again")
        return content

    def _held(self, checkpoint: str) -> Held:
        self.checkpoint(checkpoint)
        return next(h for h in self._content().checkpoints if h.entry.record.name == checkpoint)

    def entries(self) -> tuple[Entry, ...]:
        """The entries of all checkpoints in capture order."""
        return tuple(held.entry for held in self._content().checkpoints)

    def captured(self) -> tuple[CheckpointRecord, ...]:
        """All checkpoints: a run is packed when they are complete."""
        return self.checkpoints()

    def missing(self, checkpoint: str) -> tuple[int, ...]:
        """None: a run is packed when it is complete."""
        self.checkpoint(checkpoint)
        return ()

    def has_shard(self, checkpoint: str, number: int, *, tokens: bool = False) -> bool:
        """True for every shard of the plan; with `tokens`, when there are token states."""
        held = self._held(checkpoint)
        return 0 <= number < self.shard_count() and (held.tokens is not None or not tokens)

    def parts_there(self, checkpoint: str) -> Iterator[Part | StoreError]:
        """The one part of a checkpoint."""
        return self.parts(checkpoint)

    def parts(self, checkpoint: str) -> Iterator[Part]:
        """The one part of a checkpoint, which has every row."""
        held = self._held(checkpoint)
        yield Part(held.table, self.path, held.group)

    def receipts(self, checkpoint: str) -> tuple[Receipt, ...]:
        """The receipts of the shards that were packed."""
        return self._held(checkpoint).receipts

    def token_part(self, checkpoint: str, index: int) -> TokenPart:
        """The token states that hold row `index` of the plan. Raises StoreError if none do."""
        held = self._held(checkpoint)
        if held.tokens is None or not 0 <= index < len(self.plan.rows):
            raise StoreError(
                f"{self.path} has no token states of row {index} of {checkpoint}; capture with "
                "--tokens to keep them"
            )
        return TokenPart(held.tokens, self.path, held.tokens_group)

    def problems(self, checkpoint: str) -> Iterator[str]:
        """What is wrong with a checkpoint, in sentences; every byte is read again."""
        try:
            content_now(self.path)
            held = self._held(checkpoint)
            part = Part(held.table, self.path, held.group)
            for pooling in part.table.poolings:
                for number in range(len(part.table.sites)):
                    part.states(pooling, number)
            if held.tokens is not None:
                self.token_part(checkpoint, 0).check(held.table.ok)
        except StoreError as error:
            yield str(error)

    def media(self, id: str, modality: str) -> Path | None:  # noqa: A002, ARG002 - as in Run
        """None: previews are no files here; `preview` has their bytes."""
        return None

    def preview(self, id: str, modality: str) -> bytes | None:  # noqa: A002 - as in Run
        """The bytes of the preview of a sample in a modality, or None."""
        span = self._content().previews.get(preview_name(id, modality))
        if span is None:
            return None
        with (
            shard.parsing(str(self.path)),
            door.open_file(self.path) as stream,
            h5py.File(stream, "r") as file,
        ):
            return bytes(file["media/data"][slice(*span)].tobytes())

    def previews(self, folder: Path) -> dict[tuple[str, str], Path]:
        """All previews, written into `folder`, by id and modality."""
        found: dict[tuple[str, str], Path] = {}
        for row in self.plan.rows:
            data = self.preview(row.id, row.modality)
            if data is not None:
                path = folder / preview_name(row.id, row.modality)
                path.write_bytes(data)
                found[row.id, row.modality] = path
        return found

    def beside(self, name: str) -> Path:
        """Where a file that is made from the run goes: beside it, under its name."""
        return self.path.with_name(f"{self.path.stem}.{name}")

    def kept(self) -> Path:
        """Beside the file, as everything that is made of it."""
        return self.path.with_name(f".{self.path.stem}.estimates")

    def has_analysis(self) -> bool:
        """True when it was analyzed before it was packed or since."""
        return files.exists(self.beside("analysis.json")) or bool(self._content().analysis)

    def analysis_bytes(self) -> tuple[str, bytes]:
        """The analysis made since, else the packed one, and where it is."""
        path = self.beside("analysis.json")
        if files.exists(path):
            return str(path), files.read_regular(path, records.MAX_JSON_BYTES)
        return f"{self.path}/analysis", self._content().analysis

    def bytes_on_disk(self) -> int:
        """Size of the file."""
        return self.path.lstat().st_size

    # ------------------------------------------------------------------------- nothing is added

    def write_checkpoint(self, record: CheckpointRecord) -> None:
        """Raise StoreError: a packed run is finished."""
        self._refuse(record.name)

    def write_shard(
        self,
        checkpoint: str,
        number: int,  # noqa: ARG002 - as in Run
        rows: ShardRows,  # noqa: ARG002 - as in Run
        sites: tuple[str, ...],  # noqa: ARG002 - as in Run
        *,
        events: Sequence[str] = (),  # noqa: ARG002 - as in Run
        tokens: TokenRows | None = None,  # noqa: ARG002 - as in Run
        made_by: CheckpointRecord | None = None,  # noqa: ARG002 - as in Run
    ) -> None:
        """Raise StoreError: a packed run is finished."""
        self._refuse(checkpoint)

    def save_media(self, id: str, modality: str, data: bytes) -> None:  # noqa: A002, ARG002 - as in Run
        """Raise StoreError: a packed run is finished."""
        self._refuse(id)

    def _refuse(self, what: str) -> NoReturn:
        raise StoreError(
            f"{self.path} is a packed run and only read; capture {what!r} into a folder and pack it"
        )
