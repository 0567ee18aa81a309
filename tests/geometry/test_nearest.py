"""Float32 only proposes neighbours: what comes out is what float64 over all pairs would give."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geomkit.geometry import nearest, rows
from geomkit.geometry.nearest import membership, neighbour_blocks
from geomkit.geometry.rows import directions

N, DIM = 300, 64


def clouds() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    free = rng.standard_normal((N, DIM))
    massive = free.copy()
    massive[:, :2] += [8000, -3000]
    return {
        "isotropic": free,
        "a narrow cone": 1 + 1e-4 * free,
        "massive dimensions": massive,
        "clusters far tighter than float32": np.repeat(free[:30], 10, axis=0) + 1e-9 * free,
        "copies": np.tile(free[:60], (5, 1)),
        "few distinct cosines": rng.integers(0, 2, (N, DIM)).astype(float),
        "rows of all lengths": free * rng.lognormal(0, 5, (N, 1)),
    }


CLOUDS = clouds()


def whole(u: np.ndarray, v: np.ndarray, k: int, code: np.ndarray | None) -> np.ndarray:
    cosine = u @ v.T
    if code is not None:
        cosine = np.where(code[:, None] == code[None, :], -np.inf, cosine)
    return np.asarray(membership(cosine, k))


def blocked(u, v, k: int, code: np.ndarray | None) -> np.ndarray:
    pair = None if code is None else (code, code)
    return np.concatenate([np.asarray(member) for _, member in neighbour_blocks(u, v, k, pair)])


@pytest.mark.parametrize("name", CLOUDS)
@pytest.mark.parametrize("k", [1, 10])
def test_the_same_as_float64_over_all_pairs(name, k, monkeypatch):
    u = directions(CLOUDS[name])
    code = np.arange(N) // 2
    want = whole(u, u, k, code)
    assert blocked(u, u, k, code) == pytest.approx(want, abs=1e-12)
    assert blocked(torch.tensor(u), torch.tensor(u), k, code) == pytest.approx(want, abs=1e-12)
    monkeypatch.setattr(rows, "BLOCK_ENTRIES", 7300)  # narrow blocks, pairs by the hundred
    assert blocked(u, u, k, code) == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize("name", CLOUDS)
def test_the_same_across_two_sets(name):
    u, v = (
        directions(CLOUDS[name][:100]),
        directions(CLOUDS[name][100:] + CLOUDS["isotropic"][100:]),
    )
    assert blocked(u, v, 7, None) == pytest.approx(whole(u, v, 7, None), abs=1e-12)


@pytest.mark.parametrize("name", CLOUDS)
def test_float32_stays_within_its_bound(name):
    u = directions(CLOUDS[name])
    screen = nearest._screen(u, u)
    off = (screen.left @ screen.right.T).astype(np.float64) - u @ u.T
    off -= off.mean(axis=1, keepdims=True)  # a constant a row is no matter
    assert (np.abs(off) <= 2 * screen.error[:, None] + 1e-15).all()


def test_a_cone_is_no_wider_a_guess():
    """Without taking the means away the bound would be wider than the cone, and all candidates."""
    u = directions(CLOUDS["a narrow cone"])
    spread = float(np.std(u @ u.T))
    assert nearest._screen(u, u).error.max() < spread / 50
    assert 50 * spread < (DIM + 6) * 2.0**-24


def test_too_many_candidates_are_all_decided_in_float64(monkeypatch):
    u = directions(CLOUDS["isotropic"])
    want = whole(u, u, 10, np.arange(N))
    monkeypatch.setattr(nearest, "SPARE", -31)  # any candidate beside the k is too many
    assert blocked(u, u, 10, np.arange(N)) == pytest.approx(want, abs=1e-12)
    monkeypatch.setattr(nearest._Screen, "_decide", None)  # and float32 is never asked
    monkeypatch.setattr(nearest, "SPARE", -41)
    assert blocked(u, u, 10, np.arange(N)) == pytest.approx(want, abs=1e-12)
