"""Verdicts with the numbers they were made from, and their tally for the reader in a hurry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from geomkit.types import MODALITIES, Better, Difference, Measurement, Status, Verdict
from reports.book import Book, reach
from reports.words import (
    STATUS_ORDER,
    decimals,
    family,
    metric_meaning,
    metric_title,
    modality_title,
)


@dataclass(frozen=True, slots=True)
class VerdictRow:
    """A verdict with the numbers it was made from."""

    verdict: Verdict
    site: str
    before: Measurement | None
    after: Measurement | None
    difference: Difference | None
    better: Better

    @property
    def chance(self) -> float | None:
        """Chance or floor of the metric here; the after checkpoint's when both state one."""
        for measurement in (self.after, self.before):
            if measurement is not None and measurement.chance is not None:
                return measurement.chance
        return None

    @property
    def valued(self) -> bool:
        """Whether there is a number to show; else the sentence says why there is none."""
        return any(m is not None and m.value is not None for m in (self.before, self.after))


@dataclass(frozen=True, slots=True)
class VerdictGroup:
    """The verdicts on one metric."""

    metric: str
    title: str
    meaning: str
    better: Better
    control: bool
    rows: tuple[VerdictRow, ...]

    @property
    def level_places(self) -> int:
        """Decimals of before, after and chance: one number a metric, so that columns align."""
        levels = [m.value for row in self.rows for m in (row.before, row.after) if m]
        return decimals([v for v in levels if v is not None])

    @property
    def change_places(self) -> int:
        """Decimals of the differences and their intervals."""
        changes = [row.difference for row in self.rows if row.difference]
        return decimals([v for d in changes for v in reach(d.value, d.interval)])


@dataclass(frozen=True, slots=True)
class Tally:
    """The statuses of one modality under one role, for the reader in a hurry."""

    role: str
    family: str
    statuses: tuple[tuple[Status, str], ...]  # status, what it is about
    passed: int
    judged: int
    missing: int  # checks that could not be made


def verdict_groups(book: Book) -> tuple[VerdictGroup, ...]:
    """Verdict rows by metric, in the analysis' order, negative controls last."""
    rows = [verdict_row(book, verdict) for verdict in book.analysis.verdicts]
    names = dict.fromkeys(row.verdict.metric for row in rows)
    groups = []
    for name in names:
        own = tuple(row for row in rows if row.verdict.metric == name)
        control = all(row.verdict.role == "control" for row in own)
        groups.append(
            VerdictGroup(
                name, metric_title(name), metric_meaning(name), own[0].better, control, own
            )
        )
    return tuple(sorted(groups, key=lambda group: group.control))


def verdict_row(book: Book, verdict: Verdict) -> VerdictRow:
    """A verdict and the records at the site that speaks for its metric."""
    site = book.site_of(verdict.metric, verdict.modality)
    key = (verdict.metric, site, verdict.modality)
    before = book.measurements.get((*key, book.before))
    after = book.measurements.get((*key, book.after))
    difference = book.differences.get(key)
    record = difference or after or before
    return VerdictRow(
        verdict, site, before, after, difference, record.better if record else "neither"
    )


def tallies(verdicts: Sequence[Verdict]) -> tuple[Tally, ...]:
    """Statuses per role and modality.

    `judged` counts PASS, FAIL and WARN; of a control also info, which says that it did not change
    clearly, and `passed` then counts those.
    """
    roles = ("trained", "untrained", "control")
    found = []
    for role in roles:
        for kind in MODALITIES:
            own = [v for v in verdicts if v.role == role and family(v.modality) == kind]
            if not own:
                continue
            good = {"PASS", "info"} if role == "control" else {"PASS"}
            judged = [v for v in own if v.status in good | {"FAIL", "WARN"}]
            own.sort(key=lambda v: STATUS_ORDER.index(v.status))
            what = tuple(
                (v.status, f"{metric_title(v.metric)}, {modality_title(v.modality)}") for v in own
            )
            passed = sum(v.status in good for v in own)
            missing = sum(v.status == "NOT RUN" for v in own)
            found.append(Tally(role, kind, what, passed, len(judged), missing))
    return tuple(found)
