"""How few bits do the labels take, given the states? The online code of a probe.

The labels are sent in blocks of growing size; each block is coded by a probe trained on all blocks
before it, the first by the uniform code. Unlike accuracy, the length counts how much had to be seen
to know: a property that is there but hard to read takes more bits. Compression is the length of the
uniform code over this one: 1 saves nothing, and a code that knows the shares of the classes but not
the states is the chance to beat. A block never cuts a group.

Reference: Voita and Titov, Information-Theoretic Probing with Minimum Description Length, 2020.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from geomkit.errors import DegenerateInput
from geomkit.geometry.rows import codes
from geomkit.statistics import from_rows
from geomkit.types import Activations, Modality
from probes.cells import Cell, Result
from probes.config import ProbeConfig
from probes.linear import CONTROL
from probes.readouts import fit, probability, span_of
from probes.tasks import Attribute, Labels, Task, tasks_of
from probes.transfer import mean_of, rescale, spread_of

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
    return {
        _cell(attribute, views[modality].site, task): compression(task, attribute.name, config)
        for attribute in attributes
        for modality, task in tasks_of(views, attribute, ()).items()
    }


def compression(task: Task, name: str, config: ProbeConfig) -> Result:
    """`rows log2(classes) / bits` under the online code; chance is that of the shares of classes.

    The order of the groups is drawn once for each attribute, so every checkpoint sends the same.
    """
    try:
        task.require()
        rng = np.random.default_rng((config.seed, zlib.crc32(name.encode())))
        blocks = blocks_of(task.groups, rng)
        bits = code_lengths(task, blocks, config.penalty or PENALTY)
    except DegenerateInput as flaw:
        return flaw
    uniform = float(np.log2(len(np.unique(task.labels))))
    value = uniform / float(bits.mean())
    chance = uniform / float(prior_lengths(task.labels, blocks).mean())
    clusters = codes(len(bits), task.groups)
    return from_rows(value, value * (1 - bits / bits.mean()), clusters, chance=chance)


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


def code_lengths(task: Task, blocks: Sequence[NDArray[np.int64]], penalty: float) -> Rows:
    """Bits for the label of each row, `(rows,)`.

    Raises:
        DegenerateInput: states that are all equal, or a fit that does not converge.
    """
    classes = len(np.unique(task.labels))
    bits = np.full(len(task.labels), np.log2(classes))
    for i, block in enumerate(blocks[1:], start=1):
        seen = np.concatenate(blocks[:i])
        if len(np.unique(task.labels[seen])) < 2:
            continue  # nothing to tell apart yet: still the uniform code
        states = task.states[seen]
        mean, spread = mean_of(states), spread_of(states)
        inputs = rescale(states, mean, spread)
        axes = span_of(inputs)
        probe = fit(inputs @ axes, task.labels[seen], penalty)
        asked = rescale(task.states[block], mean, spread) @ axes
        bits[block] = -np.log2(probability(probe, asked, task.labels[block], len(seen), classes))
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
