"""Rows about their mean, some at a time: the same as all of them at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geomkit import geometry
from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry import chunks, rows
from geomkit.geometry.chunks import place_of
from geomkit.geometry.energies import cross_moments, second_moments

N, DIM = 400, 48
RNG = np.random.default_rng(5)
PLAIN = RNG.standard_normal((N, DIM)) * np.linspace(2, 0.1, DIM) + 0.5
MASSIVE = PLAIN.copy()
MASSIVE[:, 7] += 8000
MASSIVE[:, 30] -= 3000
ROWS = {
    "float32": PLAIN.astype(np.float32),
    "float64": PLAIN,
    "a tensor": torch.tensor(PLAIN),
    "bfloat16": torch.tensor(PLAIN).bfloat16(),
    "massive": MASSIVE.astype(np.float32),
    "tiny": PLAIN * 1e-300,
    "below all": PLAIN * 1e-310,
    "huge": PLAIN * 1e300,
    "turned in memory": np.asfortranarray(PLAIN),
}


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 768)
    monkeypatch.setattr(rows, "CACHE_ENTRIES", 700)


def host(x) -> np.ndarray:
    return x.double().numpy() if isinstance(x, torch.Tensor) else x.astype(np.float64)


@pytest.mark.parametrize("name", ROWS)
def test_rows_seen_from_their_mean(name):
    x, place = ROWS[name], place_of(ROWS[name])
    want = host(x) * place.scale
    want = want - want.mean(axis=0)
    assert 0.5 <= np.abs(host(x) * place.scale).max() < 1 or name == "below all"
    parts = [(c.rows.copy(), c.lengths, c.squares) for c in chunks.chunks(x, place, np.float64)]
    assert [len(part[0]) for part in parts] == [96, 96, 96, 96, 16]
    np.testing.assert_allclose(np.concatenate([p[0] for p in parts]), want, atol=1e-15)
    np.testing.assert_allclose(np.concatenate([p[1] for p in parts]), (want**2).sum(axis=1))
    np.testing.assert_allclose(sum(p[2] for p in parts), (want**2).sum(axis=0))
    half = [c.rows.copy() for c in chunks.chunks(x, place, np.float32)]
    np.testing.assert_array_equal(
        np.concatenate(half), np.concatenate([p[0] for p in parts]).astype(np.float32)
    )


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("name", ROWS)
def test_second_moments(name, centred):
    x = host(ROWS[name]) * place_of(ROWS[name]).scale
    c = x - x.mean(axis=0) if centred else x
    found = second_moments(ROWS[name], centred=centred)
    np.testing.assert_allclose(np.triu(found), np.triu(c.T @ c), rtol=1e-10, atol=1e-12)


def test_cross_moments():
    x, y = MASSIVE.astype(np.float32), ROWS["a tensor"][:, :20].numpy()
    cross, norms = cross_moments(x, y)
    a, b = (side.astype(np.float64) - side.mean(axis=0, dtype=np.float64) for side in (x, y))
    want = a.T @ b / np.sqrt((a**2).sum() * (b**2).sum())
    np.testing.assert_allclose(cross / np.sqrt(norms), want, atol=1e-12)


SPECTRAL = {
    "rank_me": geometry.rank_me,
    "effective_rank": geometry.effective_rank,
    "stable_rank": geometry.stable_rank,
    "spectral_decay": lambda x: geometry.spectral_decay(x, 1, 30),
    "procrustes": lambda x: geometry.procrustes(
        x, x[:, ::2] if isinstance(x, torch.Tensor) else np.ascontiguousarray(x[:, ::2])
    ),
}


@pytest.mark.parametrize("metric", SPECTRAL)
@pytest.mark.parametrize("name", ["float32", "bfloat16", "massive", "tiny", "huge"])
def test_metrics_in_chunks_and_whole(name, metric, monkeypatch):
    want = SPECTRAL[metric](ROWS[name])
    monkeypatch.setattr(chunks, "MANY", 1)
    assert SPECTRAL[metric](ROWS[name]) == pytest.approx(want, rel=1e-10)


@pytest.mark.parametrize("metric", SPECTRAL)
def test_what_is_refused(metric, monkeypatch):
    monkeypatch.setattr(chunks, "MANY", 1)
    with pytest.raises(DegenerateInput, match="equal to float32 resolution"):
        SPECTRAL[metric](8000 + 1e-3 * PLAIN)
    with pytest.raises(DegenerateInput, match="Expected rows that differ"):
        SPECTRAL[metric](np.tile(PLAIN[0], (N, 1)))
    bad = PLAIN.copy()
    bad[[3, 399], 4] = np.inf
    with pytest.raises(DegenerateInput, match="got 2 of 400 with NaN or infinity"):
        SPECTRAL[metric](bad)
    with pytest.raises(UsageError, match="paired rows, got 400 and 399"):
        geometry.procrustes(PLAIN, PLAIN[:-1])


def test_which_sets_go_by_in_chunks():
    x = np.zeros((2048, 1024), np.float32)
    assert chunks.are_many(x, x)
    assert chunks.are_many(torch.tensor(x))
    assert not chunks.are_many(x[:-1])  # few entries
    assert not chunks.are_many(np.zeros((1024, 2049)))  # its own samples are fewer
    assert not chunks.are_many([1, 2])
