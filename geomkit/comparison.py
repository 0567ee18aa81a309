"""Any two checkpoints of a run, set against each other at one site.

    two checkpoints -> estimates of every metric -> paired differences -> p, status -> transfers

Which of the two is "before" is the caller's choice, and a run may hold more than two. Headline
metrics are one family of tests and all others a second, so what `analyze` says of the last
checkpoint against the first is said here too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships no types

from geomkit.analyze import paired_changes, survey_of, trained_on
from geomkit.claims import claim, judged, medium_of
from geomkit.compare import HEADLINE, SITE, Key, in_families, key
from geomkit.enquiry import AnalyzeConfig
from geomkit.errors import DegenerateInput, StoreError, UsageError
from geomkit.estimates import Result
from geomkit.estimates.survey import units_of
from geomkit.outcome import reached, sentences
from geomkit.store import Run
from geomkit.transfer import transfers
from geomkit.types import MODALITIES, CheckpointRecord, Difference, Row, Status, Transfer
from geomkit.ways import Change
from geomkit.words import lacking, listed

Estimates = Callable[[str, str, str], Mapping[str, Result]]
"""Checkpoint, site, unit (`image`, `image-text`, `image->text`) -> every metric of the unit.

`text@image` is text in the samples that have an image; without it images are set against all text.
"""


@dataclass(frozen=True, slots=True)
class Contrast:
    """One metric of one unit: both values, their paired difference, what is left of it in words."""

    difference: Difference
    before: float | None
    after: float | None
    p: float | None
    status: Status


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that is said of two checkpoints at one site.

    `sentences` are the outcome in words; `reached` is True when it transferred to every modality
    that training did not see, and None when it is not known which those are.
    """

    before: str
    after: str
    site: str
    trained: tuple[str, ...]
    contrasts: tuple[Contrast, ...]
    transfers: tuple[Transfer, ...]
    sentences: tuple[str, ...]
    reached: bool | None


def compare_checkpoints(
    run: Run,
    estimates: Estimates,
    before: str,
    after: str,
    *,
    site: str = SITE,
    trained: Sequence[str] = (),
) -> Comparison:
    """Compare two checkpoints of a run.

    Args:
        run: a run that holds both, complete.
        estimates: where the numbers come from.
        before: the checkpoint to compare with.
        after: the one that is judged.
        site: where the states were read.
        trained: modalities that training saw; by default what the records of the two say.

    Raises:
        UsageError: a name is not of the run, or is given twice.
        StoreError: one of the two is not complete.
    """
    records = _records(run, before, after)
    _require_site(records, site)
    seen = _trained(records, trained, [unit for unit in units(run.plan.rows) if unit in MODALITIES])
    changes = tuple(paired_changes(estimates, (before, after), site, units(run.plan.rows)))
    found = transfers(changes, seen)
    return Comparison(
        before,
        after,
        site,
        seen,
        tuple(_contrasts(changes)),
        found,
        tuple(sentences(found)) if seen else (UNKNOWN,),
        reached(found) if seen else None,
    )


UNKNOWN = (
    "Transfer: no record says what training saw; name it, as in --trained text, to have transfer "
    "judged."
)


def units(rows: Sequence[Row]) -> tuple[str, ...]:
    """Everything that has metrics: modalities, pairs, directions, text in the samples of media."""
    seen = {m: {row.id for row in rows if row.modality == m} for m in MODALITIES}
    present = [m for m in MODALITIES if seen[m]]
    media = [m for m in present if m != "text" and seen[m] & seen["text"]]
    return units_of(present, media, matched=True)


def _records(run: Run, before: str, after: str) -> tuple[CheckpointRecord, CheckpointRecord]:
    """The records of two different, complete checkpoints."""
    if before == after:
        raise UsageError(f"Expected two different checkpoints, got {before!r} twice.")
    known = {record.name: record for record in run.checkpoints()}
    for name in (before, after):
        if name not in known:
            raise UsageError(
                f"Expected a checkpoint of the run ({', '.join(known) or 'it has none'}), "
                f"got {name!r}."
            )
        if missing := run.missing(name):
            raise StoreError(
                f"Expected complete checkpoints, but {lacking(name, missing, run.shard_count())}; "
                "finish the capture first."
            )
    return known[before], known[after]


def _require_site(records: Sequence[CheckpointRecord], site: str) -> None:
    shared = [s for s in records[0].sites if s in records[1].sites]
    if site not in shared:
        raise UsageError(
            f"Expected a site that both checkpoints have ({', '.join(shared)}), got {site!r}."
        )


def _trained(
    records: Sequence[CheckpointRecord], given: Sequence[str], captured: Sequence[str]
) -> tuple[str, ...]:
    """What training saw: as given, or as either record tells, whichever of them came first."""
    for name in given:
        if name not in captured:
            raise UsageError(
                f"Expected modalities of the run ({', '.join(captured)}) as trained, got {name!r}."
            )
    told = given or (*trained_on(records), *trained_on(records[::-1]))
    return tuple(m for m in MODALITIES if m in told)


def _contrasts(changes: Sequence[Change]) -> Iterator[Contrast]:
    """Each change with its p and its status; distances are read with uniformity, as everywhere."""
    changes = [c for c in changes if "@" not in c.record.modality]
    differences = [c.record for c in changes]
    p = in_families(differences)
    spread = {d.modality: judged(d, p.get(key(d))) for d in differences if d.metric == "uniformity"}
    for c in changes:
        ends = (_value(c.before), _value(c.after))
        yield Contrast(c.record, *ends, p.get(key(c.record)), _status(c.record, p, spread))


def _status(d: Difference, p: Mapping[Key, float], spread: Mapping[str, Status]) -> Status:
    return claim(d, p.get(key(d)), spread.get(medium_of(d.modality), "NOT RUN"))


def _value(result: Result) -> float | None:
    return None if isinstance(result, DegenerateInput) else result.value


def families(comparison: Comparison) -> str:
    """How many tests each p is one of."""
    tests = [c.difference.metric for c in comparison.contrasts if c.p is not None]
    told = f"p: two-sided, Holm-adjusted among {_sizes(tests)}"
    unseen = {(t.metric, t.untrained) for t in comparison.transfers if t.p is not None}
    if not unseen:
        return told
    return f"{told}; of transfer, among {_sizes([m for m, _ in unseen])} of untrained modalities"


def _sizes(metrics: Sequence[str]) -> str:
    """`19 headline tests and 12 others`."""
    headline = sum(metric in HEADLINE for metric in metrics)
    told = [f"{headline} headline tests"] if headline else []
    return listed([*told, *([f"{len(metrics) - headline} others"] * (len(metrics) > headline))])


def measured(run: Run, config: AnalyzeConfig | None = None) -> Estimates:
    """The estimates of a run: those that are kept, and the others made first, a site at a time."""
    survey = survey_of(run, config or AnalyzeConfig())

    @cache
    def make(site: str) -> None:
        with threadpool_limits(1):
            survey.site(site, matched=True)

    def of(checkpoint: str, site: str, unit: str) -> Mapping[str, Result]:
        make(site)
        return survey.found(checkpoint, site, unit)

    return of
