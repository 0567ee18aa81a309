from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from sklearn.metrics.pairwise import cosine_similarity

from geomkit.errors import DegenerateInput, UsageError
from geomkit.geometry import alignment, alignment_chance, rows, sphere, uniformity, uniformity_floor


def brute_uniformity(x: np.ndarray, t: float = 2.0) -> float:
    x = x.astype(np.float64)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    return math.log(np.exp(-t * pdist(x, "sqeuclidean")).mean())


def test_uniformity_equals_the_mean_over_pairs(pair_s, pair_q):
    for x in (*pair_s, *pair_q):
        assert uniformity(x) == pytest.approx(brute_uniformity(x), abs=1e-10)
    assert uniformity(pair_q[0], t=1.0) == pytest.approx(brute_uniformity(pair_q[0], 1), abs=1e-10)


@pytest.mark.parametrize(("first", "value"), [(50, -1.966), (200, -1.982), (500, -1.972)])
def test_uniformity_is_a_u_statistic(pair_s, first, value):
    assert uniformity(pair_s[0][:first]) == pytest.approx(value, abs=6e-4)


def test_uniformity_under_massive_dimensions(massive):
    assert uniformity(massive) == pytest.approx(brute_uniformity(massive), abs=1e-9)


def test_uniformity_normalises_rows_of_any_length(pair_q):
    assert uniformity(pair_q[0] * 50) == pytest.approx(uniformity(pair_q[0]), abs=1e-12)


def test_uniformity_in_blocks(pair_q, monkeypatch):
    whole = uniformity(pair_q[0])
    monkeypatch.setattr(rows, "BLOCK_ENTRIES", 730)
    assert uniformity(pair_q[0]) == pytest.approx(whole, abs=1e-12)


def beyond(x: np.ndarray, low: float) -> tuple[float, float]:
    """Uniformity through float32 products, and over pairs in float64; the error asked for."""
    return uniformity(x), pytest.approx(brute_uniformity(x), rel=low)


@pytest.mark.parametrize("entries", [2**22, 730])
def test_float32_products_settle(pair_s, massive, entries, monkeypatch):
    monkeypatch.setattr(sphere, "MANY", 1)
    monkeypatch.setattr(rows, "BLOCK_ENTRIES", entries)
    for x in (*pair_s, massive, 1 + 1e-3 * pair_s[0], massive * pair_s[0][:300, :1]):
        found, wanted = beyond(x[:120], 1e-7)
        assert found == wanted
    twice = np.concatenate([pair_s[0][:60]] * 2)
    groups = [str(i % 60) for i in range(120)]
    assert uniformity(twice, groups=groups) == pytest.approx(uniformity(twice[:60]), abs=1e-8)
    ours = uniformity(torch.tensor(pair_s[0]))
    assert ours == pytest.approx(uniformity(pair_s[0]), abs=1e-12)


def clumped(spread: float) -> np.ndarray:
    rng = np.random.default_rng(1)
    centres = rng.standard_normal((3, 24))
    return centres[rng.integers(0, 3, 240)] + spread * rng.standard_normal((240, 24))


@pytest.mark.parametrize("spread", [1.0, 0.1, 1e-3, 1e-6, 0.0])
@pytest.mark.parametrize("t", [0.1, 2.0, 20.0])
def test_float32_products_of_rows_that_clump(spread, t, monkeypatch):
    """Roundings of pairs that are all alike do not settle; they are small all the same."""
    monkeypatch.setattr(sphere, "MANY", 1)
    x = clumped(spread)
    assert uniformity(x, t) == pytest.approx(brute_uniformity(x, t), rel=1e-6, abs=t * 1e-7)


def test_uniformity_leaves_out_copies():
    x = np.random.default_rng(0).standard_normal((60, 8))
    twice = np.concatenate([x, x])
    groups = [str(i % 60) for i in range(120)]
    assert uniformity(twice, groups=groups) == pytest.approx(uniformity(x), abs=1e-12)
    assert uniformity(twice) > uniformity(x) + 0.05


@pytest.mark.parametrize(("dim", "floor"), [(16, -3.513036), (512, -3.984375), (2048, -3.996094)])
def test_uniformity_floor_in_closed_form(dim, floor):
    assert uniformity_floor(dim) == pytest.approx(floor, abs=1e-6)


def test_uniformity_floor_of_two_points():
    assert uniformity_floor(1, t=0.7) == pytest.approx(math.log((1 + math.exp(-2.8)) / 2))


def test_uniformity_floor_of_a_circle_at_any_t():
    """Against the mean over angles; beyond t = dim another expansion takes over."""
    angle = np.linspace(0, np.pi, 400_001)[:-1]
    for t in (0.5, 1.99, 2.01, 40.0, 4000.0):
        want = math.log(np.trapezoid(np.exp(-2 * t * (1 - np.cos(angle))), angle) / np.pi)
        assert uniformity_floor(2, t) == pytest.approx(want, abs=1e-5)
    for dim in (1, 3, 16, 301):
        below, above = uniformity_floor(dim, dim - 1e-9), uniformity_floor(dim, dim + 1e-9)
        assert below == pytest.approx(above, abs=1e-8)


@pytest.mark.parametrize("t", [0, -1.0])
def test_t_is_positive(pair_q, t):
    with pytest.raises(UsageError, match="t above 0"):
        uniformity(pair_q[0], t)
    with pytest.raises(UsageError, match="t above 0"):
        uniformity_floor(8, t)


def test_where_no_floor_or_no_term_is():
    with pytest.raises(UsageError, match="at least 1 dimension"):
        uniformity_floor(0)
    with pytest.raises(DegenerateInput, match="lower t"):
        uniformity(np.eye(6), t=5000.0)


def test_uniform_rows_reach_the_floor():
    x = np.random.default_rng(0).standard_normal((2000, 16))
    assert uniformity(x) == pytest.approx(uniformity_floor(16), abs=0.01)


def test_alignment_is_two_minus_twice_the_paired_cosine(pair_q):
    x, y = pair_q
    cosine = cosine_similarity(x, y)
    apart = ~np.eye(len(x), dtype=bool)
    assert alignment(x, y) == pytest.approx(2 - 2 * np.diag(cosine).mean(), abs=1e-12)
    assert alignment_chance(x, y) == pytest.approx(2 - 2 * cosine[apart].mean(), abs=1e-12)
    assert alignment(x, x * 3) == pytest.approx(0, abs=1e-15)
    assert alignment(x, -x) == pytest.approx(4)


def test_alignment_needs_partners(pair_q):
    with pytest.raises(UsageError, match="paired rows"):
        alignment(pair_q[0], pair_q[1][:-1])
