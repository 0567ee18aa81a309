"""A run folder: made once from a plan, filled shard by shard, read with suspicion."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geomkit.errors import ProvenanceMismatch, StoreError
from geomkit.store import files, quarantine, records, shard
from geomkit.store.door import open_file
from geomkit.store.names import check_checkpoint_name, shard_name
from geomkit.store.receipts import (
    Claims,
    Receipt,
    check_finite,
    table_now,
    table_remembered,
)
from geomkit.store.shard import ShardRows, ShardTable
from geomkit.types import Activations, Analysis, CheckpointRecord, Modality, Plan

_PREVIEWS = {"image": ".webp", "video": ".video.webp", "audio": ".wav"}


@dataclass(frozen=True, slots=True)
class Entry:
    """`checkpoint.json`: the record, its place in the capture order, and the plan it belongs to."""

    schema: str
    order: int
    plan_hash: str
    record: CheckpointRecord


@dataclass(frozen=True, slots=True)
class Run:
    """A plan and the states captured under it; get one from `create_run` or `open_run`."""

    path: Path
    plan: Plan
    plan_hash: str

    # ---------------------------------------------------------------------------- checkpoints

    def checkpoints(self) -> tuple[CheckpointRecord, ...]:
        """The records in capture order; the first is the reference."""
        return tuple(entry.record for entry in self._entries())

    def checkpoint(self, name: str) -> CheckpointRecord:
        """The record of that name. Raises StoreError, naming the others, if none."""
        known = self.checkpoints()
        for record in known:
            if record.name == name:
                return record
        raise StoreError(
            f"{self.path} holds no checkpoint {name!r}; it holds {[r.name for r in known]}"
        )

    def write_checkpoint(self, record: CheckpointRecord) -> None:
        """Record where a checkpoint came from, before its first shard.

        Raises:
            StoreError: the name cannot be a folder, or it already stands for other weights.
        """
        check_checkpoint_name(record.name)
        with files.write_lock(self.path):
            entries = self._entries()
            order = len(entries)
            for entry in entries:
                if entry.record.name == record.name:
                    self._check_same(entry.record, record)
                    order = entry.order
                elif entry.record.name.casefold() == record.name.casefold():
                    raise StoreError(
                        f"{record.name!r} and {entry.record.name!r} are one name where letter case "
                        "does not count; choose another"
                    )
            files.make_folder(self.path / record.name)
            entry = Entry("geomkit-checkpoint/1", order, self.plan_hash, record)
            files.write_atomic(
                self._folder(record.name) / "checkpoint.json", records.to_json(entry)
            )

    def _check_same(self, old: CheckpointRecord, new: CheckpointRecord) -> None:
        held, offered = records.checkpoint_hash(old), records.checkpoint_hash(new)
        if held != offered and any(self._folder(new.name).glob("shard-*.json")):
            differing = [f for f in records.IDENTITY if getattr(old, f) != getattr(new, f)]
            raise StoreError(
                f"checkpoint {new.name!r} in {self.path} has states of {held[:12]}, and this is "
                f"{offered[:12]}: {', '.join(differing)} differ; use another folder or name"
            )

    def _entries(self) -> tuple[Entry, ...]:
        found = []
        for folder in files.entries(self.path):
            path = folder / "checkpoint.json"
            if folder.name == "media" or folder.is_symlink() or not files.exists(path):
                continue
            check_checkpoint_name(folder.name)
            entry = records.from_json(Entry, path)
            if entry.record.name != folder.name or entry.plan_hash != self.plan_hash:
                raise StoreError(
                    f"{path} belongs to another run or name ({entry.record.name!r}, plan "
                    f"{entry.plan_hash[:12]}); capture again into an empty folder"
                )
            found.append(entry)
        return tuple(sorted(found, key=lambda entry: (entry.order, entry.record.name)))

    def _folder(self, name: str) -> Path:
        check_checkpoint_name(name)
        folder = self.path / name
        try:
            if stat.S_ISDIR(folder.lstat().st_mode):
                return folder
        except OSError:
            pass
        raise StoreError(f"{folder}: expected a folder of the run itself; capture {name!r} first")

    # --------------------------------------------------------------------------------- shards

    def shard_count(self) -> int:
        """How many shards a complete checkpoint has."""
        return -(-len(self.plan.batches) // self.plan.shard_batches)

    def shard_rows(self, number: int) -> tuple[int, ...]:
        """Row numbers of the plan that shard `number` holds, in its order."""
        if not 0 <= number < self.shard_count():
            raise StoreError(f"expected a shard from 0 to {self.shard_count() - 1}, got {number}")
        first = number * self.plan.shard_batches
        batches = self.plan.batches[first : first + self.plan.shard_batches]
        return tuple(index for batch in batches for index in batch)

    def write_shard(
        self, checkpoint: str, number: int, rows: ShardRows, sites: tuple[str, ...]
    ) -> None:
        """Make one shard durable: file, then receipt. A shard that is there already is kept.

        Raises:
            StoreError: the rows are not the plan's slice, or the disk refuses.
        """
        record = self.checkpoint(checkpoint)
        self._check_slice(record, number, rows, sites)
        identity = records.checkpoint_hash(record)
        data = shard.to_bytes(rows, sites, self.plan_hash, identity)
        name = shard_name(number)
        sha = shard.content_sha(data)
        receipt = Receipt(
            "geomkit-receipt/1", name, len(data), sha, len(rows.index), self.plan_hash, identity
        )
        quarantine.trust(sha)
        folder = self._folder(checkpoint)
        with files.write_lock(self.path):
            if self.has_shard(checkpoint, number):
                return
            files.write_atomic(folder / name, data)
            files.write_atomic((folder / name).with_suffix(".json"), records.to_json(receipt))

    def _check_slice(
        self, record: CheckpointRecord, number: int, rows: ShardRows, sites: tuple[str, ...]
    ) -> None:
        expected = [self.plan.rows[index] for index in self.shard_rows(number)]
        got = list(zip(np.asarray(rows.index).tolist(), rows.ids, rows.modality, strict=False))
        if got != [(row.index, row.id, row.modality) for row in expected]:
            raise StoreError(f"shard {number} holds other rows than the plan says; got {got[:2]}")
        if sites != record.sites or set(rows.states) != set(self.plan.poolings):
            raise StoreError(
                f"expected sites {record.sites} and poolings {self.plan.poolings}, "
                f"got {sites} and {tuple(rows.states)}"
            )
        dims = {array.shape[-1] for array in rows.states.values()}
        if dims != {record.dim}:
            raise StoreError(f"expected states of dim {record.dim}, got {sorted(dims)}")

    def has_shard(self, checkpoint: str, number: int) -> bool:
        """True when the file is there and is, byte for byte, what its receipt says."""
        try:
            table_now(*self._expected(self.checkpoint(checkpoint), number))
        except StoreError:
            return False
        return True

    def complete(self, checkpoint: str) -> bool:
        """True when every shard of the checkpoint is there and sound."""
        try:
            for _ in self._tables(self.checkpoint(checkpoint)):
                pass
        except StoreError:
            return False
        return True

    def check_shard(self, checkpoint: str, number: int) -> None:
        """Raise StoreError saying what is wrong with a shard; every byte is read again."""
        path, receipt, claims = self._expected(self.checkpoint(checkpoint), number)
        table = table_now(path, receipt, claims)
        for pooling in table.poolings:
            for site in range(len(table.sites)):
                with open_file(path) as stream:
                    check_finite(shard.read_site(stream, pooling, site), table.ok, path)

    def _expected(self, record: CheckpointRecord, number: int) -> tuple[Path, Receipt, Claims]:
        """Where a shard is, and what its receipt and the plan say it must be."""
        path = self._folder(record.name) / shard_name(number)
        if not files.exists(path.with_suffix(".json")):
            raise StoreError(
                f"{record.name} is incomplete: shard {number} of {self.shard_count()} has no "
                "receipt; run the same capture again, it continues where it stopped"
            )
        receipt = records.from_json(Receipt, path.with_suffix(".json"), limit=1 << 16)
        mine = (path.name, self.plan_hash, records.checkpoint_hash(record))
        if (receipt.file, receipt.plan_hash, receipt.checkpoint_hash) != mine:
            raise StoreError(
                f"{path}: its receipt is for another file, plan or checkpoint; capture again"
            )
        return path, receipt, self._claims(record, number)

    def _claims(self, record: CheckpointRecord, number: int) -> Claims:
        planned = [self.plan.rows[index] for index in self.shard_rows(number)]
        return (
            tuple((row.index, row.id, row.modality) for row in planned),
            record.sites,
            tuple(sorted(self.plan.poolings)),
            record.dim,
        )

    def _tables(self, record: CheckpointRecord) -> Iterator[tuple[ShardTable, Path]]:
        for number in range(self.shard_count()):
            path, receipt, claims = self._expected(record, number)
            yield table_remembered(path, receipt, claims), path

    def _captured(self) -> tuple[CheckpointRecord, ...]:
        """The checkpoints all of whose shards have receipts, in capture order.

        Damage does not remove a checkpoint from this list: it raises when the shard is read,
        instead of quietly changing which rows are compared.
        """
        return tuple(
            record
            for record in self.checkpoints()
            if all(
                files.exists((self.path / record.name / shard_name(n)).with_suffix(".json"))
                for n in range(self.shard_count())
            )
        )

    # ---------------------------------------------------------------------------------- states

    def states(
        self, checkpoint: str, site: str, pooling: str = "last"
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """States `(plan rows, dim)` of one site, NaN where not ok, and the ok flags.

        Raises:
            StoreError: no such site or pooling, or a shard is missing or damaged.
        """
        record = self.checkpoint(checkpoint)
        if site not in record.sites or pooling not in self.plan.poolings:
            raise StoreError(
                f"{checkpoint} has no {pooling!r} states at {site!r}; "
                f"sites: {record.sites}; poolings: {self.plan.poolings}"
            )
        states = np.full((len(self.plan.rows), record.dim), np.nan, np.float32)
        ok = np.zeros(len(self.plan.rows), bool)
        number = record.sites.index(site)
        for table, path in self._tables(record):
            with open_file(path) as stream:
                part = shard.read_site(stream, pooling, number)
            check_finite(part, table.ok, path)
            states[table.index] = part
            ok[table.index] = table.ok
        return states, ok

    def activations(
        self, checkpoint: str, site: str, modality: Modality, pooling: str = "last"
    ) -> Activations:
        """States of the rows that are ok in every complete checkpoint, in plan order.

        Two checkpoints of a run therefore give arrays that are paired row by row.

        Raises:
            StoreError: as `states`.
            ProvenanceMismatch: a row's token ids differ between two checkpoints.
        """
        states, ok = self.states(checkpoint, site, pooling)
        paired = ok & self._paired()
        rows = tuple(r for r in self.plan.rows if r.modality == modality and paired[r.index])
        chosen = states[[row.index for row in rows]]
        return Activations(checkpoint, site, pooling, modality, chosen, rows)

    def _paired(self) -> NDArray[np.bool_]:
        """Rows that are ok in every complete checkpoint, shown the same tokens in each."""
        paired = np.ones(len(self.plan.rows), bool)
        seen: dict[int, tuple[str, str]] = {}
        for record in self._captured():
            for table, _ in self._tables(record):
                paired[table.index] &= table.ok
                for position in np.flatnonzero(table.ok).tolist():
                    index, sha = int(table.index[position]), table.token_sha[position]
                    first, expected = seen.setdefault(index, (record.name, sha))
                    if sha != expected:
                        raise self._mismatch(index, first, record.name)
        return paired

    def _mismatch(self, index: int, first: str, second: str) -> ProvenanceMismatch:
        row = self.plan.rows[index]
        return ProvenanceMismatch(
            f"{row.modality} of {row.id!r}: {first} and {second} were shown different tokens, so "
            "their states cannot be compared; use one tokenizer and template and capture again"
        )

    def check_pairing(self) -> None:
        """Raise ProvenanceMismatch when complete checkpoints were shown different tokens."""
        self._paired()

    def skipped(self) -> tuple[Mapping[str, str], ...]:
        """Rows that a complete checkpoint could not read: id, modality, reason; in plan order."""
        reasons: dict[int, str] = {}
        for record in self._captured():
            for table, _ in self._tables(record):
                for position in np.flatnonzero(~table.ok):
                    reasons.setdefault(int(table.index[position]), table.notes[position])
        rows = self.plan.rows
        return tuple(
            {"id": rows[i].id, "modality": rows[i].modality, "reason": reasons[i]}
            for i in sorted(reasons)
        )

    # ------------------------------------------------------------------------ media, analysis

    def media(self, id: str, modality: str) -> Path | None:  # noqa: A002 - the record's own word
        """The preview of a sample in a modality, or None."""
        path = self._media_path(id, modality)
        if path is None:
            return None
        try:
            return path if stat.S_ISREG(path.lstat().st_mode) else None
        except OSError:
            return None

    def save_media(self, id: str, modality: str, data: bytes) -> None:  # noqa: A002 - as above
        """Keep a small preview (WebP or WAV bytes) of a sample for the report."""
        path = self._media_path(id, modality)
        if path is None:
            raise StoreError(f"there is no preview of {modality!r}, only of {sorted(_PREVIEWS)}")
        with files.write_lock(self.path):
            files.make_folder(path.parent)
            files.write_atomic(path, data)

    def _media_path(self, name: str, modality: str) -> Path | None:
        suffix = _PREVIEWS.get(modality)
        stem = hashlib.sha256(name.encode()).hexdigest()[:16]
        return None if suffix is None else self.path / "media" / f"{stem}{suffix}"

    def write_analysis(self, analysis: Analysis) -> None:
        """Write analysis.json and analysis.csv; equal analyses give equal bytes."""
        document, table = records.to_json(analysis), records.to_csv(analysis)
        with files.write_lock(self.path):
            files.write_atomic(self.path / "analysis.csv", table)
            files.write_atomic(self.path / "analysis.json", document)

    def read_analysis(self) -> Analysis:
        """The analysis of this run. Raises StoreError when there is none or of another plan."""
        path = self.path / "analysis.json"
        if not files.exists(path):
            raise StoreError(f"{self.path} is not analyzed yet; run `geomkit analyze {self.path}`")
        analysis = records.from_json(Analysis, path)
        if analysis.plan_hash != self.plan_hash:
            raise StoreError(
                f"{path} is of plan {analysis.plan_hash[:12]}, the run is of "
                f"{self.plan_hash[:12]}; run `geomkit analyze {self.path}` again"
            )
        return analysis
