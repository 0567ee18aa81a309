"""Spectra against numpy's own singular values."""

from __future__ import annotations

import numpy as np
import pytest

from geomkit.pictures.album import unit
from geomkit.pictures.spectra import spectra, spectrum
from tests.pictures.worlds import world


@pytest.mark.parametrize("shape", [(40, 12), (12, 40)])
def test_against_numpy(shape: tuple[int, int]) -> None:
    units = unit(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    found = spectrum("text", "s", "c", units)
    whole = np.linalg.svd(units - units.mean(axis=0), compute_uv=False) / np.sqrt(shape[0] - 1)
    assert found.n == shape[0]
    assert found.ranks[0] == 1
    assert found.ranks[-1] == min(shape[0] - 1, shape[1])
    np.testing.assert_allclose(found.values, whole[np.array(found.ranks) - 1], rtol=1e-9)


def test_one_a_modality_and_checkpoint() -> None:
    run = world(9)
    spaces = {name: unit(run.values[name, "block_00"]) for name in ("base", "lco")}
    found = spectra("block_00", spaces, run.rows)
    assert [(s.modality, s.checkpoint, s.n) for s in found] == [
        ("text", "base", 9), ("text", "lco", 9), ("image", "base", 9), ("image", "lco", 9),
        ("audio", "base", 3), ("audio", "lco", 3),
    ]  # fmt: skip


@pytest.mark.parametrize("rows", [1, 6])
def test_no_spread_is_a_note(rows: int) -> None:
    found = spectrum("image", "s", "c", np.tile([0.6, 0.8], (rows, 1)))
    assert found.values == ()
    assert found.note == "the states do not differ"
