"""What there is to probe: the attributes of a run, and the rows that carry each of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geomkit.errors import DegenerateInput
from geomkit.types import Activations, Modality, Row
from probes.split import group_of, is_held_out

Labels = NDArray[np.str_]

GROUPS_A_CLASS = 10
"""With fewer distinct groups a class than this, a probe's accuracy says more about luck."""


@dataclass(frozen=True, slots=True, order=True)
class Attribute:
    """A name that rows carry a value for; `spoken` when captions say it."""

    name: str
    spoken: bool

    def of(self, row: Row) -> str | None:
        """The row's value, or None when it has none."""
        return (row.labels if self.spoken else row.controls).get(self.name)


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """The rows of one modality that carry one attribute."""

    modality: Modality
    states: NDArray[np.float32]  # (rows, dim)
    labels: Labels
    groups: tuple[str, ...]
    held_out: NDArray[np.bool_]  # True for the rows to test on

    def require(self) -> None:
        """Refuse a task whose accuracy would mean nothing.

        Raises:
            DegenerateInput: when there is one class, or too few groups for the classes.
        """
        classes, groups = len(np.unique(self.labels)), len(set(self.groups))
        if classes < 2:
            raise DegenerateInput(
                f"Expected at least two classes, got {str(self.labels[0])!r} on every "
                f"{self.modality} row; give samples that differ in it."
            )
        if groups < GROUPS_A_CLASS * classes:
            raise DegenerateInput(
                f"Expected {GROUPS_A_CLASS} groups a class, got {groups} groups of {self.modality} "
                f"rows for {classes} classes; give more samples."
            )


def attributes_of(rows: Sequence[Row]) -> tuple[Attribute, ...]:
    """Every attribute of the rows: spoken ones first, then by name.

    A name that some captions say counts as spoken everywhere.
    """
    spoken = {name for row in rows for name in row.labels}
    unspoken = {name for row in rows for name in row.controls} - spoken
    return (
        *(Attribute(name, True) for name in sorted(spoken)),
        *(Attribute(name, False) for name in sorted(unspoken)),
    )


def bunches(
    views: Mapping[Modality, Activations], attributes: Sequence[Attribute]
) -> Iterator[tuple[Attribute, ...]]:
    """Attributes by the rows that carry them: what is made of the states serves a whole bunch."""
    carried = {
        a: tuple(
            np.array([a.of(row) is not None for row in v.rows]).tobytes() for v in views.values()
        )
        for a in attributes
    }
    for those in dict.fromkeys(carried.values()):
        yield tuple(a for a in attributes if carried[a] == those)


def tasks_of(
    views: Mapping[Modality, Activations],
    bunch: Sequence[Attribute],
    held_out: Collection[str],
) -> Mapping[Attribute, Mapping[Modality, Task]]:
    """The rows that carry each attribute of a bunch, by modality; a modality without is left out.

    The states of a modality are one array, which all attributes share.
    """
    tasks: dict[Attribute, dict[Modality, Task]] = {attribute: {} for attribute in bunch}
    for modality, view in views.items():
        kept = [i for i, row in enumerate(view.rows) if bunch[0].of(row) is not None]
        if not kept:
            continue
        rows = [view.rows[i] for i in kept]
        states, groups = view.states[kept], tuple(group_of(row) for row in rows)
        out = is_held_out(rows, held_out)
        for attribute in bunch:
            labels = np.array([attribute.of(row) for row in rows], dtype=np.str_)
            tasks[attribute][modality] = Task(modality, states, labels, groups, out)
    return tasks
