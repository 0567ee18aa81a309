"""What a run says, whichever form it has: checkpoints, states, pairing, tokens, events."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geomkit.errors import ProvenanceMismatch, StoreError
from geomkit.store import shard, tokens
from geomkit.store.door import open_file
from geomkit.store.receipts import Claims, Receipt, check_finite
from geomkit.store.records import checkpoint_hash, record_sha
from geomkit.store.shard import ShardTable
from geomkit.store.tokens import TokenTable
from geomkit.types import MODALITIES, Activations, CheckpointRecord, Modality, Plan

ENTRY_SCHEMA = "geomkit-checkpoint/1"
BLOCK = 1 << 16  # tokens that are checked at a time


@dataclass(frozen=True, slots=True)
class Entry:
    """`checkpoint.json`: the record, its place in the capture order, and the plan it belongs to."""

    schema: str
    order: int
    plan_hash: str
    record: CheckpointRecord
    sha256: str  # of the record, so that a damaged word in it is found


def check_entry(entry: Entry, place: Path) -> None:
    """Raise StoreError unless an entry is as it was written."""
    if entry.schema != ENTRY_SCHEMA:
        raise StoreError(
            f"{place}: expected a record by {ENTRY_SCHEMA!r}, got {entry.schema[:40]!r}; read it "
            "with the geomkit that wrote it, or capture again"
        )
    if record_sha(entry.record) != entry.sha256:
        raise StoreError(
            f"{place} is not what its sha256 says: the record was changed or damaged; "
            "capture again into an empty folder"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Rows of one checkpoint whose table is checked: a shard, or all of them in a packed file."""

    table: ShardTable
    path: Path
    group: str = "/"  # where in the file

    def states(self, pooling: str, number: int) -> NDArray[np.float32]:
        """States `(rows, dim)` of one site, by its number; the good ones are finite."""
        with open_file(self.path) as stream:
            states = shard.read_site(stream, pooling, number, self.group)
        check_finite(states, self.table.ok, self.path)
        return states


@dataclass(frozen=True, slots=True, eq=False)
class TokenPart:
    """Token states of the rows of a part, whose table is checked."""

    table: TokenTable
    path: Path
    group: str = "/"

    def states(self, position: int, number: int) -> NDArray[np.float32]:
        """States `(tokens, dim)` of the row at `position` in the table, at one site."""
        with open_file(self.path) as stream:
            return tokens.read_row(stream, self.table, position, number, self.group)

    def check(self, ok: NDArray[np.bool_]) -> None:
        """Raise StoreError unless exactly the tokens of rows that are ok are finite."""
        flags = np.repeat(ok, np.diff(self.table.offsets))
        for number in range(len(self.table.sites)):
            for first in range(0, len(flags), BLOCK):
                span = (first, min(first + BLOCK, len(flags)))
                with open_file(self.path) as stream:
                    block = tokens.read_span(stream, self.table, span, number, self.group)
                check_finite(block, flags[slice(*span)], self.path)


@dataclass(frozen=True, slots=True)
class Reading(ABC):
    """A plan and the states captured under it; a form of a run says where its parts are."""

    path: Path
    plan: Plan
    plan_hash: str

    # ------------------------------------------------------------------------- what a form says

    @abstractmethod
    def entries(self) -> tuple[Entry, ...]:
        """The entries of all checkpoints in capture order."""

    @abstractmethod
    def captured(self) -> tuple[CheckpointRecord, ...]:
        """The checkpoints that have every shard, in capture order."""

    @abstractmethod
    def parts(self, checkpoint: str) -> Iterator[Part]:
        """The checked parts of a complete checkpoint. Raises StoreError at what is not there."""

    @abstractmethod
    def token_part(self, checkpoint: str, index: int) -> TokenPart:
        """The token states that hold row `index` of the plan. Raises StoreError if none do."""

    @abstractmethod
    def receipts(self, checkpoint: str) -> tuple[Receipt, ...]:
        """The receipts of the shards that are there, in their order."""

    @abstractmethod
    def beside(self, name: str) -> Path:
        """Where a file that is made from the run goes."""

    @abstractmethod
    def kept(self) -> Path:
        """The folder of what was worked out of the run and can be worked out again."""

    # ----------------------------------------------------------------------------- checkpoints

    def checkpoints(self) -> tuple[CheckpointRecord, ...]:
        """The records in capture order; the first is the reference."""
        return tuple(entry.record for entry in self.entries())

    def checkpoint(self, name: str) -> CheckpointRecord:
        """The record of that name. Raises StoreError, naming the others, if none."""
        known = self.checkpoints()
        for record in known:
            if record.name == name:
                return record
        raise StoreError(
            f"{self.path} holds no checkpoint {name!r}; it holds {[r.name for r in known]}"
        )

    def claims(self, record: CheckpointRecord, rows: tuple[int, ...]) -> Claims:
        """What a part with these rows of the plan must say."""
        planned = [self.plan.rows[index] for index in rows]
        return Claims(
            rows=tuple((row.index, row.id, row.modality) for row in planned),
            sites=record.sites,
            poolings=tuple(sorted(self.plan.poolings)),
            dim=record.dim,
            dtype=self.plan.store_dtype,
            plan_hash=self.plan_hash,
            checkpoint_hash=checkpoint_hash(record),
        )

    def complete(self, checkpoint: str) -> bool:
        """True when every shard of the checkpoint is there and sound."""
        try:
            for _ in self.parts(checkpoint):
                pass
        except StoreError:
            return False
        return True

    def events(self, checkpoint: str) -> tuple[str, ...]:
        """What happened while the checkpoint was captured, shard by shard: memory that ran out."""
        return tuple(event for receipt in self.receipts(checkpoint) for event in receipt.events)

    # ---------------------------------------------------------------------------------- states

    def states(
        self,
        checkpoint: str,
        site: str,
        pooling: str = "last",
        rows: Sequence[int] | NDArray[np.int64] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """States `(plan rows, dim)` of one site, NaN where not ok, and the ok flags.

        Of some `rows` of the plan, in their order, only shards that hold one of them are read.

        Raises:
            StoreError: no such site or pooling, or a shard is missing or damaged.
        """
        record = self.checkpoint(checkpoint)
        if site not in record.sites or pooling not in self.plan.poolings:
            raise StoreError(
                f"{checkpoint} has no {pooling!r} states at {site!r}; "
                f"sites: {record.sites}; poolings: {self.plan.poolings}"
            )
        number = record.sites.index(site)
        wanted = np.arange(len(self.plan.rows)) if rows is None else np.asarray(rows)
        place = np.full(len(self.plan.rows), -1)
        place[wanted] = np.arange(len(wanted))
        states = np.full((len(wanted), record.dim), np.nan, np.float32)
        ok = np.zeros(len(wanted), bool)
        for part in self.parts(checkpoint):
            at = place[part.table.index]
            if (at >= 0).any():
                states[at[at >= 0]] = part.states(pooling, number)[at >= 0]
                ok[at[at >= 0]] = part.table.ok[at >= 0]
        return states, ok

    def tokens(self, checkpoint: str, site: str, index: int) -> NDArray[np.float32]:
        """States `(tokens, dim)` of every token of one row; NaN, or none, where it is not ok.

        Raises:
            StoreError: no such site or row, the capture kept no tokens, or they are damaged.
        """
        record = self.checkpoint(checkpoint)
        if site not in record.sites:
            raise StoreError(f"{checkpoint} has no states at {site!r}; sites: {record.sites}")
        number = record.sites.index(site)
        part = self.token_part(checkpoint, index)
        return part.states(int(np.flatnonzero(part.table.index == index)[0]), number)

    def activations(
        self, checkpoint: str, site: str, modality: Modality, pooling: str = "last"
    ) -> Activations:
        """States of the rows that are ok in every complete checkpoint, in plan order.

        Two checkpoints of a run therefore give arrays that are paired row by row.

        Raises:
            StoreError: as `states`.
            ProvenanceMismatch: a row's token ids differ between two checkpoints.
        """
        return self._shown(checkpoint, site, pooling, [modality])[modality]

    def views(
        self,
        checkpoint: str,
        site: str,
        pooling: str = "last",
        rows: Sequence[int] | None = None,
    ) -> dict[Modality, Activations]:
        """As `activations`, of every modality of the plan in canonical order, from one reading.

        Of some `rows` of the plan only those.
        """
        planned = {row.modality for row in self.plan.rows}
        wanted = [modality for modality in MODALITIES if modality in planned]
        return self._shown(checkpoint, site, pooling, wanted, rows)

    def _shown(
        self,
        checkpoint: str,
        site: str,
        pooling: str,
        modalities: Sequence[Modality],
        rows: Sequence[int] | None = None,
    ) -> dict[Modality, Activations]:
        asked = np.arange(len(self.plan.rows)) if rows is None else np.unique(np.asarray(rows, int))
        states, ok = self.states(checkpoint, site, pooling, asked)
        good = ok & self.paired()[asked]
        found = {}
        for modality in modalities:
            at = [i for i in np.flatnonzero(good) if self.plan.rows[asked[i]].modality == modality]
            of = tuple(self.plan.rows[asked[i]] for i in at)
            found[modality] = Activations(checkpoint, site, pooling, modality, states[at], of)
        return found

    def paired(self) -> NDArray[np.bool_]:
        """Rows that are ok in every complete checkpoint, shown the same tokens in each."""
        paired = np.ones(len(self.plan.rows), bool)
        seen: dict[int, tuple[str, str]] = {}
        for record in self.captured():
            for part in self.parts(record.name):
                table = part.table
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
        self.paired()

    def skipped(self) -> tuple[Mapping[str, str], ...]:
        """Rows that a complete checkpoint could not read: id, modality, reason; in plan order."""
        reasons: dict[int, str] = {}
        for record in self.captured():
            for part in self.parts(record.name):
                for position in np.flatnonzero(~part.table.ok):
                    reasons.setdefault(int(part.table.index[position]), part.table.notes[position])
        rows = self.plan.rows
        return tuple(
            {"id": rows[i].id, "modality": rows[i].modality, "reason": reasons[i]}
            for i in sorted(reasons)
        )
