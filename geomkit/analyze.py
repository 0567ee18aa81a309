"""A run in, every number out: measurements with intervals, and paired differences.

    run -> for each site: states -> spaces (one a modality and checkpoint) -> estimates
        -> Measurement (one a checkpoint), Difference (each later checkpoint against the first)
        -> verdicts and headline -> Analysis

One site is in memory at a time. A metric that is not defined at a site is recorded without a value
and with the reason. Nothing here draws a random number or reads a clock, so the same run gives the
same bytes.
"""

from __future__ import annotations

import platform
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships no types

from geomkit import estimates
from geomkit.compare import LEVEL, adjusted, key, verdicts
from geomkit.errors import StoreError, UsageError
from geomkit.estimates import Result
from geomkit.generative import generative_loss
from geomkit.headline import headline
from geomkit.plans import CaptureConfig
from geomkit.recorded import RECORDED, Cell, difference, measurement
from geomkit.store import Run
from geomkit.types import (
    MODALITIES,
    Activations,
    Analysis,
    CheckpointRecord,
    Difference,
    Measurement,
    Modality,
    ProbeResult,
    Row,
)

SCHEMA = "geomkit-analysis/1"
DISTRIBUTIONS = ("geomkit", "numpy", "scipy", "scikit-learn")

Probe = Callable[[Run], tuple[tuple[ProbeResult, ...], tuple[Difference, ...]]]


def analyze_run(
    run: Run,
    *,
    probe: Probe | None = None,
    seed: int = 0,
    sites: Sequence[str] | None = None,
    pooling: str | None = None,
) -> Analysis:
    """Measure a run, compare its checkpoints, and judge the last against the first.

    Args:
        run: a run with at least one complete checkpoint.
        probe: trains the probes; none are trained without it.
        seed: what `probe` was given, for the record; the measurements are not random.
        sites: some of the run's sites; all by default.
        pooling: one of the plan's poolings; its first by default.

    Raises:
        StoreError: when no checkpoint is complete.
        UsageError: when a site or pooling is asked for that the run does not have.
    """
    records = complete(run)
    pooling = pooling or run.plan.poolings[0]
    chosen = _sites(records, sites)
    measurements, differences = measure(run, sites=chosen, pooling=pooling)
    probes, probe_differences = probe(run) if probe else ((), ())
    trained = trained_on(records)
    found = verdicts(measurements, (*differences, *probe_differences), probes, trained)
    return Analysis(
        schema=SCHEMA,
        plan_hash=run.plan.hash,
        dataset=run.plan.dataset,
        checkpoints=tuple(record.name for record in records),
        sites=chosen,
        modalities=modalities(run.plan.rows),
        pairs=tuple("-".join(pair) for pair in pairs(run.plan.rows)),
        trained=trained,
        headline=headline(found, measurements),
        verdicts=found,
        measurements=measurements,
        differences=differences,
        probes=probes,
        probe_differences=probe_differences,
        skipped=run.skipped(),
        provenance=_provenance(run, records, pooling, seed),
    )


def stored_analysis(run: Run) -> Analysis | None:
    """The analysis in the run folder, if it was made from this plan and these weights."""
    if not run.has_analysis():
        return None
    stored = run.read_analysis()
    of = tuple((r["name"], r["weights_sha"]) for r in stored.provenance.get("checkpoints", ()))
    return stored if (stored.plan_hash, of) == (run.plan.hash, weights(complete(run))) else None


def weights(records: Sequence[CheckpointRecord]) -> tuple[tuple[str, str], ...]:
    """Name and hash of the weights of every checkpoint, in capture order."""
    return tuple((record.name, record.weights_sha) for record in records)


def measure(
    run: Run, *, sites: Sequence[str] | None = None, pooling: str | None = None
) -> tuple[tuple[Measurement, ...], tuple[Difference, ...]]:
    """Every metric of every complete checkpoint, and its change against the first checkpoint.

    Raises:
        StoreError: when no checkpoint is complete.
        UsageError: when a site or pooling is asked for that the run does not have.
    """
    records = complete(run)
    pooling = pooling or run.plan.poolings[0]
    if pooling not in run.plan.poolings:
        raise UsageError(
            f"Expected a pooling of the run ({', '.join(run.plan.poolings)}), got {pooling!r}."
        )
    measurements: list[Measurement] = []
    differences: list[Difference] = []
    with threadpool_limits(1):  # sums in one order whatever the machine: the same bytes
        for site in _sites(records, sites):
            found, changes = _measure_site(run, [r.name for r in records], site, pooling)
            measurements += found
            differences += changes
    losses, changes_of_loss = generative_loss(records)
    return (*measurements, *losses), tuple(_with_family((*differences, *changes_of_loss)))


def complete(run: Run) -> tuple[CheckpointRecord, ...]:
    """The checkpoints whose capture is finished, in capture order; damage shows when one is read.

    Raises:
        StoreError: when there is none.
    """
    records = run.captured()
    if not records:
        raise StoreError(
            f"Expected a complete checkpoint in {run.path}, got none; finish the capture first."
        )
    return records


def trained_on(records: Sequence[CheckpointRecord]) -> tuple[str, ...]:
    """The modalities that the last checkpoint's training saw; empty when no record tells.

    Text is always among them: training is contrastive on text pairs, and media come on top.
    """
    training = records[-1].training if len(records) > 1 else {}
    if not training:
        return ()
    media = training.get("media", {})
    return tuple(m for m in MODALITIES if m == "text" or media.get(m, 0))


def modalities(rows: Sequence[Row]) -> tuple[Modality, ...]:
    """The modalities of the rows, in canonical order."""
    present = {row.modality for row in rows}
    return tuple(m for m in MODALITIES if m in present)


def pairs(rows: Sequence[Row]) -> tuple[tuple[Modality, Modality], ...]:
    """(media modality, "text") for each medium that shares an id with a text row."""
    captioned = {row.id for row in rows if row.modality == "text"}
    return tuple(
        (medium, "text")
        for medium in modalities(rows)
        if medium != "text" and any(r.modality == medium and r.id in captioned for r in rows)
    )


def _sites(records: Sequence[CheckpointRecord], wanted: Sequence[str] | None) -> tuple[str, ...]:
    """Sites that every checkpoint has, in depth order; or the wanted ones of them."""
    shared = [s for s in records[0].sites if all(s in record.sites for record in records)]
    missing = [site for site in wanted or () if site not in shared]
    if missing:
        raise UsageError(f"Expected a site of the run ({', '.join(shared)}), got {missing[0]!r}.")
    return tuple(site for site in shared if wanted is None or site in wanted)


def _measure_site(
    run: Run, names: Sequence[str], site: str, pooling: str
) -> tuple[list[Measurement], list[Difference]]:
    """One site of every checkpoint; only the first one's estimates are kept for the others."""
    measurements: list[Measurement] = []
    differences: list[Difference] = []
    first: Mapping[Cell, Result] = {}
    for name in names:
        results = dict(_results(run, name, site, pooling))
        measurements += [measurement(cell, found, name, site) for cell, found in results.items()]
        if name == names[0]:
            first = results
            continue
        pair = (names[0], name)
        differences += [difference(c, first[c], found, pair, site) for c, found in results.items()]
    return measurements, differences


def _results(run: Run, checkpoint: str, site: str, pooling: str) -> Iterator[tuple[Cell, Result]]:
    """Every estimate of one checkpoint at one site, by (metric, modality)."""
    views = {m: run.activations(checkpoint, site, m, pooling) for m in modalities(run.plan.rows)}
    spaces = {m: _space(view, range(len(view.rows))) for m, view in views.items()}
    for modality, space in spaces.items():
        yield from _kept(estimates.within(space), modality)
    for medium, text in pairs(run.plan.rows):
        at, partner = _matched(views[medium], views[text])
        # Clusters must be numbered alike on both sides, so a part of a space is made anew.
        whole = len(at) == len(views[medium].rows)
        x = spaces[medium] if whole else _space(views[medium], at)
        y = _space(views[text], partner)
        yield from _kept(estimates.between(x, y), f"{medium}-{text}")
        there, back = estimates.retrieved(x, y)
        yield from _kept(there, f"{medium}->{text}")
        yield from _kept(back, f"{text}->{medium}")


def _kept(results: Mapping[str, Result], modality: str) -> Iterator[tuple[Cell, Result]]:
    return (((name, modality), r) for name, r in results.items() if name in RECORDED)


def _space(view: Activations, at: Sequence[int]) -> estimates.Space:
    """The space of some rows; a row without a group is a group of its own."""
    groups = [view.rows[i].group or view.rows[i].id for i in at]
    return estimates.space(view.states[list(at)], groups)


def _matched(x: Activations, y: Activations) -> tuple[list[int], list[int]]:
    """Positions of the samples that both sides have, in the order of `x`."""
    place = {row.id: j for j, row in enumerate(y.rows)}
    both = [(i, place[row.id]) for i, row in enumerate(x.rows) if row.id in place]
    return [i for i, _ in both], [j for _, j in both]


def _with_family(differences: Sequence[Difference]) -> Iterator[Difference]:
    """Says, on each headline test, what is left of it after Holm's correction."""
    p = adjusted(differences)
    for d in differences:
        if key(d) not in p:
            yield d
            continue
        size = sum(after == d.after for *_, after in p)
        family = f"Holm-adjusted p {p[key(d)]:.2g} among {size} headline tests (level {LEVEL})"
        yield replace(d, note="; ".join(part for part in (d.note, family) if part))


def _provenance(
    run: Run, records: Sequence[CheckpointRecord], pooling: str, seed: int
) -> Mapping[str, Any]:
    return {
        "prompts": dict(run.plan.prompts),
        "pooling": pooling,
        "checkpoints": [asdict(record) for record in records],
        "versions": {"python": platform.python_version(), **dict(_versions())},
        "seed": seed,
        "commands": list(_commands(run, records)),
        "intervals": "95 %, paired by sample and clustered by group; verdicts are Holm-corrected "
        "over all headline metrics and modalities at final_norm; losses and probes are families of "
        "their own",
    }


def _commands(run: Run, records: Sequence[CheckpointRecord]) -> Iterator[str]:
    """What to type to make this run again, where checkpoints and data are where they were."""
    named = [("--ckpt", f"{r.name}={r.source.partition(' (')[0]}") for r in records]
    given = [*named, ("--data", run.plan.dataset), *run.plan.options]
    given += [
        (f"--{name}", value)
        for name in ("dtype", "attention")
        if (value := getattr(records[0], name)) not in {"", getattr(CaptureConfig(), name)}
    ]
    yield f"geomkit capture {shlex.join(word for option in given for word in option if word)}"
    yield "geomkit report"


def _versions() -> Iterator[tuple[str, str]]:
    for name in DISTRIBUTIONS:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            yield name, "unknown"
