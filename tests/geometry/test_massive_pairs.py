"""Two dimensions at +8000 and -3000 on float32 input: what language models do to their states.

Where a shift must not matter, the reference is the same rows with both offsets taken away, which
float64 does exactly; where directions matter, the formula in extended precision over all pairs.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from geomkit import geometry
from tests.geometry.conftest import Pair

SHIFT_BLIND = {
    "linear_cka": geometry.linear_cka,
    "plug-in linear_cka": lambda x, y: geometry.linear_cka(x, y, debiased=False),
    "linear_cka_null": lambda x, y: geometry.linear_cka_null(x, y, debiased=False).variance,
    "procrustes": geometry.procrustes,
    "cca": lambda x, y: geometry.cca(x[:, :120], y[:, :120]),
    "svcca": lambda x, y: geometry.cca(x, y, variance=0.8),
    "rsa": geometry.rsa,
    "angles of samples": lambda x, y: geometry.principal_angles(x, y, 3),
    "angles of features": lambda x, y: geometry.principal_angles(x, y, 3, of="features"),
}


@pytest.fixture(scope="module")
def pair(massive: np.ndarray) -> Pair:
    rng = np.random.default_rng(3)
    signal = (
        rng.standard_normal((300, 16)) @ rng.standard_normal((16, 256)) * np.logspace(0, -1, 256)
    )
    x, y = (massive + signal + rng.standard_normal((300, 256)) for _ in range(2))
    return x.astype(np.float32), y.astype(np.float32)


@pytest.fixture(scope="module")
def cosines(pair: Pair) -> list[np.ndarray]:
    """Within x, within y and across, of unit rows with 64 bits of mantissa."""
    u, v = (a.astype(np.longdouble) for a in pair)
    u, v = (a / np.sqrt((a * a).sum(axis=1, keepdims=True)) for a in (u, v))
    return [u @ u.T, v @ v.T, u @ v.T]


@pytest.mark.parametrize("name", SHIFT_BLIND)
def test_metrics_that_centre(pair, name):
    offset = np.zeros(256)
    offset[7], offset[100] = 8000, -3000
    want = SHIFT_BLIND[name](*(a.astype(np.float64) - offset for a in pair))
    assert SHIFT_BLIND[name](*pair) == pytest.approx(want, rel=1e-6)
    assert SHIFT_BLIND[name](*map(torch.tensor, pair)) == pytest.approx(want, rel=1e-6)


def test_metrics_of_directions(pair, cosines):
    within_x, within_y, across = cosines
    apart = ~np.eye(300, dtype=bool)
    a_x, a_y = within_x[apart].mean(), within_y[apart].mean()
    matched = across.diagonal().mean()
    inside = 1 - (a_x + a_y) / 2
    for x, y in (pair, tuple(map(torch.tensor, pair))):
        gap = geometry.modality_gap_unbiased(x, y)
        assert gap == pytest.approx(float(a_x + a_y - 2 * across[apart].mean()), rel=1e-6)
        plug_in = float(within_x.mean() + within_y.mean() - 2 * across.mean()) ** 0.5
        assert geometry.modality_gap(x, y) == pytest.approx(plug_in, rel=1e-6)
        relative = float((1 - matched) / (1 - matched + inside))
        assert geometry.relative_modality_gap(x, y) == pytest.approx(relative, rel=1e-6)
        assert geometry.alignment(x, y) == pytest.approx(float(2 - 2 * matched), rel=1e-6)


def test_metrics_of_neighbours(pair, cosines):
    """Neighbours are by cosine of the rows as they are; float32 would get 7 % of them wrong."""
    near = []
    for cosine in cosines[:2]:
        off = cosine - 10 * np.eye(300)
        near.append((off >= np.sort(off, axis=1)[:, -10, None]).astype(float))
    hits = np.argsort(-cosines[2], axis=1, kind="stable")
    ranks = 1 + (hits == np.arange(300)[:, None]).argmax(axis=1)
    for x, y in (pair, tuple(map(torch.tensor, pair))):
        assert geometry.mutual_knn(x, y) == pytest.approx((near[0] * near[1]).sum() / 3000)
        assert geometry.hubness(x).occurrences == pytest.approx(near[0].sum(axis=0), abs=1e-9)
        assert geometry.retrieval(x, y).ranks.tolist() == ranks.tolist()
    low = pair[0] / np.linalg.norm(pair[0], axis=1, keepdims=True)  # all in float32
    off = low @ low.T - 10 * np.eye(300, dtype=np.float32)
    found = (off >= np.sort(off, axis=1)[:, -10, None]).astype(float)
    assert (found * near[0]).sum() / 3000 < 0.97


def test_cknna_under_massive_dimensions(pair, cosines):
    """Song's statistic over all pairs in extended precision."""
    near = []
    for cosine in cosines[:2]:
        off = cosine - 10 * np.eye(300)
        near.append((off >= np.sort(off, axis=1)[:, -10, None]).astype(np.longdouble))

    def song(k: np.ndarray, m: np.ndarray) -> np.longdouble:
        through = (k.sum(0) @ m.sum(1) + k.sum(1) @ m.sum(0)) / 2
        return (k * m.T).sum() + k.sum() * m.sum() / (299 * 298) - 2 / np.longdouble(298) * through

    k, m = near[0] * cosines[0], near[1] * cosines[1]
    want = song(k * near[1], m * near[0]) / np.sqrt(song(k, k) * song(m, m))
    assert geometry.cknna(*pair) == pytest.approx(float(want), rel=1e-6)
