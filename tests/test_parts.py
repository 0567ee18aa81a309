"""Batches to the rows of a shard: what is missing in one pooling is missing in all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from geomkit.batches import Batch
from geomkit.forward import Pooled
from geomkit.parts import Part, shard_rows
from geomkit.processing import Shown
from geomkit.types import Row

SITES, DIM = ("a", "b"), 4


def rows(count: int) -> tuple[Row, ...]:
    return tuple(
        Row(index=i, id=f"s{i}", modality="text", content_sha="", group=f"s{i}", text="")
        for i in range(count)
    )


def part(table: torch.Tensor) -> Part:
    """Three rows, of which the middle one was not shown."""
    shown = dict.fromkeys((0, 2), Shown("", "text"))
    batch = Batch(rows(3), shown, {}, {0: "x", 2: "y"}, {0: 5, 2: 6}, {1: "broken"})
    return Part(batch, {"c": [Pooled(("last", "mean"), table, None, None)]})


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("pooling", [0, 1])
def test_a_row_that_is_infinite_in_one_pooling_is_missing_in_all(pooling: int, bad: float) -> None:
    table = torch.arange(2 * 2 * len(SITES) * DIM, dtype=torch.float32).reshape(2, 2, 2, DIM)
    whole = table.clone()
    table[pooling, 1, 1, 3] = bad  # one value of the last row
    checkpoint: Any = SimpleNamespace(name="c", dim=DIM)
    found = shard_rows(checkpoint, [part(table)], SITES, ("last", "mean"))
    assert np.asarray(found.ok).tolist() == [True, False, False]
    assert list(found.notes) == ["", "broken", "states are not finite"]
    for number, name in enumerate(("last", "mean")):
        np.testing.assert_array_equal(found.states[name][0], whole[number, 0].numpy())
        assert np.isnan(found.states[name][1:]).all()
    assert np.asarray(found.n_tokens).tolist() == [5, 0, 6]
