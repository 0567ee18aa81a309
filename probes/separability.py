"""Can a linear read-out tell which modality a row is of? Before and after.

Trained on half of the groups, tested on the others; media and their captions in equal numbers, so
chance is 1/2. The states are taken as they are. Once each modality has lost its own mean there is
nothing left to ask: between two equal means the best linear read-out has no slope, and is at chance
whatever else differs. (With means of all rows it even scores far below chance on rows that were
held out: their means are shifted against those it was trained on. An artefact, not a finding.)
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomkit.errors import DegenerateInput
from geomkit.geometry.rows import codes
from geomkit.statistics import from_scores
from geomkit.types import Activations, Modality
from probes.cells import Cell, Result
from probes.config import ProbeConfig
from probes.readouts import fit, penalty_of
from probes.split import group_of, is_held_out
from probes.tasks import GROUPS_A_CLASS, Labels
from probes.transfer import Scale

METRIC = "modality_separability"


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
    """Rows of two modalities in one heap, as many of each."""

    states: NDArray[np.float32]  # (rows, dim)
    modality: Labels
    groups: tuple[str, ...]
    held_out: NDArray[np.bool_]


def separabilities(
    views: Mapping[Modality, Activations], held_out: Collection[str], config: ProbeConfig
) -> Mapping[Cell, Result]:
    """How well each medium is told from its captions: `METRIC` of an unordered pair."""
    found: dict[Cell, Result] = {}
    for medium, view in views.items():
        if medium != "text" and "text" in views:
            heap = mixture(view, views["text"], held_out)
            rows = int(heap.held_out.sum())
            cell = Cell(METRIC, view.site, f"{medium}-text", "lower", rows)
            found[cell] = separability(heap, config)
    return found


def mixture(medium: Activations, text: Activations, held_out: Collection[str]) -> Mixture:
    """The samples that both modalities have, each twice."""
    place = {row.id: i for i, row in enumerate(text.rows)}
    there = [i for i, row in enumerate(medium.rows) if row.id in place]
    rows = tuple(medium.rows[i] for i in there)
    captions = [place[row.id] for row in rows]
    names = np.repeat([medium.modality, text.modality], len(rows))
    groups = tuple(group_of(row) for row in rows)
    states = np.concatenate([medium.states[there], text.states[captions]])
    return Mixture(states, names, groups * 2, np.tile(is_held_out(rows, held_out), 2))


def separability(heap: Mixture, config: ProbeConfig) -> Result:
    """The share of held-out rows whose modality is told right; chance is 1/2."""
    try:
        groups = len(set(heap.groups))
        if groups < 2 * GROUPS_A_CLASS:
            raise DegenerateInput(
                f"Expected {2 * GROUPS_A_CLASS} groups of samples in both modalities, got "
                f"{groups}; give more samples."
            )
        right = told_apart(heap, config)
    except DegenerateInput as flaw:
        return flaw.kept()
    asked = [g for g, out in zip(heap.groups, heap.held_out, strict=True) if out]
    return from_scores(right, codes(len(asked), asked), chance=0.5)


def told_apart(heap: Mixture, config: ProbeConfig) -> NDArray[np.bool_]:
    """Right or wrong for each held-out row.

    Raises:
        DegenerateInput: when the training states are all equal, or the fit does not converge.
    """
    seen = ~heap.held_out
    scale = Scale.of(heap.states[seen])
    inputs, labels = scale.inputs(heap.states[seen]), heap.modality[seen]
    groups = [g for g, known in zip(heap.groups, seen, strict=True) if known]
    penalty = config.penalty
    if penalty is None:
        penalty = penalty_of(inputs, labels, codes(len(groups), groups), config.readout)
    probe = fit(inputs, labels, penalty, config.readout)
    asked = scale.inputs(heap.states[heap.held_out])
    return np.asarray(probe.predict(asked) == heap.modality[heap.held_out])
