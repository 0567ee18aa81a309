"""A run folder: made once from a plan, filled shard by shard, read with suspicion."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geomkit.errors import ProvenanceMismatch, StoreError
from geomkit.store import files, quarantine, records, shard, tokens
from geomkit.store.door import MAX_FILE_BYTES
from geomkit.store.names import check_checkpoint_name, shard_name, tokens_name
from geomkit.store.reading import ENTRY_SCHEMA, Entry, Part, Reading, TokenPart, check_entry
from geomkit.store.receipts import (
    SCHEMA,
    Attached,
    Claims,
    Receipt,
    check_receipt,
    table_now,
    table_remembered,
    tokens_now,
    tokens_remembered,
)
from geomkit.store.shard import ShardRows
from geomkit.store.tokens import TokenRows
from geomkit.types import Analysis, CheckpointRecord
from geomkit.words import lacking

PREVIEWS = {"image": ".webp", "video": ".video.webp", "audio": ".wav"}
"""Modality -> what the name of its previews ends in."""
MAX_PREVIEW_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Run(Reading):
    """A plan and the states captured under it; get one from `create_run` or `open_run`."""

    # ---------------------------------------------------------------------------- checkpoints

    def write_checkpoint(self, record: CheckpointRecord) -> None:
        """Record where a checkpoint came from, before its first shard.

        Raises:
            StoreError: the name cannot be a folder, or it already stands for other weights.
        """
        check_checkpoint_name(record.name)
        with files.write_lock(self.path):
            entries = self.entries()
            order = len(entries)
            for entry in entries:
                if entry.record.name == record.name:
                    self._check_same(entry.record, record)
                    order = entry.order
                    continue
                if entry.record.name.casefold() == record.name.casefold():
                    raise StoreError(
                        f"{record.name!r} and {entry.record.name!r} are one name where letter case "
                        "does not count; choose another"
                    )
                self._check_shown_alike(entry.record, record)
            files.make_folder(self.path / record.name)
            sha = records.record_sha(record)
            entry = Entry(ENTRY_SCHEMA, order, self.plan_hash, record, sha)
            files.write_atomic(
                self._folder(record.name) / "checkpoint.json", records.to_json(entry)
            )

    def _check_same(self, old: CheckpointRecord, new: CheckpointRecord) -> None:
        held, offered = records.checkpoint_hash(old), records.checkpoint_hash(new)
        if held != offered and any(self._folder(new.name).glob("shard-*.json")):
            raise StoreError(
                f"checkpoint {new.name!r} in {self.path} has states of {held[:12]}, and this is "
                f"{offered[:12]}: {records.unlike(old, new)} differ; use another folder or name"
            )

    def _check_shown_alike(self, other: CheckpointRecord, new: CheckpointRecord) -> None:
        """Raise when a checkpoint with states was shown its rows in another way."""
        differing = [f for f in records.SHOWN_THROUGH if getattr(other, f) != getattr(new, f)]
        if differing and any(self._folder(other.name).glob("shard-*.json")):
            raise ProvenanceMismatch(
                f"Expected {new.name!r} to be shown its rows as {other.name!r} was, but "
                f"{', '.join(differing)} differ: a checkpoint that joins a run brings its own "
                "processor. Capture both in one command, into a new folder."
            )

    def entries(self) -> tuple[Entry, ...]:
        """The entries of all checkpoints in capture order."""
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
            check_entry(entry, path)
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
        self,
        checkpoint: str,
        number: int,
        rows: ShardRows,
        sites: tuple[str, ...],
        *,
        events: Sequence[str] = (),
        tokens: TokenRows | None = None,
        made_by: CheckpointRecord | None = None,
    ) -> None:
        """Make one shard durable: tokens, file, receipt. A shard that is there already is kept.

        `events` are sentences for the receipt: what happened while the rows were made. `made_by` is
        the record of the checkpoint that made the rows, when another process may have replaced the
        one in the folder.

        Raises:
            StoreError: the rows are not the plan's slice, another process captures other weights
                under this name, or the disk refuses.
        """
        record = self.checkpoint(checkpoint)
        self._check_slice(record, number, rows, sites)
        identity, dtype = records.checkpoint_hash(made_by or record), self.plan.store_dtype
        data = shard.to_bytes(rows, sites, self.plan_hash, identity, dtype)
        ragged = None if tokens is None else self._token_bytes(record, rows, tokens)
        attached = None
        if ragged is not None:
            attached = Attached(tokens_name(number), len(ragged), _trusted_sha(ragged))
        name = shard_name(number)
        receipt = Receipt(
            SCHEMA, name, len(data), _trusted_sha(data), len(rows.index),
            self.plan_hash, identity, tuple(events), attached,
        )  # fmt: skip
        folder = self._folder(checkpoint)
        with files.write_lock(self.path):
            held = self.checkpoint(checkpoint)
            if records.checkpoint_hash(held) != identity:
                raise StoreError(
                    f"another process captures {checkpoint!r} into {self.path} as something else: "
                    f"{records.unlike(held, made_by or record)} differ; give every process the "
                    "same checkpoint, options and library versions, and run again"
                )
            if self.has_shard(checkpoint, number, tokens=attached is not None):
                return
            if ragged is not None:
                files.write_atomic(folder / tokens_name(number), ragged)
            files.write_atomic(folder / name, data)
            files.write_atomic(
                (folder / name).with_suffix(".json"), records.to_json(receipt, sparse=True)
            )

    def _token_bytes(self, record: CheckpointRecord, rows: ShardRows, given: TokenRows) -> bytes:
        if given.states.shape[-1] != record.dim:
            raise StoreError(f"expected tokens of dim {record.dim}, got {given.states.shape[-1]}")
        identity = records.checkpoint_hash(record)
        return tokens.to_bytes(
            given, rows, record.sites, self.plan_hash, identity, self.plan.store_dtype
        )

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

    def has_shard(self, checkpoint: str, number: int, *, tokens: bool = False) -> bool:
        """True when a shard's files are there and are, byte for byte, what its receipt says.

        With `tokens` it must also have token states.
        """
        try:
            receipt = self._check_files(checkpoint, number)
        except StoreError:
            return False
        return receipt.tokens is not None or not tokens

    def _check_files(self, checkpoint: str, number: int) -> Receipt:
        path, receipt, claims = self._expected(self.checkpoint(checkpoint), number)
        table = table_now(path, receipt, claims)
        if receipt.tokens is not None:
            tokens_now(self._tokens_path(path, receipt.tokens, number), receipt.tokens, table)
        return receipt

    def check_shard(self, checkpoint: str, number: int) -> None:
        """Raise StoreError saying what is wrong with a shard; every byte is read again."""
        receipt = self._check_files(checkpoint, number)
        path, _, claims = self._expected(self.checkpoint(checkpoint), number)
        part = Part(table_remembered(path, receipt, claims), path)
        for pooling in part.table.poolings:
            for site in range(len(part.table.sites)):
                part.states(pooling, site)
        if receipt.tokens is not None:
            self._token_part(part, receipt.tokens, number).check(part.table.ok)

    def problems(self, checkpoint: str) -> Iterator[str]:
        """What is wrong with the shards of a checkpoint, in sentences; every byte is read.

        Those that are not captured yet are one sentence, those that are damaged are one each.
        """
        if absent := self.missing(checkpoint):
            lacks = lacking(checkpoint, absent, self.shard_count())
            yield f"{lacks}; run the same capture again, it continues where it stopped"
        for number in sorted({*range(self.shard_count())} - {*absent}):
            try:
                self.check_shard(checkpoint, number)
            except StoreError as error:
                yield str(error)

    def _expected(self, record: CheckpointRecord, number: int) -> tuple[Path, Receipt, Claims]:
        """Where a shard is, and what its receipt and the plan say it must be."""
        path = self._folder(record.name) / shard_name(number)
        if not files.exists(path.with_suffix(".json")):
            raise StoreError(
                f"{record.name} is incomplete: shard {number} of {self.shard_count()} has no "
                "receipt; run the same capture again, it continues where it stopped"
            )
        receipt = records.from_json(Receipt, path.with_suffix(".json"), limit=1 << 20)
        rows = self.shard_rows(number)
        check_receipt(receipt, path, len(rows), (self.plan_hash, records.checkpoint_hash(record)))
        return path, receipt, self.claims(record, rows)

    def receipts(self, checkpoint: str) -> tuple[Receipt, ...]:
        """The receipts of the shards that are there, in their order; files are not looked at."""
        record = self.checkpoint(checkpoint)
        there = [n for n in range(self.shard_count()) if self._has_receipt(checkpoint, n)]
        return tuple(self._expected(record, number)[1] for number in there)

    def missing(self, checkpoint: str) -> tuple[int, ...]:
        """The shards that have no receipt; files are not looked at."""
        return tuple(n for n in range(self.shard_count()) if not self._has_receipt(checkpoint, n))

    def _has_receipt(self, checkpoint: str, number: int) -> bool:
        return files.exists((self.path / checkpoint / shard_name(number)).with_suffix(".json"))

    def parts(self, checkpoint: str) -> Iterator[Part]:
        """The checked shards of a complete checkpoint. Raises StoreError at what is not there."""
        record = self.checkpoint(checkpoint)
        for number in range(self.shard_count()):
            path, receipt, claims = self._expected(record, number)
            yield Part(table_remembered(path, receipt, claims), path)

    def parts_there(self, checkpoint: str) -> Iterator[Part | StoreError]:
        """The shards that have a receipt: each checked, or what is wrong with it."""
        record, absent = self.checkpoint(checkpoint), set(self.missing(checkpoint))
        for number in sorted(set(range(self.shard_count())) - absent):
            try:
                path, receipt, claims = self._expected(record, number)
                yield Part(table_remembered(path, receipt, claims), path)
            except StoreError as error:
                yield error

    def token_part(self, checkpoint: str, index: int) -> TokenPart:
        """The token states that hold row `index` of the plan. Raises StoreError if none do."""
        if not 0 <= index < len(self.plan.rows):
            raise StoreError(f"expected a row from 0 to {len(self.plan.rows) - 1}, got {index}")
        number = next(n for n in range(self.shard_count()) if index in self.shard_rows(n))
        path, receipt, claims = self._expected(self.checkpoint(checkpoint), number)
        if receipt.tokens is None:
            raise StoreError(f"{path} has no token states; capture with --tokens to keep them")
        part = Part(table_remembered(path, receipt, claims), path)
        return self._token_part(part, receipt.tokens, number)

    def _token_part(self, part: Part, attached: Attached, number: int) -> TokenPart:
        path = self._tokens_path(part.path, attached, number)
        return TokenPart(tokens_remembered(path, attached, part.table), path)

    def _tokens_path(self, path: Path, attached: Attached, number: int) -> Path:
        """Where the tokens of the shard at `path` are: beside it, under the one name they have."""
        if attached.file != tokens_name(number):
            raise StoreError(f"{path}: its receipt names other tokens; capture again")
        return path.with_name(attached.file)

    def captured(self) -> tuple[CheckpointRecord, ...]:
        """The checkpoints all of whose shards have receipts, in capture order.

        Damage does not remove a checkpoint from this list: it raises when the shard is read,
        instead of quietly changing which rows are compared.
        """
        return tuple(record for record in self.checkpoints() if not self.missing(record.name))

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
            raise StoreError(f"there is no preview of {modality!r}, only of {sorted(PREVIEWS)}")
        with files.write_lock(self.path):
            files.make_folder(path.parent)
            files.write_atomic(path, data)

    def _media_path(self, name: str, modality: str) -> Path | None:
        file = preview_name(name, modality)
        return self.path / "media" / file if file else None

    def preview(self, id: str, modality: str) -> bytes | None:  # noqa: A002 - as above
        """The bytes of the preview of a sample in a modality, or None."""
        path = self.media(id, modality)
        return None if path is None else files.read_regular(path, MAX_PREVIEW_BYTES)

    def previews(self, folder: Path) -> dict[tuple[str, str], Path]:  # noqa: ARG002 - see PackedRun
        """The files of all previews, by id and modality; those that are none go into `folder`."""
        found = {(r.id, r.modality): self.media(r.id, r.modality) for r in self.plan.rows}
        return {row: path for row, path in found.items() if path is not None}

    def beside(self, name: str) -> Path:
        """Where a file that is made from the run goes: into its folder."""
        return self.path / name

    def kept(self) -> Path:
        """The folder of what was worked out of the run and can be worked out again."""
        return self.path / ".estimates"

    def write_analysis(self, analysis: Analysis) -> None:
        """Write analysis.json and analysis.csv; equal analyses give equal bytes."""
        document, table = records.to_json(analysis), records.to_csv(analysis)
        path = self.beside("analysis.json")
        with files.write_lock(path.parent):
            files.write_atomic(path.with_suffix(".csv"), table)
            files.write_atomic(path, document)

    def has_analysis(self) -> bool:
        """True when the run was analyzed; whether it still fits is for its reader to see."""
        return files.exists(self.beside("analysis.json"))

    def read_analysis(self) -> Analysis:
        """The analysis of this run. Raises StoreError when there is none or of another plan."""
        if not self.has_analysis():
            raise StoreError(f"{self.path} is not analyzed yet; run `geomkit analyze {self.path}`")
        path, data = self.analysis_bytes()
        analysis = records.parse_json(Analysis, data, path)
        if analysis.plan_hash != self.plan_hash:
            raise StoreError(
                f"{path} is of plan {analysis.plan_hash[:12]}, the run is of "
                f"{self.plan_hash[:12]}; run `geomkit analyze {self.path}` again"
            )
        return analysis

    def analysis_bytes(self) -> tuple[str, bytes]:
        """The analysis as JSON, and where it is."""
        path = self.beside("analysis.json")
        return str(path), files.read_regular(path, records.MAX_JSON_BYTES)

    def bytes_on_disk(self) -> int:
        """Size of everything in the folder."""
        return sum(p.lstat().st_size for p in self.path.rglob("*") if p.is_file())


def preview_name(id: str, modality: str) -> str:  # noqa: A002 - the record's own word
    """File name of the preview of a sample; empty for a modality that has none."""
    suffix = PREVIEWS.get(modality)
    return "" if suffix is None else f"{hashlib.sha256(id.encode()).hexdigest()[:16]}{suffix}"


def _trusted_sha(data: bytes) -> str:
    """sha256 of a file that this process made, which no child needs to parse."""
    if len(data) > MAX_FILE_BYTES:
        raise StoreError(
            f"a shard of {len(data)} bytes is larger than the {MAX_FILE_BYTES} that a reader "
            "takes; use fewer batches a shard (--shard-batches)"
        )
    sha = shard.content_sha(data)
    quarantine.trust(sha)
    return sha
