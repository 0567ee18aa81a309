"""An analysis with its records filed by name, and the small rules that all panels share.

The page compares the first checkpoint ("before") with the last ("after"); those in between are
drawn as lines. Where several runs are shown, the last one may have a reference of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from geomkit.claims import claim, clearly, medium_of
from geomkit.types import (
    MODALITIES,
    Analysis,
    Difference,
    Drift,
    Interval,
    Measurement,
    Modality,
    ProbeResult,
    Status,
)
from reports.metrics import DRIFT

FINAL = "final_norm"
HEAD = "lm_head"

Role = Literal["trained", "untrained", "control"]
Certainty = Literal["everywhere", "here", "no"]
"""How clear a change is: at all sites at once, at this site alone, or not."""


@dataclass(frozen=True)
class Book:
    """An analysis with its records filed by name; no slots, because lookups are cached."""

    analysis: Analysis

    @cached_property
    def before(self) -> str:
        """The checkpoint that the last one was compared with; the first, if with several."""
        names = self.analysis.checkpoints
        compared = {
            d.before
            for d in (*self.analysis.differences, *self.analysis.probe_differences)
            if d.after == self.after
        }
        return next((name for name in names if name in compared), names[0] if names else "")

    @property
    def after(self) -> str:
        """The last checkpoint; empty when there is only one."""
        return self.analysis.checkpoints[-1] if len(self.analysis.checkpoints) > 1 else ""

    @property
    def between(self) -> tuple[str, ...]:
        """The checkpoints that are neither, in the order they were named."""
        return tuple(n for n in self.analysis.checkpoints if n not in (self.before, self.after))

    @cached_property
    def measurements(self) -> Mapping[tuple[str, str, str, str], Measurement]:
        """By metric, site, modality, checkpoint; probe accuracies are filed as "probe:<name>"."""
        probes = [as_measurement(probe) for probe in self.analysis.probes]
        return {
            (m.metric, m.site, m.modality, m.checkpoint): m
            for m in (*probes, *self.drifts, *self.analysis.measurements)
        }

    @cached_property
    def drifts(self) -> tuple[Measurement, ...]:
        """How far rows moved from the reference, filed as measurements "drift:<metric>"."""
        return tuple(drift_measurement(d) for d in self.analysis.drifts if d.before == self.before)

    @cached_property
    def differences(self) -> Mapping[tuple[str, str, str], Difference]:
        """First against last checkpoint, by metric, site, modality."""
        return {
            (d.metric, d.site, d.modality): d
            for d in (*self.analysis.differences, *self.analysis.probe_differences)
            if (d.before, d.after) == (self.before, self.after)
        }

    @cached_property
    def statuses(self) -> Mapping[tuple[str, str], Status]:
        """What the verdicts say, by metric and modality."""
        return {(v.metric, v.modality): v.status for v in self.analysis.verdicts}

    def status(self, difference: Difference) -> Status:
        """What a change may claim: what its verdict says at the site of verdicts, else by itself.

        A probe's change is read by itself: its verdict is of several attributes, or of a control.
        """
        d = difference
        if d.site in (FINAL, HEAD) and (d.metric, d.modality) in self.statuses:
            return self.statuses[d.metric, d.modality]
        spread = self.differences.get(("uniformity", d.site, medium_of(d.modality)))
        return claim(d, None, self.status(spread) if spread and spread is not d else "NOT RUN")

    @cached_property
    def controls(self) -> frozenset[str]:
        """Attributes that no caption names."""
        return frozenset(p.attribute for p in self.analysis.probes if not p.spoken)

    def is_control(self, metric: str) -> bool:
        """Whether a metric reads a negative control."""
        return metric.removeprefix("probe:") in self.controls

    def role(self, metric: str, modality: str) -> Role:
        """Trained when training saw every modality named; control when the attribute is silent."""
        if self.is_control(metric):
            return "control"
        named = [m for m in modality.replace("->", "-").split("-") if m in MODALITIES]
        return "trained" if named and set(named) <= set(self.analysis.trained) else "untrained"

    def site_of(self, metric: str, modality: str) -> str:
        """The site that speaks for a metric: the final norm, else the head, else the deepest."""
        measured = {
            s for (name, s, kind, _) in self.measurements if (name, kind) == (metric, modality)
        }
        ranked = (FINAL, HEAD, *reversed(self.analysis.sites), *sorted(measured))
        return next((site for site in ranked if site in measured), FINAL)


def as_measurement(probe: ProbeResult) -> Measurement:
    """A probe's accuracy filed with the measurements."""
    return Measurement(
        metric=f"probe:{probe.attribute}",
        checkpoint=probe.checkpoint,
        site=probe.site,
        modality=f"{probe.train_on}->{probe.test_on}",
        value=probe.accuracy,
        interval=probe.interval,
        chance=probe.guess,
        better="higher",
        n=probe.n_test,
        note=probe.note,
    )


def drift_measurement(drift: Drift) -> Measurement:
    """A drift filed with the measurements of the checkpoint that moved; no way is better."""
    return Measurement(
        metric=f"{DRIFT}{drift.metric}",
        checkpoint=drift.after,
        site=drift.site,
        modality=drift.modality,
        value=drift.value,
        interval=drift.interval,
        chance=drift.chance,
        better="neither",
        n=drift.n,
        note=drift.note,
    )


def certainty(difference: Difference | None) -> Certainty:
    """How clear a change is; by its own interval where no simultaneous one was made.

    What rounding can do is no change at any site.
    """
    if difference is None or not clearly(difference):
        return "no"
    band = difference.band
    return "everywhere" if band is not None and (band.low > 0 or band.high < 0) else "here"


def known(name: str) -> Modality:
    """A modality's name as one; anything unknown counts as text."""
    return next((m for m in MODALITIES if m == name), "text")


def reach(value: float | None, interval: Interval | None) -> tuple[float, ...]:
    """The numbers a mark covers on its axis."""
    ends = (interval.low, interval.high) if interval else ()
    return tuple(v for v in (value, *ends) if v is not None)


def padded(low: float, high: float, share: float = 0.08) -> tuple[float, float]:
    """A range with room at both ends; a range of zero length gets one."""
    room = (high - low) * share or abs(high) * share or 1.0
    return low - room, high + room
