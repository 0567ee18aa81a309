"""The control task: the same probe on labels that mean nothing.

A probe that does as well on shuffled labels as on the true ones tells about the probe or about
the split, not about the representation.

Reference: Hewitt and Liang, Designing and Interpreting Probes with Control Tasks, 2019.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def shuffled(
    labels: NDArray[np.str_], groups: Sequence[str], rng: np.random.Generator
) -> NDArray[np.str_]:
    """Labels dealt anew to the groups, `(rows,)`; rows that agreed still agree.

    The unit is a distinct (group, label), so copies of a scene keep one common label: with a row
    as the unit, copies would disagree and the control would be easier to fail than the task.

    Args:
        labels: the true label of each row.
        groups: the group of each row.
        rng: source of the permutation.
    """
    kinds = np.array([f"{g}\0{label}" for g, label in zip(groups, labels, strict=True)])
    _, first, inverse = np.unique(kinds, return_index=True, return_inverse=True)
    return np.asarray(labels[first][rng.permutation(len(first))][inverse])
