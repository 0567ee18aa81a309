"""Float32 only proposes neighbours: what comes out is what float64 over all pairs would give."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geomkit.geometry import candidates, factors, nearest, rows
from geomkit.geometry.nearest import membership, neighbour_lists
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


@pytest.fixture(autouse=True, params=[False, True], ids=["floats", "fixed"])
def kind(request, monkeypatch):
    """Rows as float32 and as whole numbers, whatever this processor is better at."""
    monkeypatch.setattr(factors, "MANY", 0)
    monkeypatch.setattr(factors, "has_matrix_integers", lambda: request.param)


def whole(u: np.ndarray, v: np.ndarray, k: int, code: np.ndarray | None) -> np.ndarray:
    cosine = u @ v.T
    if code is not None:
        cosine = np.where(code[:, None] == code[None, :], -np.inf, cosine)
    return np.asarray(membership(cosine, k))


def same(got: np.ndarray, want: np.ndarray) -> None:
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


def listed(u, v, k: int, code: np.ndarray | None) -> np.ndarray:
    member = np.zeros((u.shape[0], v.shape[0]))
    for lists in neighbour_lists(u, v, k, None if code is None else (code, code)):
        assert (np.diff(lists.of) >= 0).all()
        member[lists.of, lists.item] += lists.share
    return member


@pytest.mark.parametrize("name", CLOUDS)
@pytest.mark.parametrize("k", [1, 10])
def test_the_same_as_float64_over_all_pairs(name, k, monkeypatch):
    u = directions(CLOUDS[name])
    code = np.arange(N) // 2
    want = whole(u, u, k, code)
    same(listed(u, u, k, code), want)
    tensor = torch.tensor(u)
    same(listed(tensor, tensor, k, code), want)
    same(listed(u, u.copy(), k, code), want)  # no half turned over
    monkeypatch.setattr(rows, "BLOCK_ENTRIES", 7300)  # tiles of 85, pairs by the hundred
    same(listed(u, u, k, code), want)


@pytest.mark.parametrize("name", CLOUDS)
def test_the_same_across_two_sets(name):
    u, v = (
        directions(CLOUDS[name][:100]),
        directions(CLOUDS[name][100:] + CLOUDS["isotropic"][100:]),
    )
    same(listed(u, v, 7, None), whole(u, v, 7, None))


@pytest.mark.parametrize("name", CLOUDS)
def test_what_proposes_stays_within_its_bound(name):
    u = directions(CLOUDS[name])
    screen = candidates._screen(u, u)
    assert type(screen.left).__name__.lower() == (
        "fixed" if factors.has_matrix_integers() else "floats"
    )
    tile = screen.tile(slice(0, 200), slice(100, 300))
    above = tile - u[:200] @ u[100:].T
    turned = tile.T - u[100:] @ u[:200].T
    for off, error in ((above, screen.error[:200]), (turned, screen.error[100:])):
        free = off - off.mean(axis=1, keepdims=True)  # a constant a row is no matter
        assert (np.abs(free) <= 2 * error[:, None] + 1e-15).all()


def test_a_narrow_cone_among_spread_items():
    """Here the products with the cone's own spread are tiny, and the error is that of its mean."""
    u, v = directions(CLOUDS["a narrow cone"]), directions(CLOUDS["isotropic"])
    screen = candidates._screen(u, v)
    off = screen.tile(slice(0, N), slice(0, N)) - u @ v.T
    off = off - off.mean(axis=1, keepdims=True)
    assert (np.abs(off) <= 2 * screen.error[:, None]).all()
    product = screen.left.lengths * screen.right.lengths.max()
    assert np.abs(off).max() > (DIM + 12) * 2.0**-24 * product.max()  # too little without the mean
    same(listed(u, v, 10, None), whole(u, v, 10, None))


def test_a_cone_is_no_wider_a_guess():
    """Without taking the means away the bound would be wider than the cone, and all candidates."""
    u = directions(CLOUDS["a narrow cone"])
    spread = float(np.std(u @ u.T))
    assert candidates._screen(u, u).error.max() < spread / 50
    assert 50 * spread < (DIM + 6) * 2.0**-24


def test_where_ties_leave_too_many_candidates_float64_does_all(monkeypatch):
    u = directions(CLOUDS["isotropic"])
    want = whole(u, u, 10, np.arange(N))
    codes = np.arange(N), np.arange(N)
    assert candidates.candidates(u, u, 10, codes) is not None
    monkeypatch.setattr(candidates, "SPARE", -31)  # nine of ten
    assert candidates.candidates(u, u, 10, codes) is None
    same(listed(u, u, 10, np.arange(N)), want)
    tied = directions(np.repeat(CLOUDS["isotropic"][:2], 150, axis=0))
    assert candidates.candidates(tied, tied, 10, codes) is None


def test_one_row_with_too_many_candidates(monkeypatch):
    """Forty copies that one row alone is near to: few candidates on average, too many for it."""
    monkeypatch.setattr(candidates, "SPARE", -2)  # 2 a row on average, 32 at most
    x = CLOUDS["isotropic"]
    u, v = directions(x[:100]), directions(np.concatenate([x[1:100], np.tile(x[0], (40, 1))]))
    assert candidates.candidates(u, v, 1, None) is None
    same(listed(u, v, 1, None), whole(u, v, 1, None))
    assert candidates.candidates(u[1:], v, 1, None) is not None


def test_better_items_in_every_tile(monkeypatch):
    """Sorted so that each tile holds nearer items than all before: the worst order."""
    monkeypatch.setattr(rows, "BLOCK_ENTRIES", 50**2)
    angle = np.sort(np.random.default_rng(0).uniform(0, 3, N))
    u = directions(np.stack([np.cos(angle), np.sin(angle)], axis=1)[::-1].copy())
    for k in (1, 10, 60):
        want = whole(u, u, k, np.arange(N))
        same(listed(u, u, k, np.arange(N)), want)


def test_rows_and_items_in_tiles_fewer_than_k(monkeypatch):
    monkeypatch.setattr(rows, "BLOCK_ENTRIES", 7**2)
    u = directions(CLOUDS["isotropic"][:60])
    want = whole(u, u, 20, np.arange(60) // 3)
    same(listed(u, u, 20, np.arange(60) // 3), want)


def test_device_path_equals_the_host_path(monkeypatch):
    u = directions(CLOUDS["massive dimensions"])
    want = listed(u, u, 10, np.arange(N))
    monkeypatch.setattr(nearest, "device", lambda _: "elsewhere")
    tensor = torch.tensor(u)
    same(listed(tensor, tensor, 10, np.arange(N)), want)
    assert listed(tensor, torch.tensor(u[:50]), 10, None).sum() == pytest.approx(10 * N)
