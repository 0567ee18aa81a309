"""A run in, every number out: measurements with intervals, and paired differences.

    run -> for each site: states -> spaces (one a modality and checkpoint) -> estimates, kept
        -> Measurement (one a checkpoint), Difference (each later checkpoint against the first)
        -> transfer, verdicts and headline -> Analysis

Sites are measured side by side in processes, each with one site of one checkpoint in memory, and
what was measured is kept beside the run: an analysis that was interrupted goes on, and one of more
metrics, sites or checkpoints makes only what is new. A metric that is not defined at a site is
recorded without a value and with the reason. Nothing here reads a clock, and what is random is
seeded, so the same run gives the same bytes however many processes there were.
"""

from __future__ import annotations

import functools
import itertools
import platform
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from geomkit import crew, estimates
from geomkit.claims import LEVEL
from geomkit.compare import SITE, adjusted, key, verdicts
from geomkit.enquiry import AnalyzeConfig
from geomkit.errors import StoreError, UsageError
from geomkit.estimates import Device, Result
from geomkit.estimates.kept import code_sha, keep, key_of
from geomkit.estimates.memory import need, rows_that_fit
from geomkit.estimates.survey import Survey, units_of
from geomkit.generative import generative_loss
from geomkit.headline import headline
from geomkit.plans import CaptureConfig
from geomkit.progress import Progress, silent
from geomkit.recorded import banded, changed, difference, measurement
from geomkit.store import Run, records
from geomkit.transfer import transfers
from geomkit.types import (
    MODALITIES,
    Analysis,
    CheckpointRecord,
    Difference,
    Findings,
    Measurement,
    Transfer,
)
from geomkit.ways import Change

SCHEMA = "geomkit-analysis/1"
DISTRIBUTIONS = ("geomkit", "numpy", "scipy", "scikit-learn")
GIB = 2**30


@dataclass(frozen=True, slots=True)
class Probes:
    """What trains probes at a site on rows of the plan, where, and what decides its findings."""

    at: Callable[..., Findings]  # (run, site, rows=...)
    sites: tuple[str, ...]
    decided: str
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Kept:
    """Findings of one site on disk, and the key of what they were made from."""

    key: str
    findings: Findings


def analyze_run(
    run: Run,
    config: AnalyzeConfig | None = None,
    *,
    probes: Probes | None = None,
    progress: Progress = silent,
) -> Analysis:
    """Measure a run, compare its checkpoints, and judge the last against the first.

    Args:
        run: a run with at least one complete checkpoint.
        config: what to measure, and with which means; the defaults without.
        probes: what trains the probes; none are trained without it.
        progress: told how many sites are done.

    Raises:
        StoreError: when no checkpoint is complete.
        UsageError: when a metric, site or pooling is asked for that there is not, or the memory
            holds no rows.
    """
    config = config or AnalyzeConfig()
    records_of = complete(run)
    survey = survey_of(run, config, records_of)
    sites = shared_sites(records_of, config.sites)
    if not survey.indexes:
        raise StoreError(f"Expected rows that could be read in {run.path}, got none; see its info.")
    probed = tuple(s for s in probes.sites if s in sites) if probes else ()
    pieces: list[Callable[[], None]] = [
        functools.partial(survey.site, s, matched=s == SITE)
        for s in sites
        if survey.lacks(s, matched=s == SITE)
    ]
    pieces += [
        functools.partial(_probe, survey, probes, s)
        for s in probed
        if probes and (survey.again or _kept(survey, probes, s) is None)
    ]
    hands = crew.hands(config.workers, config.memory * GIB, _need(survey, probes))
    crew.work(pieces, hands, "analyze", progress)
    found = survey.found
    measurements, differences = _recorded(found, survey, sites, records_of)
    findings = [_findings(survey, probes, s) for s in probed if probes]
    told = Findings.of(findings)
    measurements += told.measurements
    differences += told.differences
    trained = trained_on(records_of)
    carried = _transfers(found, survey, trained) if SITE in sites else ()
    judged = verdicts(measurements, (*differences, *told.probe_differences), told.probes, trained)
    return Analysis(
        schema=SCHEMA,
        plan_hash=run.plan.hash,
        dataset=run.plan.dataset,
        checkpoints=survey.checkpoints,
        sites=sites,
        modalities=survey.modalities,
        pairs=tuple(f"{medium}-text" for medium in survey.media),
        trained=trained,
        headline=headline(judged, measurements, carried, told.bindings),
        verdicts=judged,
        measurements=measurements,
        differences=differences,
        probes=told.probes,
        probe_differences=told.probe_differences,
        skipped=run.skipped(),
        provenance=_provenance(survey, records_of, config, probes.seed if probes else 0),
        transfers=carried,
        bindings=told.bindings,
        drifts=told.drifts,
    )


def survey_of(
    run: Run, config: AnalyzeConfig, records_of: Sequence[CheckpointRecord] | None = None
) -> Survey:
    """What `config` asks of the complete checkpoints of a run, as far as memory allows.

    Raises:
        StoreError: when no checkpoint is complete.
        UsageError: when a metric or pooling is asked for that there is not, or the memory holds no
            rows.
    """
    records_of = records_of or complete(run)
    pooling = config.pooling or run.plan.poolings[0]
    if pooling not in run.plan.poolings:
        raise UsageError(
            f"Expected a pooling of the run ({', '.join(run.plan.poolings)}), got {pooling!r}."
        )
    device = Device(config.device)
    device.require()
    memory = config.memory * GIB - crew.BASE
    planned = Counter(row.modality for row in run.plan.rows)
    probed = planned.total() / max(planned.values()) if config.probes else 0.0
    return Survey(
        run=replace(run, path=run.path.absolute()),  # processes may stand in another folder
        checkpoints=tuple(record.name for record in records_of),
        pooling=pooling,
        metrics=estimates.selected(config.metrics),
        device=device,
        most=rows_that_fit(memory, max(r.dim for r in records_of), probed),
        again=config.again,
    )


Found = Callable[[str, str, str], Mapping[str, Result]]
"""Checkpoint, site, unit -> the estimates by metric."""


def stored_analysis(run: Run) -> Analysis | None:
    """The analysis in the run folder, if it is of this plan, these weights and this code."""
    if not run.has_analysis():
        return None
    stored = run.read_analysis()
    if stored.provenance.get("code", code_sha()) != code_sha():
        return None
    of = tuple((r["name"], r["weights_sha"]) for r in stored.provenance.get("checkpoints", ()))
    return stored if (stored.plan_hash, of) == (run.plan.hash, weights(complete(run))) else None


def weights(records_of: Sequence[CheckpointRecord]) -> tuple[tuple[str, str], ...]:
    """Name and hash of the weights of every checkpoint, in capture order."""
    return tuple((record.name, record.weights_sha) for record in records_of)


def complete(run: Run) -> tuple[CheckpointRecord, ...]:
    """The checkpoints whose capture is finished, in capture order; damage shows when one is read.

    Raises:
        StoreError: when there is none.
    """
    found = run.captured()
    if not found:
        raise StoreError(
            f"Expected a complete checkpoint in {run.path}, got none; finish the capture first."
        )
    return found


def trained_on(records_of: Sequence[CheckpointRecord]) -> tuple[str, ...]:
    """The modalities that the last checkpoint's training saw; empty when no record tells.

    Text is always among them: training is contrastive on text pairs, and media come on top.
    """
    training = records_of[-1].training if len(records_of) > 1 else {}
    if not training or training.get("trained") == []:  # a soup of which no record tells all
        return ()
    media = training.get("media", {})
    return tuple(m for m in MODALITIES if m == "text" or media.get(m, 0))


def shared_sites(records_of: Sequence[CheckpointRecord], wanted: Sequence[str]) -> tuple[str, ...]:
    """Sites that every checkpoint has, in depth order; or the wanted ones of them.

    Raises:
        UsageError: one is wanted that there is not.
    """
    shared = [s for s in records_of[0].sites if all(s in record.sites for record in records_of)]
    if not shared:
        names = ", ".join(record.name for record in records_of)
        raise UsageError(f"Expected a site that all checkpoints have ({names}), got none.")
    missing = [site for site in wanted if site not in shared]
    if missing:
        raise UsageError(f"Expected a site of the run ({', '.join(shared)}), got {missing[0]!r}.")
    return tuple(site for site in shared if not wanted or site in wanted)


def paired_changes(
    found: Found, names: tuple[str, str], site: str, units: Sequence[str]
) -> Iterator[Change]:
    """From one checkpoint to another, of every metric of every unit, in the order of a record."""
    for unit in units:
        before, after = (found(name, site, unit) for name in names)
        for metric in before:
            ends = before[metric], after[metric]
            yield Change(difference((metric, unit), changed(*ends), names, site), *ends)


def _transfers(found: Found, survey: Survey, trained: Sequence[str]) -> tuple[Transfer, ...]:
    """At the headline site, each later checkpoint against the first."""
    units = units_of(survey.modalities, survey.media, matched=True)
    first, *later = survey.checkpoints
    return tuple(
        transfer
        for after in later
        for transfer in transfers(paired_changes(found, (first, after), SITE, units), trained)
    )


def _recorded(
    found: Found,
    survey: Survey,
    sites: Sequence[str],
    records_of: Sequence[CheckpointRecord],
) -> tuple[tuple[Measurement, ...], tuple[Difference, ...]]:
    """Every estimate as a record, and every change against the first checkpoint.

    Unit by unit, since the sites of a unit share bands: their shares alone are in memory.
    """
    measured: dict[tuple[str, str, str], list[Measurement]] = {}
    differences: list[Difference] = []
    for unit in survey.units:
        of_unit = _of_unit(found, unit)
        for site, name in itertools.product(sites, survey.checkpoints):
            measured[site, name, unit] = [
                measurement((metric, unit), result, name, site)
                for metric, result in of_unit(name, site).items()
            ]
        for after in survey.checkpoints[1:]:
            differences += _changes(of_unit, (survey.checkpoints[0], after), unit, sites)
    ordered = itertools.product(sites, survey.checkpoints, survey.units)
    measurements = tuple(m for place in ordered for m in measured[place])
    losses, changes_of_loss = generative_loss(records_of)
    return (*measurements, *losses), tuple(_with_family((*differences, *changes_of_loss)))


def _of_unit(found: Found, unit: str) -> Callable[[str, str], Mapping[str, Result]]:
    """The estimates of one unit by checkpoint and site, each read once."""

    @functools.cache
    def at(checkpoint: str, site: str) -> Mapping[str, Result]:
        return found(checkpoint, site, unit)

    return at


def _changes(
    found: Callable[[str, str], Mapping[str, Result]],
    names: tuple[str, str],
    unit: str,
    sites: Sequence[str],
) -> Iterator[Difference]:
    """Of one unit: metric by metric at all sites, because they share a band."""
    for metric in found(names[0], sites[0]):
        ends = {s: [found(name, s)[metric] for name in names] for s in sites}
        moved = {site: changed(*pair) for site, pair in ends.items()}
        band = banded(moved)
        for site, change in moved.items():
            one = difference((metric, unit), change, names, site)
            yield replace(one, band=band.get(site))


def _probe(survey: Survey, probes: Probes, site: str) -> None:
    """Train the probes of one site, and keep what they found."""
    made = Kept(_probe_key(survey, probes, site), probes.at(survey.run, site, rows=survey.measured))
    keep(survey.run.kept() / "_probes" / site, records.to_json(made))


def _findings(survey: Survey, probes: Probes, site: str) -> Findings:
    found = _kept(survey, probes, site)
    if found is None:
        raise StoreError(
            f"what the probes found at {site} is gone from {survey.run.kept()}: another process "
            "removed it; analyze again"
        )
    return found


def _kept(survey: Survey, probes: Probes, site: str) -> Findings | None:
    """What was found at a site, if it is of these states; None otherwise."""
    try:
        kept = records.from_json(Kept, survey.run.kept() / "_probes" / site)
    except StoreError:
        return None
    return kept.findings if kept.key == _probe_key(survey, probes, site) else None


def _probe_key(survey: Survey, probes: Probes, site: str) -> str:
    return key_of("probes", survey.states_key(), site, probes.decided)


def _need(survey: Survey, probes: Probes | None) -> float:
    """Bytes that one process needs at one site."""
    rows = [len(index) for index in survey.indexes.values()]
    dim = max(survey.run.checkpoint(name).dim for name in survey.checkpoints)
    return need(max(rows), dim, sum(rows) / max(rows) if probes else 0.0)


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
    survey: Survey,
    records_of: Sequence[CheckpointRecord],
    config: AnalyzeConfig,
    seed: int,
) -> Mapping[str, Any]:
    run = survey.run
    return {
        "prompts": dict(run.plan.prompts),
        "pooling": survey.pooling,
        "rows": {m: len(index) for m, index in survey.indexes.items()},
        "checkpoints": [asdict(record) for record in records_of],
        "versions": {"python": platform.python_version(), **dict(_versions())},
        "seed": seed,
        "code": survey.code,
        "commands": list(_commands(run, records_of, config)),
        "intervals": "95 %, paired by sample and clustered by group; verdicts are Holm-corrected "
        "over all headline metrics and modalities at final_norm; losses and probes are families of "
        "their own",
    }


def _commands(
    run: Run, records_of: Sequence[CheckpointRecord], config: AnalyzeConfig
) -> Iterator[str]:
    """What to type to make this run again, where checkpoints and data are where they were."""
    named = [("--ckpt", f"{r.name}={r.source.partition(' (')[0]}") for r in records_of]
    given = [*named, ("--data", run.plan.dataset), *run.plan.options]
    given += [
        (f"--{name}", value)
        for name in ("dtype", "attention")
        if (value := getattr(records_of[0], name)) not in {"", getattr(CaptureConfig(), name)}
    ]
    yield f"geomkit capture {shlex.join(word for option in given for word in option if word)}"
    yield f"geomkit analyze {shlex.join(config.options())}".rstrip()
    yield "geomkit report"


def _versions() -> Iterator[tuple[str, str]]:
    for name in DISTRIBUTIONS:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            yield name, "unknown"
