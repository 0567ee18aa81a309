"""Many rows go by in chunks, in float32 products: right to 1e-6 and better against float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry import chunks, iso_score, linear_cka, participation_ratio
from tests.geometry.conftest import Pair

N, DIM = 400, 48
OFFSET = np.zeros(DIM)
OFFSET[7], OFFSET[30] = 8000, -3000
SWING = np.ones(DIM)
SWING[7] = 8000


def sets() -> dict[str, Pair]:
    rng = np.random.default_rng(3)
    x, noise = rng.standard_normal((2, N, DIM)) * np.linspace(2, 0.1, DIM)
    y = x @ rng.standard_normal((DIM, DIM)) + noise
    return {
        "plain": (x + 0.5, y),
        "massive means": (x + OFFSET, y - OFFSET),
        "a massive swing": (x * SWING, (x + noise) * SWING),
        "tiny": (x * 1e-150, y * 1e-150),
        "huge": (x * 1e150, y * 1e150),
        "of few directions": (x[:, :3] @ rng.standard_normal((3, DIM)), y),
    }


SETS = sets()
METRICS = {
    "linear_cka": linear_cka,
    "plug-in linear_cka": lambda x, y: linear_cka(x, y, debiased=False),
    "participation_ratio": lambda x, _: participation_ratio(x),
    "plug-in iso_score": lambda x, _: iso_score(x, debiased=False),
}


@pytest.fixture
def in_chunks(monkeypatch):
    monkeypatch.setattr(chunks, "MANY", 1)
    monkeypatch.setattr(chunks, "CHUNK", 768)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("metric", METRICS)
def test_float32_products_of_centred_rows(name, metric, monkeypatch):
    pair = SETS[name]
    if name not in {"tiny", "huge"}:
        pair = pair[0].astype(np.float32), pair[1].astype(np.float32)
    monkeypatch.setattr(chunks, "MANY", 10**12)
    want = METRICS[metric](*(side.astype(np.float64) for side in pair))
    monkeypatch.setattr(chunks, "MANY", 1)
    monkeypatch.setattr(chunks, "CHUNK", 768)
    for given in (pair, tuple(map(torch.tensor, pair))):
        assert METRICS[metric](*given) == pytest.approx(want, rel=2e-7, abs=0)


def test_centring_in_float32_would_be_wrong():
    """What the two passes avoid: float32 products of rows as they are have lost the variance."""
    x, y = (side.astype(np.float32) for side in SETS["massive means"])
    cross = x.T @ y - np.outer(x.sum(axis=0), y.sum(axis=0)) / N
    a, b = (side - side.mean(axis=0) for side in SETS["massive means"])
    assert float((cross**2).sum()) > 1.2 * float(((a.T @ b) ** 2).sum())


@pytest.mark.usefixtures("in_chunks")
def test_what_is_refused_in_chunks():
    x, y = SETS["plain"]
    with pytest.raises(UsageError, match="paired rows, got 400 and 399"):
        linear_cka(x, y[:-1])
    with pytest.raises(DegenerateInput, match="Expected rows that differ"):
        linear_cka(x, np.tile(y[0], (N, 1)))
    with pytest.raises(DegenerateInput, match="equal to float32 resolution"):
        participation_ratio(8000 + 1e-3 * x)
    bad = x.copy()
    bad[[3, 399], 5] = np.nan
    with pytest.raises(DegenerateInput, match="got 2 of 400 with NaN"):
        linear_cka(bad, y)
    with pytest.raises(DegenerateInput, match="got 2 of 400 with NaN"):
        participation_ratio(bad)
