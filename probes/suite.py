"""All that probes say of one site: one reading of the states, every part from it.

    findings = Findings.of(probe_site(run, site, config) for site in probed_sites(run))

A site needs nothing of another, so sites can be run in any order, in processes of their own, and
again after an interruption: findings are plain records. One call holds the states of one site of
two checkpoints, the first and each later one in turn, and at most five times as much while one part
makes something of them: 0.5 GiB for 2000 samples of three modalities in 2048 columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships no types

from geomkit.store import Run
from geomkit.types import Activations, Findings, Modality
from probes.binding import bindings
from probes.cells import Cell, Result, recorded
from probes.config import ProbeConfig
from probes.drift import drifts
from probes.linear import Reading, changes, probed_sites, readings
from probes.mdl import compressions
from probes.separability import separabilities
from probes.split import group_of, held_out_groups
from probes.tasks import Attribute, attributes_of

Views: TypeAlias = Mapping[Modality, Activations]


def probe_run(run: Run, config: ProbeConfig | None = None) -> Findings:
    """Probe every site, one after the other.

    Raises:
        UsageError: when a site is asked for that the run does not have.
    """
    config = config or ProbeConfig()
    return Findings.of(probe_site(run, site, config) for site in probed_sites(run, config.sites))


def probe_site(
    run: Run,
    site: str,
    config: ProbeConfig | None = None,
    rows: Sequence[int] | None = None,
) -> Findings:
    """The parts that `config` asks for, at one site of every complete checkpoint.

    Of some `rows` of the plan only those.

    Raises:
        StoreError: when the run does not have the site, or its states are damaged.
    """
    config = config or ProbeConfig()
    held_out = held_out_groups(map(group_of, run.plan.rows), config.held_out, config.seed)
    asked = Asked(config, attributes_of(run.plan.rows), held_out)
    read: list[tuple[Reading, ...]] = []
    cells: dict[str, Mapping[Cell, Result]] = {}
    moves: list[Findings] = []
    first: Views | None = None
    with threadpool_limits(1):  # many small sums: faster, and the same bytes on every machine
        for record in run.captured():
            read_back = run.views(record.name, site, config.pooling, rows)
            views = {m: view for m, view in read_back.items() if view.rows}
            read.append(asked.readings(views))
            cells[record.name] = asked.cells(views)
            if first is None:
                first = views
            else:
                moves.append(asked.moves(first, views))
    return Findings.of([_compared(read, cells), *moves])


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of every checkpoint and site alike."""

    config: ProbeConfig
    attributes: tuple[Attribute, ...]
    held_out: frozenset[str]

    def readings(self, views: Views) -> tuple[Reading, ...]:
        """The linear probes of one checkpoint, if asked for."""
        if "linear" not in self.config.parts:
            return ()
        return readings(views, self.attributes, self.held_out, self.config)

    def cells(self, views: Views) -> Mapping[Cell, Result]:
        """The label bits and the separability of one checkpoint, if asked for."""
        found: dict[Cell, Result] = {}
        if "mdl" in self.config.parts:
            found |= compressions(views, self.attributes, self.config)
        if "separability" in self.config.parts:
            found |= separabilities(views, self.held_out, self.config)
        return found

    def moves(self, before: Views, after: Views) -> Findings:
        """The binding test and the drift from one checkpoint to another, if asked for.

        Nothing where their states differ in width: neither is then defined.
        """
        parts = self.config.parts
        if any(before[m].states.shape != after[m].states.shape for m in before):
            return Findings()
        return Findings(
            bindings=bindings(before, after, self.held_out) if "binding" in parts else (),
            drifts=drifts(before, after) if "drift" in parts else (),
        )


def _compared(
    read: Sequence[tuple[Reading, ...]], cells: Mapping[str, Mapping[Cell, Result]]
) -> Findings:
    """Every checkpoint's own records, and each later one against the first."""
    measurements, differences = recorded(cells)
    return Findings(
        probes=tuple(reading.result for of_one in read for reading in of_one),
        probe_differences=tuple(d for later in read[1:] for d in changes(read[0], later)),
        measurements=measurements,
        differences=differences,
    )
