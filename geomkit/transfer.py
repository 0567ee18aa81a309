"""Did it carry over? The change of what training never saw, set against that of what it did.

Two ratios of the same two changes, untrained over trained, each with Fieller's interval:

    ratio   of the changes as they are, in the metric's own unit
    closed  of the shares of the way to the metric's reference (isotropic, full rank) that both went

The verdict is made from `closed` where there is one. A modality that starts at a mean cosine of
0.9999 has more to lose than one that starts at 0.70, and one that starts at 0.30 cannot fall by
0.6 however well it follows: the plain ratio calls the first "more" and the second "in part" when
both end isotropic. The share of the way is 1 for both. It has a price: it needs a reference that is
better than the start, and a start that is clearly not there yet. Without one the verdict is made
from `ratio`, and the note says so; where the two tell different stories, the note says that.

    nothing to transfer             the trained modality did not clearly improve
    the opposite happened           the untrained one got clearly worse
    transferred in full             clearly better; the interval holds 1 and nothing up to 0.5
    transferred nearly in full      clearly better; the interval is below 1, but above 0.9
    transferred in part             clearly better; the interval is below 1
    more than in the trained modality   clearly better; the interval is above 1
    transferred, amount open        clearly better; the interval is wide, or there is no fair ratio
    no clear transfer               no clear change, and the interval excludes 1: at best a part
    cannot be told                  no clear change, and the interval holds 1 as well
    not comparable                  no clear change, and no fair ratio: nothing left to gain, or a
                                    reference or a sample count that differs where it matters
    not measured                    one of the two changes is not defined

"Clearly better" of the untrained modality is after Holm's correction over the family: all tests of
what training did not see, headline metrics and others apart. The trained one is judged alone: a
claim of transfer needs both, so its error is bounded by the first. Intervals of ratios are each at
95 %, not corrected.

The trained modality is measured in the samples of the untrained one (images against their own
captions) where nearly all of them have both: what differs then is the modality and nothing else,
neither the content nor the number of rows.

Retrieval and distances between modalities have no counterpart in a trained modality. They are
members of the families and listed with their change, without a ratio: "clearly better", "clearly
worse", or "no clear change"; of a distance that the spread of the states explains only what it did.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from geomkit.carried import (
    BETTER,
    BLIND,
    FULL,
    GREW,
    INCOMPARABLE,
    MORE,
    NEARLY,
    NONE,
    NOTHING,
    OPEN,
    OPPOSITE,
    PART,
    SAME,
    SHRANK,
    SOME,
    STILL,
    UNMEASURED,
    WORSE,
)
from geomkit.claims import LEVEL, claim, judged, medium_of, negligible, sides
from geomkit.compare import in_families, key, number
from geomkit.errors import DegenerateInput
from geomkit.types import Difference, Interval, Status, Transfer
from geomkit.ways import Change, alike, arrived, closed, defined, ratio_of, unfair_reason
from geomkit.words import because, listed

NEAR = 0.9
"""With many samples any shortfall is clear; above this it is not worth the word "part"."""

MOST = 0.5
"""An interval that reaches down to here leaves open whether most of it carried over."""


def transfers(changes: Iterable[Change], trained: Sequence[str]) -> tuple[Transfer, ...]:
    """The transfer verdicts of two checkpoints at one site.

    Args:
        changes: of every metric, modality, pair and direction; those without a better direction
            are left out. Changes of `text@image`, text in the samples that have an image, are what
            images are set against where nearly all of them have text; else it is all of text.
        trained: modalities that training saw; without any there is no transfer to speak of.
    """
    if not trained:
        return ()
    own = {(c.record.metric, c.record.modality): c for c in changes if c.record.better != "neither"}
    unseen = [c for (_, m), c in own.items() if "@" not in m and not {*sides(m)} <= {*trained}]
    p = in_families([c.record for c in unseen])
    spread = {
        m: judged(c.record, p.get(key(c.record)))
        for (metric, m), c in own.items()
        if metric == "uniformity"
    }
    found: list[Transfer] = []
    for c in unseen:
        taught, level = _counterparts(c, own, trained), p.get(key(c.record))
        alone = _alone(c, level, spread.get(medium_of(c.record.modality), "NOT RUN"))
        found += [_against(c, other, level) for other in taught] or [alone]
    return tuple(found)


def _counterparts(
    change: Change, own: Mapping[tuple[str, str], Change], trained: Sequence[str]
) -> list[Change]:
    """The changes of trained modalities in the same metric, on the same samples if may be."""
    d = change.record
    found = []
    for modality in trained:
        whole, same = (own.get((d.metric, m)) for m in (modality, f"{modality}@{d.modality}"))
        found.append(same if same and alike(same.record.n, d.n) else whole)
    return [c for c in found if c]


def _alone(change: Change, p: float | None, spread: Status) -> Transfer:
    """What the change is by itself, read as everywhere; `spread` is of uniformity in its medium."""
    d = change.record
    if _unmeasured(d):
        return replace(_empty(d, p), verdict=UNMEASURED, note=because(d.note))
    status = claim(d, p, spread)
    if status != "info":
        told = {"PASS": BETTER, "FAIL": WORSE}.get(status, STILL)
        return replace(_empty(d, p), verdict=told)
    if spread == "NOT RUN":
        note = "a distance is read with uniformity, which was not measured here"
        return replace(_empty(d, p), verdict=BLIND, note=note)
    note = "so does every distance then; it says nothing about the pairs"
    return replace(_empty(d, p), verdict=GREW if spread == "PASS" else SHRANK, note=note)


def _against(change: Change, other: Change, p: float | None) -> Transfer:
    """One untrained modality against one trained, in one metric."""
    d, t = change.record, other.record
    same = SAME if t.modality != other.name else ""
    empty = replace(_empty(d, p), trained=other.name, change_trained=t.value, note=same)
    for flawed in (c for c in (change, other) if _unmeasured(c.record)):
        reason = f"{flawed.name}: {because(flawed.record.note)}"
        return replace(empty, verdict=UNMEASURED, note=reason)
    taught = _clearly(t, None)
    if not taught:
        told = f"{other.name}: {STILL if taught is None else WORSE}"
        return replace(empty, verdict=NOTHING, note=_joined(same, told))
    unfair = unfair_reason(change, other)
    if unfair:
        return replace(empty, verdict=_verdict(d, p, None, unfair), note=_joined(same, unfair))
    return _filled(empty, change, other)


def _filled(empty: Transfer, change: Change, other: Change) -> Transfer:
    """The record with both ratios, and the verdict of the better one."""
    d, p = change.record, empty.p
    ratio, span, flaw = ratio_of(change.moved, other.moved)
    found = replace(empty, ratio=ratio, interval=span)
    plain = _verdict(d, p, span)
    try:
        gone = closed(change), closed(other)
    except DegenerateInput as reason:
        if arrived(change):
            told = _joined(empty.note, str(reason))
            return replace(found, verdict=_verdict(d, p, None, str(reason)), note=told)
        told = _joined(empty.note, f"by the change itself: {reason}", flaw)
        return replace(found, verdict=plain, note=told)
    whole, whole_span, flaw = ratio_of(*gone)
    verdict = _verdict(d, p, whole_span)
    ways = f"{other.name} went {gone[1].value:.0%} of its way, {d.modality} {gone[0].value:.0%}"
    starts = f"by the change itself it is {plain!r}; they start at " + listed(
        [f"{number(defined(c.before).value)} ({c.name})" for c in (other, change)]
    )
    return replace(
        found,
        closed_trained=gone[1].value,
        closed_untrained=gone[0].value,
        closed_ratio=whole,
        closed_interval=whole_span,
        verdict=verdict,
        note=_joined(empty.note, ways, "" if plain == verdict else starts, flaw),
    )


def _verdict(d: Difference, p: float | None, span: Interval | None, unfair: str = "") -> str:
    """The words for a clear change of the trained modality, by the table above."""
    clear = _clearly(d, p)
    if clear is not None:
        return _amount(span) if clear else OPPOSITE
    if unfair:
        return INCOMPARABLE
    return NONE if span and not span.low <= 1 <= span.high else OPEN


def _amount(span: Interval | None) -> str:
    """How much of a clear transfer, by the interval of the ratio."""
    if span is None or span.low <= 0:
        return SOME
    if span.high < 1:
        return NEARLY if span.low > NEAR else PART
    if span.low > 1:
        return MORE
    return FULL if span.low > MOST else SOME


def _clearly(d: Difference, p: float | None) -> bool | None:
    """Better, worse, or no clear change; the correction and rounding can take a clear one away."""
    return None if negligible(d) or (p is not None and p >= LEVEL) else d.improved


def _empty(d: Difference, p: float | None) -> Transfer:
    return Transfer(
        metric=d.metric,
        before=d.before,
        after=d.after,
        site=d.site,
        trained="",
        untrained=d.modality,
        change_trained=None,
        change_untrained=d.value,
        ratio=None,
        interval=None,
        verdict=UNMEASURED,
        p=p,
    )


def _unmeasured(d: Difference) -> bool:
    return d.value is None or d.interval is None


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
