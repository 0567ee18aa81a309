"""Which rows are held out: decided by their group alone, once for the whole run.

The split does not depend on checkpoint, site, modality or attribute. So before and after are
compared on the same held-out rows, and a scene that is trained on as text is never tested on as an
image.

One split and not cross-validation: the probes of several folds share their training rows, so their
errors are correlated. On labels that mean nothing, 95 % intervals from five folds then hold the
chance level in 87 % of runs; from one split, in 95 %.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from geomkit.errors import UsageError
from geomkit.types import Row


def group_of(row: Row) -> str:
    """The group of a row: its own id when the sample named none."""
    return row.group or row.id


def held_out_groups(groups: Iterable[str], share: float = 0.5, seed: int = 0) -> frozenset[str]:
    """A random `share` of the distinct groups, to test on; the others are for training.

    Args:
        groups: group names, in any order and as often as they like.
        share: of the distinct names, strictly between 0 and 1.
        seed: of the draw; the same names and seed give the same groups.

    Raises:
        UsageError: when the share leaves nothing to train or to test on.
    """
    if not 0 < share < 1:
        raise UsageError(f"Expected a held-out share between 0 and 1, got {share}.")
    names = sorted(set(groups))
    order = np.random.default_rng(seed).permutation(len(names))
    return frozenset(names[i] for i in order[: round(share * len(names))])


def is_held_out(rows: Sequence[Row], held_out: Collection[str]) -> NDArray[np.bool_]:
    """True for the rows to test on, `(rows,)`."""
    return np.array([group_of(row) in held_out for row in rows], dtype=bool)
