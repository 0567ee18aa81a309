"""Drift in words: did the rows keep their arrangement, and did the leading axes stay?

Two questions, because a rotation of the space keeps every arrangement and moves every axis.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from geomkit.types import Drift

SITE = "final_norm"
KEPT = 0.9
"""Least debiased CKA, or overlap, of what counts as kept."""


def drift_sentences(drifts: Iterable[Drift], site: str = SITE) -> Iterator[str]:
    """One sentence for each modality and later checkpoint at one site.

    "Was kept" ("stayed") is an interval above `KEPT`; "was lost" ("are others") one that reaches
    the value of unrelated states; "changed" ("turned") is what lies between.
    """
    found: dict[tuple[str, str, str], dict[str, Drift]] = {}
    for d in drifts:
        if d.site == site:
            found.setdefault((d.before, d.after, d.modality), {})[d.metric] = d
    for (before, after, modality), of in found.items():
        rows = _told(of["drift_cka"], ("was kept", "changed", "was lost"))
        axes = _told(of["drift_overlap"], ("stayed", "turned", "are others"))
        angle = of["drift_angle"]
        degrees = "" if angle.value is None else f", {angle.value:.0f} degrees"
        yield (
            f"Drift of {modality} at {site}, {before} to {after}: the arrangement of rows "
            f"{rows} (CKA {_number(of['drift_cka'])}); the leading axes {axes} (overlap "
            f"{_number(of['drift_overlap'])}{degrees})."
        )


def _told(drift: Drift, words: tuple[str, str, str]) -> str:
    if drift.value is None or drift.interval is None:
        return f"cannot be told ({drift.note.rstrip('.')})"
    kept, between, none = words
    if drift.interval.low > KEPT:
        return kept
    return none if drift.interval.low <= (drift.chance or 0.0) else between


def _number(drift: Drift) -> str:
    if drift.value is None:
        return "-"
    span = drift.interval
    text = f"{drift.value:.2f}" + (f" [{span.low:.2f}, {span.high:.2f}]" if span else "")
    return text if drift.chance is None else f"{text}, unrelated {drift.chance:.2f}"
