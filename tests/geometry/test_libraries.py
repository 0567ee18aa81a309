"""NumPy and torch, on any device and in any precision, give one number: every public metric."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch

from geomkit import geometry
from geomkit.geometry import chunks, sphere
from tests.geometry.metrics import COUNTS, ONE, PLAIN, TWO, numbers

RNG = np.random.default_rng(9)
ROWS = RNG.standard_normal((60, 12)).astype(np.float32)
OTHER = ROWS + RNG.standard_normal((60, 12)).astype(np.float32)
KINDS = {
    "float64": lambda x: x.double(),
    "float32": lambda x: x,
    "float16": lambda x: x.half(),
    "bfloat16": lambda x: x.bfloat16(),
    "in a graph": lambda x: x.clone().requires_grad_(),
    "turned in memory": lambda x: x.T.contiguous().T,
    "every second row": lambda x: torch.stack([x, -x], dim=1).flatten(0, 1)[::2],
}
METRICS = ONE | TWO | PLAIN
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
PLACES = [(kind, "cpu") for kind in KINDS]
PLACES += [pytest.param(kind, "cuda", marks=CUDA) for kind in ("float32", "bfloat16")]


def test_every_public_name_is_in_the_table():
    tabled = {word for name in METRICS for word in name.split()} | COUNTS
    records = {name for name in geometry.__all__ if inspect.isclass(getattr(geometry, name))}
    assert set(geometry.__all__) - records == tabled & set(geometry.__all__)


@pytest.mark.parametrize(("kind", "place"), PLACES)
@pytest.mark.parametrize("name", METRICS)
def test_torch_gives_what_numpy_gives(name, kind, place):
    metric = METRICS[name]
    sides = (ROWS, OTHER) if name in TWO else (ROWS,)
    tensors = [KINDS[kind](torch.tensor(side, device=place)) for side in sides]
    arrays = [t.detach().double().cpu().numpy() for t in tensors]
    want = numbers(metric(*arrays))
    assert want.size
    assert numbers(metric(*tensors)) == pytest.approx(want, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("width", ["float16", "float32", "int32"])
def test_narrow_numpy_rows_are_read_in_float64(width):
    rows = (ROWS * 50).astype(width)
    for name, metric in ONE.items():
        want = numbers(metric(rows.astype(np.float64)))
        assert numbers(metric(rows)) == pytest.approx(want, rel=1e-9, abs=1e-12), name


@pytest.mark.parametrize("many", [False, True])
def test_massive_dimensions_in_float32(many, monkeypatch):
    """Two at +8000 and -3000: what float32 rows give is what the same rows give in float64."""
    if many:
        monkeypatch.setattr(chunks, "MANY", 1)
        monkeypatch.setattr(sphere, "MANY", 1)
    x, y = ROWS.copy(), OTHER.copy()
    for side in (x, y):
        side[:, 3] += 8000
        side[:, 8] -= 3000
    for name, metric in METRICS.items():
        sides = (x, y) if name in TWO else (x,)
        want = numbers(metric(*(side.astype(np.float64) for side in sides)))
        assert numbers(metric(*sides)) == pytest.approx(want, rel=1e-6, abs=1e-12), name


def test_rows_that_cannot_be_written_to():
    rows = ROWS.copy()
    rows.flags.writeable = False
    for name, metric in (ONE | PLAIN).items():
        assert np.isfinite(numbers(metric(rows))).all(), name


def test_groups_of_torch_rows():
    groups = [str(i // 2) for i in range(60)]
    for metric in (geometry.mean_cosine, geometry.uniformity):
        want = metric(ROWS, groups=groups)
        assert metric(torch.tensor(ROWS), groups=groups) == pytest.approx(want, rel=1e-9)
