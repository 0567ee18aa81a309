"""How few bits do the labels take, given the states? The online code of a probe.

The labels are sent in blocks of growing size; each block is coded by a probe trained on all blocks
before it, the first by the uniform code. Unlike accuracy, the length counts how much had to be seen
to know: a property that is there but hard to read takes more bits. Compression is the length of the
uniform code over this one: 1 saves nothing, and a code that knows the shares of the classes but not
the states is the chance to beat. A block never cuts a group.

Reference: Voita and Titov, Information-Theoretic Probing with Minimum Description Length, 2020.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomkit.errors import DegenerateInput
from geomkit.geometry.rows import codes
from geomkit.statistics import from_rows
from geomkit.types import Activations, Modality
from probes.cells import Cell, Result
from probes.config import ProbeConfig
from probes.linear import CONTROL
from probes.logistic import fit_softmax
from probes.readouts import probability
from probes.tasks import Attribute, Labels, Task, bunches, tasks_of
from probes.transfer import Scale

Rows = NDArray[np.float64]

SHARES = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)
"""Where blocks end, as shares of the rows."""

PENALTY = 10.0
"""Of every block's probe where none is asked for: part of the code, so the receiver knows it."""

REFERENCE = "Voita and Titov 2020, arXiv:2003.12298"


def compressions(
    views: Mapping[Modality, Activations], attributes: Sequence[Attribute], config: ProbeConfig
) -> Mapping[Cell, Result]:
    """Compression of every attribute in every modality that has it, named `mdl:<attribute>`."""
    found: dict[Cell, Result] = {}
    for bunch in bunches(views, attributes):
        tasks = tasks_of(views, bunch, ())
        for modality, first in tasks[bunch[0]].items():
            sent = message(first, config.seed)
            for attribute in bunch:
                task = tasks[attribute][modality]
                cell = _cell(attribute, views[modality].site, task)
                found[cell] = compression(task, sent, config.penalty or PENALTY)
    return found


def compression(task: Task, sent: Message, penalty: float = PENALTY) -> Result:
    """`rows log2(classes) / bits` under the online code; chance is that of the classes' shares."""
    try:
        task.require()
        bits = code_lengths(task, sent, penalty)
    except DegenerateInput as flaw:
        return flaw.kept()
    uniform = float(np.log2(len(np.unique(task.labels))))
    value = uniform / float(bits.mean())
    chance = uniform / float(prior_lengths(task.labels, sent.blocks).mean())
    clusters = codes(len(bits), task.groups)
    return from_rows(value, value * (1 - bits / bits.mean()), clusters, chance=chance)


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """The blocks in which labels are sent, and the states of each as the receiver sees them."""

    blocks: Sequence[NDArray[np.int64]]
    window: Callable[[int], tuple[Rows, Rows]]  # inputs of all blocks before, and of this one


def message(task: Task, seed: int) -> Message:
    """One order of the groups for every attribute and checkpoint; a window is made once."""
    blocks = blocks_of(task.groups, np.random.default_rng(seed))

    @functools.cache
    def window(number: int) -> tuple[Rows, Rows]:
        seen = task.states[np.concatenate(blocks[:number])]
        scale = Scale.of(seen)
        return scale.inputs(seen), scale.inputs(task.states[blocks[number]])

    return Message(blocks, window)


def _cell(attribute: Attribute, site: str, task: Task) -> Cell:
    note = "" if attribute.spoken else CONTROL
    rows = len(task.labels)
    return Cell(f"mdl:{attribute.name}", site, task.modality, "higher", rows, REFERENCE, note)


def blocks_of(groups: Sequence[str], rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """The rows of each block, whole groups in random order; a block of no rows is left out."""
    names = sorted(set(groups))
    place = dict(zip(names, rng.permutation(len(names)).tolist(), strict=True))
    of_row = np.array([place[g] for g in groups])
    order = np.argsort(of_row, kind="stable")
    last = np.flatnonzero(np.diff(of_row[order], append=len(names))) + 1  # where groups end
    ends = [int(last[np.searchsorted(last, share * len(groups))]) for share in SHARES]
    return np.split(order, sorted(set(ends[:-1]) - {len(groups)}))


def code_lengths(task: Task, sent: Message, penalty: float) -> Rows:
    """Bits for the label of each row, `(rows,)`.

    Raises:
        DegenerateInput: states that are all equal, or a fit that does not converge.
    """
    classes = len(np.unique(task.labels))
    bits = np.full(len(task.labels), np.log2(classes))
    for number, block in enumerate(sent.blocks[1:], start=1):
        known = task.labels[np.concatenate(sent.blocks[:number])]
        if len(np.unique(known)) < 2:
            continue  # nothing to tell apart yet: still the uniform code
        inputs, asked = sent.window(number)
        probe = fit_softmax(inputs, [known], penalty)[0]
        bits[block] = -np.log2(probability(probe, asked, task.labels[block], len(known), classes))
    return bits


def prior_lengths(labels: Labels, blocks: Sequence[NDArray[np.int64]]) -> Rows:
    """Bits for each label under Laplace's rule on the blocks before: the classes' shares alone."""
    names, code = np.unique(labels, return_inverse=True)
    bits = np.empty(len(labels))
    counts = np.ones(len(names))
    for block in blocks:
        bits[block] = -np.log2(counts[code[block]] / counts.sum())
        counts += np.bincount(code[block], minlength=len(names))
    return bits
