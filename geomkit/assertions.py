"""Geometry as a test: `assert_*` for any test suite.

    assert_improved("geomkit-run", "mean_cosine", "image")
    assert_transfers("geomkit-run", to=("image", "audio"))
    assert_isotropic(states, max_mean_cosine=0.2)

Each has three outcomes: it holds and returns nothing; it does not hold; or the data cannot tell.
The last two raise `CheckFailed` (an AssertionError) and say which it was, in a first line that
stands alone. An assertion is one test at its interval's level; a suite of many is a family, and its
errors add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from geomkit import estimates
from geomkit.analyze import analyze_run, complete, stored_analysis, weights
from geomkit.claims import LEAST, negligible
from geomkit.compare import SITE, number
from geomkit.errors import CheckFailed, DegenerateInput, UsageError
from geomkit.geometry.rows import as_rows, on_host
from geomkit.statistics import interval
from geomkit.store import Run, open_run
from geomkit.types import Analysis, Difference, Interval, Measurement
from geomkit.words import listed

Source = str | Path | Run | Analysis
"""A run folder, an open run, or what was measured on one."""


def assert_improved(
    source: Source, metric: str, modality: str, site: str = SITE, by: float = 0.0
) -> None:
    """The metric got better by more than `by`: the whole paired interval lies beyond it.

    Args:
        source: a run, its folder, or its analysis; the last checkpoint is compared with the first.
        metric: a metric with a better direction, as in the analysis.
        modality: `image`, a pair `image-text` or a direction `image->text`.
        site: where the states were read.
        by: the least improvement, in the metric's own unit and counted as positive.

    Raises:
        CheckFailed: when it did not, when the data cannot tell, or when it could not be measured.
        UsageError: when the analysis has no such change.
    """
    __tracebackhide__ = True
    found = _open(source)
    failure = _improvement_failure(found, metric, modality, site, by)
    if failure:
        raise CheckFailed(f"{failure.line}\n{failure.company}\n{found.where}")


def assert_transfers(
    source: Source,
    metric: str = "mean_cosine",
    to: Sequence[str] = ("image", "audio"),
    site: str = SITE,
) -> None:
    """The metric got clearly better in what training saw, and in every one of these, unseen.

    Raises:
        CheckFailed: when one of them did not improve, or the data cannot tell.
        UsageError: when no record says what training saw, when it did see one of these, or the
            analysis has no such change.
    """
    __tracebackhide__ = True
    found = _open(source)
    if not found.analysis.trained:
        raise UsageError(
            "Expected a record of what training saw, got none: without it no improvement is a "
            "transfer; use assert_improved."
        )
    seen = [m for m in to if m in found.analysis.trained]
    if seen:
        raise UsageError(
            f"Expected modalities that training did not see, got {listed(seen)}; "
            "use assert_improved for those."
        )
    asked = (*found.analysis.trained, *to)
    failures = {m: f for m in asked if (f := _improvement_failure(found, metric, m, site, 0.0))}
    if failures:
        missed = [m for m in to if m in failures]
        first = f"GEOM {metric}@{site}: no transfer to {listed(missed)}"
        if not missed:
            first = f"GEOM {metric}@{site}: nothing to transfer, no gain in what training saw"
        told = [f"{f.line}\n{f.company}" for f in failures.values()]
        raise CheckFailed("\n".join([first, *told, found.where]))


def assert_isotropic(
    source: Source | Any,
    *,
    max_mean_cosine: float,
    site: str = SITE,
    modality: str | None = None,
    checkpoint: str | None = None,
) -> None:
    """The mean cosine of distinct samples is at most `max_mean_cosine`, interval and all.

    Args:
        source: states `(samples, dim)`, NumPy or torch; or a run, its folder, or its analysis.
        max_mean_cosine: the bound, in [-1, 1].
        site: where the states of a run were read.
        modality: of a run; every one by default.
        checkpoint: of a run; the last by default.

    Raises:
        CheckFailed: when it is higher, when the data cannot tell, or when all states are equal.
        UsageError: when the run has no such measurement.
    """
    __tracebackhide__ = True
    if not isinstance(source, (str, Path, Run, Analysis)):
        failure = _cone_failure(_measure_states(source), max_mean_cosine)
        if failure:
            raise CheckFailed(f"{failure.line}\n{failure.company}")
        return
    found = _open(source)
    name = checkpoint or found.analysis.checkpoints[-1]
    failures = [
        failure
        for m in ([modality] if modality else found.analysis.modalities)
        if (failure := _cone_failure(_find(found.analysis, site, m, name), max_mean_cosine))
    ]
    if failures:
        told = [f"{f.line}\n{f.company}" for f in failures]
        raise CheckFailed("\n".join([*told, found.where]))


def analysis_of(run: Run) -> Analysis:
    """The analysis stored with a run when it still fits, else a fresh one without probes.

    A fresh one is kept for the next assertion on the same run, and not written.
    """
    return stored_analysis(run) or _measured(run.path, run.plan.hash, weights(complete(run)))


@lru_cache(maxsize=2)
def _measured(path: Path, _plan_hash: str, _weights: tuple[tuple[str, str], ...]) -> Analysis:
    """What a run folder holds; measured again when its plan or its weights are others."""
    return analyze_run(open_run(path))


@dataclass(frozen=True, slots=True)
class _Found:
    """An analysis and the run folder it came from, if it is known."""

    analysis: Analysis
    run: Run | None

    @property
    def where(self) -> str:
        """Where the report is and how to make it."""
        if self.run is None:
            return "look: geomkit report RUN"
        report = self.run.beside("report.html")
        made = f"report: {report}\n" if report.is_file() else ""
        return f"{made}look: geomkit report {self.run.path}"


@dataclass(frozen=True, slots=True)
class _Failure:
    """The line that stands alone, and the numbers behind it."""

    line: str
    company: str


def _open(source: Source) -> _Found:
    if isinstance(source, Analysis):
        return _Found(source, None)
    run = source if isinstance(source, Run) else open_run(Path(source))
    return _Found(analysis_of(run), run)


def _improvement_failure(
    found: _Found, metric: str, modality: str, site: str, by: float
) -> _Failure | None:
    """What is wrong with the claim of an improvement beyond `by`; None when nothing is."""
    d = _change(found.analysis, metric, site, modality)
    if d.better == "neither":
        raise UsageError(f"Expected a metric with a better direction, got {metric}.")
    name = f"GEOM {metric}@{site} {modality}:"
    ends = [_at(found.analysis, d, checkpoint) for checkpoint in (d.before, d.after)]
    if d.value is None or d.interval is None:
        return _Failure(f"{name} not measured", f"reason: {d.note or 'none given'}")
    company = (
        f"before {ends[0]}  after {ends[1]}  change {d.value:+.3g} {_span(d.interval, '+')} "
        f"n={d.n} paired\n{d.before} -> {d.after}; {d.better} is better; {d.interval.method}"
    )
    sign = 1 if d.better == "higher" else -1
    least, most = sorted((sign * d.interval.low, sign * d.interval.high))
    if least > by and not negligible(d):
        return None
    if least > by:
        line = f"{name} {number(abs(d.value))} better, less than {LEAST[metric]:g} can be rounding"
        return _Failure(line, company)
    wanted = "better" if by == 0 else f"better by more than {by:.3g}"
    if most >= by:
        line = f"{name} inconclusive, change {d.value:+.3g}, expected {wanted}"
        why = f"the interval holds {sign * by:+.3g}: more samples may tell"
        return _Failure(line, f"{why}\n{company}")
    word = "worse" if sign * d.value < 0 else "better"
    return _Failure(f"{name} {word} by {abs(d.value):.3g}, expected {wanted}", company)


def _cone_failure(m: Measurement, bound: float) -> _Failure | None:
    """What is wrong with the claim that the mean cosine is at most `bound`; None when nothing."""
    place = f"@{m.site} {m.modality}" if m.site else ""
    name = f"GEOM mean_cosine{place}:"
    if m.value is None or m.interval is None:
        return _Failure(f"{name} not defined, expected <= {bound:.3g}", f"reason: {m.note}")
    if m.interval.high <= bound:
        return None
    company = (
        f"{m.checkpoint or 'states'}: {m.value:.3g} {_span(m.interval)} n={m.n}; "
        "0 is isotropic, 1 is a single direction"
    )
    if m.interval.low <= bound:
        line = f"{name} inconclusive at {m.value:.3g}, expected <= {bound:.3g}"
        return _Failure(line, f"the interval holds {bound:.3g}: more samples may tell\n{company}")
    return _Failure(f"{name} {m.value:.3g} > {bound:.3g}, states lie in a narrow cone", company)


def _measure_states(states: Any) -> Measurement:
    """The mean cosine of bare states, with the reason instead when it is not defined."""
    value, span, note, n = None, None, "", 0
    try:
        space = estimates.space(on_host(as_rows(states)))
        found = estimates.within(space, {"mean_cosine"})["mean_cosine"]
        if isinstance(found, DegenerateInput):
            raise found
        value, span, n = found.value, interval(found, within=(-1.0, 1.0)), found.n
    except DegenerateInput as flaw:
        note = str(flaw)
    return Measurement("mean_cosine", "", "", "", value, span, 0.0, "lower", n, note=note)


def _change(analysis: Analysis, metric: str, site: str, modality: str) -> Difference:
    """The change of the last checkpoint against the first."""
    __tracebackhide__ = True
    after = analysis.checkpoints[-1]
    known = [d for d in (*analysis.differences, *analysis.probe_differences) if d.after == after]
    for d in known:
        if (d.metric, d.site, d.modality) == (metric, site, modality):
            return d
    named = [d for d in known if d.metric == metric] or known
    raise UsageError(_absent(f"change of {metric}@{site} {modality}", named))


def _find(analysis: Analysis, site: str, modality: str, checkpoint: str) -> Measurement:
    try:
        return analysis.find("mean_cosine", site, modality, checkpoint)
    except KeyError as error:
        what = f"mean_cosine@{site} {modality} of {checkpoint}"
        raise UsageError(_absent(what, analysis.measurements)) from error


def _absent(what: str, known: Sequence[Difference | Measurement]) -> str:
    """What was asked for, and what there is to ask for."""
    has = {
        "metrics": [k.metric for k in known],
        "sites": [k.site for k in known],
        "modalities": [k.modality for k in known],
    }
    offer = "; ".join(f"{name}: {', '.join(dict.fromkeys(v)) or 'none'}" for name, v in has.items())
    return f"Expected a {what} that was measured, got none. It has {offer}."


def _at(analysis: Analysis, d: Difference, checkpoint: str) -> str:
    """The value of one checkpoint with its interval; a probe's accuracy for a probe."""
    if d.metric.startswith("probe:"):
        for p in analysis.probes:
            name = (f"probe:{p.attribute}", p.site, f"{p.train_on}->{p.test_on}", p.checkpoint)
            if name == (d.metric, d.site, d.modality, checkpoint):
                return f"{number(p.accuracy)} {_span(p.interval)}"
        return "-"
    try:
        m = analysis.find(d.metric, d.site, d.modality, checkpoint)
    except KeyError:
        return "-"
    return f"{number(m.value)} {_span(m.interval)}".strip()


def _span(span: Interval | None, sign: str = "") -> str:
    """`[0.12, 0.34]`, with the sign of both bounds when asked for."""
    return "" if span is None else f"[{span.low:{sign}.3g}, {span.high:{sign}.3g}]"
