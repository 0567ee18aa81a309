"""Every estimate of a run, one site at a time; what is kept is not made again.

    Survey(run, ...)      what to measure of which rows, worked out once
    survey.site(site)     all units of all checkpoints at one site, kept as they are made
    survey.found(...)     the estimates of one checkpoint, site and unit

A unit names what the rows are of: a modality `image`, a pair `image-text`, a direction
`image->text`, or `text@image`, the text of the samples that have an image: a rank or a count of
neighbours grows with the rows, so what images are set against must be as many. One checkpoint at
one site is in memory at a time, and of it the text and one medium.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from geomkit import estimates
from geomkit.errors import DegenerateInput, StoreError, UsageError
from geomkit.estimates.kept import Shelf, code_sha, key_of
from geomkit.estimates.metric import Result
from geomkit.estimates.space import Device, Outliers, Space
from geomkit.estimates.within import ROGUE
from geomkit.geometry import outlier_dimensions
from geomkit.store import Run
from geomkit.store.records import checkpoint_hash
from geomkit.types import MODALITIES, Modality, Row

Index = NDArray[np.int64]
Unit = str


@dataclass(frozen=True)
class Survey:
    """What is measured: these metrics of these rows; no slots, because rows are looked up once."""

    run: Run
    checkpoints: tuple[str, ...]
    """The first is the reference, whose outlier dimensions every checkpoint loses."""
    pooling: str
    metrics: frozenset[str] = estimates.DEFAULT
    device: Device = estimates.CPU
    most: int = 0
    """Rows of a modality that fit into memory; 0 takes all."""
    again: bool = False
    """Make anew what is kept."""
    code: str = field(default_factory=code_sha)
    """What measures; processes take it from the first, whatever is installed meanwhile."""

    # ---------------------------------------------------------------------------- what there is

    @cached_property
    def modalities(self) -> tuple[Modality, ...]:
        """Those that have rows, in canonical order."""
        return tuple(m for m in MODALITIES if m in self.indexes)

    @cached_property
    def media(self) -> tuple[Modality, ...]:
        """The modalities that share samples with text."""
        return tuple(m for m in self.modalities if m != "text" and len(self.matched(m)[0]))

    @property
    def units(self) -> tuple[Unit, ...]:
        """Modalities, pairs and directions, in the order of a record."""
        return units_of(self.modalities, self.media)

    @cached_property
    def indexes(self) -> Mapping[Modality, Index]:
        """The rows that are measured, of each modality, in plan order.

        Where a modality has more rows than fit, the same groups are taken from all of them, by the
        hash of their names: a choice that no order of the data can bias.
        """
        paired = self.run.paired()
        of: dict[Modality, list[Row]] = {m: [] for m in MODALITIES}
        for row in self.run.plan.rows:
            if paired[row.index]:
                of[row.modality].append(row)
        largest = max(map(len, of.values()))
        taken = None
        if self.most and largest > self.most:
            taken = _some({group_of(r) for rows in of.values() for r in rows}, self.most / largest)
        kept = {
            m: np.array([r.index for r in rows if taken is None or group_of(r) in taken], np.int64)
            for m, rows in of.items()
        }
        return {m: index for m, index in kept.items() if len(index)}

    @property
    def measured(self) -> tuple[int, ...]:
        """The rows of the plan that are measured, in its order."""
        return tuple(sorted(int(i) for index in self.indexes.values() for i in index))

    def matched(self, medium: Modality) -> tuple[Index, Index]:
        """Places among the medium's rows and among the text rows of the samples both have."""
        rows = self.run.plan.rows
        text = self.indexes.get("text", np.zeros(0, np.int64))
        place = {rows[index].id: j for j, index in enumerate(text)}
        both = [
            (i, place[rows[index].id])
            for i, index in enumerate(self.indexes[medium])
            if rows[index].id in place
        ]
        at, partner = np.array(both, np.int64).reshape(-1, 2).T
        return at, partner

    # ------------------------------------------------------------------------------ measuring

    def site(self, site: str, *, matched: bool = False) -> None:
        """Measure and keep what is not kept yet, of every checkpoint at one site.

        With `matched` also the text of the samples that each medium has.
        """
        if not self.lacks(site, matched=matched):
            return
        units = units_of(self.modalities, self.media, matched=matched)
        outliers = self._outliers(site)
        for name in self.checkpoints:
            wanted = {unit: self._missing(name, site, unit) for unit in units}
            if any(wanted.values()):
                for unit, results in self._measured(name, site, wanted, outliers):
                    shelf = self._shelf(name, site, unit)
                    if results:
                        shelf.write({**shelf.read(), **results})

    def lacks(self, site: str, *, matched: bool = False) -> bool:
        """Is there anything at a site that is not kept?"""
        units = units_of(self.modalities, self.media, matched=matched)
        return any(self._missing(n, site, unit) for n in self.checkpoints for unit in units)

    def found(self, checkpoint: str, site: str, unit: Unit) -> dict[str, Result]:
        """The estimates that are kept, by metric, in the order of a record.

        Raises:
            StoreError: some are not there: removed since, or made by code that was changed since.
        """
        shelf = self._shelf(checkpoint, site, unit)
        kept, wanted = shelf.read(), tuple(self._metrics(unit))
        if not all(name in kept for name in wanted):
            raise StoreError(
                f"Expected the estimates of {checkpoint} at {site} ({unit}) in {shelf.path}, where "
                "they were just kept, got none; do not remove or update anything meanwhile, and "
                "run the command again."
            )
        return {name: kept[name] for name in wanted}

    def _missing(self, checkpoint: str, site: str, unit: Unit) -> frozenset[str]:
        kept = self._shelf(checkpoint, site, unit).read()
        return frozenset(n for n in self._metrics(unit) if self.again or n not in kept)

    def _metrics(self, unit: Unit) -> Iterator[str]:
        known: Mapping[str, object] = estimates.WITHIN
        if "->" in unit:
            known = estimates.RETRIEVED
        elif "-" in unit:
            known = estimates.BETWEEN
        return (name for name in known if name in self.metrics)

    def _measured(
        self,
        checkpoint: str,
        site: str,
        wanted: Mapping[Unit, frozenset[str]],
        outliers: Mapping[Modality, Outliers],
    ) -> Iterator[tuple[Unit, dict[str, Result]]]:
        """One checkpoint at one site; a medium is gone when the next one comes."""
        text: Space | None = None
        for modality in self.modalities:  # text comes first
            space = self._space(checkpoint, site, modality, outliers)
            text = space if modality == "text" else text
            yield modality, estimates.within(space, wanted[modality])
            if modality in self.media and text is not None:
                yield from self._crossed(space, text, modality, wanted)

    def _crossed(
        self, space: Space, text: Space, medium: Modality, wanted: Mapping[Unit, frozenset[str]]
    ) -> Iterator[tuple[Unit, dict[str, Result]]]:
        pair, there, back = f"{medium}-text", f"{medium}->text", f"text->{medium}"
        same = f"text@{medium}"
        if not any(wanted.get(unit) for unit in (pair, there, back, same)):
            return
        at, partner = self.matched(medium)
        # Both sides must number their groups alike, so a part of a space is a space of its own.
        x = space if len(at) == space.n else estimates.take(space, at)
        y = estimates.take(text, partner)
        yield pair, estimates.between(x, y, wanted[pair])
        forth, results = estimates.retrieved(x, y, wanted[there] | wanted[back])
        yield there, forth
        yield back, results
        if same in wanted:
            yield same, estimates.within(y, wanted[same])

    def _space(
        self, checkpoint: str, site: str, modality: Modality, outliers: Mapping[Modality, Outliers]
    ) -> Space:
        index, rows = self.indexes[modality], self.run.plan.rows
        return estimates.space(
            self.run.states(checkpoint, site, self.pooling, index)[0],
            [group_of(rows[i]) for i in index],
            device=self.device,
            outliers=outliers[modality],
        )

    def _outliers(self, site: str) -> Mapping[Modality, Outliers]:
        """The reference checkpoint's outlier dimensions: what is compared must lose the same."""
        first, *others = (self.run.checkpoint(name) for name in self.checkpoints)
        if any(other.dim != first.dim for other in others):
            return dict.fromkeys(self.indexes, Outliers())  # they have no dimensions in common
        return {
            m: _outliers(self.run.states(first.name, site, self.pooling, index)[0])
            for m, index in self.indexes.items()
        }

    # -------------------------------------------------------------------------------- keeping

    def states_key(self) -> str:
        """What the states of all checkpoints are, and how they were pooled."""
        return key_of(self.code, self.run.plan_hash, self.pooling, self._seen, self.measured)

    def _shelf(self, checkpoint: str, site: str, unit: Unit) -> Shelf:
        name = f"{site}.{unit.replace('->', '-to-')}"
        return Shelf(self.run.kept() / checkpoint / name, self._key(checkpoint, unit))

    def _key(self, checkpoint: str, unit: Unit) -> str:
        sides = re.split("->|-|@", unit)
        index = [self._sha(side) for side in sides]
        seen = {name: self._seen[name] for name in (self.checkpoints[0], checkpoint)}
        return key_of(self.code, self.run.plan_hash, self.pooling, self.device.name, seen, index)

    def _sha(self, modality: str) -> str:
        index = next(i for m, i in self.indexes.items() if m == modality)
        return hashlib.sha256(index.tobytes()).hexdigest()

    @cached_property
    def _seen(self) -> Mapping[str, list[str]]:
        """By checkpoint, what its states are: what made them, and the hash of every shard."""
        return {
            name: [
                checkpoint_hash(self.run.checkpoint(name)),
                *(receipt.sha256 for receipt in self.run.receipts(name)),
            ]
            for name in self.checkpoints
        }


def units_of(
    modalities: Sequence[Modality], media: Sequence[Modality], *, matched: bool = False
) -> tuple[Unit, ...]:
    """All of the modalities, then of each medium that shares samples with text its units."""
    pairs = [(f"{m}-text", f"{m}->text", f"text->{m}") for m in media]
    texts = [f"text@{m}" for m in media if matched]
    return (*modalities, *(unit for three in pairs for unit in three), *texts)


def group_of(row: Row) -> str:
    """The group of a row; one without is a group of its own."""
    return row.group or row.id


def _outliers(states: NDArray[np.float32]) -> Outliers:
    """Empty where there are none to leave out; the metric then says why."""
    try:
        return Outliers(
            *(
                tuple(outlier_dimensions(states, ROGUE, by=by).tolist())
                for by in ("cosine", "variance")
            )
        )
    except (DegenerateInput, UsageError):
        return Outliers()


def _some(groups: set[str], share: float) -> set[str]:
    ranked = sorted(groups, key=lambda name: hashlib.sha256(name.encode()).digest())
    return set(ranked[: max(1, int(share * len(ranked)))])
