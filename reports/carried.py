"""What carried over: the share of the trained modality's change, and the binding test beside it.

carried_panel   untrained over trained change, headline measures: 0 is none of it, 1 all of it
carried_rows    every transfer record, headline measures first
bound_panels    R2 of the change that a map fitted on text foretells, against ceiling and floors
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from geomkit.bindings import judged
from geomkit.carried import NOTHING, SAME
from geomkit.types import MODALITIES, Binding, Difference, Interval, Transfer
from geomkit.words import because, listed
from reports.book import FINAL, Book, known, padded, reach
from reports.metrics import FAMILIES, family_of
from reports.transfer import ForestPanel, ForestRow
from reports.words import family, metric_title

R2, CENTRED = "r2", "r2_centred"
LEAST = -1.0
"""Where the axis of the binding test ends: below it a prediction is useless, however bad."""
PREDICTORS = {
    "own": "own map (ceiling)",
    "text": "text map",
    "centred": "text map, centred",
    "shift": "text's mean shift",
    "floor": "floor",
}
FLOORS = ("turned", "shuffled")
FLOOR = "floor"
"""The mark of what the map is held against: a ceiling, and what needs no binding."""


@dataclass(frozen=True, slots=True)
class Carried:
    """One transfer record with the share that its verdict was made from."""

    record: Transfer
    share: float | None
    interval: Interval | None
    closed: bool  # the share is of the way to the metric's reference
    headline: bool
    whole: Difference | None  # the trained change over all its samples, where it is told of some

    @property
    def note(self) -> str:
        """What the record remarks; the page says beside the number in which samples it is."""
        return self.record.note.removeprefix(SAME).removeprefix("; ")


def carried_rows(book: Book) -> tuple[Carried, ...]:
    """Transfers of the compared pair of checkpoints, by family, then as they were recorded."""
    own = [
        carried(t, book)
        for t in book.analysis.transfers
        if (t.before, t.after) == (book.before, book.after)
    ]
    families = [one.key for one in FAMILIES]
    metrics = list(dict.fromkeys(c.record.metric for c in own))

    def place(c: Carried) -> tuple[int, int, int]:
        t = c.record
        kind = MODALITIES.index(known(family(t.untrained)))
        return families.index(family_of(t.metric)), metrics.index(t.metric), kind

    return tuple(sorted(own, key=place))


def carried(record: Transfer, book: Book) -> Carried:
    """A record with the share of the way where there is one, else the plain ratio."""
    closed = record.closed_ratio is not None
    share = record.closed_ratio if closed else record.ratio
    interval = record.closed_interval if closed else record.interval
    headline = family_of(record.metric) == "headline"
    whole = book.differences.get((record.metric, record.site, record.trained))
    other = record.note.startswith(SAME) and whole and whole.value != record.change_trained
    return Carried(record, share, interval, closed, headline, whole if other else None)


def carried_panel(book: Book) -> ForestPanel | None:
    """Shares of the headline measures on one axis that holds 0 and 1; None without any.

    What training saw stands at 1, as all others are told as shares of its change.
    """
    rows = [c for c in carried_rows(book) if c.headline and c.share is not None]
    if not rows:
        return None
    marks: list[ForestRow] = []
    for metric, own in groupby(rows, key=lambda c: c.record.metric):
        told = list(own)
        title = metric_title(metric)
        marks += [
            ForestRow(f"{title}: {kind}, trained", "trained", family(kind), of_itself(told[0]))
            for kind in dict.fromkeys(c.record.trained for c in told)
        ]
        marks += [
            ForestRow(
                f"{title}: {c.record.untrained}", "untrained", family(c.record.untrained),
                as_difference(c),
            )
            for c in told
        ]  # fmt: skip
    taught = listed(list(dict.fromkeys(c.record.trained for c in rows)))
    shown = [v for c in rows for v in reach(c.share, bounded(c.interval))]
    low, high = padded(min([0.0, *shown]), max([1.0, *shown]))
    return ForestPanel(
        "carried", "Carried over", "neither", False, rows[0].record.site, tuple(marks), low, high,
        hint=f"as a share of {taught} (trained)", ends=("none", "all"), lines=(1.0,),
    )  # fmt: skip


def unshared(book: Book) -> str:
    """Why there is no share of the trained modality's change to show."""
    if missing := lacking(book):
        return missing
    own = [c.record for c in carried_rows(book) if c.headline and c.record.trained]
    if not own:
        return "no headline measure has a counterpart in a trained modality"
    taught = listed(list(dict.fromkeys(t.trained for t in own)))
    if {t.verdict for t in own} == {NOTHING}:
        return f"{taught} did not clearly improve, so there is nothing to carry over"
    return because(next((t.note for t in own if t.note and t.verdict != NOTHING), ""))


def lacking(book: Book) -> str:
    """What transfer needs and this run or its analysis does not have; empty where it has all."""
    analysis = book.analysis
    trained, kinds = set(analysis.trained), set(analysis.modalities)
    reasons = {
        "what training saw is not recorded": not trained,
        "transfer is told at the final norm, which this analysis left out":
            FINAL not in analysis.sites,
        "this run has no modality that training did not see": kinds <= trained,
        f"this run has no rows of what training saw, {listed(analysis.trained)}":
            not kinds & trained,
        "this analysis has no transfer records; analyze the run again to make them":
            not carried_rows(book),
    }  # fmt: skip
    return next((reason for reason, lacks in reasons.items() if lacks), "")


def of_itself(one: Carried) -> Difference:
    """The trained modality as a share of itself: what the others are held against."""
    t = one.record
    return Difference(
        t.metric, t.before, t.after, t.site, t.trained, 1.0, Interval(1.0, 1.0), "neither", 0,
        "trained: the change that the others are shares of",
    )  # fmt: skip


def as_difference(one: Carried) -> Difference:
    """A share in the shape that panels draw."""
    t = one.record
    return Difference(
        t.metric, t.before, t.after, t.site, t.untrained, one.share, one.interval, "neither", 0,
        t.verdict,
    )  # fmt: skip


def bounded(interval: Interval | None, most: float = 2.0) -> Interval | None:
    """An interval cut where the axis would only show how wide it is."""
    if interval is None:
        return None
    return Interval(max(interval.low, 1 - most), min(interval.high, most), interval.level)


def bound_panel(book: Book) -> ForestPanel | None:
    """R2 of each untrained modality by predictor, at the site that speaks; None without any."""
    here = bindings_at(book)
    rows: list[ForestRow] = []
    for kind in MODALITIES:
        own = {b.predictor: b for b in here if b.modality == kind and b.quantity == R2}
        if kind == "text" or not own:
            continue
        for b in here:
            if (b.modality, b.quantity, b.predictor) == (kind, CENTRED, "text"):
                own["centred"] = b
        floors = [own[name] for name in FLOORS if name in own and own[name].value is not None]
        if floors:
            own[FLOOR] = max(floors, key=lambda b: b.value or 0.0)
        rows += [
            ForestRow(
                f"{kind}: {title}", "untrained", kind if name in ("text", "centred") else FLOOR,
                foretold(own[name]),
            )
            for name, title in PREDICTORS.items()
            if name in own
        ]  # fmt: skip
    if all(row.difference.value is None for row in rows):
        return None
    shown = [v for r in rows for v in reach(r.difference.value, bounded(r.difference.interval))]
    low, high = padded(max(LEAST, min([0.0, *shown])), max([1.0, *shown]))
    return ForestPanel(
        "bound", "Bound to text", "neither", False, here[0].site, tuple(rows), low, high,
        hint="share of the change foretold", ends=("none", "all"), lines=(1.0,),
        words=bound_words(book),
    )  # fmt: skip


def bound_words(book: Book) -> tuple[str, ...]:
    """What the binding test says of each modality, by the rule that the headline is made with."""
    here = bindings_at(book)
    return tuple(one.sentence for one in judged(here, here[0].site)) if here else ()


def bindings_at(book: Book) -> list[Binding]:
    """The bindings of the compared checkpoints at the final norm, else at the deepest site."""
    own = all_bindings(book)
    ranked = (FINAL, *reversed(book.analysis.sites))
    site = next((s for s in ranked if any(b.site == s for b in own)), "")
    return [b for b in own if b.site == site]


def all_bindings(book: Book) -> list[Binding]:
    """The bindings of the compared checkpoints, in canonical order of modalities."""
    own = [b for b in book.analysis.bindings if (b.before, b.after) == (book.before, book.after)]
    return sorted(own, key=lambda b: MODALITIES.index(known(b.modality)))


def foretold(binding: Binding) -> Difference:
    """A binding in the shape that panels draw."""
    b = binding
    return Difference(
        b.quantity, b.before, b.after, b.site, b.modality, b.value, b.interval, "neither", b.n,
        b.note,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class BoundRow:
    """One quantity of one modality at one site, by predictor."""

    site: str
    modality: str
    quantity: str
    cells: tuple[Binding | None, ...]
    n: int


def bound_rows(book: Book, predictors: Sequence[str]) -> tuple[BoundRow, ...]:
    """A row a site, modality and quantity: everything where the panel is, elsewhere R2 alone."""
    here = bindings_at(book)
    told = [b for b in all_bindings(book) if b.quantity == R2 and b.site != here[0].site]
    bindings = (*here, *told)
    keys = dict.fromkeys((b.site, b.modality, b.quantity) for b in bindings)
    found = {(b.site, b.modality, b.quantity, b.predictor): b for b in bindings}
    rows = []
    for key in keys:
        cells = tuple(found.get((*key, name)) for name in predictors)
        rows.append(BoundRow(*key, cells, max((b.n for b in cells if b), default=0)))
    return tuple(rows)
