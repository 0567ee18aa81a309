"""The binding test: does what text rows show about a change foretell it for images and sounds?

    fit      an affine map from states before to their change, on the text rows of training groups
    apply    it to text, image and audio rows of held-out groups
    compare  what it foretells with what happened: R2 of the change, and the metrics of the states

If media are linearly bound to the subspace of text, a map that never saw them must move them as
training did. Its R2 stands between the ceiling (a map fitted on that modality itself) and three
values that need no binding: text's mean change alone, a random orthogonal map that moves rows as
far, and a map fitted on text rows whose changes were dealt anew. The last two are exact
expectations over all such maps and all such deals, not draws. Beside it stands how much of a
modality lies in the subspace of text at all: a map says nothing about what text never varies in.

R2 is `1 - squared error / squared distance to the modality's own mean change in training rows`: a
mean of the tested rows would be an answer that no prediction can know. It is of the change, and not
of the new states: where little changed, those are foretold by the old ones, bound or not. Intervals
hold the fitted maps as they are and are clustered by group.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

import numpy as np

from geomkit.errors import DegenerateInput
from geomkit.geometry.rows import directions
from geomkit.statistics import Estimate, difference, interval
from geomkit.types import MODALITIES, Activations, Binding, Interval, Modality
from probes.affine import AffineMap, Rows
from probes.foretold import METRICS, Foretold, Moved, errors, foretell, map_of, r2, reach, recall
from probes.fractions import fraction
from probes.split import is_held_out

QUANTITIES: Mapping[str, tuple[str, ...]] = {
    "r2": ("text", "own", "shift", "turned", "shuffled"),
    "r2_centred": ("text", "own", "turned", "shuffled"),  # the shift is given to all
    "reach": ("text", "own", "turned"),  # of the states before, in the leading axes of text
    "mean_cosine": ("text", "own", "shift"),
    "uniformity": ("text", "own", "shift"),
    "recall@1": ("text", "own", "shift"),  # of media, from captions
}
"""Quantities, and the predictors each is given for."""

Value = tuple[float, Interval] | DegenerateInput
"""A value with its interval, or why there is none."""

T = TypeVar("T")

Name = tuple[str, str]
"""Quantity and predictor; paired differences are called "text-own" and "text-shift"."""

Cells = dict[Name, Value]

Units = Mapping[str, Rows | DegenerateInput]
"""Unit rows before, after and as foretold, by predictor; or why they have none."""

_SILENT: AffineMap | DegenerateInput = DegenerateInput(
    "Expected text rows to fit the map on, got none; capture text beside the media."
)

_BY_TEXT = {"own": "text"}  # captions have one map, whatever the media are moved by


def bindings(
    before: Mapping[Modality, Activations],
    after: Mapping[Modality, Activations],
    held_out: Collection[str],
) -> tuple[Binding, ...]:
    """The binding test between two checkpoints at one site: text on itself, then each medium."""
    sides = moved(before, after, held_out)
    records: list[Binding] = []
    for modality, cells in binding(sides).items():
        tested = sides[modality].held_out
        for (quantity, predictor), value in cells.items():
            fitted = sides.get(modality if predictor == "own" else "text")
            number, span, note = _told(value)
            records.append(
                Binding(
                    before=before[modality].checkpoint,
                    after=after[modality].checkpoint,
                    site=before[modality].site,
                    modality=modality,
                    quantity=quantity,
                    predictor=predictor,
                    value=number,
                    interval=span,
                    n_fit=0 if fitted is None else int((~fitted.held_out).sum()),
                    n=int(tested.sum()),
                    note=note,
                )
            )
    return tuple(records)


def moved(
    before: Mapping[Modality, Activations],
    after: Mapping[Modality, Activations],
    held_out: Collection[str],
) -> Mapping[Modality, Moved]:
    """The rows of every modality at one site, before and after; text first."""
    sides = {}
    for modality, old in before.items():
        out = is_held_out(old.rows, held_out)
        sides[modality] = Moved(modality, old.states, after[modality].states, old.rows, out)
    return sides


def binding(sides: Mapping[Modality, Moved]) -> Mapping[Modality, Cells]:
    """The binding test at one site: every value, or the reason why there is none."""
    cells: dict[Modality, Cells] = {}
    law, captions, asking = _SILENT, None, dict[str, Rows | DegenerateInput]()
    for modality in sorted(sides, key=MODALITIES.index):  # text first
        side = sides[modality]
        own, tested = _map(side.part(~side.held_out)), side.part(side.held_out)
        if modality == "text":
            law, captions = own, tested
        try:
            given = foretell(tested, _sound(law), _sound(own))
        except DegenerateInput as flaw:
            cells[modality] = dict.fromkeys(_names(modality), flaw.kept())
            continue
        units = {name: _unit(states) for name, states in given.states()}
        cells[modality] = _explained(given) | _reached(given) | _reproduced(tested, units)
        if modality == "text":
            asking = units
        elif captions is not None:
            cells[modality] |= _retrieved(captions, asking, tested, units)
    return cells


def _map(seen: Moved) -> AffineMap | DegenerateInput:
    try:
        return map_of(seen)
    except DegenerateInput as flaw:
        return flaw.kept()


def _unit(states: Rows) -> Rows | DegenerateInput:
    try:
        return np.asarray(directions(states))
    except DegenerateInput as flaw:
        return flaw.kept()


def _names(modality: Modality, quantities: Collection[str] = tuple(QUANTITIES)) -> list[Name]:
    """What there is to tell of a modality; text's own map is the map under test: it has no own."""
    names = []
    for quantity in quantities:
        if (modality, quantity) != ("text", "recall@1"):
            own = [p for p in QUANTITIES[quantity] if (modality, p) != ("text", "own")]
            paired = [f"text-{p}" for p in own if p in {"own", "shift"}]
            names += [(quantity, predictor) for predictor in (*own, *paired)]
    return names


def _explained(given: Foretold) -> Cells:
    """R2 of the change, as the map says it and with the modality's own means."""
    cells: Cells = {}
    for quantity in ("r2", "r2_centred"):
        names = _names(given.tested.modality, [quantity])
        error = errors(given, centred=quantity == "r2_centred")
        try:
            scores = {p: r2(given.tested, e, error["own mean"]) for p, e in error.items()}
            values = _with_differences(scores)
            cells |= {(q, p): (values[p].value, interval(values[p])) for q, p in names}
        except DegenerateInput as flaw:
            cells |= dict.fromkeys(names, flaw.kept())
    return cells


def _reached(given: Foretold) -> Cells:
    """The share of the modality's variance that lies in the subspace of text."""
    names = _names(given.tested.modality, ["reach"])
    try:
        values = _with_differences(reach(given))
        return {(q, p): (values[p].value, interval(values[p])) for q, p in names}
    except DegenerateInput as flaw:
        return dict.fromkeys(names, flaw.kept())


def _reproduced(tested: Moved, units: Units) -> Cells:
    """The share of the change in mean cosine and in uniformity that foretold states show."""
    cells: Cells = {}
    for quantity, metric in METRICS.items():
        names = _names(tested.modality, [quantity])
        try:
            scores = {p: metric(_sound(u), tested.clusters) for p, u in units.items()}
            cells |= _fractions(names, scores)
        except DegenerateInput as flaw:
            cells |= dict.fromkeys(names, flaw.kept())
    return cells


def _retrieved(captions: Moved, asking: Units, tested: Moved, units: Units) -> Cells:
    """The share of the change in recall@1 of media from their captions, both sides foretold."""
    names = _names(tested.modality, ["recall@1"])
    answers = set(tested.groups)
    asked = np.array([group in answers for group in captions.groups], dtype=bool)
    queries = captions.part(asked).groups
    try:
        scores = {
            p: recall(_sound(asking[_BY_TEXT.get(p, p)])[asked], _sound(u), queries, tested.groups)
            for p, u in units.items()
        }
        return _fractions(names, scores)
    except DegenerateInput as flaw:
        return dict.fromkeys(names, flaw.kept())


def _sound(found: T | DegenerateInput) -> T:
    if isinstance(found, DegenerateInput):
        raise found
    return found


def _fractions(names: Sequence[Name], scores: Mapping[str, Estimate]) -> Cells:
    """Every change as a share of the change that happened."""
    below = difference(scores["before"], scores["after"])
    above = {p: difference(scores["before"], e) for p, e in scores.items()}
    values = _with_differences(above)
    return {(q, p): fraction(values[p], below) for q, p in names}


def _with_differences(scores: Mapping[str, Estimate]) -> Mapping[str, Estimate]:
    paired = {
        f"text-{p}": difference(scores[p], scores["text"]) for p in ("own", "shift") if p in scores
    }
    return {**scores, **paired}


def _told(value: Value) -> tuple[float | None, Interval | None, str]:
    return (None, None, str(value)) if isinstance(value, DegenerateInput) else (*value, "")
