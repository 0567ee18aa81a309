"""Coarse products of rows: within their bound, and the bound is of use."""

from __future__ import annotations

import numpy as np
import pytest

from geomkit.geometry import factors
from geomkit.geometry.factors import factor, fixed, floats

RNG = np.random.default_rng(0)
X = RNG.standard_normal((70, 300))
SWING = X.copy()
SWING[:, :2] *= [8000, 3000]
ROWS = {
    "plain": X,
    "of massive dimensions": SWING,
    "of few entries": np.where(RNG.random(X.shape) < 0.01, X, 0),
    "of all lengths": X * RNG.lognormal(0, 8, (70, 1)),
    "one of them zero": np.concatenate([X[1:], np.zeros((1, 300))]),
    "whole numbers": RNG.integers(-127, 128, X.shape).astype(float),
}


@pytest.mark.parametrize("kind", [floats, fixed])
@pytest.mark.parametrize("name", ROWS)
def test_products_are_within_their_bound(name, kind):
    x, y = ROWS[name], ROWS[name][20:] + 0.1 * ROWS["plain"][20:]
    left, right = kind([x[:50], x[50:]], x.shape), kind([y], y.shape)
    some, items = slice(3, 70), slice(1, 49)
    off = np.abs(left.times(some, right, items) - x[some] @ y[items].T)
    error = left.error(right)[some]
    assert (off.max(axis=1) <= error).all()
    lengths = np.linalg.norm(x, axis=1)
    assert left.lengths == pytest.approx(lengths, rel=1e-12)
    assert (error <= 1e-3 * lengths[some] * np.linalg.norm(y, axis=1).max() + 1e-30).all()


def test_rows_are_the_sum_of_their_parts():
    found = fixed([SWING], SWING.shape)
    first, second = found.digits[:, :300].numpy(), found.digits[:, 300:].numpy()
    assert max(np.abs(first).max(), np.abs(second).max()) == factors.FIRST
    rebuilt = found.scale.numpy().astype(float) * (first + second / factors.SECOND)
    assert np.linalg.norm(SWING - rebuilt, axis=1) == pytest.approx(found.off, rel=1e-3)
    assert np.abs(SWING - rebuilt).max() <= np.abs(SWING).max() / 2**15


def test_the_largest_whole_numbers_have_room():
    """All entries alike: the sums of as many products as there may be are exact."""
    x = np.full((3, factors.WIDEST), 127.0)
    x[1] *= -1
    rows = fixed([x], x.shape)
    assert np.array_equal(rows.times(slice(3), rows, slice(3)), (x @ x.T).astype(np.float32))
    assert 2 * factors.WIDEST * factors.FIRST**2 < 2**31


@pytest.mark.parametrize("able", [False, True])
def test_whole_numbers_where_they_pay(able, monkeypatch):
    monkeypatch.setattr(factors, "has_matrix_integers", lambda: able)
    mean = X.mean(axis=0)
    assert isinstance(factor(X, mean, 70), factors.Floats)  # few
    monkeypatch.setattr(factors, "MANY", 70 * 70 * 300)
    found = factor(X, mean, 70)
    assert isinstance(found, factors.Fixed if able else factors.Floats)
    assert found.lengths == pytest.approx(np.linalg.norm(X - mean, axis=1))
    monkeypatch.setattr(factors, "WIDEST", 299)
    assert isinstance(factor(X, mean, 70), factors.Floats)


def test_what_the_processor_says(monkeypatch):
    import torch

    factors.has_matrix_integers.cache_clear()
    for said, able in (({"amx_int8": True}, True), ({"amx_int8": False}, False), ({}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda said=said: said, raising=False)
        assert factors.has_matrix_integers() is able
        factors.has_matrix_integers.cache_clear()
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert factors.has_matrix_integers() is False
    factors.has_matrix_integers.cache_clear()
