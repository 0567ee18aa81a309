from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.linalg import orthogonal_procrustes
from scipy.spatial import procrustes as scipy_procrustes

from geomkit.errors import UsageError
from geomkit.geometry import procrustes, rotation


def centred(x: np.ndarray) -> np.ndarray:
    x = x - x.mean(axis=0)
    return x / np.linalg.norm(x)


def test_scipy_s_disparity_is_one_minus_the_square(pair_s, pair_q):
    for x, y in ([side[:120] for side in pair_s], pair_q):
        assert scipy_procrustes(x, y)[2] == pytest.approx(1 - procrustes(x, y) ** 2, abs=1e-12)


def test_other_conventions_are_functions_of_it(pair_q):
    x, y = (centred(a) for a in pair_q)
    r = procrustes(*pair_q)
    turn = orthogonal_procrustes(x, y)[0]
    assert np.linalg.norm(x @ turn - y) == pytest.approx(math.sqrt(2 - 2 * r), abs=1e-12)
    assert np.arccos((x @ turn * y).sum()) == pytest.approx(math.acos(r), abs=1e-7)


def test_unequal_columns_are_as_good_as_padded(pair_q):
    x, y = pair_q
    padded = np.pad(y[:, :4], ((0, 0), (0, 6)))
    assert procrustes(x, y[:, :4]) == pytest.approx(procrustes(x, padded), abs=1e-12)


def test_a_wide_pair_is_reduced_without_changing_it(pair_s):
    x, y = pair_s
    few = x[:40], y[:40]  # 512 columns, 40 rows
    a, b = (centred(side) for side in few)
    want = np.linalg.svd(a.T @ b, compute_uv=False).sum()
    assert procrustes(*few) == pytest.approx(want, abs=1e-12)
    assert procrustes(*map(torch.tensor, few)) == pytest.approx(want, abs=1e-12)


def test_a_rotated_space_is_the_same(pair_q):
    x = pair_q[0]
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((10, 10)))[0]
    assert procrustes(x, 3 * x @ turn - 7) == pytest.approx(1, abs=1e-12)


def test_independent_wide_sets_come_near_one():
    """The trap that the manual warns of, on record."""
    x, y = np.random.default_rng(0).standard_normal((2, 32, 1024))
    assert procrustes(x, y) > 0.95


def test_rows_must_match(pair_q):
    with pytest.raises(UsageError, match="paired rows"):
        procrustes(pair_q[0], pair_q[1][:-1])


NUCLEAR = {
    "as data are": lambda rng: rng.standard_normal((900, 40)) * np.linspace(2, 0.1, 40),
    "of full decay": lambda rng: rng.standard_normal((900, 40)) * np.logspace(0, -14, 40),
    "of three directions": lambda rng: rng.standard_normal((900, 3)) @ rng.standard_normal((3, 40)),
    "half of it massive": lambda rng: rng.standard_normal((900, 40)) * ([1e6] * 2 + [1] * 38),
}


@pytest.mark.parametrize("name", NUCLEAR)
def test_nuclear_norms_from_squares_only_where_they_are_exact(name, monkeypatch):
    rng = np.random.default_rng(0)
    x = NUCLEAR[name](rng)
    matrix = x.T @ NUCLEAR[name](rng)
    want = float(np.linalg.svd(matrix, compute_uv=False).sum())
    monkeypatch.setattr(rotation, "WIDE", 8)
    assert rotation.nuclear_norm(matrix) == pytest.approx(want, rel=2e-8)


def test_rounding_would_add_to_a_nuclear_norm(monkeypatch):
    """What the bound is for: squares of singular values that are nothing beside the largest."""
    matrix = np.diag(np.r_[1.0, np.full(299, 1e-9)])
    monkeypatch.setattr(rotation, "SMALL", 1.0)
    left, right = np.linalg.qr(np.random.default_rng(0).standard_normal((2, 300, 300)))[0]
    turned = left @ matrix @ right
    assert abs(rotation.nuclear_norm(turned) / (1 + 299e-9) - 1) > 1e-7
    monkeypatch.undo()
    assert rotation.nuclear_norm(turned) == pytest.approx(1 + 299e-9, rel=1e-12)
