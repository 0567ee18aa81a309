"""Before and after: which changes are clear, and did they reach what training never saw?

A verdict is about one metric in one modality at the final norm, in the words of `claims`; what is
clear stays so after Holm's correction over all tests of its family. A negative control that stayed
as it was is `info`, one that moved either way is `WARN`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from scipy.special import stdtr, stdtrit

from geomkit.claims import (
    DISTANCES,
    FEW,
    FINAL,
    LEAST,
    LEVEL,
    judged,
    medium_of,
    negligible,
    sides,
    tempered,
)
from geomkit.statistics import holm
from geomkit.types import Difference, Measurement, ProbeResult, Status, Verdict
from geomkit.words import because, listed

SITE = FINAL

WORDS: Mapping[str, str] = {
    "mean_cosine": "mean cosine",
    "uniformity": "uniformity",
    "effective_rank": "effective rank",
    "alignment": "alignment",
    "modality_gap": "modality gap",
    "mutual_knn": "mutual neighbours",
    "retrieval_r1": "retrieval R@1",
    "generative_loss": "generative loss",
}
"""Metrics of the verdict table, in its order."""

HEADLINE = tuple(metric for metric in WORDS if metric != "generative_loss")
"""Metrics of the family of headline tests."""

Role = Literal["trained", "untrained", "control"]
Key = tuple[str, str, str, str]  # metric, site, modality, after


def verdicts(
    measurements: Sequence[Measurement],
    differences: Sequence[Difference],
    probes: Sequence[ProbeResult],
    trained: Sequence[str],
) -> tuple[Verdict, ...]:
    """Judge the last checkpoint against the first, metric by metric.

    Args:
        measurements: of all checkpoints, in capture order.
        differences: paired, those of the probes included.
        probes: results, which tell spoken attributes from negative controls.
        trained: modalities that training saw; a pair counts as trained when both sides were.
    """
    names = checkpoints(measurements)
    if not names:
        return ()
    last = [d for d in differences if d.after == names[-1]]
    return (
        *_metric_verdicts(measurements, last, trained),
        *_spoken_verdicts(last, probes, trained),
        *_control_verdicts(last, probes, names[-1]),
    )


def checkpoints(measurements: Iterable[Measurement]) -> tuple[str, ...]:
    """Checkpoint names in capture order."""
    return tuple(dict.fromkeys(m.checkpoint for m in measurements))


def key(difference: Difference) -> Key:
    """What identifies a difference within a run."""
    return difference.metric, difference.site, difference.modality, difference.after


def p_value(difference: Difference) -> float | None:
    """Two-sided p of no change, recovered from the interval; below 1 - level when that is clear.

    The half-width that faces zero is Student's t over the groups behind the interval; a normal one
    where a record does not tell how many they were.
    """
    d = difference
    if d.value is None or d.interval is None:
        return None
    half = d.interval.high - d.value if d.value < 0 else d.value - d.interval.low
    if half <= 0:
        return 1.0 if d.value == 0 else 0.0
    freedom = d.interval.groups - 1 if d.interval.groups > 1 else math.inf
    errors = stdtrit(freedom, 0.5 + d.interval.level / 2) * abs(d.value) / half
    return float(2 * stdtr(freedom, -errors))


def adjusted(differences: Iterable[Difference]) -> dict[Key, float]:
    """Holm-adjusted p of the headline tests: headline metrics in every modality at the final norm.

    Each later checkpoint is a family of its own.
    """
    tests = [d for d in differences if d.metric in HEADLINE and d.site == SITE]
    families = [[d for d in tests if d.after == after] for after in {d.after: 0 for d in tests}]
    return {k: p for family in families for k, p in corrected(family).items()}


def _families(differences: Sequence[Difference]) -> dict[Key, float]:
    """Adjusted p of the headline tests and, in families of their own, of the generative losses."""
    losses = [d for d in differences if d.metric == "generative_loss"]
    return adjusted(differences) | corrected(losses)


def in_families(differences: Sequence[Difference]) -> dict[Key, float]:
    """Holm-adjusted p of one pair of checkpoints at one site: headline tests, then all others.

    What has no better direction is no test.
    """
    headline = [d for d in differences if d.metric in HEADLINE]
    others = [d for d in differences if d.metric not in HEADLINE and d.better != "neither"]
    return corrected(headline) | corrected(others)


def corrected(family: Sequence[Difference]) -> dict[Key, float]:
    """Holm-adjusted p of one family of tests; without an interval there is none."""
    found = {key(d): p_value(d) for d in family}
    names = {" ".join(k): k for k in found}
    holm_p = holm({name: p for name, k in names.items() if (p := found[k]) is not None})
    return {names[name]: p for name, p in holm_p.items()}


def _metric_verdicts(
    measurements: Sequence[Measurement],
    differences: Sequence[Difference],
    trained: Sequence[str],
) -> Iterator[Verdict]:
    """One verdict for each metric and modality of the last checkpoint at its headline site."""
    p = _families(differences)
    changes = {(d.metric, d.modality): d for d in differences if d.site in (SITE, "lm_head")}
    values = {(m.metric, m.modality, m.checkpoint): m for m in measurements if _heads(m)}
    cells = dict.fromkeys((metric, modality) for metric, modality, _ in values)
    for metric, modality in sorted(cells, key=lambda cell: tuple(WORDS).index(cell[0])):
        role = _role(modality, trained)
        change = changes.get((metric, modality))
        if change is None:
            only = f"{WORDS[metric]} of {modality}: one checkpoint, nothing to compare with."
            yield Verdict(metric, modality, role, "NOT RUN", only)
            continue
        status, sentence = judged(change, p.get(key(change))), _sentence(change, values, p)
        if metric in DISTANCES:
            spread = changes.get(("uniformity", medium_of(modality)))
            even = judged(spread, p.get(key(spread))) if spread else "NOT RUN"
            status = tempered(status, even)
            if status == "info":
                sentence = _sentence(change, values, p, EXPLAINED.get(even, BLIND))
            sentence += f" Read with {_sentence(spread, values, p)}" if spread else ""
        yield Verdict(metric, modality, role, status, sentence)


def _heads(measurement: Measurement) -> bool:
    """Does this measurement belong in the verdict table?"""
    m = measurement
    return m.metric in WORDS and m.site == ("lm_head" if m.metric == "generative_loss" else SITE)


def _role(modality: str, trained: Sequence[str]) -> Literal["trained", "untrained"]:
    return "trained" if all(side in trained for side in sides(modality)) else "untrained"


EXPLAINED: Mapping[Status, str] = {
    "PASS": "grew as states spread, as every distance does then: no claim",
    "FAIL": "shrank as states collapsed, as every distance does then: no claim",
}
BLIND = "no claim, as uniformity was not measured"
"""What is said of a distance that the change of uniformity explains, or could."""


def _sentence(
    change: Difference,
    values: Mapping[tuple[str, str, str], Measurement],
    p: Mapping[Key, float],
    word: str = "",
) -> str:
    """What the change is, with its company, and how clear it is where no `word` says more."""
    d, name = change, f"{WORDS[change.metric]} of {change.modality}"
    if d.value is None:
        return f"{name}: not measured ({because(d.note)})."
    found = (values.get((d.metric, d.modality, c)) for c in (d.before, d.after))
    before, after = (m.value if m else None for m in found)
    ends = f"{number(before)} -> {number(after)}"
    if d.interval is None:
        return f"{name} {ends}, change {d.value:+.3g}: cannot be judged ({because(d.note)})."
    if d.value == d.interval.low == d.interval.high == 0:
        return f"{name} {number(before)} before and after, n {d.n}: no change."
    sure = f"{d.interval.level:.0%} {d.interval.low:+.3g} to {d.interval.high:+.3g}, n {d.n}"
    return f"{name} {ends}, change {d.value:+.3g} ({sure}): {word or _word(d, p.get(key(d)))}."


def _word(change: Difference, p: float | None) -> str:
    """How clear a change is, in words; few groups are named where something is claimed."""
    d = change
    if d.improved is None:
        return "no clear change"
    if negligible(d):
        return f"no change, less than {LEAST[d.metric]:g} can be rounding"
    if p is not None and p >= LEVEL:
        return f"no clear change after Holm's correction (p {p:.2g})"
    groups = d.interval.groups if d.interval else 0
    few = f", but {groups} groups of samples are few" if 0 < groups < FEW else ""
    return f"clearly {'better' if d.improved else 'worse'}{few}"


def number(value: float | None) -> str:
    """Three significant digits, or a dash for nothing; what is not quite 1 is not told as 1."""
    if value is None:
        return "-"
    near = 0.9995 <= abs(value) < 1
    return f"{value:.4f}" if near else f"{value:.3g}"


def _spoken_verdicts(
    differences: Sequence[Difference], probes: Sequence[ProbeResult], trained: Sequence[str]
) -> Iterator[Verdict]:
    """One verdict for each direction: which named attributes became easier or harder to read."""
    spoken = {f"probe:{r.attribute}" for r in probes if r.spoken}
    family = [d for d in differences if d.site == SITE and d.metric in spoken]
    p = corrected(family)
    for direction in dict.fromkeys(d.modality for d in family):
        tests = [d for d in family if d.modality == direction]
        found = {d.metric.removeprefix("probe:"): judged(d, p.get(key(d))) for d in tests}
        reason = next((because(d.note) for d in tests if d.value is None), "")
        sentence = f"probes {direction} of the spoken attributes ({listed(list(found))}): "
        sentence += f"{_told_of_probes(found, reason)}."
        yield Verdict(
            "probe", direction, _role(direction, trained), joint(found.values()), sentence
        )


BETTER, WORSE = "clearly better for", "clearly worse for"
"""What a sentence on probes says of the attributes that moved."""


def _told_of_probes(found: Mapping[str, Status], reason: str) -> str:
    """Which attributes moved, which did not, and which were not measured."""
    told = {
        BETTER: [name for name, status in found.items() if status == "PASS"],
        WORSE: [name for name, status in found.items() if status == "FAIL"],
    }
    parts = [f"{said} {listed(names)}" for said, names in told.items() if names]
    if not parts and "WARN" in found.values():
        parts = ["no clear change"]
    missing = [name for name, status in found.items() if status == "NOT RUN"]
    if missing:
        whole = "" if len(missing) == len(found) else f" for {listed(missing)}"
        parts.append(f"not measured{whole} ({reason})")
    return "; ".join(parts)


def _control_verdicts(
    differences: Sequence[Difference], probes: Sequence[ProbeResult], after: str
) -> Iterator[Verdict]:
    """Attributes that no caption names: what became readable, and what text should not know.

    A control that moved either way is looked at wherever it did; one that did not only where the
    media are read by themselves, as text cannot hold it.
    """
    unspoken = {f"probe:{r.attribute}" for r in probes if not r.spoken}
    family = [d for d in differences if d.site == SITE and d.metric in unspoken]
    p = corrected(family)
    accuracy = {
        (f"probe:{r.attribute}", f"{r.train_on}->{r.test_on}", r.checkpoint): r
        for r in probes
        if r.site == SITE
    }
    for d in family:
        status = _STATUS_OF_CONTROL[judged(d, p.get(key(d)))]
        if status == "WARN" or "text" not in sides(d.modality):
            ends = [accuracy.get((d.metric, d.modality, c)) for c in (d.before, d.after)]
            told = [r.accuracy if r else None for r in ends]
            sentence = _control_sentence(d, told, status, p.get(key(d)))
            yield Verdict(d.metric, d.modality, "control", status, sentence)
    for r in probes:
        if not r.spoken and r.site == SITE and r.checkpoint == after and _captions_tell(r):
            sentence = (
                f"{r.attribute} can be read from captions (accuracy {number(r.accuracy)}, majority "
                f"{number(r.majority)}): it is no negative control."
            )
            yield Verdict(f"probe:{r.attribute}", "text->text", "control", "WARN", sentence)


_STATUS_OF_CONTROL: Mapping[Status, Status] = {
    "PASS": "WARN", "FAIL": "WARN", "WARN": "info", "NOT RUN": "NOT RUN", "info": "info",
}  # fmt: skip
"""Nothing should happen to a control, so what is good news elsewhere is none here."""


def _control_sentence(
    d: Difference, ends: Sequence[float | None], status: Status, p: float | None
) -> str:
    """What became of an attribute that no caption names."""
    name = f"{d.metric.removeprefix('probe:')} ({d.modality}), which no caption names"
    if status == "NOT RUN":
        return f"{name}: not measured ({because(d.note)})."
    word = _word(d, p)
    if status == "WARN":
        up = (d.value or 0.0) > 0
        word = "clearly up; captions cannot have taught it" if up else "clearly down"
    return f"{name}: accuracy {' -> '.join(map(number, ends))}, {word}."


def _captions_tell(result: ProbeResult) -> bool:
    """Does a text probe of an unspoken attribute do clearly better than chance?"""
    if (result.train_on, result.test_on) != ("text", "text") or result.interval is None:
        return False
    return result.interval.low > result.guess


def joint(statuses: Iterable[Status]) -> Status:
    """One status for several: PASS or FAIL when some are and none is the other, else WARN."""
    found = set(statuses)
    if not found - {"NOT RUN"}:
        return "NOT RUN"
    clear = found & {"PASS", "FAIL"}
    return clear.pop() if len(clear) == 1 else "WARN"
